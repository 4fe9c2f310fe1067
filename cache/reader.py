"""Reading attention: a space enters, a mapping from record key to its (L, S, K) float16 array leaves.

Opening reads the keys of all committed parts and checks sizes and metadata of all their files; attention is decoded
when it is asked for. Keys stay bytes, so that half a million records open in less than a second. A store sees what was
committed when it was opened; open it again to see more.

Shape letters: L layers, S steps, K critical words; n records of a part.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from cache.commits import VERIFY, Commit
from cache.keys import KEY_BYTES, KeyIndex, KeyRows, hex_keys
from cache.layout import STEP_ATTENTION, TEXT_END, Array, check_part, layouts_in, read_keys
from cache.spaces import Space, check_files, dropped_records
from cache.step_totals import StepTotals, step_totals
from data.errors import ConfigError, DamagedCacheError, MissingRecordsError
from data.records import Marked, Span

if TYPE_CHECKING:
    import pandas as pd
    import zarr

Attention = npt.NDArray[np.float16]
Stored = TypeVar("Stored", Attention, StepTotals)
RECOMPUTE = "`molsaki attention CONFIG --totals` runs the teacher over such records once more"


def _array(name: str) -> "cached_property[Any]":
    """An array of a part, decoded when it is first asked for."""
    return cached_property(lambda part: part._read(name))


class AttentionPart:
    """One committed part; everything in it is read when it is first asked for."""

    def __init__(self, space: Space, commit: Commit) -> None:
        """Check the files of the part; see `check_part`."""
        check_part(space, commit)
        self._space = space
        self._commit = commit
        self._opened: dict[str, zarr.Array[Any]] = {}
        self.folder = space.part_path(commit)
        self.layers = commit.counts["layers"]
        self.has_totals = STEP_ATTENTION in layouts_in(commit.files)
        """Whether it tells what its steps look at beside single words."""

    def _read(self, name: str) -> Array:
        check_files(self._space, self._commit, below=name)
        from cache.chunked import decode, open_array  # zarr: who asks for keys and counts needs none of it

        return decode(open_array(self.folder, name), self.folder / name)

    def __len__(self) -> int:
        """Return the number of its records."""
        return self._commit.counts["records"]

    @cached_property
    def key_rows(self) -> KeyRows:
        """The record keys as bytes (n, 32) in the order of the part."""
        check_files(self._space, self._commit, below="key")
        rows = read_keys(self.folder, self._commit)
        return self._read("key") if rows is None else rows

    @cached_property
    def keys(self) -> list[str]:
        """The record keys (64 hex digits) in the order of the part."""
        return list(hex_keys(self.key_rows))

    steps: cached_property[npt.NDArray[np.int16]] = _array("steps")
    """S of each record."""
    words: cached_property[npt.NDArray[np.int16]] = _array("words")
    """K of each record."""
    step_tokens: cached_property[npt.NDArray[np.int32]] = _array("step_tokens")
    """Number of the teacher's tokens in each step of all records."""
    step_spans: cached_property[npt.NDArray[np.int32]] = _array("step_spans")
    """(steps of all records, 2): half-open character spans."""
    word_spans: cached_property[npt.NDArray[np.int32]] = _array("word_spans")
    """(words of all records, 2): half-open character spans."""

    @cached_property
    def step_offset(self) -> npt.NDArray[np.int64]:
        """(n + 1,): where the steps of each record begin in `step_tokens` and `step_spans`."""
        return self._offsets(self.steps, "steps")

    @cached_property
    def word_offset(self) -> npt.NDArray[np.int64]:
        """(n + 1,): where the words of each record begin in `word_spans`."""
        return self._offsets(self.words, "words")

    @cached_property
    def cell_offset(self) -> npt.NDArray[np.int64]:
        """(n + 1,): where the cells of each record begin in `attention`."""
        stored: npt.NDArray[np.int64] = self._read("cell_offset")
        if not np.array_equal(stored, self._offsets(self.steps.astype(np.int64) * self.words, "cells")):
            raise DamagedCacheError(f"{self.folder / 'cell_offset'}: does not fit steps and words; {VERIFY}")
        return stored

    def _offsets(self, counts: npt.NDArray[np.integer[Any]], name: str) -> npt.NDArray[np.int64]:
        offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        if counts.min(initial=1) < 1 or offsets[-1] != self._commit.counts[name]:
            raise DamagedCacheError(
                f"{self.folder}: {offsets[-1]} {name}, {self._commit.counts[name]} were committed; {VERIFY}"
            )
        return offsets

    @cached_property
    def texts(self) -> list[tuple[str, str]]:
        """Question and rationale of each record."""
        try:
            *texts, rest = (text.decode() for text in self._read("text").tobytes().split(TEXT_END))
        except UnicodeDecodeError as error:
            raise DamagedCacheError(f"{self.folder / 'text'}: not UTF-8 ({error}); {VERIFY}") from error
        if rest or len(texts) != 2 * len(self):
            raise DamagedCacheError(f"{self.folder / 'text'}: {len(texts)} texts for {len(self)} records; {VERIFY}")
        return list(zip(texts[::2], texts[1::2], strict=True))

    def _rows(self, name: str, first: int, last: int) -> Array:
        """Return some rows of an array, which is opened once."""
        from cache.chunked import decode, open_array

        check_files(self._space, self._commit, below=name)
        if name not in self._opened:
            self._opened[name] = open_array(self.folder, name)
        return decode(self._opened[name], self.folder / name, slice(first, last))

    def read(self, rows: Sequence[int]) -> list[Attention]:
        """Return the (L, S, K) arrays of some records; the cells from the first to the last are decoded once."""
        first, last = int(self.cell_offset[min(rows)]), int(self.cell_offset[max(rows) + 1])
        cells = self._rows("attention", first, last)
        return [self._block(cells, row, first) for row in rows]

    def read_totals(self, rows: Sequence[int]) -> list[StepTotals]:
        """Return where the steps of some records look in all; the part has to hold it (`has_totals`)."""
        first, last = int(self.step_offset[min(rows)]), int(self.step_offset[max(rows) + 1])
        receivers_SRL = self._rows(STEP_ATTENTION, first, last)
        totals = []
        for row, attention_LSK in zip(rows, self.read(rows), strict=True):
            start, end = self.step_offset[row], self.step_offset[row + 1]
            receivers_LSR = np.moveaxis(receivers_SRL[start - first : end - first], -1, 0)
            totals.append(step_totals(attention_LSK, receivers_LSR, self.step_tokens[start:end]))
        return totals

    def _block(self, cells: Attention, row: int, first: int) -> Attention:
        own = cells[self.cell_offset[row] - first : self.cell_offset[row + 1] - first]
        return np.moveaxis(own.reshape(self.steps[row], self.words[row], self.layers), -1, 0).copy()


class AttentionStore(Mapping[str, Attention]):
    """All committed records of an attention space by key; a record that two jobs computed is served once."""

    def __init__(self, space: Space) -> None:
        """Check and index what is committed now; raises `DamagedCacheError` where a part is damaged."""
        if space.kind != "attention":
            raise ConfigError(f"{space.path}: a space of {space.kind}, not of attention; see `molsaki cache ls`")
        self.space = space
        commits = space.commits()
        self.dropped: dict[str, str] = dropped_records(commits)
        self.parts = [AttentionPart(space, commit) for commit in commits if commit.part is not None]
        self._starts = [0, *accumulate(map(len, self.parts))]
        self._index = KeyIndex([part.key_rows for part in self.parts])
        if len(layers := {part.layers for part in self.parts}) > 1:
            raise DamagedCacheError(f"{space.path}: parts of {sorted(layers)} layers side by side; {VERIFY}")

    @classmethod
    def open(cls, path: str | Path) -> "AttentionStore":
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

    def __getitem__(self, key: str) -> Attention:
        number, row = self.find(key)
        return self.parts[number].read([row])[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: object) -> bool:
        return self._index.find(key) is not None

    @property
    def layers(self) -> int:
        """L; raises `MissingRecordsError` for a store without records."""
        if not self.parts:
            raise MissingRecordsError(f"{self.space.path}: no attention yet; `molsaki attention CONFIG` computes it")
        return self.parts[0].layers

    def read(self, keys: Sequence[str]) -> list[Attention]:
        """Return the (L, S, K) arrays of `keys` in their order, decoding each part once."""
        if missing := [key for key in keys if key not in self]:
            raise MissingRecordsError(
                f"{self.space.path}: {len(missing)} of {len(keys)} records are not stored, the first is {missing[0]}; "
                "`molsaki attention CONFIG` computes them"
            )
        found = self._gather(enumerate(map(self.find, keys)), AttentionPart.read)
        return [found[place] for place in range(len(keys))]

    def step_totals(self, key: str) -> StepTotals:
        """Return where each step of a record looks in all, (L, S): at critical words, special tokens, sinks, others.

        Raises `MissingRecordsError` where no part that has the record tells.
        """
        (found,) = self.read_totals([key])
        if found is None:
            raise MissingRecordsError(
                f"{self.space.path}: record {key} is stored without what its steps look at in all; {RECOMPUTE}"
            )
        return found

    def read_totals(self, keys: Sequence[str]) -> list[StepTotals | None]:
        """Return `step_totals` of `keys` in their order, decoding each part once; None where no part tells."""
        where = ((place, self._find_told(key)) for place, key in enumerate(keys))
        found = self._gather(((place, at) for place, at in where if at is not None), AttentionPart.read_totals)
        return [found.get(place) for place in range(len(keys))]

    def _gather(
        self,
        where: Iterable[tuple[int, tuple[int, int]]],
        read: Callable[[AttentionPart, Sequence[int]], Sequence[Stored]],
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

    def _find_told(self, key: str) -> tuple[int, int] | None:
        """Return part and row that tell of a record's totals, None where none does."""
        number, row = self.find(key)
        return (number, row) if self.parts[number].has_totals else self._told_later.get(key)

    @cached_property
    def _told_later(self) -> dict[str, tuple[int, int]]:
        """Part and row of records that one part holds without their totals, and another one with them."""
        untold = {key for part in self.parts if not part.has_totals for key in part.keys}
        telling = ((number, part) for number, part in enumerate(self.parts) if untold and part.has_totals)
        told = [(key, (number, row)) for number, part in telling for row, key in enumerate(part.keys) if key in untold]
        return dict(reversed(told))  # of several the first one counts

    def marked(self, key: str) -> Marked:
        """Return the record itself: its texts and spans."""
        number, row = self.find(key)
        part = self.parts[number]
        question, rationale = part.texts[row]
        return Marked(
            question=question,
            rationale=rationale,
            text=f"{question}\n{rationale}",
            step_spans=_spans(part.step_spans, part.step_offset, row),
            critical_spans=_spans(part.word_spans, part.word_offset, row),
        )

    def step_tokens(self, key: str) -> npt.NDArray[np.int32]:
        """Return the number of the teacher's tokens in each of the record's S steps."""
        number, row = self.find(key)
        part = self.parts[number]
        return part.step_tokens[part.step_offset[row] : part.step_offset[row + 1]]

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a record: key, question, rationale, steps, words, part."""
        import pandas as pd

        frames = [
            pd.DataFrame(part.texts, columns=["question", "rationale"]).assign(
                key=part.keys, steps=part.steps, words=part.words, part=part.folder.name
            )
            for part in self.parts
        ]
        columns = ["key", "question", "rationale", "steps", "words", "part"]
        if not frames:
            return pd.DataFrame(columns=columns)
        return pd.concat(frames, ignore_index=True)[columns].drop_duplicates("key", ignore_index=True)


def recorded_keys(space: Space, *, with_totals: bool = False) -> set[str]:
    """Return the keys of all stored records, or only of those with `step_totals`, decoding nothing else."""
    return set(hex_keys(recorded_rows(space, with_totals=with_totals)))


def recorded_rows(space: Space, *, with_totals: bool = False) -> KeyRows:
    """Return the same as bytes (n, 32), those of a record that lies in two parts twice."""
    parts = (AttentionPart(space, commit) for commit in space.commits() if commit.part is not None)
    rows = [part.key_rows for part in parts if part.has_totals or not with_totals]
    return np.concatenate([np.empty((0, KEY_BYTES), np.uint8), *rows])


def _spans(spans: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], row: int) -> tuple[Span, ...]:
    return tuple((int(start), int(end)) for start, end in spans[offsets[row] : offsets[row + 1]])
