"""Commands that nobody types: our own processes start them for each other."""

import os
from contextlib import nullcontext
from pathlib import Path

import click

from pipeline.cli.options import FOLDER, quiet_option, seed_option
from pipeline.config.matrix import load_matrix
from pipeline.console.logs import command_log
from pipeline.console.progress import open_progress
from pipeline.console.quiet import quieten_libraries, stdout_to_stderr
from pipeline.run.execute import train_share as train_this_share
from pipeline.run.points import CONFIGURATION, Run
from pipeline.run.processes import stop_with_parent
from stages.runtime.progress import StopSignal
from stages.runtime.shard import process_of


@click.command("train-share", hidden=True)
@click.argument("folder", type=FOLDER)
@seed_option
@quiet_option
def train_share(folder: Path, seeds: tuple[int, ...], quiet: bool) -> None:
    """Train the students of a run's folder as one of several processes, for `training.processes`, which starts it."""
    with StopSignal() as stop:
        stop_with_parent()
        is_main = process_of(os.environ).is_main
        quieten_libraries(quiet=quiet or not is_main)
        run = Run(matrix=load_matrix(folder / CONFIGURATION), folder=folder)
        log = command_log(run.log) if is_main else nullcontext()
        with log, stdout_to_stderr(), open_progress(quiet=quiet or not is_main) as progress:
            train_this_share(run, seeds, progress=progress, stop=stop)
