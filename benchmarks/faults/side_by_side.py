"""Readers beside writers, equal writers, stops and wrong clocks: a folder enters, what did not hold leaves."""

import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.processes import PATIENCE, wait_until
from benchmarks.faults.records import KINDS, RECORDS, Difference, Served, compare
from benchmarks.faults.results import Result
from benchmarks.faults.writers import LONGEST_WAIT, WRITERS, Job, acknowledged, is_inside_append, started, wait_for_log
from cache.spaces import Kind, Space, describe
from data.errors import Interrupted


@dataclass(kw_only=True)
class Check(Result):
    """One thing that was tried `tries` times; `problems` says what went wrong."""

    tries: int = 0

    def expect(self, holds: bool, otherwise: str) -> None:
        """Count a try, and remember what went wrong."""
        self.tries += 1
        if not holds:
            self.problems.append(otherwise)


def read_beside_writers(kind: Kind, folder: Path, appends: int, seed: int) -> Check:
    """Open a store again and again while three writers commit: each view is whole, and the next one holds no less."""
    check, records = Check(), KINDS[kind]
    every = records.truth(range(RECORDS))
    folder.mkdir(parents=True)
    jobs = [
        Job(kind=kind, store=folder, log=folder / f"{n}.log", seed=seed + n, appends=appends) for n in range(WRITERS)
    ]
    with started(jobs) as running:
        wait_until(lambda: bool(acknowledged(folder)), "a first commit")
        before: Served = {}
        view = _View(kind, records.open(folder))
        while any(writer.is_alive() for _, writer in running):
            expected = records.truth(sorted(acknowledged(folder)))
            found = records.read(records.open(folder))
            check.expect(compare(found, expected | before, every) == Difference(missing=0, wrong=0), "a torn view")
            before = found
        check.expect(view.is_as_at_opening(every), "what was opened before has changed")
        codes = [writer.exitcode for _, writer in running]
        check.expect(codes == [0] * WRITERS, f"writers ended with {codes}")
    return check


class _View:
    """A store that was opened at some time; rationales are read anew with every call, the others stay as they were."""

    def __init__(self, kind: Kind, space: Space) -> None:
        self._read = KINDS[kind].view(space)
        self._keys = [] if self._read is None else list(self._read())

    def is_as_at_opening(self, every: Served) -> bool:
        """Whether the same keys are there, with the true records."""
        if self._read is None:
            return True
        found = self._read()
        return list(found) == self._keys and all(every[key] == value for key, value in found.items())


def write_the_same(kind: Kind, folder: Path, appends: int, seed: int) -> Check:
    """Two writers compute the same records in the same order at once: both end well, one copy is served."""
    check, records = Check(), KINDS[kind]
    folder.mkdir(parents=True)
    jobs = [Job(kind=kind, store=folder, log=folder / f"{n}.log", seed=seed, appends=appends) for n in range(2)]
    with started(jobs) as running:
        for _, writer in running:
            writer.join()
        codes = [writer.exitcode for _, writer in running]
    numbers = sorted({number for batch in jobs[0].batches() for number in batch})
    space, truth = records.open(folder), records.truth(numbers)
    check.expect(codes == [0, 0], f"writers ended with {codes}")
    check.expect(len(space.commits()) == 2 * appends, f"{len(space.commits())} commits of {2 * appends}")
    check.expect(records.read(space) == truth, "not each record once")
    return check


def stop_writers(kind: Kind, folder: Path, stops: int, seed: int) -> Check:
    """SIGTERM at any moment: the writer ends by itself with 75 after a whole append and leaves nothing behind."""
    check, chance, records = Check(), random.Random(seed), KINDS[kind]
    folder.mkdir(parents=True)
    for number in range(stops):
        job = Job(kind=kind, store=folder, log=folder / f"{number}.log", seed=seed + number)
        with started([job]) as running:
            ((_, writer),) = running
            wait_for_log(job.log, 1)
            time.sleep(chance.random() * LONGEST_WAIT)
            writer.terminate()
            writer.join(PATIENCE)
            check.expect(writer.exitcode == Interrupted.exit_code, f"ended with {writer.exitcode}")
        check.expect(not is_inside_append(job.log), "an append was cut off")
    space = records.open(folder)
    expected = records.truth(sorted(acknowledged(folder)))
    check.expect(describe(space).uncommitted_parts == (), "parts were left behind")
    check.expect(records.read(space) == expected, "not what was acknowledged")
    return check


def change_clocks(kind: Kind, folder: Path, seed: int) -> Check:
    """Times of files in the past and the future, in any order: what is served and in which order stays the same."""
    check, chance, records = Check(), random.Random(seed), KINDS[kind]
    space = records.open(folder)
    with _clock(time.time() + 10 * 365 * 86400, "a-host-ahead"):
        records.append(space, [1, 2, 3])
    with _clock(0.0, "a-host-behind"):
        records.append(space, [2, 3, 4])
    before, commits = list(records.read(space).items()), space.commits()
    check.expect([commit.index for commit in commits] == [0, 1], "the order of commits followed the clock")
    for _ in range(10):
        for path in space.path.rglob("*"):
            moment = chance.choice([0, 1, 2**31, time.time(), time.time() + 10**8])
            os.utime(path, (moment, moment))
        again = records.open(folder)
        check.expect(list(records.read(again).items()) == before, "what is served depends on times of files")
        check.expect(again.commits() == commits, "commits depend on times of files")
    return check


@contextmanager
def _clock(moment: float, host: str) -> Iterator[None]:
    """Let this process think that it is `moment`, and on `host`."""
    before = time.time, socket.gethostname
    time.time, socket.gethostname = lambda: moment, lambda: host
    try:
        yield
    finally:
        time.time, socket.gethostname = before
