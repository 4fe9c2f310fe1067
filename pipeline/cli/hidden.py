"""Commands that nobody types: our own processes start them for each other."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import FILE, FOLDER, read_shard, seed_option, supervised_option

if TYPE_CHECKING:
    from pipeline.run.plan import StageName
    from stages.runtime.shard import Shard


@click.command("train-share", hidden=True)
@click.argument("folder", type=FOLDER)
@seed_option
@click.option("--quiet", is_flag=True)
def train_share(folder: Path, seeds: tuple[int, ...], quiet: bool) -> None:
    """Train the students of a run's folder as one of several processes, for `training.processes`, which starts it."""
    from pipeline.config.schema import load_config
    from pipeline.console.logs import command_log
    from pipeline.console.progress import open_progress
    from pipeline.console.quiet import quieten_libraries, stdout_to_stderr
    from pipeline.run.supervise import stop_with_parent
    from pipeline.run.work import CONFIGURATION, Run
    from pipeline.run.work import train_share as train_this_share
    from stages.runtime.progress import StopSignal
    from stages.runtime.shard import process_of

    with StopSignal() as stop:
        stop_with_parent()
        is_main = process_of(os.environ).is_main
        quieten_libraries(quiet=quiet or not is_main)
        run = Run(config=load_config(folder / CONFIGURATION), folder=folder)
        log = command_log(run.log) if is_main else nullcontext()
        with log, stdout_to_stderr(), open_progress(quiet=quiet or not is_main) as progress:
            train_this_share(run, seeds, progress=progress, stop=stop)


@click.command("sample-stage", hidden=True)
@click.argument("config", type=FILE)
@click.option("--runs", type=FOLDER, required=True)
@click.option("--stage", type=click.Choice(["rationales", "attention", "train", "evaluate"]), required=True)
@click.option("--units", type=int, required=True)
@click.option("--seconds", type=float, required=True)
@click.option("--out", type=FILE, required=True)
@click.option("--shard", callback=read_shard)
@click.option("--quiet", is_flag=True)
@supervised_option
def sample_stage(
    config: Path,
    runs: Path,
    stage: "StageName",
    units: int,
    seconds: float,
    out: Path,
    shard: "Shard | None",
    quiet: bool,
    supervised: bool,
) -> None:
    """Sample one stage of the shadow of a run, for `--sample`, which starts it."""
    import json
    from dataclasses import asdict

    from pipeline.config.schema import load_config
    from pipeline.console.progress import open_progress
    from pipeline.console.quiet import quieten_libraries, stdout_to_stderr
    from pipeline.run.supervise import stop_with_parent
    from pipeline.run.work import Run

    if supervised:
        stop_with_parent()
    quieten_libraries(quiet=quiet)
    from pipeline.costs.sampling import sample_stage as sample

    loaded = load_config(config)
    work = Run(config=loaded, folder=runs / loaded.name, shard=shard)
    with stdout_to_stderr(), open_progress(quiet=quiet) as progress:
        found = sample(work, stage, units=units, seconds=seconds, progress=progress)
    out.write_text(json.dumps(found and asdict(found)), encoding="utf-8")
