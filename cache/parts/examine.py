"""Judging a part of arrays record by record: what is read of it, what is found wrong, and what is left that is sound.

What a sound record of a kind is, say `cache.examine` for attention and `cache.soft_labels.examine` for soft labels.
Here lies what both do: decode as much as there is, chunk by chunk where it does not decode at once, and gather faults.

n records of a part.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.chunked import decode, open_array, open_rebuilt
from cache.commits import VERIFY
from cache.keys import key_rows
from cache.layout import Array, PartLayout
from data.errors import DamagedCacheError


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong in one array of a part, and which of its records (rows) that concerns."""

    array: str
    what: str
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Examined:
    """One part as far as it can be read: a key for each record, whether it is sound, and the arrays themselves.

    `lengths` says of each dimension that records share how much of it belongs to each of them.
    """

    layout: PartLayout
    keys: tuple[str, ...]
    sound: npt.NDArray[np.bool_]
    faults: tuple[Fault, ...]
    arrays: Mapping[str, Array]
    lengths: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether everything that a part of this kind holds was read, and nothing is wrong with it."""
        return not self.faults and self.layout.arrays.keys() <= self.arrays.keys()

    def select(self, chosen: npt.NDArray[np.bool_]) -> dict[str, Array]:
        """Return the arrays of a part that holds the chosen records only; they have to be sound."""
        assert not (chosen & ~self.sound).any(), "a record that is not sound is never written again"
        if not self.layout.has_records:
            return dict(self.arrays)
        lengths = {"record": np.ones(len(chosen), np.int64), **self.lengths}
        rows = {dimension: np.repeat(chosen, length) for dimension, length in lengths.items()}
        first = {name: self.layout.all[name].dimensions[0] for name in self.arrays}
        return {
            **{name: array[rows[first[name]]] for name, array in self.arrays.items() if first[name] in rows},
            **{name: offsets_of(lengths[dimension][chosen]) for name, dimension in self.layout.offsets.items()},
            "key": key_rows(self.keys[row] for row in np.flatnonzero(chosen).tolist()),
        }


def offsets_of(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (n + 1,): where each of n things begins that are so long."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """Reads the arrays of one part and gathers what is wrong with them.

    `present` are those that the part was committed with. Of them those in `broken` are not opened: a file of theirs is
    missing, or their metadata are not ours. Those in `rebuilt` are read with the metadata that follow from the counts,
    for their own are damaged. Chunks are checked one by one, so that a damaged one costs the records in it and no
    others.
    """

    folder: Path
    counts: Mapping[str, int]
    layout: PartLayout
    present: Collection[str]
    broken: Collection[str]
    rebuilt: Collection[str]
    arrays: dict[str, Array] = field(default_factory=dict)
    offsets: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    found: dict[tuple[str, str], tuple[str, list[int]]] = field(default_factory=dict)

    def whole(self, name: str) -> Array | None:
        """Return an array, or None where any of it cannot be read."""
        if name in self.broken:
            return None
        try:
            content = self._decode(name, slice(None))
        except DamagedCacheError as error:
            self.blame(name, _reason(error))
            return None
        self.arrays[name] = content
        return content

    def place(self, lengths: Mapping[str, npt.NDArray[np.int64]]) -> None:
        """Learn where each record lies in the arrays, by how much of each dimension belongs to each record."""
        for name, layout in self.layout.all.items():
            if layout.dimensions[0] in lengths:
                self.offsets[name] = offsets_of(lengths[layout.dimensions[0]])

    def rows(self, name: str) -> npt.NDArray[np.bool_]:
        """Read an array chunk by chunk where it does not decode at once; say which records are all there."""
        offsets = self.offsets[name]
        if name in self.broken:
            return np.zeros(len(offsets) - 1, dtype=bool)
        try:
            self.arrays[name] = self._decode(name, slice(None))
        except DamagedCacheError:  # the chunks say which of them it is
            return self._by_chunks(name, offsets)
        return np.ones(len(offsets) - 1, dtype=bool)

    def _by_chunks(self, name: str, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        readable = np.ones(len(offsets) - 1, dtype=bool)
        content: Array | None = None
        layout = self.layout.all[name]
        size, total = layout.chunk(layout.shape(self.layout.sizes(self.counts)))[0], int(offsets[-1])
        for start in range(0, total, size):
            stop = min(start + size, total)
            try:
                chunk = self._decode(name, slice(start, stop))
            except DamagedCacheError as error:
                concerned = (offsets[:-1] < stop) & (offsets[1:] > start)
                self.blame(name, _reason(error), np.flatnonzero(concerned).tolist())
                readable &= ~concerned
                continue
            content = np.zeros((total, *chunk.shape[1:]), dtype=chunk.dtype) if content is None else content
            content[start:stop] = chunk
        if content is not None:
            self.arrays[name] = content
        return readable

    def _decode(self, name: str, rows: slice) -> Array:
        if name in self.rebuilt:
            array = open_rebuilt(self.folder, name, self.counts, self.layout)
        else:
            array = open_array(self.folder, name)
        return decode(array, self.folder / name, rows)

    def of(self, name: str, row: int) -> Array:
        """Return the rows of one record."""
        offsets = self.offsets[name]
        return self.arrays[name][offsets[row] : offsets[row + 1]]

    def blame(self, name: str, what: str, concerned: Iterable[int] = (), *, kind: str | None = None) -> None:
        """Note a fault of some records; those of one kind in one array become one, with the first one's words."""
        _, rows = self.found.setdefault((name, kind or what), (what, []))
        rows += concerned

    def faults(self) -> tuple[Fault, ...]:
        """Everything that was noted, each fault with its records."""
        return tuple(
            Fault(array=name, what=what, rows=tuple(dict.fromkeys(rows)))
            for (name, _), (what, rows) in self.found.items()
        )


def _reason(error: Exception) -> str:
    """One line without the path and the advice that stand beside it anyway."""
    text = str(error).removesuffix(f"; {VERIFY}") or type(error).__name__
    return " ".join(text[text.find("does not decode") :].split() if "does not decode" in text else text.split())
