"""Groups that load a command only when it is asked for, and commands that have others below them.

In: arguments. Out: the context of whichever command they mean. The help of a lazy group is written from its own table,
so that `molsaki --help` answers at once; each command stands in a module that imports at its top whatever it needs.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from stages.runtime.imports import importing


class LazyGroup(click.Group):
    """A group of commands by their names, each with its module here and the first sentence of its help.

    A module holds a command under its name, `train-share` as `train_share`. One without help is hidden.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:  # click's own
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of the table."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one."""
        if cmd_name not in self.lazy:
            return None
        with importing():
            module = import_module(f"pipeline.cli.{self.lazy[cmd_name][0]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write names and first sentences, without loading anything."""
        shown = {name: text for name, (_, text) in self.lazy.items() if text}
        limit = formatter.width - 6 - max(map(len, shown))
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help(text, limit)) for name, text in shown.items()])


def short_help(text: str, limit: int) -> str:
    """As much of the help as there is room for."""
    return click.Command(None, help=text).get_short_help_str(limit)


class WithSubcommands(click.Command):
    """A command whose first argument may name another one below it: `rationales CONFIG` and `rationales show CONFIG`.

    A file that is called like one of the commands below is written with its folder, `./show`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # whatever click's own command takes
        super().__init__(*args, **kwargs)
        self.commands: dict[str, click.Command] = {}

    def add_command(self, command: click.Command) -> None:
        """Put a command below this one."""
        assert command.name is not None
        self.commands[command.name] = command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the arguments as this command's, or as those of the one that the first of them names."""
        if not args or args[0] not in self.commands:
            return super().make_context(info_name, args, parent, **extra)
        name, *rest = args
        if not rest and Path(name).is_file():
            raise click.UsageError(
                f"`{info_name} {name}` is a command of its own and needs an argument; a file of that name is ./{name}"
            )
        return self.commands[name].make_context(f"{info_name} {name}", rest, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # as click's own
        """Call the function of the command that the context is of."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands below."""
        super().format_options(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(limit=70)) for name, command in self.commands.items()]
            )
