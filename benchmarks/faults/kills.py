"""Writers that are killed at random moments: how many kills enter, counts of what was lost or wrong leave."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.records import KINDS, RECORDS, Served, compare
from benchmarks.faults.results import Result
from benchmarks.faults.writers import (
    BEGIN,
    LONGEST_WAIT,
    WRITERS,
    Job,
    acknowledged,
    is_inside_append,
    start,
    started,
    wait_for_log,
)
from cache.spaces import Kind, describe

KILLS_A_ROUND = 25


@dataclass(kw_only=True)
class Kills(Result):
    """What became of writers that were killed."""

    kills: int = 0
    inside_an_append: int = 0
    acknowledged: int = 0
    commits: int = 0
    leftover_parts: int = 0
    claims_never_filled: int = 0
    readings: int = 0
    lost: int = 0
    wrong: int = 0
    missing_after_finishing: int = 0

    def bad(self) -> bool:
        """Whether anything was lost or wrong."""
        return bool(self.lost or self.wrong or self.missing_after_finishing)


def kill_writers(kind: Kind, folder: Path, kills: int, seed: int, done: Callable[[], None] = lambda: None) -> Kills:
    """Kill writers `kills` times in all, in rounds on a space each; every second round has no hard links."""
    total = Kills()
    sizes = [KILLS_A_ROUND] * (kills // KILLS_A_ROUND) + [kills % KILLS_A_ROUND]
    for number, size in enumerate(size for size in sizes if size):
        kill_round(kind, folder / f"round-{number}", size, seed + number, total, done, hard_links=number % 2 == 0)
    return total


def kill_round(
    kind: Kind, folder: Path, kills: int, seed: int, total: Kills, done: Callable[[], None], *, hard_links: bool
) -> None:
    """Kill writers on one space, start others in their place, and add to `total` what became of it."""
    chance, records = random.Random(seed), KINDS[kind]
    every = records.truth(range(RECORDS))
    (logs := folder / "logs").mkdir(parents=True)
    jobs = [
        Job(kind=kind, store=folder, log=logs / f"{n}.log", seed=seed * 10_000 + n, hard_links=hard_links)
        for n in range(max(kills, WRITERS))
    ]
    waiting = jobs[WRITERS:]
    with started(jobs[:WRITERS]) as running:
        for number in range(kills):
            job, writer = running.pop(chance.randrange(len(running)))
            # After an append, within the first one, or while the writer starts and makes the space.
            written = chance.choice([len(BEGIN) + 1, len(BEGIN) + 1, 1, 0])
            wait_for_log(job.log, written)
            time.sleep(chance.random() * LONGEST_WAIT)
            writer.kill()
            writer.join()
            assert writer.exitcode == -signal.SIGKILL, f"a writer ended by itself with {writer.exitcode}"
            total.kills += 1
            total.inside_an_append += is_inside_append(job.log)
            if waiting:
                following = waiting.pop()
                running.append((following, start(following)))
            if number % 8 == 7:
                _check(kind, folder, every, total)  # beside writers at work
            done()
    _finish(kind, folder, every, total)


def _check(kind: Kind, folder: Path, every: Served, total: Kills) -> Served:
    """Read everything and add to `total` what is lost or wrong; return what was served."""
    records = KINDS[kind]
    expected = records.truth(sorted(acknowledged(folder / "logs")))  # before reading: what comes later may be there
    found = records.read(records.open(folder))
    difference = compare(found, expected, every)
    total.readings += 1
    total.lost += difference.missing
    total.wrong += difference.wrong
    return found


def _finish(kind: Kind, folder: Path, every: Served, total: Kills) -> None:
    records = KINDS[kind]
    found = _check(kind, folder, every, total)
    space = records.open(folder)
    total.acknowledged += len(acknowledged(folder / "logs"))
    total.commits += len(space.commits())
    total.leftover_parts += len(describe(space).uncommitted_parts)
    total.claims_never_filled += sum(path.stat().st_size == 0 for path in (space.path / "commits").glob("*.json"))
    missing = [number for number in range(RECORDS) if not records.truth([number]).keys() <= found.keys()]
    for begin in range(0, len(missing), 64):
        records.append(space, missing[begin : begin + 64])
    difference = compare(records.read(space), every, every)
    total.missing_after_finishing += difference.missing
    total.wrong += difference.wrong
