"""Reading soft labels: a space enters, a mapping from record key to its rows leaves, and the teacher's head.

What opening costs and checks is that of all parts of arrays (`cache.parts.reader`).

Letters: n records of a part, N rows of a record, V tokens of the vocabulary, C width of the hidden state.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.commits import VERIFY, Commit
from cache.keys import KeyRows
from cache.layout import CHUNK_ROWS, Array
from cache.parts.reader import Part, PartsStore, rows_of_keys
from cache.soft_labels.block import FIELDS, Head, SoftLabelBlock
from cache.soft_labels.layout import HEAD, RowsSpec, SoftLabelLayout, layout_of, rows_spec
from cache.spaces import Space
from data.errors import DamagedCacheError, MissingRecordsError

COMPUTES = "`molsaki soft-labels CONFIG`"


class SoftLabelPart(Part):
    """One committed part of soft labels with records."""

    @cached_property
    def row_offset(self) -> npt.NDArray[np.int64]:
        """(n + 1,): where the rows of each record begin."""
        stored: npt.NDArray[np.int64] = self.read_array("row_offset")
        if not np.array_equal(stored, self.added_up(np.diff(stored), "rows")):
            raise DamagedCacheError(f"{self.folder / 'row_offset'}: does not begin with 0; {VERIFY}")
        return stored

    @cached_property
    def row_bytes(self) -> int:
        """What a row takes in memory."""
        sizes = self.layout.sizes(self.counts)
        arrays = [array for name, array in self.layout.arrays.items() if name in FIELDS]
        return sum(math.prod(array.shape(sizes)[1:]) * np.dtype(array.dtype).itemsize for array in arrays)

    def read(self, numbers: Sequence[int]) -> list[SoftLabelBlock]:
        """Return the rows of some records; what lies close together is decoded at once."""
        found: dict[int, SoftLabelBlock] = {}
        for run in self._runs(sorted(set(numbers))):
            first, last = int(self.row_offset[run[0]]), int(self.row_offset[run[-1] + 1])
            arrays = {name: self.read_rows(name, first, last) for name in self.layout.arrays if name in FIELDS}
            for number in run:
                own = slice(int(self.row_offset[number]) - first, int(self.row_offset[number + 1]) - first)
                found[number] = block_of(self.keys[number], {name: array[own].copy() for name, array in arrays.items()})
        return [found[number] for number in numbers]

    def _runs(self, numbers: Sequence[int]) -> Iterator[Sequence[int]]:
        """Yield records in runs, between whose rows less than a chunk lies."""
        far = [
            place
            for place, (one, other) in enumerate(pairwise(numbers), 1)
            if self.row_offset[other] - self.row_offset[one + 1] >= CHUNK_ROWS
        ]
        for start, end in pairwise([0, *far, len(numbers)]):
            yield numbers[start:end]


class SoftLabelStore(PartsStore[SoftLabelPart, SoftLabelBlock]):
    """All committed records of a space of soft labels by key."""

    kind = "soft-labels"
    computes = COMPUTES

    def _open_parts(self, commits: Sequence[Commit]) -> list[SoftLabelPart]:
        self.rows = rows_spec(self.space.spec)
        layouts = [layout_of(self.rows, commit.files) for commit in commits]
        parts = [(layout, commit) for layout, commit in zip(layouts, commits, strict=True)]
        self._heads = [Part(self.space, commit, layout) for layout, commit in parts if not layout.has_records]
        return [SoftLabelPart(self.space, commit, layout) for layout, commit in parts if layout.has_records]

    def _read(self, part: SoftLabelPart, rows: Sequence[int]) -> Sequence[SoftLabelBlock]:
        return part.read(rows)

    @property
    def layout(self) -> SoftLabelLayout:
        """What its rows hold."""
        return self.rows.layout

    def rows_of(self, key: str) -> int:
        """Return N of a record, decoding none of its rows."""
        number, place = self.find(key)
        first, last = self.parts[number].row_offset[place : place + 2]
        return int(last - first)

    def within(self, keys: Sequence[str], most_bytes: int) -> Iterator[Sequence[str]]:
        """Yield keys in order, so many at a time as have rows of `most_bytes` in memory, one at least."""
        self.check_stored(keys)
        first = total = 0
        for place, key in enumerate(keys):
            size = self.rows_of(key) * self.parts[self.find(key)[0]].row_bytes
            if place > first and total + size > most_bytes:
                yield keys[first:place]
                first, total = place, 0
            total += size
        if keys:
            yield keys[first:]

    @property
    def has_head(self) -> bool:
        """Whether the teacher's head is stored."""
        return bool(self._heads)

    def head(self) -> Head:
        """Decode the head; of several that were written at once the first counts.

        Raises `MissingRecordsError` where there is none, as in all layouts but `hidden`.
        """
        if not self._heads:
            raise MissingRecordsError(f"{self.space.path}: no head of the teacher stored; {COMPUTES} stores it")
        part = self._heads[0]
        bias = part.read_array("head_bias") if part.holds("head_bias") else None
        return Head(weight=part.read_array(HEAD), bias=bias)


def block_of(key: str, arrays: dict[str, Array]) -> SoftLabelBlock:
    """Return the block of a record from its rows of each array."""
    fields: dict[str, Any] = {FIELDS[name]: array for name, array in arrays.items()}
    return SoftLabelBlock(key=key, **fields)


def recorded_rows(space: Space) -> KeyRows:
    """Return the keys of all stored records as bytes (n, 32), those of a record that lies in two parts twice."""
    rows = rows_spec(space.spec)
    return rows_of_keys(part for part in _all_parts(space, rows) if part.layout.has_records)


def _all_parts(space: Space, rows: RowsSpec) -> Iterator[Part]:
    for commit in space.commits():
        if commit.part is not None:
            yield Part(space, commit, layout_of(rows, commit.files))
