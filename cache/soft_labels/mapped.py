"""Soft labels as training reads them: a store enters, all of its rows in one memory map leave.

    <store>/rows/<space>-<first 16 digits of a fingerprint>.rows

Rows are read again and again in any order, for which zarr decodes far too much. They lie in one file for all records of
a space, as they are stored, which every job and data-loader worker maps, so that they share its memory. The file is
derived (`cache.derived`): one that is damaged, or holds other parts than are committed now, is made again, and parts
that it held already are copied. Of each part it holds its arrays one after another, little-endian, each with zeros up
to a multiple of 64 bytes. The head is not in it: whoever needs it loads it once.

r rows of all records of a part.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.derived import ALIGNMENT, Derived, MappedFile, Section, derived_path, made_of_sections
from cache.fingerprints import SCHEMA_VERSION
from cache.layout import Array, ArrayLayout, PartLayout
from cache.soft_labels.block import FIELDS, SoftLabelBlock
from cache.soft_labels.layout import RowsSpec
from cache.soft_labels.reader import COMPUTES, SoftLabelPart, SoftLabelStore, block_of
from data.errors import MissingRecordsError

MOST_BYTES = 1 << 26
"""Bytes of an array that are decoded at a time."""
RULES = 1
"""Raised when the file holds something else of the same space."""


def mapped_soft_labels(
    store: SoftLabelStore, advance: Callable[[int], None] | None = None
) -> Mapping[str, SoftLabelBlock]:
    """Map the rows of all records of `store`, decoded where the file is not there yet.

    `advance` hears of records that are done. Where there is no store, or none that may be written to, the file is a
    nameless temporary one. Raises `MissingRecordsError` for a store without records.
    """
    if not store.parts:
        raise MissingRecordsError(f"{store.space.path}: no soft labels yet; {COMPUTES} computes them")
    kind = Derived(
        head={"schema": SCHEMA_VERSION, "space": store.space.fingerprint, "rules": RULES},
        listed="parts",
        size=lambda section: _size(section, store.rows),
        proves_entries=True,
    )
    sections = [_section(part) for part in store.parts]
    found = made_of_sections(
        kind,
        rows_path(store),
        sections,
        lambda number: _pieces(store.parts[number]),
        None if advance is None else lambda number: advance(len(store.parts[number])),
    )
    return MappedSoftLabels(store, found)


def rows_path(store: SoftLabelStore) -> Path | None:
    """Return where the mapped rows of a space lie; None for one outside of a store, such as an export."""
    return derived_path(store.space, "rows", {"rules": RULES}, "rows")


class MappedSoftLabels(Mapping[str, SoftLabelBlock]):
    """All records of a store; the arrays of the blocks that it gives are views of the memory map."""

    def __init__(self, store: SoftLabelStore, found: MappedFile) -> None:
        """Serve what a file holds of the store's parts, in their order."""
        self._store = store
        starts = accumulate((_size(section, store.rows) for section in found.sections), initial=0)
        self._parts = [
            dict(_arrays_in(found.content[start:], section, store.rows))
            for section, start in zip(found.sections, starts, strict=False)
        ]

    def __getitem__(self, key: str) -> SoftLabelBlock:
        number, place = self._store.find(key)
        first, last = self._store.parts[number].row_offset[place : place + 2]
        return block_of(key, {name: array[first:last] for name, array in self._parts[number].items()})

    def __iter__(self) -> Iterator[str]:
        return iter(self._store)

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, key: object) -> bool:
        return key in self._store


def _section(part: SoftLabelPart) -> Section:
    return {"part": part.folder.name, **part.counts}


def _arrays_of(section: Section, parts: PartLayout) -> Iterator[tuple[str, ArrayLayout, tuple[int, ...]]]:
    """Yield name, layout and shape of each array of a section."""
    sizes = parts.sizes({name: int(section[name]) for name in parts.counts})
    for name, layout in parts.arrays.items():
        if name in FIELDS:
            yield name, layout, layout.shape(sizes)


def _bytes(layout: ArrayLayout, shape: Sequence[int]) -> int:
    return math.prod(shape) * np.dtype(layout.dtype).itemsize


def _size(section: Section, rows: RowsSpec) -> int:
    if not isinstance(section["part"], str):
        raise ValueError(f"no part: {section}")
    return sum(_aligned(_bytes(layout, shape)) for _, layout, shape in _arrays_of(section, rows.parts))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _arrays_in(content: npt.NDArray[np.uint8], section: Section, rows: RowsSpec) -> Iterator[tuple[str, Array]]:
    """Yield the arrays of a section whose bytes `content` begins with."""
    start = 0
    for name, layout, shape in _arrays_of(section, rows.parts):
        size = _bytes(layout, shape)
        dtype = np.dtype(layout.dtype).newbyteorder("<")
        yield name, content[start : start + size].view(dtype).reshape(shape)
        start += _aligned(size)


def _pieces(part: SoftLabelPart) -> Iterator[npt.NDArray[Any]]:
    """Yield the bytes of a part's section, some rows at a time."""
    for name, layout, shape in _arrays_of(part.counts, part.layout):
        step = max(1, MOST_BYTES // max(1, _bytes(layout, shape[1:])))
        for start in range(0, shape[0], step):
            rows = part.read_rows(name, start, min(start + step, shape[0]))
            yield np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        yield np.zeros(_aligned(_bytes(layout, shape)) - _bytes(layout, shape), np.uint8)
