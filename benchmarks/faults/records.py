"""Made-up records of each kind of store: a number enters, the record that follows from it leaves.

So any process can write them, and any process can tell whether what a store serves is true: `compare` counts what is
missing and what is wrong. Every seventh record is one that was left out for a reason. Shape letters: L layers, S steps,
R receivers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cache.fingerprints import Spec
from cache.keys import record_key
from cache.rationales import Attempt, RationaleStore
from cache.reader import AttentionStore
from cache.soft_labels.block import SoftLabelBlock
from cache.soft_labels.reader import SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Kind, Space, dropped_records
from cache.step_totals import RECEIVERS
from cache.writer import AttentionBlock, AttentionWriter
from data.records import Marked

SPEC: Spec = {"schema": 1, "teacher": {"source": "made up"}}
RECORDS = 300
"""Records that writers choose from."""
DROPPED_EACH = 7
"""Every seventh record is one that was left out for a reason."""
TOKENS, VOCABULARY = 5, 40
"""Of soft labels: those stored of a row, and all there are."""
ROWS_SPEC: Spec = {**SPEC, "layout": "top", "k": TOKENS, "vocabulary_size": VOCABULARY}

Served = dict[str, object]
"""What a store serves, by name: comparable, whole records."""


class Records(Protocol):
    """One kind of store, as writers and readers of made-up records need it."""

    spec: Spec

    def open(self, store: Path) -> Space:
        """Open the space below `store`, made anew where there is none."""

    def append(self, space: Space, numbers: Sequence[int]) -> None:
        """Commit the records of `numbers` as one part."""

    def truth(self, numbers: Sequence[int]) -> Served:
        """What a store with these records has to serve."""

    def read(self, space: Space) -> Served:
        """Read everything."""

    def view(self, space: Space) -> Callable[[], Served] | None:
        """Open the space, and return what reads all of it as it was then; None where every call reads anew."""


class AttentionRecords:
    """Attention of different shapes in zarr parts."""

    spec = SPEC

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
        return self.view(space)()

    def view(self, space: Space) -> Callable[[], Served]:
        """Open the store."""
        return partial(self._served, AttentionStore(space))

    def _served(self, store: AttentionStore) -> Served:
        keys = list(store)
        served: Served = dict(store.dropped)
        for key, found, totals in zip(keys, store.read(keys), store.read_totals(keys), strict=True):
            tokens = tuple(store.step_tokens(key).tolist())
            told = _totals(None if totals is None else totals.receivers())
            served[key] = (store.marked(key), found.shape, found.tobytes(), tokens, told)
        assert store.to_pandas().key.tolist() == keys
        return served


class SoftLabelRecords:
    """The most likely tokens of different numbers of rows in zarr parts."""

    spec = ROWS_SPEC

    def open(self, store: Path) -> Space:
        """Open the space."""
        return Space.open_or_create(store, "soft-labels", "made-up", self.spec)

    def append(self, space: Space, numbers: Sequence[int]) -> None:
        """Commit rows, and why other records were left out."""
        SoftLabelWriter(space).append(
            [_rows(number) for number in numbers if number % DROPPED_EACH],
            {_rows(number).key: "too long" for number in numbers if number % DROPPED_EACH == 0},
        )

    def truth(self, numbers: Sequence[int]) -> Served:
        """The bytes of all arrays of a record, and reasons."""
        return {
            block.key: _bytes(block) if number % DROPPED_EACH else "too long"
            for block, number in ((_rows(number), number) for number in numbers)
        }

    def read(self, space: Space) -> Served:
        """Decode all rows."""
        return self.view(space)()

    def view(self, space: Space) -> Callable[[], Served]:
        """Open the store."""
        return partial(self._served, SoftLabelStore(space))

    def _served(self, store: SoftLabelStore) -> Served:
        return {**store.dropped, **{block.key: _bytes(block) for block in store.read(list(store))}}


class RationaleRecords:
    """Attempts of a teacher in Parquet parts."""

    spec = SPEC

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

    def view(self, space: Space) -> None:
        """Attempts are read anew with every call."""


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


def _totals(receivers_LSR: npt.NDArray[np.floating[Any]] | None) -> bytes | None:
    return None if receivers_LSR is None else receivers_LSR.astype(np.float16).tobytes()


def _rows(number: int) -> SoftLabelBlock:
    """Rows in the types that are stored, so that they come back bit for bit."""
    chance = np.random.default_rng(number)
    rows = 1 + number % 9
    logits = np.tile(-np.log(2) * np.arange(VOCABULARY), (rows, 1))
    norms = [np.log(np.exp(logits / temperature).sum(axis=1)) for temperature in (1, 2)]
    order = np.argsort(chance.random((rows, VOCABULARY)), axis=1)
    return SoftLabelBlock(
        key=f"{number:064x}",
        ends=np.sort(chance.integers(0, 99, rows)).astype(np.int32),
        log_probability=-chance.random(rows).astype(np.float32),
        tokens=order[:, :TOKENS].astype(np.uint32),
        logits=logits[:, :TOKENS].astype(np.float16),
        log_norms=np.stack(norms, axis=1).astype(np.float32),
    )


def _bytes(block: SoftLabelBlock) -> tuple[tuple[str, tuple[int, ...], bytes], ...]:
    return tuple((name, array.shape, array.tobytes()) for name, array in block.arrays())


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


KINDS: Mapping[Kind, Records] = {
    "attention": AttentionRecords(),
    "soft-labels": SoftLabelRecords(),
    "rationales": RationaleRecords(),
}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How what a store serves differs from the truth."""

    missing: int
    wrong: int


def compare(found: Served, expected: Served, every: Served) -> Difference:
    """Count what of `expected` is missing, and what was found that is not as in `every`."""
    wrong = sum(name not in every or every[name] != value for name, value in found.items())
    return Difference(missing=len(expected.keys() - found.keys()), wrong=wrong)
