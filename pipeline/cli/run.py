"""The commands that do the work of a run: `run`, `status`, and one for each stage.

In: a configuration and the options of `cli_options`. Out: what the stages leave in store and run folder; tables or JSON
on stdout.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from data.errors import MolsakiError, PointsFailedError
from pipeline.cli.lazy import WithSubcommands
from pipeline.cli.options import (
    FILE,
    FOLDER,
    POSITIVE,
    Asked,
    examples,
    quiet_option,
    run_options,
    seed_option,
    set_option,
    shard_option,
    students_options,
    supervised_option,
    units_option,
)
from pipeline.config.load import load_config
from pipeline.config.matrix import load_matrix
from pipeline.config.schema import Config
from pipeline.console.exits import StageProcessError, command_log
from pipeline.console.progress import (
    SECONDS_BETWEEN_LINES,
    SECONDS_BETWEEN_LINES_OF_JOBS,
    open_progress,
    quieten_libraries,
    stdout_to_stderr,
)
from pipeline.console.tables import print_json
from pipeline.costs.estimate import estimates
from pipeline.costs.table import plans_as_json, print_plans, print_points
from pipeline.costs.targets import print_targets, targets_of
from pipeline.results.folder import RunFolder
from pipeline.results.scores import compare, print_scores, scores_of
from pipeline.run.inputs import Split
from pipeline.run.order import evaluated_folders, require_room, run_stages, unfinished_points, write_results
from pipeline.run.plan import STAGES, StageName
from pipeline.run.points import Run, look, plan_points, plan_stages, require_one_engine, shard_of
from pipeline.run.processes import Failures, stop_with_parent
from pipeline.views.at_end import report_at_end
from stages.runtime.imports import importing
from stages.runtime.progress import SilentProgress, StopSignal
from stages.runtime.shard import Shard, process_of


@examples(
    "molsaki run examples/svamp.yaml",
    "molsaki run examples/svamp.yaml --set student.model=gpt2-large --set name=svamp-gpt2",
    "molsaki run examples/svamp.yaml --limit 64       the first 64 questions, to see what all will take",
    "molsaki run examples/study.yaml                  a matrix: all its points, then one table",
    "molsaki run examples/study.yaml --shard 1/2      half of its students, once stage one is there",
    "molsaki run examples/study.yaml --jobs 4         four students at a time, each with a fourth of the cores",
)
@click.command()
@run_options
@click.option("--only", type=click.Choice(STAGES), help="This stage only.")
@click.option(
    "--limit",
    type=POSITIVE,
    metavar="N",
    help="Do the first N training questions only, as a run NAME-limit-N with students of its own. The teacher's work "
    "goes into the store and counts for the whole run; `status` knows from it what the rest will take.",
)
@units_option
@click.option(
    "--jobs",
    type=POSITIVE,
    default=1,
    help="Students to train and evaluate at a time; cores, and the GPUs and their memory, are shared out among them.",
)
def run(asked: Asked, only: StageName | None, limit: int | None, shard: Shard | None, jobs: int) -> None:
    """Do everything that CONFIG asks for, stage after stage, each in a process of its own.

    Finished work is found and skipped, so the same command goes on after an interruption. Where CONFIG has a `matrix`,
    stage one is done for all of its points, then their students; a point that fails does not stop the others.
    """
    shard_of("run")
    work = replace(asked.load(limit), shard=shard)
    require_room(work, jobs)
    _run(asked, work, (only,) if only else work.stages, report=only is None, jobs=jobs)


@examples(
    "molsaki status examples/svamp.yaml",
    "molsaki status examples/svamp.yaml --json",
    "molsaki run examples/svamp.yaml --limit 64      then status knows what all of it will take",
)
@click.command()
@run_options
def status(asked: Asked) -> None:
    """Say what is done, what is missing, and what it would take: bytes on disk, memory and time."""
    work = asked.load()
    work.check(work.stages)
    _print_plans(asked, work, work.stages)


@examples(
    "molsaki rationales examples/svamp.yaml",
    "molsaki rationales examples/svamp.yaml --set rationales.engine=transformers",
    "molsaki rationales examples/svamp.yaml --shard 2/8      the second of eight jobs, in any order or at once",
    "molsaki rationales show examples/svamp.yaml             what it has written so far, and what was dropped",
)
@click.command(cls=WithSubcommands)
@run_options
@shard_option("questions")
@click.option(
    "--with-attention",
    is_flag=True,
    help="Also record the attention of what was kept, by the engine that wrote it: where both engines are vllm. "
    "`molsaki run` does so by itself.",
)
@click.option("--attention-of", type=FILE, multiple=True, hidden=True)  # further points that a matrix's process serves
@supervised_option
def rationales(
    asked: Asked, shard: Shard | None, with_attention: bool, attention_of: tuple[Path, ...], supervised: bool
) -> None:
    """Let the teacher explain the training questions.

    Any number of processes may do so at once, on any number of machines, each with a share of the questions.
    """
    _stage_one(
        asked,
        "rationales",
        shard=shard,
        with_attention=with_attention,
        attention_of=tuple(load_config(path) for path in attention_of),
        supervised=supervised,
    )


@examples(
    "molsaki rationales show examples/svamp.yaml",
    "molsaki rationales show examples/svamp.yaml --number 10 --outcome 'wrong answer'",
    "molsaki rationales show examples/svamp.yaml --json > rationales.json",
)
@click.command("show")
@click.argument("config", type=FILE)
@set_option
@click.option("--number", type=click.IntRange(min=0), default=3, help="How many to show.")
@click.option("--outcome", help="Show those with this outcome, as the table below names it.  [default: kept]")
@click.option("--dataset", "datasets", multiple=True, help="Only questions of this data set; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text and tables.")
def show_rationales(**options: Any) -> None:  # click's own types
    """Show what the teacher wrote, step by step, and what was dropped.

    Samples are spread over the questions. Steps have numbers, critical words are highlighted, or in [ ] where there are
    no colours.
    """
    from pipeline.views.rationales import show_rationales as show

    show(**options)


rationales.add_command(show_rationales)


@examples(
    "molsaki attention examples/svamp.yaml",
    "molsaki attention examples/svamp.yaml --set attention.batch_tokens=65536",
    "molsaki attention examples/svamp.yaml --shard 2/8      the second of eight jobs, in any order or at once",
    "molsaki attention examples/svamp.yaml --totals         also records of older parts once more, for plots",
    "molsaki attention examples/study.yaml                  a matrix: what its points share, once",
)
@click.command()
@run_options
@shard_option("records")
@click.option(
    "--totals",
    is_flag=True,
    help="Also run the teacher once more over records that older parts hold without what their steps look at in all, "
    "which `molsaki plot shares` needs and training does not.",
)
@supervised_option
def attention(asked: Asked, shard: Shard | None, totals: bool, supervised: bool) -> None:
    """Record where the teacher looks, step by step, over questions and rationales.

    Any number of processes may do so at once, on any number of machines, each with a share of the records.
    """
    _stage_one(asked, "attention", shard=shard, totals=totals, supervised=supervised)


@examples(
    "molsaki soft-labels examples/mentor-kd.yaml",
    "molsaki soft-labels examples/mentor-kd.yaml --set soft_labels.layout=top --set soft_labels.k=256",
    "molsaki soft-labels examples/mentor-kd.yaml --shard 2/8      the second of eight jobs, in any order or at once",
)
@click.command("soft-labels")
@run_options
@shard_option("records")
@supervised_option
def soft_labels(asked: Asked, shard: Shard | None, supervised: bool) -> None:
    """Record what else the teacher could have written at each token of the rationales.

    For objectives that learn from it (objective.terms.soft_labels, mentor-kd). Any number of processes may do so at
    once, on any number of machines, each with a share of the records.
    """
    _stage_one(asked, "soft-labels", shard=shard, supervised=supervised)


@examples(
    "molsaki train examples/svamp.yaml",
    "molsaki train examples/svamp.yaml --seed 2      one of training.seeds, for jobs side by side",
    "molsaki train examples/study.yaml --shard 2/8   the second eighth of a matrix's students",
)
@click.command()
@students_options
def train(asked: Asked, **options: Any) -> None:  # click's own types
    """Train the students from the stored rationales and attention; the teacher is not loaded."""
    _students(asked, "train", **options)


@examples("molsaki evaluate examples/svamp.yaml", "molsaki evaluate examples/svamp.yaml --split dev --json")
@click.command()
@students_options
@click.option("--split", type=click.Choice(["test", "dev"]), default="test", help="Which questions.")
def evaluate(asked: Asked, **options: Any) -> None:  # click's own types
    """Let the students answer, count what is right, and measure how likely they find it."""
    _students(asked, "evaluate", **options)


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
        run = Run(matrix=load_matrix(RunFolder(folder).config), folder=folder)
        log = command_log(run.log) if is_main else nullcontext()
        with log, stdout_to_stderr(), open_progress(quiet=quiet or not is_main) as progress:
            from pipeline.run.execute import execute_share

            execute_share(run, seeds, progress=progress, stop=stop)


def _run(
    asked: Asked,
    run: Run,
    names: Sequence[StageName],
    *,
    report: bool = False,
    pass_on: Sequence[str] = (),
    jobs: int = 1,
) -> None:
    """Do stages, each in processes of its own, or say what they would do; then print what came of it.

    Raises `PointsFailedError` in the end, after all others are done, where points of a matrix failed.
    """
    quieten_libraries(quiet=asked.quiet or asked.dry_run)  # before any check loads them
    run.check(names)
    if asked.dry_run:
        _try_out(asked, run, names)
        return
    with command_log(run.log):
        failed = run_stages(run, names, say=asked.say, quiet=asked.quiet, pass_on=pass_on, jobs=jobs)
        if report and run.single and run.shard is None:
            report_at_end(run.folder, [space for seen in look(run) for space in seen.spaces], asked.say)
        if run.single:
            _print_single(asked, run, names)
        else:
            _print_matrix(asked, run, names, failed)
        _require_none(failed, len(run.points))


def _stage_one(
    asked: Asked,
    name: StageName,
    *,
    shard: Shard | None,
    totals: bool = False,
    with_attention: bool = False,
    attention_of: tuple[Config, ...] = (),
    supervised: bool,
) -> None:
    """Do one stage of the teacher, or a share of it: here, or where it has several pieces each in its own process."""
    share = shard_of(name, shard)
    run = replace(asked.load(), share=share, totals=totals, with_attention=with_attention, attention_of=attention_of)
    if with_attention:
        require_one_engine(run)
    has_pieces = name == "rationales" and bool(run.matrix.base.more_rationales)
    if supervised or (run.single and not has_pieces):  # a process that another one started has one piece to do
        _here(asked, run, name, supervised=supervised)
        return
    pass_on = (*(() if share is None else ("--shard", str(share))), *(("--totals",) if totals else ()))
    _run(asked, run, (name,), pass_on=pass_on)


def _students(asked: Asked, name: StageName, *, shard: Shard | None, **options: Any) -> None:  # click's own types
    """Train or evaluate students of all points, in this process."""
    run = replace(asked.load(), shard=shard)
    if name == "evaluate" or not run.single:
        shard_of(name if run.single else f"{name} MATRIX")
    _here(asked, run, name, **options)


def _here(
    asked: Asked,
    run: Run,
    name: StageName,
    *,
    supervised: bool,
    seeds: tuple[int, ...] = (),
    split: Split = "test",
    without: Sequence[str] = (),
    failures: Path | None = None,
    job: Shard | None = None,
    claims: Path | None = None,
) -> None:
    """Do one stage in this process, or say what it would do; a signal ends it where nothing is lost.

    With `failures`, a process waits that wants to know from this file what became of the points. As one `job` of
    several it takes the students that no other has claimed in the folder `claims`.
    """
    found = Failures(path=failures)
    with StopSignal() as stop:
        if supervised:
            stop_with_parent()
        quieten_libraries(quiet=asked.quiet or asked.dry_run)  # before any check loads them
        run.check((name,))
        if asked.dry_run:
            _try_out(asked, run, (name,), seeds, split)
            return
        from pipeline.run.execute import execute_points, execute_share

        if name == "train" and not process_of(os.environ).is_main:
            execute_share(run, seeds, progress=SilentProgress(), stop=stop)
            return
        if job is not None:
            with importing():
                from stages.runtime.device import share_gpus

            share_gpus(job)
        seconds_between = SECONDS_BETWEEN_LINES if job is None else SECONDS_BETWEEN_LINES_OF_JOBS
        shown = open_progress(quiet=asked.quiet, seconds_between=seconds_between)
        with command_log(run.log), stdout_to_stderr(), shown as progress:
            if not run.single:
                run.save()
            execute_points(
                run,
                name,
                found,
                progress=progress,
                stop=stop,
                seeds=seeds,
                split=split,
                without=without,
                claims=claims,
            )
    if found.failed and failures is not None:
        raise StageProcessError(MolsakiError.exit_code)  # whoever waits says why, after everything else
    if not supervised:
        _print_stage(asked, run, name, seeds, split)
    _require_none(found.failed, len(run.points))


def _try_out(
    asked: Asked, run: Run, names: Sequence[StageName], seeds: tuple[int, ...] = (), split: Split = "test"
) -> None:
    """Say what would be done, where both models' tokenizers can be used."""
    run.check_tokenizers(names)
    _print_plans(asked, run, names, seeds, split)


def _print_plans(
    asked: Asked, run: Run, names: Sequence[StageName], seeds: tuple[int, ...] = (), split: Split = "test"
) -> None:
    """Print what is there, what is to do and what it would take, in all and by point."""
    seen = look(run)
    stages = estimates(run, seen, names, seeds, split)
    targets = targets_of(seen) if "train" in names else []
    points = None if run.single else plan_points(run, seen, names, seeds, split)
    if asked.as_json:
        print_json(plans_as_json(run, stages, points, targets))
        return
    print_plans(stages)
    print_targets(targets, single=run.single)
    if points is not None:
        print_points(run, names, points)


def _print_stage(asked: Asked, run: Run, name: StageName, seeds: tuple[int, ...] = (), split: Split = "test") -> None:
    """Print what one stage in this process has achieved: the accuracies that are there, those of all shards."""
    if run.single:
        _print_single(asked, run, (name,), seeds, split)
    elif name == "evaluate" and (folders := evaluated_folders(run, split)):
        print_scores(compare(folders), as_json=asked.as_json)


def _print_single(
    asked: Asked, run: Run, names: Sequence[StageName], seeds: tuple[int, ...] = (), split: Split = "test"
) -> None:
    folders = evaluated_folders(run, split) if "evaluate" in names else {}
    scores = [score for point, folder in folders.items() for score in scores_of(point, folder)]
    if asked.as_json:
        print_json({"run": run.folder, "stages": plan_stages(run, names, seeds, split), "scores": scores})
    elif scores:
        print_scores(scores, as_json=False)


def _print_matrix(asked: Asked, run: Run, names: Sequence[StageName], failed: Mapping[str, str]) -> None:
    """Print what stages of a matrix have achieved; a shard leaves that to whoever is last."""
    if "evaluate" not in names:
        if asked.as_json:
            _print_plans(asked, run, names)
        return
    missing = unfinished_points(run, failed)
    if run.shard is not None and missing:
        asked.say(f"shard {run.shard} is done; {len(missing)} points wait for other shards")
        return
    scores = write_results(run, missing)
    if asked.as_json:
        print_json({"matrix": run.folder, "unfinished": missing, "scores": scores})
    elif scores:
        beside = RunFolder(run.folder)
        asked.say(f"{beside.results} and {beside.summary.name} hold this table")
        print_scores(scores, as_json=False)


def _require_none(failed: Mapping[str, str], total: int) -> None:
    if failed:
        lines = [f"{len(failed)} of {total} points failed; the same command tries them again"]
        lines += [f"  {point}: {message}" for point, message in failed.items()]
        raise PointsFailedError("\n".join(lines))
