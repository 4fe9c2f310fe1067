"""Writers of made-up records, each a process of its own: a `Job` enters, a store and a log of it leave.

A writer notes before each append that it begins, and after it which records are committed. What stands in the logs when
it is killed or stopped is what its store has to serve from then on.
"""

import errno
import multiprocessing
import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from benchmarks.faults.processes import wait_until
from benchmarks.faults.records import KINDS, RECORDS
from cache.spaces import Kind
from data.errors import Interrupted
from stages.runtime.progress import StopSignal

WRITERS = 3
LONGEST_WAIT = 0.25
"""Seconds after which a writer at work is killed or stopped at the latest."""
BEGIN = "begin\n"
"""What a writer notes in its log before each append."""

forkserver = multiprocessing.get_context("forkserver")
# Writers start at once where this module, and with it all that they need, is imported already.
forkserver.set_forkserver_preload([__name__])


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one writer process does; it says in the file `log` what it begins and what was acknowledged."""

    kind: Kind
    store: Path
    log: Path
    seed: int
    records: int = RECORDS
    hard_links: bool = True
    appends: int | None = None
    """How many; None goes on for ever."""

    def batches(self) -> Iterator[list[int]]:
        """Random records, so that several writers compute the same ones."""
        chance = random.Random(self.seed)
        done = 0
        while done != self.appends:
            yield sorted(chance.sample(range(self.records), chance.randint(1, 6)))
            done += 1


def write(job: Job) -> None:
    """Append what `job` says; killed from outside, or stopped by SIGTERM with exit code 75 after a whole append."""
    if not job.hard_links:
        os.link = _no_hard_links
    log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    records = KINDS[job.kind]
    with StopSignal() as stop:
        space = records.open(job.store)
        for numbers in job.batches():
            os.write(log, BEGIN.encode())
            records.append(space, numbers)
            os.write(log, f"{' '.join(map(str, numbers))}\n".encode())
            try:
                stop.check("the records so far")
            except Interrupted as stopped:
                sys.exit(stopped.exit_code)


def _no_hard_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def start(job: Job) -> ForkServerProcess:
    """Start a writer."""
    process = forkserver.Process(target=write, args=(job,))
    process.start()
    return process


def acknowledged(logs: Path) -> set[int]:
    """The records whose append has returned in any writer so far."""
    lines = (line for path in logs.glob("*.log") for line in path.read_text().splitlines(keepends=True))
    whole = (line.split() for line in lines if line.endswith("\n") and line != BEGIN)
    return {int(number) for numbers in whole for number in numbers}


def is_inside_append(log: Path) -> bool:
    """Whether a writer that is no more had begun an append that did not return."""
    return log.exists() and log.read_text().endswith(BEGIN)


@contextmanager
def started(jobs: Sequence[Job]) -> Iterator[list[tuple[Job, ForkServerProcess]]]:
    """Start writers; those that are in the list in the end are killed, whatever happens."""
    running: list[tuple[Job, ForkServerProcess]] = []
    try:
        running += [(job, start(job)) for job in jobs]
        yield running
    finally:
        for _, writer in running:
            writer.kill()
            writer.join()


def wait_for_log(log: Path, size: int) -> None:
    """Return once a writer has noted so many bytes."""
    wait_until(lambda: (log.stat().st_size if log.exists() else 0) >= size, f"progress of {log}")
