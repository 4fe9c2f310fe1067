"""Doing one stage here in this process, and writing down what it took.

In: a stage of a point, or the students of all points. Out: the stage's results, its plan as it is then, and a record in
the provenance of the point. This is what the processes do that `pipeline.run.order` starts.
"""

import functools
import logging
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from data.errors import Interrupted, MolsakiError
from pipeline.console.exits import StageProcessError, describe_failure
from pipeline.console.logs import log_file
from pipeline.run import provenance
from pipeline.run.failures import Failures
from pipeline.run.inputs import Split
from pipeline.run.plan import Stage, StageName, StagePlan
from pipeline.run.points import PointRun, Run, look
from pipeline.run.teacher import StageWithSpace
from pipeline.run.usage import Usage, disk_bytes
from stages.runtime.progress import TARGETS, Progress, StopSignal

log = logging.getLogger(__name__)


class Timed:
    """A progress that also measures: seconds until the work itself begins, and how much of it was done in how long.

    Loading is told apart from what grows with the work, so that a few questions tell what many will take. Putting
    together what training aims at counts as loading.
    """

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._clock = progress, clock
        self._entered = self._since = clock()
        self._counts = False
        self.start_seconds, self.counted, self.counted_seconds = 0.0, 0, 0.0

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task; the first that counts ends the loading."""
        self._counts, self._since = task != TARGETS, self._clock()
        if self._counts and not self.start_seconds:
            self.start_seconds = self._since - self._entered
        self._progress.start(task, total, done)

    def advance(self, count: int = 1) -> None:
        """Count units as done, and the time they took."""
        if self._counts:
            now = self._clock()
            self.counted, self.counted_seconds = self.counted + count, self.counted_seconds + now - self._since
            self._since = now
        self._progress.advance(count)

    def note(self, message: str) -> None:
        """Say one line."""
        self._progress.note(message)


class PointProgress:
    """A progress that says which point of how many it is about."""

    def __init__(self, progress: Progress, point: str) -> None:
        self._progress, self._point = progress, point

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task of the point."""
        self._progress.start(f"{self._point}: {task}", total, done)

    def advance(self, count: int = 1) -> None:
        """Count units as done."""
        self._progress.advance(count)

    def note(self, message: str) -> None:
        """Say one line about the point."""
        self._progress.note(f"{self._point}: {message}")


def execute_stage(one: PointRun, stage: Callable[[], Stage], *, progress: Progress, stop: StopSignal) -> StagePlan:
    """Do what one stage is missing, here in this process, and return its plan afterwards.

    `stage` opens the stage; it is called again afterwards, to count what was done.
    """
    opened = stage()
    before = opened.plan()
    if before.finished:
        progress.note(before.line())
        return before
    one.save()
    disk, timed = disk_bytes(_places(one, opened)), Timed(progress)
    with Usage() as usage:
        record = functools.partial(_record, one, opened, provenance.now(), usage, timed, disk)
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
    progress.note(after.result())
    return after


def train_share(run: Run, seeds: Sequence[int], *, progress: Progress, stop: StopSignal) -> None:
    """Take this process's part in training; nothing is recorded, which is the task of the process that counts."""
    (stages,) = look(run)
    stages.train(seeds).execute(progress, stop)


def execute_students(
    run: Run,
    name: StageName,
    *,
    seeds: Sequence[int],
    split: Split,
    without: Sequence[str],
    failures: Failures,
    progress: Progress,
    stop: StopSignal,
) -> list[StagePlan]:
    """Train or evaluate the students of one point after the other, here in this process; return the plans then.

    What a point of a matrix raises goes into `failures`, and the next one follows; `Interrupted` stops all.
    """
    points, total, plans = look(run), len(run.points), []
    for number, (stages, own) in enumerate(zip(points, run.shares(seeds), strict=True), start=1):
        one = stages.one
        if not own or one.name in without or not (run.single or name in one.stages):
            continue
        again = partial(_open, run, number - 1, name, own, split)
        if run.single:
            return [execute_stage(one, again, progress=progress, stop=stop)]
        failures.at = one.name
        failures.write()
        said = PointProgress(progress, f"point {number} of {total}, {one.name}")
        try:
            with log_file(one.log):
                plans.append(execute_stage(one, again, progress=said, stop=stop))
        except Interrupted:
            raise
        except StageProcessError as error:  # of several processes for one student
            failures.failed[one.name] = f"{name} ended with exit code {error.code} and has said why above"
        except Exception as error:
            failures.failed[one.name] = f"{name}: {describe_failure(error, one.log)}"
        if one.name in failures.failed:
            said.note(f"failed, and the other points go on: {failures.failed[one.name]}")
        failures.at = None
        failures.write()
        stop.check("all that was committed")
    return plans


def execute_piece(run: Run, name: StageName, *, progress: Progress, stop: StopSignal) -> StagePlan:
    """Do stage one of a run with one point, or a share of it."""
    return execute_stage(run.points[0], partial(_open, run, 0, name), progress=progress, stop=stop)


def _open(run: Run, number: int, name: StageName, seeds: Sequence[int] = (), split: Split = "test") -> Stage:
    """A stage of a point, as it is now."""
    return look(run)[number].open(name, seeds, split)


def _committed(stage: Callable[[], Stage], before: StagePlan) -> int:
    """Units that a stage has done before it failed; 0 where what is stored cannot be read now."""
    try:
        return before.to_do - stage().plan().to_do
    except (MolsakiError, OSError) as error:
        log.warning("units done before the failure are not known: %s", error)
        return 0


def _places(one: PointRun, stage: Stage) -> list[Path]:
    """Folders that a stage writes to."""
    space = [stage.path] if isinstance(stage, StageWithSpace) else []
    return [one.folder, one.config.store / "targets", *space]


def _record(
    one: PointRun, stage: Stage, started: str, usage: Usage, timed: Timed, disk: int, outcome: str, units: int
) -> None:
    used = usage.so_far()
    record = provenance.StageRecord(
        stage=stage.name,
        shard=None if one.shard is None else str(one.shard),
        started=started,
        ended=provenance.now(),
        seconds=round(used.seconds, 3),
        start_seconds=round(timed.start_seconds, 3),
        counted=timed.counted,
        counted_seconds=round(timed.counted_seconds, 3),
        cpu_seconds=round(used.cpu_seconds, 3),
        bytes_grown=disk_bytes(_places(one, stage)) - disk,
        peak_bytes=used.peak_bytes,
        peak_gpu_bytes=used.peak_gpu_bytes,
        units=max(units, 0),
        outcome=outcome,
        command=tuple(sys.argv),
        fingerprints=dict(stage.fingerprints()),
        pace=stage.pace(),
        environment=provenance.environment(),
    )
    provenance.add_stage(one.folder, record)
    log.info("%s %s: %d units in %.1f s", stage.name, outcome, record.units, used.seconds)
