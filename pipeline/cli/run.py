"""The commands that do the work of a run: `run`, `status`, and one for each stage; `demo` runs all of them.

In: a configuration and the options of `cli_options`. Out: what the stages leave in store and run folder; tables or JSON
on stdout.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pipeline.cli.options import (
    FILE,
    FOLDER,
    Request,
    examples,
    hidden_report,
    hidden_without,
    run_options,
    seed_option,
    shard_option,
    supervised_option,
    units_option,
)
from pipeline.cli.subcommands import WithSubcommands

if TYPE_CHECKING:
    from pipeline.run.inputs import Inputs
    from pipeline.run.plan import Stage, StageName, StagePlan
    from pipeline.run.sweep import Sweep
    from pipeline.run.work import Run
    from stages.runtime.shard import Shard


@click.command(
    epilog=examples(
        "molsaki demo",
        "molsaki demo --seeds 10        enough seeds for an interval that excludes zero",
        "molsaki demo --models-only 4 --out study      the models of examples/study.yaml",
    )
)
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="Folder for everything it makes.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Students per objective.")
@click.option(
    "--models-only",
    type=click.IntRange(min=1),
    metavar="LAYERS",
    help="Make a teacher of so many layers and a student without weights, and stop there.",
)
def demo(out: Path, seeds: int, models_only: int | None) -> None:
    """Run the whole pipeline on made-up word problems; needs no network and no GPU."""
    from pipeline.demo import make_models, run_demo

    if models_only is not None:
        make_models(out=out, teacher_layers=models_only)
    else:
        run_demo(out=out, seeds=seeds)


@click.command(
    epilog=examples(
        "molsaki run examples/svamp.yaml",
        "molsaki run examples/svamp.yaml --set student.model=gpt2-large --set name=svamp-gpt2",
        "molsaki run examples/study.yaml                  a matrix: all its points, then one table",
        "molsaki run examples/study.yaml --shard 1/2      half of its students, once stage one is there",
    )
)
@run_options
@click.option("--only", type=click.Choice(["rationales", "attention", "train", "evaluate"]), help="This stage only.")
@units_option
def run(request: Request, only: "StageName | None", shard: "Shard | None") -> None:
    """Do everything that CONFIG asks for, stage after stage, each in a process of its own.

    Finished work is found and skipped, so the same command goes on after an interruption. Where CONFIG has a `matrix`,
    stage one is done for all of its points, then their students; a point that fails does not stop the others.
    """
    from pipeline.console.logs import command_log
    from pipeline.run.inputs import Inputs
    from pipeline.run.work import plan_stages, run_stages, shard_of, stages_of

    shard_of("run")
    if (sweep := request.sweep(shard)) is not None:
        from pipeline.cli.sweep_commands import run_points

        run_points(sweep, (only,) if only else sweep.stages(), request.options())
        return
    work = request.load()
    names = (only,) if only else stages_of(work.config)
    inputs = Inputs(work.config)
    inputs.check(names)
    if request.dry_run:
        _print_plans(work, plan_stages(work, names, inputs), inputs, request)
        return
    with command_log(work.log):
        plans = run_stages(work, names, inputs, say=request.say, quiet=request.quiet)
        if only is None:
            from pipeline.views.report import report_at_end

            report_at_end(work.folder, request.say)
    _print_results(work, plans, request)


@click.command(
    epilog=examples(
        "molsaki status examples/svamp.yaml",
        "molsaki status examples/svamp.yaml --json",
        "molsaki status examples/svamp.yaml --sample      tries a share of each stage and says what all would take",
    )
)
@run_options
def status(request: Request) -> None:
    """Say what is done, what is missing, and what it would take: bytes on disk, memory and, with --sample, time."""
    from pipeline.run.inputs import Inputs
    from pipeline.run.work import plan_stages, stages_of

    if (sweep := request.sweep()) is not None:
        from pipeline.cli.sweep_commands import print_sweep

        sweep.check(sweep.stages())
        print_sweep(sweep, sweep.stages(), as_json=request.as_json)
        return
    work = request.load()
    names, inputs = stages_of(work.config), Inputs(work.config)
    inputs.check(names)
    _print_plans(work, plan_stages(work, names, inputs), inputs, request)


@click.command(
    cls=WithSubcommands,
    epilog=examples(
        "molsaki rationales examples/svamp.yaml",
        "molsaki rationales examples/svamp.yaml --set rationales.engine=transformers",
        "molsaki rationales examples/svamp.yaml --shard 2/8      the second of eight jobs, in any order or at once",
        "molsaki rationales show examples/svamp.yaml             what it has written so far, and what was dropped",
    ),
)
@run_options
@shard_option("questions")
@supervised_option
def rationales(request: Request, shard: "Shard | None", supervised: bool) -> None:
    """Let the teacher explain the training questions.

    Any number of processes may do so at once, on any number of machines, each with a share of the questions.
    """
    _stage(request, "rationales", shard=shard, supervised=supervised)


@click.command(
    "show",
    epilog=examples(
        "molsaki rationales show examples/svamp.yaml",
        "molsaki rationales show examples/svamp.yaml --number 10 --outcome 'wrong answer'",
        "molsaki rationales show examples/svamp.yaml --json > rationales.json",
    ),
)
@click.argument("config", type=FILE)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value; repeatable.")
@click.option("--number", type=click.IntRange(min=0), default=3, show_default=True, help="How many to show.")
@click.option("--outcome", help="Show those with this outcome, as the table below names it.  [default: kept]")
@click.option("--dataset", "datasets", multiple=True, help="Only questions of this data set; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text and tables.")
def show_rationales(**options: Any) -> None:  # click's own types
    """Show what the teacher wrote, step by step, and what was dropped.

    Samples are spread over the questions. Steps have numbers, critical words are highlighted, or in [ ] where there are
    no colours.
    """
    from pipeline.views.rationales import ShowRequest
    from pipeline.views.rationales import show_rationales as show

    show(ShowRequest(**options))


rationales.add_command(show_rationales)


@click.command(
    epilog=examples(
        "molsaki attention examples/svamp.yaml",
        "molsaki attention examples/svamp.yaml --set attention.batch_tokens=65536",
        "molsaki attention examples/svamp.yaml --shard 2/8      the second of eight jobs, in any order or at once",
        "molsaki attention examples/svamp.yaml --totals         also records of older parts once more, for plots",
        "molsaki attention examples/study.yaml                  a matrix: what its points share, once",
    )
)
@run_options
@shard_option("records")
@click.option(
    "--totals",
    is_flag=True,
    help="Also run the teacher once more over records that older parts hold without what their steps look at in all, "
    "which `molsaki plot shares` needs and training does not.",
)
@supervised_option
def attention(request: Request, shard: "Shard | None", totals: bool, supervised: bool) -> None:
    """Record where the teacher looks, step by step, over questions and rationales.

    Any number of processes may do so at once, on any number of machines, each with a share of the records.
    """
    _stage(request, "attention", shard=shard, totals=totals, supervised=supervised)


@click.command(
    epilog=examples(
        "molsaki train examples/svamp.yaml",
        "molsaki train examples/svamp.yaml --seed 2      one of training.seeds, for jobs side by side",
        "molsaki train examples/study.yaml --shard 2/8   the second eighth of a matrix's students",
    )
)
@run_options
@seed_option
@units_option
@hidden_report
@hidden_without
@supervised_option
def train(request: Request, seeds: tuple[int, ...], supervised: bool, **units: Any) -> None:  # click's own types
    """Train the students from the stored rationales and attention; the teacher is not loaded."""
    if not _students_of_points(request, "train", seeds=seeds, supervised=supervised, **units):
        _stage(request, "train", seeds=seeds, supervised=supervised)


@click.command(
    epilog=examples("molsaki evaluate examples/svamp.yaml", "molsaki evaluate examples/svamp.yaml --split dev --json")
)
@run_options
@seed_option
@units_option
@click.option("--split", type=click.Choice(["test", "dev"]), default="test", show_default=True, help="Which questions.")
@hidden_report
@hidden_without
@supervised_option
def evaluate(
    request: Request, seeds: tuple[int, ...], split: Literal["test", "dev"], supervised: bool, **units: Any
) -> None:  # click's own types
    """Let the students answer and count what is right."""
    if not _students_of_points(request, "evaluate", seeds=seeds, split=split, supervised=supervised, **units):
        _stage(request, "evaluate", seeds=seeds, split=split, supervised=supervised)


def _stage(
    request: Request,
    name: "StageName",
    *,
    seeds: tuple[int, ...] = (),
    split: Literal["test", "dev"] = "test",
    shard: "Shard | None" = None,
    totals: bool = False,
    supervised: bool,
) -> None:
    """Do one stage, or a shard of it, in this process, or say what it would do."""
    if (sweep := request.sweep(totals=totals)) is not None:
        _stage_one_of_points(sweep, request, name, shard)
        return
    from pipeline.console.logs import command_log
    from pipeline.console.progress import open_progress
    from pipeline.console.quiet import quieten_libraries, stdout_to_stderr
    from pipeline.run.inputs import Inputs
    from pipeline.run.supervise import stop_with_parent
    from pipeline.run.work import execute_stage, open_stages, shard_of
    from pipeline.run.work import train_share as train_this_share
    from stages.runtime.progress import SilentProgress, StopSignal
    from stages.runtime.shard import process_of

    with StopSignal() as stop:
        if supervised:
            stop_with_parent()
        share = process_of(os.environ)
        work = request.load(None if name == "train" else shard_of(name, shard), totals=totals)
        inputs = Inputs(work.config)

        def open_stage() -> "Stage":
            return open_stages(work, inputs, seeds=seeds, split=split)[name]

        inputs.check((name,))
        if request.dry_run:
            _print_plans(work, [open_stage().plan()], inputs, request)
            return
        if name == "train" and not share.is_main:
            train_this_share(work, seeds, progress=SilentProgress(), stop=stop)
            return
        quieten_libraries(quiet=request.quiet)
        with command_log(work.log), stdout_to_stderr(), open_progress(quiet=request.quiet) as progress:
            plan = execute_stage(work, open_stage, progress=progress, stop=stop)
    if not supervised:
        _print_results(work, [plan], request, split=split)


def _stage_one_of_points(sweep: "Sweep", request: Request, name: "StageName", shard: "Shard | None") -> None:
    """Do one half of stage one for a matrix, each piece that its points share in a process of its own."""
    from pipeline.cli.sweep_commands import run_points
    from pipeline.run.work import shard_of

    shard = shard_of(name, shard)
    pass_on = (*(() if shard is None else ("--shard", str(shard))), *(("--totals",) if sweep.totals else ()))
    run_points(sweep, (name,), request.options(), pass_on=pass_on)


def _students_of_points(
    request: Request,
    name: "StageName",
    *,
    seeds: tuple[int, ...],
    split: Literal["test", "dev"] = "test",
    shard: "Shard | None",
    report: Path | None,
    without: tuple[str, ...],
    supervised: bool,
) -> bool:
    """Train or evaluate the students of a matrix, or a shard of them, in this process; False where there is none."""
    if (sweep := request.sweep(shard)) is None:
        return False
    from pipeline.cli.sweep_commands import StudentsRequest, work_points
    from pipeline.run.work import shard_of

    shard_of(f"{name} MATRIX")
    students = StudentsRequest(seeds=seeds, split=split, without=without, report=report, supervised=supervised)
    work_points(sweep, name, request.options(), students)
    return True


def _print_plans(work: "Run", plans: "list[StagePlan]", inputs: "Inputs", request: Request) -> None:
    """Print what is to do and what it would cost, after trying it where that is asked for."""
    from pipeline.console.tables import print_plans
    from pipeline.costs.estimate import costs, take_samples
    from pipeline.run.provenance import read_provenance

    samples = take_samples(work, plans, seconds=request.sample, quiet=request.quiet) if request.sample else {}
    print_plans(plans, costs(work, plans, inputs, read_provenance(work.folder), samples), as_json=request.as_json)


def _print_results(
    work: "Run", plans: "list[StagePlan]", request: Request, *, split: Literal["test", "dev"] = "test"
) -> None:
    """Print what a command achieved: the accuracies where it evaluated, and for machines the plans as well."""
    from pipeline.console.tables import print_json, print_scores
    from pipeline.results.scores import scores_of
    from pipeline.run.students import results_folder

    evaluated = any(plan.name == "evaluate" and plan.done for plan in plans)
    scores = scores_of(work.config.name, results_folder(work.folder, split)) if evaluated else []
    if request.as_json:
        print_json({"run": work.folder, "stages": plans, "scores": scores})
    elif scores:
        print_scores(scores, as_json=False)
