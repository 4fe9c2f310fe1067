"""Flipped bits and damaged files: a store that is whole enters, counts of how each damage was noticed leave."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.faults.records import DROPPED_EACH, KINDS, Served, compare
from benchmarks.faults.results import Result
from cache.spaces import OF_ARRAYS, Kind, Space
from data.errors import MolsakiError

Outcome = Literal["detected", "harmless", "hidden", "wrong", "crash"]


@dataclass(kw_only=True)
class Damage(Result):
    """How often damage was detected, harmless or worse; `problems` names what was neither."""

    outcomes: dict[Outcome, int] = field(default_factory=dict)
    by_file: dict[str, dict[Outcome, int]] = field(default_factory=dict)
    files: int = 0

    def add(self, outcome: Outcome, path: Path, what: str, *, allowed: bool) -> None:
        """Count an outcome."""
        for counts in (self.outcomes, self.by_file.setdefault(_sort_of_file(path), {})):
            counts[outcome] = counts.get(outcome, 0) + 1
        if not allowed:
            self.problems.append(f"{what} in {path}: {outcome}")

    def counts(self) -> dict[str, int]:
        """Tries and outcomes, the worst ones in any case."""
        outcomes = {"wrong": 0, "crash": 0} | {str(name): count for name, count in self.outcomes.items()}
        return {"files": self.files, "tries": sum(outcomes.values()), **outcomes}


def _sort_of_file(path: Path) -> str:
    if path.parent.name == "commits":
        return "commits"
    return "metadata" if path.name == "zarr.json" else "spec.json" if path.name == "spec.json" else "data"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A store to be damaged, and what it has to serve."""

    kind: Kind
    space: Space
    truth: Served

    @property
    def files(self) -> list[Path]:
        """All files of the space."""
        return sorted(path for path in self.space.path.rglob("*") if path.is_file())

    def outcome(self) -> tuple[Outcome, str]:
        """Open the space, read everything, and say how that ended."""
        try:
            found = KINDS[self.kind].read(Space.open(self.space.path, expected=KINDS[self.kind].spec))
        except MolsakiError as error:
            return "detected", str(error)
        except Exception as error:
            return "crash", repr(error)
        difference = compare(found, self.truth, self.truth)
        if difference.wrong:
            return "wrong", f"{difference.wrong} records"
        return ("hidden", f"{difference.missing} records") if difference.missing else ("harmless", "")


def make_sample(kind: Kind, store: Path, parts: int = 3) -> Sample:
    """Write a store of some parts, and of one commit without a part where the kind knows such."""
    records = KINDS[kind]
    space = records.open(store)
    numbers = list(range(4 * parts))
    for begin in range(0, len(numbers), 4):
        records.append(space, numbers[begin : begin + 4])
    if kind in OF_ARRAYS:
        records.append(space, [DROPPED_EACH * 100])
        numbers.append(DROPPED_EACH * 100)
    return Sample(kind=kind, space=space, truth=records.truth(numbers))


def flip_bits(sample: Sample, flips: int, seed: int, done: Callable[[], None] = lambda: None) -> Damage:
    """Flip one bit at a time: any file with the same chance, any bit in it."""
    chance, files = random.Random(seed), sample.files
    damage = Damage(files=len(files))
    for _ in range(flips):
        path = chance.choice(files)
        content = path.read_bytes()
        bit = chance.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        outcome, why = sample.outcome()
        path.write_bytes(content)
        damage.add(outcome, path, f"bit {bit} ({why})", allowed=outcome in {"detected", "harmless"})
        done()
    assert sample.outcome()[0] == "harmless", "the store was not restored"
    return damage


def _zero_first_block(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes(min(512, len(content))) + content[512:])


DAMAGES: Mapping[str, Callable[[Path], object]] = {
    "truncated to half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "first block zeroed": _zero_first_block,
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


def damage_files(sample: Sample, files: Sequence[Path], done: Callable[[], None] = lambda: None) -> Damage:
    """Damage each of `files` in every way of `DAMAGES`, restoring it in between."""
    damage = Damage(files=len(files))
    for path in files:
        content = path.read_bytes()
        for name, inflict in DAMAGES.items():
            inflict(path)
            outcome, why = sample.outcome()
            is_commit_gone = path.parent.name == "commits" and name in {"emptied", "deleted"}
            allowed = outcome in ({"hidden"} if is_commit_gone else {"detected", "harmless"})
            path.write_bytes(content)
            damage.add(outcome, path, f"{name} ({why})", allowed=allowed)
            done()
    assert sample.outcome()[0] == "harmless", "the store was not restored"
    return damage
