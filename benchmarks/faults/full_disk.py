"""Appends to a store on a full disk: how many free pages to try enters, counts of what was refused or lost leave."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.records import KINDS, RECORDS, compare
from benchmarks.faults.results import Result
from benchmarks.faults.small_disk import make_larger, run_on_small_disk
from cache.durable import DISK_FULL
from cache.spaces import Kind, describe

PAGE = 4096


@dataclass(kw_only=True)
class FullDisk(Result):
    """What happened on a small disk."""

    tries: int = 0
    refused: int = 0
    commits_before: int = 0
    lost: int = 0
    wrong: int = 0

    def bad(self) -> bool:
        """Whether anything was lost or wrong, or an error was not what it has to be."""
        return bool(self.lost or self.wrong or self.problems)


def fill_disk(kind: Kind, folder: Path, pages: int) -> FullDisk:
    """Run `fill_small_disk` where `folder` is a small disk."""
    return run_on_small_disk(FullDisk, ["--fill", str(folder), "--kind", kind, "--pages", str(pages)], folder)


def fill_small_disk(kind: Kind, disk: Path, pages: int) -> FullDisk:
    """Append until the disk is full, go on after space was made, then let it be full at every moment of an append."""
    full = FullDisk()
    _append_until_full(kind, disk / "until-full", full)
    make_larger(disk)
    _go_on(kind, disk / "until-full", range(RECORDS), full)
    for left in range(pages):
        _begin_with_pages_left(kind, disk / f"pages-{left}", disk / "ballast", left, full)
    return full


def _append_until_full(kind: Kind, store: Path, full: FullDisk) -> None:
    records = KINDS[kind]
    space = records.open(store)
    stored: list[int] = []
    for _ in range(3):  # the second and third time the disk is full from the beginning
        try:
            for number in range(len(stored), 10**6):
                full.tries += 1
                records.append(space, [number % RECORDS])
                stored.append(number % RECORDS)
        except OSError as error:
            _check_refusal(error, full)
        _check_space(kind, store, sorted(set(stored)), full)
    full.commits_before = len(space.commits())
    if left := describe(space).uncommitted_parts:
        full.problems.append(f"parts that could not be committed keep the disk full: {left}")


def _check_refusal(error: OSError, full: FullDisk) -> None:
    full.refused += 1
    if error.errno not in DISK_FULL or error.filename is None:
        full.problems.append(f"an error that does not say which disk is full: {error!r}")


def _check_space(kind: Kind, store: Path, numbers: Sequence[int], full: FullDisk) -> None:
    records = KINDS[kind]
    difference = compare(records.read(records.open(store)), records.truth(numbers), records.truth(range(RECORDS)))
    full.lost += difference.missing
    full.wrong += difference.wrong


def _go_on(kind: Kind, store: Path, numbers: Sequence[int], full: FullDisk) -> None:
    records = KINDS[kind]
    for begin in range(0, len(numbers), 64):
        records.append(records.open(store), numbers[begin : begin + 64])
    _check_space(kind, store, numbers, full)


def _begin_with_pages_left(kind: Kind, store: Path, ballast: Path, left: int, full: FullDisk) -> None:
    """A new space on a disk with `left` free pages: what does not fit leaves nothing, and goes on later."""
    free = shutil.disk_usage(ballast.parent).free
    ballast.write_bytes(bytes(max(free - left * PAGE, 0)))
    full.tries += 1
    stored: list[int] = []
    try:
        for number in (1, 2, 3):
            KINDS[kind].append(KINDS[kind].open(store), [number])
            stored.append(number)
    except OSError as error:
        _check_refusal(error, full)
    if stored:
        _check_space(kind, store, stored, full)
    ballast.unlink()
    _go_on(kind, store, [1, 2, 3, 4], full)
