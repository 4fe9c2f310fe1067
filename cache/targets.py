"""What training reads again and again, decoded and combined once: an attention store enters, a memory map leaves.

    <store>/targets/<space>-<first 16 digits of the rule's fingerprint>.targets

The layers of each record are combined by a *rule* of the caller's to one matrix or to a few; the result is a few
kilobytes a record that never change. They lie in one file for all records of a space, which every job and data-loader
worker maps, so that they share its memory. The file is derived (`cache.derived`): one that is damaged, or made from
other parts than those committed now, is made again, and parts that it held already are copied.

Shape letters: L layers, P matrices that a rule makes of them, S steps, K critical words.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.derived import Derived, Section, derived_path, made_of_sections
from cache.fingerprints import SCHEMA_VERSION, Spec
from cache.reader import Attention, AttentionPart, AttentionStore

Floats = npt.NDArray[np.float32]
FLOAT = np.dtype("<f4")
MOST_VALUES = 1 << 24
"""Values of attention that are decoded and combined at a time."""
COUNTS = ("records", "cells", "layers", "matrices")


@dataclass(frozen=True, kw_only=True, eq=False)
class Combined:
    """The layers of one record combined to `attention` (P, S, K), with each layer's share (L,) of it; float32."""

    attention: Floats
    layer_weights: Floats


Combine = Callable[[Sequence[Attention]], Sequence[Combined]]


@dataclass(frozen=True, kw_only=True)
class _Block:
    """What the file holds of one part: the cells of its records, `matrices` for each record, then its layer weights."""

    part: str
    records: int
    cells: int
    layers: int
    matrices: int

    @property
    def floats(self) -> int:
        return self.matrices * self.cells + self.records * self.layers


class CombinedStore(Mapping[str, Combined]):
    """All records of an attention store, combined; what it gives are views of the memory map."""

    def __init__(self, store: AttentionStore, blocks: Sequence[_Block], floats: Floats) -> None:
        """Serve `floats`, which hold `blocks` in the order of the store's parts."""
        self._store = store
        self._blocks = blocks
        self._floats = floats
        self._starts = [0, *accumulate(block.floats for block in blocks)]

    def __getitem__(self, key: str) -> Combined:
        number, row = self._store.find(key)
        part, block, start = self._store.parts[number], self._blocks[number], self._starts[number]
        first, last = (start + block.matrices * int(part.cell_offset[at]) for at in (row, row + 1))
        weights = start + block.matrices * block.cells + row * block.layers
        shape = block.matrices, int(part.steps[row]), int(part.words[row])
        return Combined(
            attention=self._floats[first:last].reshape(shape),
            layer_weights=self._floats[weights : weights + block.layers],
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._store)

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, key: object) -> bool:
        return key in self._store


def combined(
    store: AttentionStore,
    rule: Spec,
    combine: Combine,
    *,
    matrices: int = 1,
    advance: Callable[[int], None] | None = None,
) -> CombinedStore:
    """Map the combined records of `store`, made by `combine` where the file is not there yet.

    `rule` says what `combine` does: equal rules have to give equal results, `matrices` (P) for each record. `advance`
    hears of records that are done. Where there is no store, or none that may be written to, the file is a nameless
    temporary one. Raises `MissingRecordsError` for a store without records.
    """
    path = targets_path(store, rule)
    kind = _kind({"schema": SCHEMA_VERSION, "space": store.space.fingerprint, "rule": rule})
    layers = store.layers
    blocks = [_block(part, layers, matrices) for part in store.parts]
    found = made_of_sections(
        kind,
        path,
        [asdict(block) for block in blocks],
        lambda number: [_combined_part(store.parts[number], combine)],
        None if advance is None else lambda number: advance(blocks[number].records),
    )
    return CombinedStore(store, blocks, found.content.view(FLOAT))


def targets_path(store: AttentionStore, rule: Spec) -> Path | None:
    """Return where the combined records of a space lie; None for one outside of a store, such as an export."""
    return derived_path(store.space, "targets", rule, "targets")


def _block(part: AttentionPart, layers: int, matrices: int) -> _Block:
    cells = int(part.cell_offset[-1])
    return _Block(part=part.folder.name, records=len(part), cells=cells, layers=layers, matrices=matrices)


def _kind(head: Spec) -> Derived:
    return Derived(head=head, listed="parts", size=lambda section: FLOAT.itemsize * _block_of(section).floats)


def _block_of(section: Section) -> _Block:
    return _Block(part=str(section["part"]), **{name: int(section[name]) for name in COUNTS})


def _combined_part(part: AttentionPart, combine: Combine) -> Floats:
    found = [one for rows in _slices(part) for one in combine(part.read(rows))]
    cells = [one.attention.reshape(-1) for one in found]
    content: Floats = np.concatenate([*cells, *(one.layer_weights for one in found)]).astype(FLOAT, copy=False)
    return content


def _slices(part: AttentionPart) -> Iterator[range]:
    """Yield the rows of a part in order, so many at a time as have `MOST_VALUES` values, one at least."""
    first = 0
    while first < len(part):
        most = part.cell_offset[first] + MOST_VALUES // part.layers
        last = max(first + 1, int(np.searchsorted(part.cell_offset, most, side="right")) - 1)
        yield range(first, last)
        first = last
