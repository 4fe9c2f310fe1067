"""Reading parts of arrays: a space enters, a mapping from record key to what is stored of the record leaves.

Opening reads the keys of all committed parts and checks sizes and metadata of all their files; the rest is decoded when
it is asked for. Keys stay bytes, so that half a million records open in less than a second. A store sees what was
committed when it was opened; open it again to see more.

n records of a part.
"""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from cache.commits import VERIFY, Commit
from cache.keys import KEY_BYTES, KeyIndex, KeyRows, hex_keys
from cache.layout import Array, PartLayout, check_part, read_keys
from cache.spaces import Kind, Space, check_files, dropped_records
from data.errors import ConfigError, DamagedCacheError, MissingRecordsError

if TYPE_CHECKING:
    import zarr


def stored_array(name: str) -> "cached_property[Any]":
    """An array of a part, decoded when it is first asked for."""
    return cached_property(lambda part: part.read_array(name))


class Part:
    """One committed part; everything in it is read when it is first asked for."""

    def __init__(self, space: Space, commit: Commit, layout: PartLayout) -> None:
        """Check the files of the part; see `check_part`."""
        check_part(space, commit, layout)
        self.layout = layout
        self._space = space
        self._commit = commit
        self._opened: dict[str, zarr.Array[Any]] = {}
        self.folder = space.part_path(commit)
        self.counts = commit.counts
        self.bytes = commit.bytes

    def __len__(self) -> int:
        """Return the number of its records."""
        return self.counts["records"]

    def holds(self, name: str) -> bool:
        """Say whether it holds an array that not every part does."""
        return name in self.layout.present(self._commit.files)

    def read_array(self, name: str) -> Array:
        """Decode a whole array."""
        check_files(self._space, self._commit, below=name)
        from cache.chunked import decode, open_array  # zarr: who asks for keys and counts needs none of it

        return decode(open_array(self.folder, name), self.folder / name)

    def read_rows(self, name: str, first: int, last: int) -> Array:
        """Decode some rows of an array, which is opened once."""
        from cache.chunked import decode, open_array

        check_files(self._space, self._commit, below=name)
        if name not in self._opened:
            self._opened[name] = open_array(self.folder, name)
        return decode(self._opened[name], self.folder / name, slice(first, last))

    @cached_property
    def key_rows(self) -> KeyRows:
        """The record keys as bytes (n, 32) in the order of the part."""
        check_files(self._space, self._commit, below="key")
        rows = read_keys(self.folder, self._commit)
        return self.read_array("key") if rows is None else rows

    @cached_property
    def keys(self) -> list[str]:
        """The record keys (64 hex digits) in the order of the part."""
        return list(hex_keys(self.key_rows))

    def added_up(self, lengths: npt.NDArray[np.integer[Any]], name: str) -> npt.NDArray[np.int64]:
        """Return (n + 1,): where each record begins that has so many of what the commit counts as `name`."""
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        if lengths.min(initial=1) < 1 or offsets[-1] != self.counts[name]:
            raise DamagedCacheError(
                f"{self.folder}: {offsets[-1]} {name}, {self.counts[name]} were committed; {VERIFY}"
            )
        return offsets


PartT = TypeVar("PartT", bound=Part)
Value = TypeVar("Value")
Stored = TypeVar("Stored")


class PartsStore(Mapping[str, Value], Generic[PartT, Value]):
    """All committed records of a space by key; a record that two jobs computed is served once."""

    kind: ClassVar[Kind]
    computes: ClassVar[str]
    """The command that computes what is missing."""

    def __init__(self, space: Space) -> None:
        """Check and index what is committed now; raises `DamagedCacheError` where a part is damaged."""
        if space.kind != self.kind:
            raise ConfigError(f"{space.path}: a space of {space.kind}, not of {self.kind}; see `molsaki cache ls`")
        self.space = space
        commits = space.commits()
        self.dropped: dict[str, str] = dropped_records(commits)
        self.parts = self._open_parts([commit for commit in commits if commit.part is not None])
        self._starts = [0, *accumulate(map(len, self.parts))]
        self._index = KeyIndex([part.key_rows for part in self.parts])

    @abstractmethod
    def _open_parts(self, commits: Sequence[Commit]) -> list[PartT]:
        """Open the parts that hold records."""

    @abstractmethod
    def _read(self, part: PartT, rows: Sequence[int]) -> Sequence[Value]:
        """Return what is stored of some records of a part."""

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the space at `path`."""
        return cls(Space.open(path))

    @property
    def key_rows(self) -> KeyRows:
        """The keys of all parts as bytes (n, 32), those of a record that lies in two parts twice."""
        return self._index.rows

    def find(self, key: str) -> tuple[int, int]:
        """Return number of the part and row in it; raises `KeyError` where there is no such record."""
        position = self._index.find(key)
        if position is None:
            raise KeyError(key)
        number = bisect_right(self._starts, position) - 1
        return number, position - self._starts[number]

    def __getitem__(self, key: str) -> Value:
        number, row = self.find(key)
        return self._read(self.parts[number], [row])[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: object) -> bool:
        return self._index.find(key) is not None

    def read(self, keys: Sequence[str]) -> list[Value]:
        """Return what is stored of `keys` in their order, decoding each part once."""
        self.check_stored(keys)
        found = self.gather(enumerate(map(self.find, keys)), self._read)
        return [found[place] for place in range(len(keys))]

    def check_stored(self, keys: Sequence[str]) -> None:
        """Raise `MissingRecordsError` unless all of these records are stored."""
        if missing := [key for key in keys if key not in self]:
            raise MissingRecordsError(
                f"{self.space.path}: {len(missing)} of {len(keys)} records are not stored, the first is {missing[0]}; "
                f"{self.computes} computes them"
            )

    def gather(
        self,
        where: Iterable[tuple[int, tuple[int, int]]],
        read: Callable[[PartT, Sequence[int]], Sequence[Stored]],
    ) -> dict[int, Stored]:
        """Return what each place of an answer holds that comes from a part and a row in it, reading each part once."""
        places_of: dict[int, dict[int, list[int]]] = {}
        for place, (number, row) in where:
            places_of.setdefault(number, {}).setdefault(row, []).append(place)
        found: dict[int, Stored] = {}
        for number, rows in places_of.items():
            for places, stored in zip(rows.values(), read(self.parts[number], list(rows)), strict=True):
                found.update(dict.fromkeys(places, stored))
        return found


def rows_of_keys(parts: Iterable[Part]) -> KeyRows:
    """Return the keys of parts as bytes (n, 32), those of a record that lies in two parts twice."""
    return np.concatenate([np.empty((0, KEY_BYTES), np.uint8), *(part.key_rows for part in parts)])
