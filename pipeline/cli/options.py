"""Options that several commands share, and the ends of their help.

In: what click has read. Out: decorators, and the `Request` that the commands of a run get.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pipeline.cli.sweep_commands import Options
    from pipeline.run.sweep import Sweep
    from pipeline.run.work import Run
    from stages.runtime.shard import Shard

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(path_type=Path)
POSITIVE = click.IntRange(min=1)
SAMPLE_SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the options shared by the commands of a run say."""

    config: Path
    overrides: tuple[str, ...]
    runs: Path
    dry_run: bool
    sample: float | None
    as_json: bool
    quiet: bool

    def load(self, shard: "Shard | None" = None, *, totals: bool = False) -> "Run":
        """Read the configuration and say which run it is, or which shard of it."""
        from pipeline.config.schema import load_config
        from pipeline.run.work import Run

        config = load_config(self.config, self.overrides)
        return Run(config=config, folder=self.runs / config.name, shard=shard, totals=totals)

    def sweep(self, shard: "Shard | None" = None, *, totals: bool = False) -> "Sweep | None":
        """The matrix in the configuration, or which shard of its students; None where it is one run."""
        from pipeline.config.matrix import load_matrix
        from pipeline.run.sweep import Sweep

        matrix = load_matrix(self.config, self.overrides)
        if matrix is None:
            if shard is not None:
                raise click.UsageError(
                    f"--shard {shard}: {self.config} has no matrix, and --shard shares out the students of one; take "
                    "--seed for jobs side by side, and --shard with `molsaki rationales` and `molsaki attention` for "
                    "shares of stage one"
                )
            return None
        if self.sample is not None:
            raise click.UsageError("--sample tries one run, not a matrix; try what all begin with: --set matrix=null")
        return Sweep(matrix=matrix, folder=self.runs / matrix.name, shard=shard, totals=totals)

    def options(self) -> "Options":
        """How a command on a matrix works and prints."""
        from pipeline.cli.sweep_commands import Options

        return Options(say=self.say, dry_run=self.dry_run, as_json=self.as_json, quiet=self.quiet)

    def say(self, line: str) -> None:
        """Tell the person at the terminal, and the log."""
        logging.getLogger(__name__).info(line)
        if not self.quiet:
            click.echo(line, err=True)


def examples(*lines: str) -> str:
    """The end of a command's help: command lines to copy, which click leaves as they are."""
    return "\n".join(("\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)))


def run_options(command: Command) -> Command:
    """Add CONFIG and the options that all commands of a run share; they arrive as one `request`."""

    @functools.wraps(command)
    def with_request(**options: Any) -> Any:  # click's own types
        shared = {name: options.pop(name) for name in Request.__annotations__}
        if shared["sample"] is not None and not shared["dry_run"] and click.get_current_context().info_name != "status":
            raise click.UsageError("--sample only says what the work would cost; it goes with --dry-run")
        return command(request=Request(**shared), **options)

    for option in (
        click.option("--quiet", is_flag=True, help="No progress; errors only."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables."),
        click.option(
            "--sample",
            type=click.FloatRange(min=0, min_open=True),
            is_flag=False,
            flag_value=SAMPLE_SECONDS,
            metavar="[SECONDS]",
            help="With --dry-run or status: try a small share of each stage, about so long once it is loaded, and say "
            f"what all of it would take. Nothing is kept.  [{SAMPLE_SECONDS} without a number]",
        ),
        click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing."),
        click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of all runs."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value; repeatable."),
        click.argument("config", type=FILE),
    ):
        with_request = option(with_request)
    return with_request  # type: ignore[return-value]


def read_shard(ctx: click.Context, param: click.Parameter, value: str | None) -> "Shard | None":
    """Read `2/8` as the second of eight shards."""
    from data.errors import ConfigError
    from stages.runtime.shard import Shard

    try:
        return None if value is None else Shard.parse(value)
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def shard_option(units: str) -> Callable[[Command], Command]:
    """Add `--shard` to a stage that several processes may share out among them, by its `units`."""
    return click.option(
        "--shard",
        callback=read_shard,
        metavar="I/N",
        help=f"Only share I of N of the {units}, counted from 1; each belongs to exactly one of them.  "
        "[default: RANK and WORLD_SIZE where torchrun sets them, else everything]",
    )


units_option = click.option(
    "--shard",
    callback=read_shard,
    metavar="I/N",
    help="Of a matrix: only share I of N, counted from 1, of its students; each belongs to exactly one of them.",
)
hidden_report = click.option("--report", type=FILE, hidden=True)
hidden_without = click.option("--without", multiple=True, hidden=True)
seed_option = click.option(
    "--seed", "seeds", type=int, multiple=True, help="Only this seed of training.seeds; repeatable."
)
supervised_option = click.option("--supervised", is_flag=True, hidden=True)
store_option = click.option("--store", type=FOLDER, help="Folder of the stores.  [default: the user's cache directory]")
