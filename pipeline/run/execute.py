"""Doing one stage here in this process, and writing down what it took.

In: a run and one of its stages. Out: the stage's results, and a record in the provenance of each point. This is what
the processes do that `pipeline.run.order` starts.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from cache.derived import DERIVED
from data.errors import Interrupted, MolsakiError
from pipeline.console.exits import StageProcessError, describe_failure
from pipeline.console.logs import log_file
from pipeline.run import provenance
from pipeline.run.inputs import Split
from pipeline.run.jobs import Claims
from pipeline.run.plan import Stage, StageName, StagePlan
from pipeline.run.points import PointRun, Run, look
from pipeline.run.processes import Failures
from pipeline.run.teacher import StageWithSpace
from pipeline.run.usage import Usage, disk_bytes
from stages.engines.reuse import ReusedEngines
from stages.runtime.progress import COMMITTED, PREPARING, Progress, StopSignal

log = logging.getLogger(__name__)


class Timed:
    """A progress that also measures: seconds until the work itself begins and since, and how much was done in how long.

    Loading and closing are told apart from what grows with the work, so that a few questions tell what many will take.
    Putting together what training reads and aims at counts as loading. `prefix` says which point it is about.
    """

    def __init__(self, progress: Progress, prefix: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._prefix, self._clock = progress, prefix, clock
        self._entered = self._since = clock()
        self._counts = self._warm = False
        self.start_seconds, self.counted, self.counted_seconds = 0.0, 0, 0.0

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task; the first that counts ends the loading."""
        self._counts, self._warm, self._since = task not in PREPARING, False, self._clock()
        if self._counts and not self.start_seconds:
            self.start_seconds = self._since - self._entered
        self._progress.start(self._prefix + task, total, done)

    def advance(self, count: int = 1) -> None:
        """Count units as done, and the time they took; the first of a task take longer and are none to go by."""
        if self._counts:
            now = self._clock()
            if self._warm:
                self.counted, self.counted_seconds = self.counted + count, self.counted_seconds + now - self._since
            self._warm, self._since = True, now
        self._progress.advance(count)

    def saved(self, count: int) -> None:
        """Count units as committed."""
        self._progress.saved(count)

    def end_seconds(self) -> float:
        """Seconds since the last unit of the work was done; 0 where none was."""
        return self._clock() - self._since if self._warm else 0.0

    def note(self, message: str) -> None:
        """Say one line."""
        self._progress.note(self._prefix + message)


def execute_points(
    run: Run,
    name: StageName,
    failures: Failures,
    *,
    progress: Progress,
    stop: StopSignal,
    seeds: Sequence[int] = (),
    split: Split = "test",
    without: Sequence[str] = (),
    claims: Path | None = None,
) -> None:
    """Do a stage of one point after the other, here in this process, for students that are its own.

    What a point of a matrix raises goes into `failures`, and the next one follows; `Interrupted` stops all. With
    `claims`, a folder, other processes work on the same students beside this one, and each takes one at a time.
    """
    with ReusedEngines(progress.note) as engines:
        for number, own in _pieces(run, name, seeds, without, one_by_one=claims is not None):
            if claims is not None or not run.single:
                stop.check(COMMITTED)
            point = run.points[number]
            with Claims(folder=claims).of(point.name, own[0]) as claim:
                if not claim.mine or point.name in failures.failed:
                    continue
                stage = partial(_open, run, number, name, own, split, engines)
                of_seed = "" if claims is None else f"seed {own[0]}"
                if run.single:
                    claim.had_work = _execute(point, stage, progress, stop, f"{of_seed}: " if of_seed else "")
                    if name == "rationales":
                        for left in look(run)[number].rationales.reading:  # by the engine that wrote them
                            _execute(point, left, progress, stop)
                else:
                    prefix = f"point {number + 1} of {len(run.points)}, {point.name}{of_seed and ', '}{of_seed}: "
                    claim.had_work = _execute_next(point, name, stage, failures, progress, stop, prefix)


def _pieces(
    run: Run, name: StageName, seeds: Sequence[int], without: Sequence[str], *, one_by_one: bool
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The points to do a stage of, by number, with the seeds of their students."""
    for number, (point, own) in enumerate(zip(run.points, run.shares(seeds), strict=True)):
        if own and point.name not in without and point.has(name):
            yield from ((number, (seed,)) for seed in own) if one_by_one else [(number, own)]


def execute_share(run: Run, seeds: Sequence[int], *, progress: Progress, stop: StopSignal) -> None:
    """Take this process's part in training; nothing is recorded, which is the task of the process that counts."""
    _open(run, 0, "train", seeds).execute(progress, stop)


def _open(
    run: Run,
    number: int,
    name: StageName,
    seeds: Sequence[int],
    split: Split = "test",
    engines: ReusedEngines | None = None,
) -> Stage:
    """A stage of a point, as it is now."""
    return look(run)[number].open(name, seeds, split, engines)


def _execute_next(
    point: PointRun,
    name: StageName,
    stage: Callable[[], Stage],
    failures: Failures,
    progress: Progress,
    stop: StopSignal,
    prefix: str,
) -> bool:
    """Do a stage of one of several points; what it raises goes into `failures`. Returns whether there was work."""
    failures.reach(point.name)
    had_work = True
    try:
        with log_file(point.log):
            had_work = _execute(point, stage, progress, stop, prefix)
    except Interrupted:
        raise
    except StageProcessError as error:  # of several processes for one student
        failures.failed[point.name] = f"{name} ended with exit code {error.code} and has said why above"
    except Exception as error:
        failures.failed[point.name] = f"{name}: {describe_failure(error, point.log)}"
    if point.name in failures.failed:
        progress.note(f"{prefix}failed, and the other points go on: {failures.failed[point.name]}")
    failures.reach(None)
    return had_work


def _execute(
    point: PointRun, stage: Callable[[], Stage], progress: Progress, stop: StopSignal, prefix: str = ""
) -> bool:
    """Do what one stage is missing, if anything is, which is returned.

    `stage` opens it, and again afterwards, to count what was done.
    """
    opened = stage()
    before = opened.plan()
    if before.finished:
        progress.note(prefix + before.line())
        return False
    point.save()
    disk, timed = disk_bytes(_places(point, opened)), Timed(progress, prefix)
    with Usage() as usage:
        record = partial(_record, point, opened, provenance.now(), usage, timed, disk)
        try:
            opened.execute(timed, stop)
        except Interrupted:
            record("stopped", before.to_do - stage().plan().to_do)
            raise
        except Exception:
            record("failed", _committed(stage, before))
            raise
        after = stage().plan()
        record("done", before.to_do - after.to_do)
    progress.note(prefix + after.result())
    return True


def _committed(stage: Callable[[], Stage], before: StagePlan) -> int:
    """Units that a stage has done before it failed; 0 where what is stored cannot be read now."""
    try:
        return before.to_do - stage().plan().to_do
    except (MolsakiError, OSError) as error:
        log.warning("units done before the failure are not known: %s", error)
        return 0


def _places(point: PointRun, stage: Stage) -> list[Path]:
    """Folders that a stage writes to."""
    space = [stage.path] if isinstance(stage, StageWithSpace) else []
    return [point.folder, *(point.config.store / name for name in DERIVED), *space]


def _record(
    point: PointRun, stage: Stage, started: str, usage: Usage, timed: Timed, disk: int, outcome: str, units: int
) -> None:
    used = usage.so_far()
    record = provenance.StageRecord(
        stage=stage.name,
        shard=None if point.shard is None else str(point.shard),
        started=started,
        ended=provenance.now(),
        **asdict(used),
        start_seconds=round(timed.start_seconds, 3),
        end_seconds=round(timed.end_seconds(), 3),
        counted=timed.counted,
        counted_seconds=round(timed.counted_seconds, 3),
        written=stage.written,
        likelihood_seconds=round(stage.likelihood_seconds, 3),
        bytes_grown=disk_bytes(_places(point, stage)) - disk,
        units=max(units, 0),
        outcome=outcome,
        command=tuple(sys.argv),
        fingerprints=dict(stage.fingerprints()),
        pace=stage.pace(),
        environment=provenance.environment(),
    )
    provenance.add_stage(point.folder, record)
    log.info("%s %s: %d units in %.1f s", stage.name, outcome, record.units, used.seconds)
