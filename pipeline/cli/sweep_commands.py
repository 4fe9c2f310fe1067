"""What the commands of a run do where the configuration holds a matrix.

In: a `Sweep` and the options of a command. Out: its stages done for all points, plans or scores on stdout, and after a
whole run `summary.json` and `results.md` in the matrix's folder.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache.durable import replace_file
from data.errors import MolsakiError, PointsFailedError
from pipeline.console.exits import StageProcessError
from pipeline.console.logs import command_log
from pipeline.console.tables import new_table, print_json, print_plans, print_scores, print_table, score_table
from pipeline.results.predictions import seed_files
from pipeline.results.scores import SUMMARY, Score, compare, evaluation_folders, unevaluated_points, write_summary
from pipeline.run.inputs import Split
from pipeline.run.plan import StageName, StagePlan
from pipeline.run.provenance import Provenance, StageRecord, read_provenance
from pipeline.run.students import results_folder
from pipeline.run.sweep import (
    STAGE_ONE,
    PointRun,
    Report,
    Sweep,
    look,
    plan_points,
    run_sweep,
    shared_work,
    total_plan,
    work_on_students,
)
from pipeline.run.work import Say

if TYPE_CHECKING:
    from pipeline.costs.estimate import Cost

RESULTS = "results.md"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a command is to work and what it is to print."""

    say: Say
    dry_run: bool = False
    as_json: bool = False
    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class StudentsRequest:
    """Which students to train or evaluate; with `report` a process waits that wants to know what became of them."""

    seeds: Sequence[int] = ()
    split: Split = "test"
    without: Sequence[str] = ()
    report: Path | None = None
    supervised: bool = False


def run_points(sweep: Sweep, names: Sequence[StageName], options: Options, pass_on: Sequence[str] = ()) -> None:
    """`molsaki run`, `rationales` and `attention`: the stages `names` of all points, then the table.

    Raises `PointsFailedError` in the end, after all others are done, where points failed.
    """
    sweep.check(names)
    if options.dry_run:
        print_sweep(sweep, names, as_json=options.as_json)
        return
    with command_log(sweep.log):
        failed = run_sweep(sweep, names, say=options.say, quiet=options.quiet, pass_on=pass_on)
        if "evaluate" in names:
            _conclude(sweep, options, failed)
        elif options.as_json:
            print_sweep(sweep, names, as_json=True)
        _require_none(failed, len(sweep.points))


def work_points(sweep: Sweep, name: StageName, options: Options, students: StudentsRequest) -> None:
    """`molsaki train` and `evaluate`: the students of all points, in this process.

    Raises `PointsFailedError` in the end, after all others are done, where points failed.
    """
    from pipeline.console.progress import open_progress
    from pipeline.console.quiet import quieten_libraries, stdout_to_stderr
    from pipeline.run.supervise import stop_with_parent
    from stages.runtime.progress import StopSignal

    seeds, split, report = students.seeds, students.split, Report(path=students.report)
    with StopSignal() as stop:
        if students.supervised:
            stop_with_parent()
        sweep.check((name,))
        if options.dry_run:
            print_sweep(sweep, (name,), as_json=options.as_json, seeds=seeds, split=split)
            return
        quieten_libraries(quiet=options.quiet)
        with command_log(sweep.log), stdout_to_stderr(), open_progress(quiet=options.quiet) as progress:
            sweep.save()
            work_on_students(
                sweep,
                name,
                seeds=seeds,
                split=split,
                without=students.without,
                report=report,
                progress=progress,
                stop=stop,
            )
    if students.report is not None and report.failed:
        raise StageProcessError(MolsakiError.exit_code)  # whoever waits says why, after everything else
    if students.report is None:
        if name == "evaluate":
            _print_table(sweep, split, as_json=options.as_json)
        _require_none(report.failed, len(sweep.points))


def print_sweep(
    sweep: Sweep,
    names: Sequence[StageName],
    *,
    as_json: bool,
    seeds: Sequence[int] = (),
    split: Split = "test",
) -> None:
    """`molsaki status` and `--dry-run`: what is there, what is to do and what it would take, in all and by point."""
    points = plan_points(sweep, names, seeds, split)
    totals, costs = [], []
    for name in names:
        plans = [(found[name], one) for found, one in zip(points, sweep.points, strict=True) if name in found]
        if name in STAGE_ONE:
            plans = [(piece.stage.plan(), piece.points[0]) for piece in shared_work(look(sweep), name)]
        if plans:
            totals.append(total_plan([plan for plan, _ in plans]))
            costs.append(_cost_of(sweep, plans))
    if as_json:
        by_point = [
            {"point": one.point.name, "values": dict(one.point.values), "stages": list(found.values())}
            for one, found in zip(sweep.points, points, strict=True)
        ]
        stages = [{**asdict(plan), "cost": cost} for plan, cost in zip(totals, costs, strict=True)]
        print_json({"matrix": sweep.folder, "shard": sweep.shard, "stages": stages, "points": by_point})
        return
    print_plans(totals, costs, as_json=False)
    click.echo()
    table = new_table("point", *(f"{name}" for name in names))
    for one, found in zip(sweep.points, points, strict=True):
        table.add_row(one.point.name, *(_state(found.get(name)) for name in names))
    print_table(table)


def _state(plan: StagePlan | None) -> str:
    """`3 of 10`, or nothing where the point has no such stage here."""
    return "" if plan is None else f"{plan.done:,} of {plan.done + plan.to_do:,}"


def _cost_of(sweep: Sweep, plans: Sequence[tuple[StagePlan, PointRun]]) -> "Cost | None":
    """What is left of one stage: time and memory as of all points that have done some, disk as of the first to do it.

    Points differ in what they cost; time and disk are told in proportion to the units that are left.
    """
    from pipeline.costs.estimate import Figure, costs

    left = [(plan, one) for plan, one in plans if not plan.finished]
    if not left:
        return None
    plan, first = left[0]
    (cost,) = costs(first.run, [plan], first.inputs, Provenance(stages=()), {})
    assert cost is not None, "a plan that is not finished costs something"
    units, share = sum(plan.to_do for plan, _ in left), sum(plan.to_do for plan, _ in left) / max(1, plan.to_do)
    past = [record for one in sweep.points for record in _past(one, plan.name)]
    if done := sum(record.units for record in past):
        known = partial(Figure, source="past", how=f"{done:,} {plan.unit} of this matrix, in one process")
        cost = replace(
            cost,
            seconds=known(value=sum(record.seconds for record in past) / done * units),
            peak_bytes=known(value=max(record.peak_bytes for record in past)),
            peak_gpu_bytes=known(value=max(record.peak_gpu_bytes for record in past)),
        )
    scaled = replace(cost.bytes, value=None if cost.bytes.value is None else cost.bytes.value * share)
    return replace(cost, units=units, bytes=scaled)


def _past(one: PointRun, name: StageName) -> list[StageRecord]:
    return [record for record in read_provenance(one.run.folder).stages if record.stage == name and record.units]


def _conclude(sweep: Sweep, options: Options, failed: Mapping[str, str]) -> None:
    """Write the results and print them; a shard leaves that to whoever is last."""
    missing = unfinished_points(sweep, failed)
    if sweep.shard is not None and missing:
        options.say(f"shard {sweep.shard} is done; {len(missing)} points wait for other shards")
        return
    scores = write_results(sweep, missing)
    if options.as_json:
        print_json({"matrix": sweep.folder, "unfinished": missing, "scores": scores})
    elif scores:
        print_scores(scores, as_json=False)
        options.say(f"{sweep.folder / RESULTS} and {SUMMARY} hold this table")


def unfinished_points(sweep: Sweep, failed: Mapping[str, str]) -> list[str]:
    """The points whose students have not all answered the test questions, those that failed among them."""
    known = dict(failed)
    plans = plan_points(replace(sweep, shard=None), ("evaluate",), failed=known)
    return [
        one.point.name
        for one, found in zip(sweep.points, plans, strict=True)
        if one.point.name in known or ("evaluate" in found and not found["evaluate"].finished)
    ]


def write_results(sweep: Sweep, missing: Sequence[str]) -> list[Score]:
    """Write `summary.json` and `results.md` of the points that have been evaluated; nothing where none has."""
    evaluated = [one for one in sweep.points if seed_files(results_folder(one.run.folder, "test"))]
    if not evaluated:
        return []
    for one in evaluated:  # a shard that wrote its own has seen no others
        write_summary(one.point.name, results_folder(one.run.folder, "test"))
    scores = compare({one.point.name: results_folder(one.run.folder, "test") for one in evaluated})
    replace_file(sweep.folder / SUMMARY, json.dumps([asdict(score) for score in scores], indent=1).encode())
    command = f"    molsaki compare {shlex.quote(str(sweep.folder))}"
    note = f"\nNot finished: {', '.join(missing)}.\n" if missing else ""
    text = f"# {sweep.matrix.name}\n\n{command}\n\n{score_table(scores).markdown()}{note}"
    replace_file(sweep.folder / RESULTS, text.encode())
    return scores


def _print_table(sweep: Sweep, split: Split, *, as_json: bool) -> None:
    """The scores that are there of a split, all shards' students included."""
    folders = {one.point.name: results_folder(one.run.folder, split) for one in sweep.points}
    folders = {name: folder for name, folder in folders.items() if seed_files(folder)}
    if folders:
        print_scores(compare(folders), as_json=as_json)


def compare_runs(runs: Sequence[str], root: Path, base: str | None, *, as_json: bool) -> None:
    """`molsaki compare`: the table of all runs, points of matrices among them."""
    from pipeline.results.scores import base_of

    folders = evaluation_folders(runs, root)
    scores = compare(folders, None if base is None else base_of(base, list(folders)))
    if missing := unevaluated_points(runs, root):
        click.echo(f"not evaluated yet: {', '.join(missing)}", err=True)
    print_scores(scores, as_json=as_json)


def _require_none(failed: Mapping[str, str], total: int) -> None:
    if failed:
        lines = [f"{len(failed)} of {total} points failed; the same command tries them again"]
        lines += [f"  {point}: {message}" for point, message in failed.items()]
        raise PointsFailedError("\n".join(lines))
