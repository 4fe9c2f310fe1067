"""What opening a large store costs: a number of records enters, a store of so many leaves; then seconds and memory.

The records are as small as can be, one step, one word and one layer, with keys of their own: opening reads keys,
commits and metadata, and of attention nothing but the sizes of its files. No torch is imported here, for readers of a
store need none, and it would weigh more than the index.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.keys import record_key
from cache.layout import MAX_RECORDS
from cache.reader import AttentionStore
from cache.spaces import Space
from cache.step_totals import RECEIVERS
from cache.writer import AttentionBlock, AttentionWriter
from data.records import Marked
from stages.bench.measure import Memory, drop, nothing
from stages.runtime.memory import peak_resident_bytes, resident_bytes

RATIONALE = "So 1."


@dataclass(frozen=True, kw_only=True)
class IndexJob:
    """A store of `records` records below `folder`."""

    folder: Path
    records: int

    @property
    def parts(self) -> int:
        """How many parts it has."""
        return -(-self.records // MAX_RECORDS)


@dataclass(frozen=True, kw_only=True)
class Opening(Memory):
    """A store opened in a fresh process: seconds, and memory before it (libraries included) and at most."""

    records: int
    open_seconds: float
    dropped: bool
    """Whether the files' pages had been given up before."""


def write_index(job: IndexJob, *, after_each: Callable[[], object] = nothing) -> str:
    """Write the store and return its space's folder."""
    space = Space.open_or_create(job.folder, "attention", "index", {"schema": 1, "rounding": None})
    writer = AttentionWriter(space)
    for first in range(0, job.records, MAX_RECORDS):
        writer.append([_smallest(number) for number in range(first, min(first + MAX_RECORDS, job.records))])
        after_each()
    return str(space.path)


def _smallest(number: int) -> AttentionBlock:
    question = f"Question {number}?"
    start = len(question) + 1
    marked = Marked(
        question=question,
        rationale=RATIONALE,
        text=f"{question}\n{RATIONALE}",
        step_spans=((start, start + len(RATIONALE)),),
        critical_spans=((start + 3, start + 4),),
    )
    return AttentionBlock(
        key=record_key(marked),
        marked=marked,
        attention=np.ones((1, 1, 1), dtype=np.float32),
        step_tokens=np.ones(1, dtype=np.int32),
        receivers=np.zeros((1, 1, len(RECEIVERS)), dtype=np.float32),
    )


def open_index(job: IndexJob) -> Opening:
    """Open the store that `write_index` has made, in a process that has done nothing else."""
    (path,) = (job.folder / "attention").iterdir()
    dropped = drop(path)
    baseline, started = resident_bytes(), time.perf_counter()
    store = AttentionStore.open(path)
    return Opening(
        open_seconds=time.perf_counter() - started,
        records=len(store),
        baseline_bytes=baseline,
        peak_bytes=peak_resident_bytes(),
        dropped=dropped,
    )
