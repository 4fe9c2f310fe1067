"""What a store survives: kills, flipped bits, damaged files, a full disk, readers beside writers, clocks, signals.

In: nothing but options. Out: counts, and exit code 1 as soon as a committed record is lost or a wrong one is served.
All records follow from a number, so that any process can tell whether what a store serves is true. The tests run the
same functions with smaller numbers (tests/cache/test_faults.py).

Counted, for attention (zarr) and rationales (Parquet) alike:

- **kills**: three writers on one space, each killed with SIGKILL at random moments and restarted at once. They choose
  records at random and so compute many of them twice. Every append that had returned is an acknowledged one; `lost`
  counts acknowledged records that cannot be read, `wrong` those that are not the true ones. Every second round runs as
  if the file system knew no hard links. In the end the missing records are computed, and all have to be there.
- **flips**: one random bit of one random file; everything is read. `detected` is an error of ours, `harmless` that all
  records are equal, `hidden` that one is missing without a word, `crash` an exception that is none of ours.
- **damage**: every file of a store in turn truncated, zeroed, emptied, extended, deleted. A commit that is deleted or
  emptied hides its part (nothing else says that it was there); these are the only ones allowed to, and the next run
  computes the records again.
- **full disk**: a small tmpfs of our own (`unshare`), full at every possible moment of an append; and under `molsaki`.
- **readers** beside writers, **same** records by two writers at once, **stops** by SIGTERM, **clocks** that are wrong.

    python benchmarks/faults.py --kills 200 --flips 1000
    python benchmarks/faults.py --kind rationales --kills 20 --flips 100 --json
"""

import argparse
import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cache.durable import DISK_FULL
from cache.keys import record_key
from cache.rationales import Attempt, RationaleStore
from cache.reader import AttentionStore
from cache.receivers import RECEIVERS
from cache.spaces import Kind, Space, describe, dropped_records
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import Interrupted, MolsakiError
from data.records import Marked
from stages.progress import StopSignal

SPEC = {"schema": 1, "teacher": {"source": "made up"}}
WRITERS = 3
RECORDS = 300
"""Records that the writers of one round choose from."""
KILLS_A_ROUND = 25
LONGEST_WAIT = 0.25
"""Seconds after which a writer at work is killed at the latest."""
PATIENCE = 120.0
"""Seconds after which a writer that has not begun counts as hanging."""
DROPPED_EACH = 7
"""Every seventh record is one that was left out for a reason."""
SMALL_DISK = "1m"
LARGER_DISK = "64m"
PAGE = 4096

Outcome = Literal["detected", "harmless", "hidden", "wrong", "crash"]
Served = dict[str, object]
"""What a store serves, by name: comparable, whole records."""

processes = multiprocessing.get_context("forkserver")
# Writers start at once where what they need is imported already; a script's own name cannot be imported there.
processes.set_forkserver_preload(
    ["cache.rationales", "cache.reader", "cache.writer", "stages.progress", "rich.progress", "rich.table"]
    if __name__ in {"__main__", "__mp_main__"}
    else [__name__]
)


# Records ----------------------------------------------------------------------------------------------------------


class Records(Protocol):
    """One kind of store, as this file needs it."""

    def open(self, store: Path) -> Space:
        """Open the space below `store`, made anew where there is none."""

    def append(self, space: Space, numbers: Sequence[int]) -> None:
        """Commit the records of `numbers` as one part."""

    def truth(self, numbers: Sequence[int]) -> Served:
        """What a store with these records has to serve."""

    def read(self, space: Space) -> Served:
        """Read everything."""


class AttentionRecords:
    """Attention of different shapes in zarr parts."""

    def open(self, store: Path) -> Space:
        """Open the space."""
        return Space.open_or_create(store, "attention", "made-up", SPEC)

    def append(self, space: Space, numbers: Sequence[int]) -> None:
        """Commit blocks, and why others were left out."""
        AttentionWriter(space).append(
            [_block(number) for number in numbers if number % DROPPED_EACH],
            {_block(number).key: "too long" for number in numbers if number % DROPPED_EACH == 0},
        )

    def truth(self, numbers: Sequence[int]) -> Served:
        """Blocks as float16, and reasons."""
        served: Served = {}
        for block, number in ((_block(number), number) for number in numbers):
            stored = block.attention.astype(np.float16)
            served[block.key] = (
                (
                    block.marked,
                    stored.shape,
                    stored.tobytes(),
                    tuple(block.step_tokens.tolist()),
                    _totals(block.receivers),
                )
                if number % DROPPED_EACH
                else "too long"
            )
        return served

    def read(self, space: Space) -> Served:
        """Decode all attention, texts and spans."""
        store = AttentionStore(space)
        keys = list(store)
        served: Served = dict(store.dropped)
        for key, found, totals in zip(keys, store.read(keys), store.read_totals(keys), strict=True):
            tokens = tuple(store.step_tokens(key).tolist())
            told = _totals(None if totals is None else totals.receivers())
            served[key] = (store.marked(key), found.shape, found.tobytes(), tokens, told)
        assert store.to_pandas().key.tolist() == keys
        return served


class RationaleRecords:
    """Attempts of a teacher in Parquet parts."""

    def open(self, store: Path) -> Space:
        """Open the space."""
        return Space.open_or_create(store, "rationales", "made-up", SPEC)

    def append(self, space: Space, numbers: Sequence[int]) -> None:
        """Commit attempts."""
        RationaleStore(space).append([_attempt(number) for number in numbers])

    def truth(self, numbers: Sequence[int]) -> Served:
        """Attempts, and why some were dropped."""
        attempts = [_attempt(number) for number in numbers]
        reasons = {each.label: each.outcome for each in attempts if each.outcome != "kept"}
        return {**{each.key: each for each in attempts}, **reasons}

    def read(self, space: Space) -> Served:
        """Read all attempts and reasons."""
        attempts = RationaleStore(space).attempts()
        return {**{each.key: each for each in attempts.values()}, **dropped_records(space.commits())}


def _block(number: int) -> AttentionBlock:
    chance = np.random.default_rng(number)
    layers, steps, words = 4, 1 + number % 5, 1 + number % 4
    question, rationale = f"Wie groß ist {number}?", f"So groß wie {number}; " * (1 + number % 3)
    marked = Marked(
        question=question,
        rationale=rationale,
        text=f"{question}\n{rationale}",
        step_spans=tuple((step, step + 1) for step in range(steps)),
        critical_spans=tuple((word, word + 2) for word in range(0, 2 * words, 2)),
    )
    return AttentionBlock(
        key=record_key(marked),
        marked=marked,
        attention=chance.gamma(0.5, size=(layers, steps, words)).astype(np.float32),
        step_tokens=chance.integers(1, 20, steps),
        receivers=chance.gamma(0.5, size=(layers, steps, len(RECEIVERS))).astype(np.float32),
    )


def _totals(receivers_LSR: np.ndarray | None) -> bytes | None:
    return None if receivers_LSR is None else receivers_LSR.astype(np.float16).tobytes()


def _attempt(number: int) -> Attempt:
    output = np.random.default_rng(number).bytes(40 + number % 50).hex()
    kept = number % DROPPED_EACH != 0
    return Attempt(
        key=f"{number:064x}",
        question_id=str(number),
        dataset="made up",
        question=f"Wie groß ist {number}?",
        gold=str(number),
        phase="plain",
        output=output,
        rationale=output if kept else "",
        answer=str(number),
        outcome="kept" if kept else "wrong answer",
    )


KINDS: Mapping[Kind, Records] = {"attention": AttentionRecords(), "rationales": RationaleRecords()}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How what a store serves differs from the truth."""

    missing: int
    wrong: int


def compare(found: Served, expected: Served, every: Served) -> Difference:
    """Count what of `expected` is missing, and what was found that is not as in `every`."""
    wrong = sum(name not in every or every[name] != value for name, value in found.items())
    return Difference(missing=len(expected.keys() - found.keys()), wrong=wrong)


# Writers ----------------------------------------------------------------------------------------------------------


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
            os.write(log, b"begin\n")
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
    process = processes.Process(target=write, args=(job,))
    process.start()
    return process


def acknowledged(logs: Path) -> set[int]:
    """The records whose append has returned in any writer so far."""
    lines = (line for path in logs.glob("*.log") for line in path.read_text().splitlines(keepends=True))
    whole = (line.split() for line in lines if line.endswith("\n") and line != "begin\n")
    return {int(number) for numbers in whole for number in numbers}


def is_inside_append(log: Path) -> bool:
    """Whether a writer that is no more had begun an append that did not return."""
    return log.exists() and log.read_text().endswith("begin\n")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return once `condition` holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {PATIENCE:.0f} s")
        time.sleep(0.005)


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


# Kills ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Kills:
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
        _kill_round(kind, folder / f"round-{number}", size, seed + number, total, done, hard_links=number % 2 == 0)
    return total


def _kill_round(
    kind: Kind, folder: Path, kills: int, seed: int, total: Kills, done: Callable[[], None], *, hard_links: bool
) -> None:
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
            written = chance.choice([len("begin\n") + 1, len("begin\n") + 1, 1, 0])
            wait_until(lambda log=job.log, size=written: _size(log) >= size, f"progress of {job.log}")
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


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


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


# Flipped bits and damaged files -----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Damage:
    """How often damage was detected, harmless or worse; `examples` names what was neither."""

    outcomes: dict[Outcome, int] = field(default_factory=dict)
    by_file: dict[str, dict[Outcome, int]] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    files: int = 0

    def add(self, outcome: Outcome, path: Path, what: str, *, allowed: bool) -> None:
        """Count an outcome."""
        for counts in (self.outcomes, self.by_file.setdefault(_sort_of_file(path), {})):
            counts[outcome] = counts.get(outcome, 0) + 1
        if not allowed:
            self.examples.append(f"{what} in {path}: {outcome}")

    def bad(self) -> bool:
        """Whether anything was served that is wrong, or was hidden, or fell over."""
        return bool(self.examples)


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
            found = KINDS[self.kind].read(Space.open(self.space.path, expected=SPEC))
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
    if kind == "attention":
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


# A full disk ------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class FullDisk:
    """What happened on a small disk; `skipped` says why nothing could be tried."""

    skipped: str = ""
    tries: int = 0
    refused: int = 0
    commits_before: int = 0
    lost: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def bad(self) -> bool:
        """Whether anything was lost or wrong, or an error was not what it has to be."""
        return bool(self.lost or self.wrong or self.problems)


NAMESPACES = (("unshare", "--map-root-user", "--mount"), ("unshare", "--mount"))
"""Ways to a mount that nobody else sees and that goes with its process: without and with the rights of root."""


def on_small_disk(arguments: Sequence[str], folder: Path, script: Path = Path(__file__)) -> tuple[list[str], str]:
    """Return the command that runs `script` with `arguments` where `folder` is a small tmpfs, or why there is none."""
    mount = f"mount -t tmpfs -o size={SMALL_DISK} small"
    for namespace in NAMESPACES:
        if shutil.which(namespace[0]) is None:
            continue
        tried = subprocess.run([*namespace, *mount.split(), folder], capture_output=True, check=False)  # noqa: S603
        if tried.returncode == 0:
            command = f'{mount} "$0" && exec "$@"'
            python = [sys.executable, "-P", str(script.resolve()), *arguments]
            return [*namespace, "sh", "-c", command, str(folder), *python], ""
    return [], "no small tmpfs can be mounted here (neither as root nor with `unshare --map-root-user --mount`)"


def fill_disk(kind: Kind, folder: Path, pages: int) -> FullDisk:
    """Run `fill_small_disk` where `folder` is a small disk."""
    folder.mkdir(parents=True, exist_ok=True)
    command, reason = on_small_disk(["--on-small-disk", str(folder), "--kind", kind, "--pages", str(pages)], folder)
    if not command:
        return FullDisk(skipped=reason)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return FullDisk(problems=[f"ended with {done.returncode}: {done.stderr.strip()}"])
    return FullDisk(**json.loads(done.stdout.splitlines()[-1]))


def fill_small_disk(kind: Kind, disk: Path, pages: int) -> FullDisk:
    """Append until the disk is full, go on after space was made, then let it be full at every moment of an append."""
    full = FullDisk()
    _append_until_full(kind, disk / "until-full", full)
    remount(disk, LARGER_DISK)
    _go_on(kind, disk / "until-full", range(RECORDS), full)
    for left in range(pages):
        _begin_with_pages_left(kind, disk / f"pages-{left}", disk / "ballast", left, full)
    return full


def remount(disk: Path, size: str) -> None:
    """Make the small disk larger."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)  # noqa: S603, S607


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


# The command line on a full disk ----------------------------------------------------------------------------------

CONFIGURATION = """\
name: small
store: {store}
data: {{train: [{{name: svamp, path: train.jsonl}}]}}
teacher: {{model: ./teacher}}
rationales: {{engine: file, path: rationales.jsonl, piece: 20, second_phase: false}}
student: {{model: ./teacher}}
"""
QUESTIONS = 400


def write_experiment(folder: Path, store: Path) -> None:
    """Write a configuration whose rationales come from a file and need more room than the small disk has."""
    chance = np.random.default_rng(0)
    (folder / "teacher").mkdir(parents=True)
    for name, content in (("config.json", "{}"), ("model.safetensors", "made up"), ("tokenizer.json", "{}")):
        (folder / "teacher" / name).write_text(content)
    problem = {"Body": "Ann has 3 figs and finds 2.", "Question": "How many figs?", "Answer": 5}
    questions = [{"ID": f"q-{n}", **problem} for n in range(QUESTIONS)]
    rationales = [
        {"id": f"q-{n}", "rationale": f"3 and 2 make 5. {chance.bytes(2500).hex()}.", "answer": "5"}
        for n in range(QUESTIONS)
    ]
    for name, rows in (("train.jsonl", questions), ("rationales.jsonl", rationales)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.yaml").write_text(CONFIGURATION.format(store=store))


def fill_disk_by_command(folder: Path) -> FullDisk:
    """Run `fill_small_disk_by_command` where `<folder>/disk` is a small disk."""
    (disk := folder / "disk").mkdir(parents=True)
    command, reason = on_small_disk(["--command-on-small-disk", str(folder)], disk)
    if not command:
        return FullDisk(skipped=reason)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return FullDisk(problems=[f"ended with {done.returncode}: {done.stderr.strip()}"])
    return FullDisk(**json.loads(done.stdout.splitlines()[-1]))


def fill_small_disk_by_command(folder: Path) -> FullDisk:
    """`molsaki rationales` with its store on the small disk, and with its run folder there."""
    full, disk = FullDisk(), folder / "disk"
    write_experiment(folder / "work", disk / "store")
    _expect_refusal(folder, disk, ["--runs", str(disk / "runs")], full)
    (space,) = (Space.open(path) for path in (disk / "store" / "rationales").iterdir())
    before = RationaleStore(space).attempts()
    full.commits_before = len(space.commits())
    if not before:
        full.problems.append("nothing was committed before the disk was full: nothing is shown")
    remount(disk, LARGER_DISK)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free))
    _expect_refusal(folder, disk, ["--runs", str(disk / "runs")], full)
    ballast.unlink()
    after = _molsaki(folder, ["--runs", str(disk / "runs")])
    if after.returncode:
        full.problems.append(f"does not go on after space was made: {after.stderr.strip()}")
    attempts = RationaleStore(space).attempts()
    full.lost += len(before.keys() - attempts.keys()) + QUESTIONS - len(attempts)
    full.wrong += sum(attempts.get(name) != attempt for name, attempt in before.items())
    return full


def _molsaki(folder: Path, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pipeline", "rationales", "run.yaml", "--quiet", *options]
    return subprocess.run(command, cwd=folder / "work", capture_output=True, text=True, check=False)  # noqa: S603


def _expect_refusal(folder: Path, disk: Path, options: Sequence[str], full: FullDisk) -> None:
    full.tries += 1
    ended = _molsaki(folder, options)
    said = ended.stderr.strip()
    if ended.returncode != 1 or len(said.splitlines()) != 1 or str(disk) not in said or "go on" not in said:
        full.problems.append(f"expected one line that names {disk} and exit code 1, found {ended.returncode}: {said}")
    else:
        full.refused += 1


# Side by side: readers, equal writers, stops, clocks --------------------------------------------------------------


@dataclass(kw_only=True)
class Check:
    """One thing that was tried `tries` times; `problems` says what went wrong."""

    tries: int = 0
    problems: list[str] = field(default_factory=list)

    def bad(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.problems)

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
    """A store that was opened at some time; rationales are read anew with every call, attention stays as it was."""

    def __init__(self, kind: Kind, space: Space) -> None:
        self._store = AttentionStore(space) if kind == "attention" else None
        self._keys = [] if self._store is None else list(self._store)

    def is_as_at_opening(self, every: Served) -> bool:
        """Whether the same keys are there, with the true records."""
        if self._store is None:
            return True
        blocks = self._store.read(self._keys)
        truths = [every[key] for key in self._keys]
        return list(self._store) == self._keys and all(
            isinstance(truth, tuple) and truth[2] == block.tobytes()
            for truth, block in zip(truths, blocks, strict=True)
        )


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
            wait_until(lambda log=job.log: _size(log) > 0, "beginning of a writer")
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


# Command line -----------------------------------------------------------------------------------------------------

Result = Kills | Damage | FullDisk | Check


def run_kind(kind: Kind, folder: Path, options: argparse.Namespace, progress: Progress) -> Iterator[tuple[str, Result]]:
    """Do everything for one kind of store, and give each result with its name."""

    def task(name: str, total: int) -> Callable[[], None]:
        number = progress.add_task(f"{kind}: {name}", total=total)
        return lambda: progress.advance(number)

    seed = options.seed
    yield "kills", kill_writers(kind, folder / "kills", options.kills, seed, task("kills", options.kills))
    sample = make_sample(kind, folder / "flips")
    yield "flips", flip_bits(sample, options.flips, seed, task("flips", options.flips))
    files = sample.files
    yield "damage", damage_files(sample, files, task("damage", len(files) * len(DAMAGES)))
    for name, count, check in (
        ("readers", 20, read_beside_writers),
        ("same", 20, write_the_same),
        ("stops", 10, stop_writers),
    ):
        step = task(name, 1)
        yield name, check(kind, folder / name, count, seed)
        step()
    yield "clocks", change_clocks(kind, folder / "clocks", seed)
    step = task("full disk", 1)
    yield "full disk", fill_disk(kind, folder / "disk", options.pages)
    step()
    if kind == "rationales":
        step = task("full disk, command", 1)
        yield "full disk, command", fill_disk_by_command(folder / "command")
        step()


def describe_result(result: Result) -> str:
    """One line of counts."""
    if isinstance(result, Damage):
        counts = {
            "files": result.files,
            "tries": sum(result.outcomes.values()),
            "wrong": 0,
            "crash": 0,
            **result.outcomes,
        }
    elif isinstance(result, FullDisk) and result.skipped:
        return f"skipped: {result.skipped}"
    else:
        counts = {name: count for name, count in asdict(result).items() if isinstance(count, int)}
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())


def problems_of(result: Result) -> list[str]:
    """What went wrong, in words."""
    if isinstance(result, Kills):
        return []
    return result.examples if isinstance(result, Damage) else result.problems


def main() -> None:
    """Read the options, do it and print counts; or be the process that works on a small disk."""
    options = _options()
    if options.on_small_disk:
        print(json.dumps(asdict(fill_small_disk(options.kind, options.on_small_disk, options.pages))))
        return
    if options.command_on_small_disk:
        print(json.dumps(asdict(fill_small_disk_by_command(options.command_on_small_disk))))
        return
    # numcodecs' locks outlive writers that are killed; they are removed in the end, with a warning that says just that.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"
    kinds: list[Kind] = list(KINDS) if options.kind == "both" else [options.kind]
    results: list[tuple[Kind, str, Result, float]] = []
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        Progress(console=console, transient=True) as progress,
    ):
        for kind in kinds:
            before = time.monotonic()
            for name, result in run_kind(kind, Path(folder) / kind, options, progress):
                results.append((kind, name, result, time.monotonic() - before))
                before = time.monotonic()
    _print(results, as_json=options.json)
    sys.exit(int(any(result.bad() for _, _, result, _ in results)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kills over three writers, for each kind of store")
    parser.add_argument("--flips", type=int, default=1000, help="flipped bits, for each kind of store")
    parser.add_argument("--kind", choices=[*KINDS, "both"], default="both")
    parser.add_argument("--pages", type=int, default=60, help="a disk with no free page, with one, … up to this many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--on-small-disk", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--command-on-small-disk", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _print(results: Sequence[tuple[Kind, str, Result, float]], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"kind": kind, "case": name, "seconds": round(seconds, 1), "bad": result.bad(), **asdict(result)}
            for kind, name, result, seconds in results
        ]
        print(json.dumps(rows, indent=1))
        return
    table = Table("store", "case", "counts", "seconds", "", show_lines=True)
    for kind, name, result, seconds in results:
        table.add_row(kind, name, describe_result(result), f"{seconds:.0f}", "BAD" if result.bad() else "ok")
    Console().print(table)
    for kind, name, result, _ in results:
        for problem in problems_of(result):
            print(f"{kind}, {name}: {problem}")


if __name__ == "__main__":
    main()
