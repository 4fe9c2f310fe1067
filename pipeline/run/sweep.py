"""The order of work of a matrix: stage one once for all points, then their students, then one table.

In: a `Matrix` and the folder that its points lie in. Out: an ordinary run in `<folder>/<point>/` for each of them, and
the table of all. Points that ask for the same of stage one share it. One process trains the students of all points and
one evaluates them, because starting Python and torch takes longer than training a tiny student.

With a shard, a process works on some of the pairs of a point and a seed, dealt out in turn: pair number k, counted
point by point, belongs to shard k mod n. That is even to one pair, spreads the seeds of an expensive point over all
shards, and depends on the file alone, so that no pair is in two shards. A point that fails does not stop the others.
"""

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from cache.durable import replace_file
from data.errors import EngineError, Interrupted, MissingRecordsError, MolsakiError
from pipeline.config.matrix import Matrix, Point
from pipeline.console.exits import StageProcessError, complain, describe_failure
from pipeline.console.logs import log_file
from pipeline.results.scores import POINTS
from pipeline.run.inputs import Inputs, Split
from pipeline.run.plan import Stage, StageName, StagePlan
from pipeline.run.students import EvaluateStage, TrainStage, chosen_seeds
from pipeline.run.supervise import ForwardingStop, stage_command
from pipeline.run.teacher import AttentionStage, RationaleStage
from pipeline.run.work import CONFIGURATION, OUR_EXIT_CODES, Run, Say, execute_stage, require_success, stages_of
from stages.runtime.progress import Progress, StopSignal
from stages.runtime.shard import Shard

STAGE_ONE: tuple[StageName, ...] = ("rationales", "attention")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A matrix, the folder of its points, and the shard of their students that this process works on.

    With `totals`, attention is also recorded where it is stored without what the steps look at in all.
    """

    matrix: Matrix
    folder: Path
    shard: Shard | None = None
    totals: bool = False

    @property
    def log(self) -> Path:
        """The matrix's own log; each point has one too."""
        return Run(config=self.matrix.base, folder=self.folder, shard=self.shard).log

    @property
    def config_file(self) -> Path:
        """The matrix as it was asked for, every default filled in."""
        return self.folder / CONFIGURATION

    @cached_property
    def points(self) -> "tuple[PointRun, ...]":
        """The points, with what they read shared among them."""
        found: list[PointRun] = []
        for point in self.matrix.points:
            inputs = Inputs(point.config, alike=found[0].inputs if found else None)
            run = Run(config=point.config, folder=self.folder / point.name, shard=self.shard)
            found.append(PointRun(point=point, run=run, inputs=inputs))
        return tuple(found)

    def stages(self) -> tuple[StageName, ...]:
        """All stages that any point has, in order."""
        names = {name for one in self.points for name in stages_of(one.run.config)}
        order: tuple[StageName, ...] = ("rationales", "attention", "train", "evaluate")
        return tuple(name for name in order if name in names)

    def check(self, names: Sequence[StageName]) -> None:
        """Raise the first error that the stages of any point would meet in their inputs."""
        for one in self.points:
            one.inputs.check([name for name in names if name in stages_of(one.run.config)])

    def save(self) -> None:
        """Write the matrix, its list of points, and each point's configuration, which runs by itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.config_file, self.matrix.yaml().encode())
        values = {point.name: dict(point.values) for point in self.matrix.points}
        replace_file(self.folder / POINTS, json.dumps(values, indent=1, ensure_ascii=False).encode())
        for one in self.points:
            one.run.save_config()

    def shares(self, seeds: Sequence[int] = ()) -> list[tuple[int, ...]]:
        """For each point the seeds that this process works on: all, or those that its shard is dealt."""
        units = [
            (number, seed)
            for number, point in enumerate(self.matrix.points)
            for seed in chosen_seeds(point.config.training.seeds, seeds)
        ]
        if self.shard is not None:
            units = units[self.shard.index - 1 :: self.shard.count]
        return [tuple(seed for owner, seed in units if owner == number) for number in range(len(self.points))]


@dataclass(frozen=True, kw_only=True)
class PointRun:
    """One point as a run, with its inputs."""

    point: Point
    run: Run
    inputs: Inputs


@dataclass(frozen=True, kw_only=True)
class PointStages:
    """The stages of one point as they are now; those of stage one may be another point's too."""

    one: PointRun
    rationales: RationaleStage
    attention: AttentionStage

    def train(self, seeds: Sequence[int]) -> TrainStage:
        """The training of some of its students."""
        return TrainStage(self.one.inputs, self.one.run.folder, self.rationales, self.attention, seeds)

    def open(self, name: StageName, seeds: Sequence[int], split: Split = "test") -> Stage:
        """One stage; the later two for some of the students only."""
        if name == "rationales":
            return self.rationales
        if name == "attention":
            return self.attention
        if name == "train":
            return self.train(seeds)
        return EvaluateStage(self.one.inputs, self.one.run.folder, self.train(seeds), split)


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A piece of stage one, and the points that need it."""

    stage: RationaleStage | AttentionStage
    points: tuple[PointRun, ...]


def look(sweep: Sweep) -> list[PointStages]:
    """Look at all points as they are now; points that agree on stage one share the stages, and so what these read."""
    rationales: dict[str, RationaleStage] = {}
    attention: dict[str, AttentionStage] = {}
    found = []
    for one in sweep.points:
        config = one.run.config.model_dump(mode="json", include={"store", "data", "teacher", "rationales", "attention"})
        config["data"] = config["data"]["train"]
        whole = json.dumps(config, sort_keys=True)
        first = json.dumps({name: value for name, value in config.items() if name != "attention"}, sort_keys=True)
        written = rationales.setdefault(first, RationaleStage(one.inputs))
        seen = attention.setdefault(whole, AttentionStage(one.inputs, written, totals=sweep.totals))
        found.append(PointStages(one=one, rationales=written, attention=seen))
    return found


def shared_work(points: Sequence[PointStages], name: StageName) -> list[Shared]:
    """What stage one has to do under `name` for these points, each piece once."""
    pieces: dict[int, tuple[RationaleStage | AttentionStage, list[PointRun]]] = {}
    for point in points:
        if name in stages_of(point.one.run.config):
            stage = point.rationales if name == "rationales" else point.attention
            pieces.setdefault(id(stage), (stage, []))[1].append(point.one)
    return [Shared(stage=stage, points=tuple(needing)) for stage, needing in pieces.values()]


@dataclass(kw_only=True)
class Report:
    """What became of the points in a process: errors by name, and the point that it is at."""

    failed: dict[str, str] = field(default_factory=dict)
    at: str | None = None
    path: Path | None = None

    def write(self) -> None:
        """Save it for the process that waits, which wants to know also if this one is killed."""
        if self.path is not None:
            replace_file(self.path, json.dumps({"failed": self.failed, "at": self.at}).encode())

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Read what a process has reported; an empty report where it has not come to that."""
        if not path.exists():
            return cls()
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(failed=content["failed"], at=content["at"])


class PointProgress:
    """A progress that says which point of how many it is about."""

    def __init__(self, progress: Progress, point: str) -> None:
        self._progress, self._point = progress, point

    def start(self, task: str, total: int) -> None:
        """Begin a task of the point."""
        self._progress.start(f"{self._point}: {task}", total)

    def advance(self, count: int = 1) -> None:
        """Count units as done."""
        self._progress.advance(count)

    def note(self, message: str) -> None:
        """Say one line about the point."""
        self._progress.note(f"{self._point}: {message}")


def work_on_students(
    sweep: Sweep,
    name: StageName,
    *,
    seeds: Sequence[int],
    split: Split,
    without: Sequence[str],
    report: Report,
    progress: Progress,
    stop: StopSignal,
) -> None:
    """Train or evaluate the students of one point after the other, here in this process.

    What a point raises goes into `report`, and the next one follows; `Interrupted` stops all.
    """
    points, total = look(sweep), len(sweep.points)
    for number, (stages, own) in enumerate(zip(points, sweep.shares(seeds), strict=True), start=1):
        point, run = stages.one.point, stages.one.run
        if not own or point.name in without or name not in stages_of(run.config):
            continue
        report.at = point.name
        report.write()
        said = PointProgress(progress, f"point {number} of {total}, {point.name}")
        try:
            with log_file(run.log):
                execute_stage(run, partial(stages.open, name, own, split), progress=said, stop=stop)
        except Interrupted:
            raise
        except StageProcessError as error:  # of several processes for one student
            report.failed[point.name] = f"{name} ended with exit code {error.code} and has said why above"
        except Exception as error:
            report.failed[point.name] = f"{name}: {describe_failure(error, run.log)}"
        if point.name in report.failed:
            said.note(f"failed, and the other points go on: {report.failed[point.name]}")
        report.at = None
        report.write()
        stop.check("all that was committed")


def run_sweep(
    sweep: Sweep, names: Sequence[StageName], *, say: Say, quiet: bool, pass_on: Sequence[str] = ()
) -> dict[str, str]:
    """Do what is missing: stage one for all points, then the students; return what failed, by point.

    Stage one is not shared out here, so a shard needs it complete: `MissingRecordsError` where it is not. Raises
    `Interrupted`, or `StageProcessError` where a process was stopped by a signal, with what is done kept. `pass_on`
    goes to the process of each stage.
    """
    sweep.save()
    failed: dict[str, str] = {}
    with ForwardingStop() as stop:
        for name in names:
            if name in STAGE_ONE:
                _run_stage_one(sweep, name, failed, stop, say=say, quiet=quiet, pass_on=pass_on)
            else:
                _run_students(sweep, name, failed, stop, say=say, quiet=quiet)
            stop.check("all that was committed")
    return failed


def _run_stage_one(
    sweep: Sweep,
    name: StageName,
    failed: dict[str, str],
    stop: ForwardingStop,
    *,
    say: Say,
    quiet: bool,
    pass_on: Sequence[str],
) -> None:
    """Run each piece of stage one that is missing in a process of its own, under the first point that needs it."""
    sound = [point for point in look(sweep) if point.one.point.name not in failed]
    for shared in shared_work(sound, name):
        names, first = [one.point.name for one in shared.points], shared.points[0]
        try:
            plan = shared.stage.plan()
        except MolsakiError as error:
            failed.update(dict.fromkeys(names, f"{name}: {error}"))
            continue
        say(f"{plan.line()}; for {len(shared.points)} of {len(sweep.points)} points")
        if plan.finished:
            continue
        if sweep.shard is not None:
            raise MissingRecordsError(
                f"{plan.line()}; --shard shares out the students and needs stage one complete: first run "
                "molsaki rationales CONFIG and molsaki attention CONFIG"
            )
        arguments = [str(first.run.config_file), "--runs", str(sweep.folder), *pass_on, *_quiet(quiet)]
        try:
            require_success(f"stage {name}", stop.run(stage_command(name, arguments)))
        except StageProcessError as error:
            if error.code == Interrupted.exit_code:
                raise
            failed.update(dict.fromkeys(names, f"{name} ended with exit code {error.code} and has said why above"))
        except EngineError as error:
            failed.update(dict.fromkeys(names, str(error)))


def _quiet(quiet: bool) -> list[str]:
    return ["--quiet"] if quiet else []


def _run_students(
    sweep: Sweep, name: StageName, failed: dict[str, str], stop: ForwardingStop, *, say: Say, quiet: bool
) -> None:
    """Train or evaluate in one process, and in another one where a point has brought the first down."""
    plans = [plans[name] for plans in plan_points(sweep, (name,), failed=failed) if name in plans]
    if not plans:
        if not failed:
            say(f"{name}: nothing for shard {sweep.shard}, there are more shards than students")
        return
    plan = total_plan(plans)
    which = "" if sweep.shard is None else f" in shard {sweep.shard}"
    say(f"{plan.line()}; {len(plans)} of {len(sweep.points)} points{which}")
    while not plan.finished:
        with TemporaryDirectory(prefix="molsaki-") as scratch:
            path = Path(scratch) / "report.json"
            code = stop.run(stage_command(name, _student_arguments(sweep, failed, path, quiet=quiet)))
            report = Report.read(path)
        failed |= report.failed
        if code == 0 or (code == 1 and report.failed and report.at is None):
            return
        if code in OUR_EXIT_CODES or report.at is None:
            require_success(f"stage {name}", code)
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        failed[str(report.at)] = f"{name}: its process was ended by {cause}; the machine may have run out of memory"
        complain(f"{report.at}: {failed[str(report.at)]}; the other points go on")


def _student_arguments(sweep: Sweep, failed: Mapping[str, str], report: Path, *, quiet: bool) -> list[str]:
    shard = [] if sweep.shard is None else ["--shard", str(sweep.shard)]
    without = [argument for point in failed for argument in ("--without", point)]
    return [
        *(str(sweep.config_file), "--runs", str(sweep.folder.parent), "--report", str(report)),
        *(*shard, *without, *_quiet(quiet)),
    ]


def plan_points(
    sweep: Sweep,
    names: Sequence[StageName],
    seeds: Sequence[int] = (),
    split: Split = "test",
    failed: dict[str, str] | None = None,
) -> list[dict[StageName, StagePlan]]:
    """What each point has done and has to do of `names`; students that belong to another shard are not counted.

    With `failed`, points in it have no plan, and what keeps another from having one is put into it, not raised.
    """
    found: list[dict[StageName, StagePlan]] = []
    for stages, own in zip(look(sweep), sweep.shares(seeds), strict=True):
        has = [name for name in stages_of(stages.one.run.config) if name in names]
        idle = () if own else ("train", "evaluate")
        plans: dict[StageName, StagePlan] = {}
        try:
            if stages.one.point.name not in (failed or {}):
                plans = {name: stages.open(name, own, split).plan() for name in has if name not in idle}
        except MolsakiError as error:
            if failed is None:
                raise
            failed[stages.one.point.name] = str(error)
        found.append(plans)
    return found


def total_plan(plans: Sequence[StagePlan]) -> StagePlan:
    """Several plans of one stage as one; what they all say is said once."""
    assert plans, "no plan to add up"
    dropped = plans[0].dropped
    details = dict.fromkeys(plan.detail for plan in plans)
    waits = [plan.waits_for for plan in plans if plan.waits_for]
    return StagePlan(
        name=plans[0].name,
        unit=plans[0].unit,
        done=sum(plan.done for plan in plans),
        to_do=sum(plan.to_do for plan in plans),
        dropped=dropped if all(plan.dropped == dropped for plan in plans) else {},
        detail=next(iter(details)) if len(details) == 1 else "",
        waits_for=waits[0] if waits else None,
    )
