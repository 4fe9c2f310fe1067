"""A command that works on a file by itself and has commands below it: `rationales CONFIG` and `rationales show CONFIG`.

In: arguments. Out: the context of whichever command they mean. The first word decides; a file that is called like one
of the commands below is written with its folder, `./show`.
"""

from pathlib import Path
from typing import Any

import click


class WithSubcommands(click.Command):
    """A command whose first argument may name another one below it."""

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
