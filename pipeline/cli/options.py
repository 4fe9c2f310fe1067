"""Options that several commands share, and the ends of their help.

In: what click has read. Out: decorators, and what the commands of a run were `Asked`.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from data.errors import ConfigError
from stages.runtime.shard import Shard

if TYPE_CHECKING:
    from pipeline.run.points import Run

Command = TypeVar("Command", bound=Callable[..., Any])
Shown = TypeVar("Shown", bound=click.Command)
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(path_type=Path)
POSITIVE = click.IntRange(min=1)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the options shared by the commands of a run say."""

    config: Path
    overrides: tuple[str, ...]
    runs: Path
    dry_run: bool
    as_json: bool
    quiet: bool

    def load(self, limit: int | None = None) -> "Run":
        """Read the configuration and say which run it is; with `limit` that of its first training questions."""
        from pipeline.config.matrix import load_matrix
        from pipeline.run.inputs import limited
        from pipeline.run.points import Run

        matrix = load_matrix(self.config, self.overrides)
        if limit is not None:
            matrix = load_matrix(self.config, (*self.overrides, *limited(matrix, limit)))
        return Run(matrix=matrix, folder=self.runs / matrix.name)

    def say(self, line: str) -> None:
        """Tell the person at the terminal, and the log."""
        logging.getLogger(__name__).info(line)
        if not self.quiet:
            click.echo(line, err=True)


def examples(*lines: str) -> Callable[[Shown], Shown]:
    """End a command's help with command lines to copy, which click leaves as they are."""

    def add(command: Shown) -> Shown:
        heading = "Example:" if len(lines) == 1 else "Examples:"
        command.epilog = "\n".join(("\b", heading, *(f"  {line}" for line in lines)))
        return command

    return add


def all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in their order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


quiet_option = click.option("--quiet", is_flag=True, help="No progress; errors only.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value; repeatable."
)
runs_option = click.option("--runs", type=FOLDER, default=Path("runs"), help="Folder of all runs.")
root_option = click.option("--runs", "root", type=FOLDER, default=Path("runs"), help="Folder of all runs.")
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="`auto` is the GPU where there is one."
)


def run_options(command: Command) -> Command:
    """Add CONFIG and the options that all commands of a run share; they arrive as one `asked`."""

    @functools.wraps(command)
    def with_options(**options: Any) -> Any:  # click's own types
        shared = {name: options.pop(name) for name in Asked.__annotations__}
        return command(asked=Asked(**shared), **options)

    add = all_of(
        click.argument("config", type=FILE),
        set_option,
        runs_option,
        click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables."),
        quiet_option,
    )
    return add(with_options)  # type: ignore[return-value]


def read_by(parse: Callable[[str], object]) -> Callable[..., object]:
    """How an option's value is read where it is there; what `parse` refuses is wrong usage."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> object:
        try:
            return None if value is None else parse(value)
        except ConfigError as error:
            raise click.BadParameter(str(error), ctx, param) from error

    return read


def shard_option(units: str) -> Callable[[Command], Command]:
    """Add `--shard` to a stage that several processes may share out among them, by its `units`."""
    return click.option(
        "--shard",
        callback=read_by(Shard.parse),
        metavar="I/N",
        help=f"Only share I of N of the {units}, counted from 1; each belongs to exactly one of them.  "
        "[default: RANK and WORLD_SIZE where torchrun sets them, else everything]",
    )


units_option = click.option(
    "--shard",
    callback=read_by(Shard.parse),
    metavar="I/N",
    help="Only share I of N, counted from 1, of the students, of all points of a matrix; each belongs to exactly one.",
)
seed_option = click.option(
    "--seed", "seeds", type=int, multiple=True, help="Only this seed of training.seeds; repeatable."
)
supervised_option = click.option("--supervised", is_flag=True, hidden=True)
students_options = all_of(
    run_options,
    seed_option,
    units_option,
    click.option("--failures", type=FILE, hidden=True),
    click.option("--without", multiple=True, hidden=True),
    click.option("--job", callback=read_by(Shard.parse), hidden=True),
    click.option("--claims", type=FOLDER, hidden=True),
    supervised_option,
)
store_option = click.option("--store", type=FOLDER, help="Folder of the stores.  [default: the user's cache directory]")
