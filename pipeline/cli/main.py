"""The command `molsaki`.

In: arguments. Out: tables or JSON on stdout, progress and errors on stderr, an exit code. Commands, in the modules
`cli_…`, only read their options and hand over; everything heavy is imported inside them, so that `molsaki --help`
answers at once.
"""

import click

from pipeline.cli import bench as cli_bench
from pipeline.cli import cache as cli_cache
from pipeline.cli import config as cli_config
from pipeline.cli import hidden as cli_hidden
from pipeline.cli import plot as cli_plot
from pipeline.cli import results as cli_results
from pipeline.cli import run as cli_work
from pipeline.console.exits import ErrorsToExitCodes
from pipeline.console.logs import Invocation

OVERVIEW = """\
\b
To begin:
  molsaki demo                  the whole pipeline on made-up problems
  molsaki config init my.yaml   a commented configuration to start from
  molsaki run my.yaml           do it; finished work is found and skipped

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 65 damaged data, 75 stopped after saving.
"""


@click.group(cls=ErrorsToExitCodes, epilog=OVERVIEW, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="molsaki")
@click.option("--debug", is_flag=True, envvar="MOLSAKI_DEBUG", help="Show tracebacks.")
@click.pass_context
def molsaki(ctx: click.Context, debug: bool) -> None:
    """Distil a teacher's chain of thought, and where it looked step by step, into a small student."""
    ctx.obj = Invocation(debug=debug)


for command in (
    cli_work.demo,
    cli_work.run,
    cli_work.status,
    cli_work.rationales,
    cli_work.attention,
    cli_work.train,
    cli_work.evaluate,
    cli_results.compare,
    cli_results.explore,
    cli_results.report,
    cli_results.push,
    cli_config.config,
    cli_cache.cache,
    cli_plot.plot,
    cli_bench.bench,
    cli_hidden.train_share,
):
    molsaki.add_command(command)


def main() -> None:
    """Entry point of the command `molsaki`."""
    molsaki(prog_name="molsaki")
