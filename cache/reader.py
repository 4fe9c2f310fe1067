"""Reading attention: a space enters, a mapping from record key to its (L, S, K) float16 array leaves.

What opening costs and checks is that of all parts of arrays (`cache.parts.reader`).

Shape letters: L layers, S steps, K critical words; n records of a part.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cache.commits import VERIFY, Commit
from cache.keys import KeyRows, hex_keys
from cache.layout import ATTENTION, STEP_ATTENTION, TEXT_END
from cache.parts.reader import Part, PartsStore, rows_of_keys, stored_array
from cache.spaces import Space
from cache.step_totals import StepTotals, step_totals
from data.errors import DamagedCacheError, MissingRecordsError
from data.records import Marked, Span

if TYPE_CHECKING:
    import pandas as pd

Attention = npt.NDArray[np.float16]
RECOMPUTE = "`molsaki attention CONFIG --totals` runs the teacher over such records once more"


class AttentionPart(Part):
    """One committed part of attention."""

    def __init__(self, space: Space, commit: Commit) -> None:
        """Check the files of the part."""
        super().__init__(space, commit, ATTENTION)
        self.layers = commit.counts["layers"]
        self.has_totals = self.holds(STEP_ATTENTION)
        """Whether it tells what its steps look at beside single words."""

    steps: cached_property[npt.NDArray[np.int16]] = stored_array("steps")
    """S of each record."""
    words: cached_property[npt.NDArray[np.int16]] = stored_array("words")
    """K of each record."""
    step_tokens: cached_property[npt.NDArray[np.int32]] = stored_array("step_tokens")
    """Number of the teacher's tokens in each step of all records."""
    step_spans: cached_property[npt.NDArray[np.int32]] = stored_array("step_spans")
    """(steps of all records, 2): half-open character spans."""
    word_spans: cached_property[npt.NDArray[np.int32]] = stored_array("word_spans")
    """(words of all records, 2): half-open character spans."""

    @cached_property
    def step_offset(self) -> npt.NDArray[np.int64]:
        """(n + 1,): where the steps of each record begin in `step_tokens` and `step_spans`."""
        return self.added_up(self.steps, "steps")

    @cached_property
    def word_offset(self) -> npt.NDArray[np.int64]:
        """(n + 1,): where the words of each record begin in `word_spans`."""
        return self.added_up(self.words, "words")

    @cached_property
    def cell_offset(self) -> npt.NDArray[np.int64]:
        """(n + 1,): where the cells of each record begin in `attention`."""
        stored: npt.NDArray[np.int64] = self.read_array("cell_offset")
        if not np.array_equal(stored, self.added_up(self.steps.astype(np.int64) * self.words, "cells")):
            raise DamagedCacheError(f"{self.folder / 'cell_offset'}: does not fit steps and words; {VERIFY}")
        return stored

    @cached_property
    def texts(self) -> list[tuple[str, str]]:
        """Question and rationale of each record."""
        try:
            *texts, rest = (text.decode() for text in self.read_array("text").tobytes().split(TEXT_END))
        except UnicodeDecodeError as error:
            raise DamagedCacheError(f"{self.folder / 'text'}: not UTF-8 ({error}); {VERIFY}") from error
        if rest or len(texts) != 2 * len(self):
            raise DamagedCacheError(f"{self.folder / 'text'}: {len(texts)} texts for {len(self)} records; {VERIFY}")
        return list(zip(texts[::2], texts[1::2], strict=True))

    def read(self, rows: Sequence[int]) -> list[Attention]:
        """Return the (L, S, K) arrays of some records; the cells from the first to the last are decoded once."""
        first, last = int(self.cell_offset[min(rows)]), int(self.cell_offset[max(rows) + 1])
        cells = self.read_rows("attention", first, last)
        return [self._block(cells, row, first) for row in rows]

    def read_totals(self, rows: Sequence[int]) -> list[StepTotals]:
        """Return where the steps of some records look in all; the part has to hold it (`has_totals`)."""
        first, last = int(self.step_offset[min(rows)]), int(self.step_offset[max(rows) + 1])
        receivers_SRL = self.read_rows(STEP_ATTENTION, first, last)
        totals = []
        for row, attention_LSK in zip(rows, self.read(rows), strict=True):
            start, end = self.step_offset[row], self.step_offset[row + 1]
            receivers_LSR = np.moveaxis(receivers_SRL[start - first : end - first], -1, 0)
            totals.append(step_totals(attention_LSK, receivers_LSR, self.step_tokens[start:end]))
        return totals

    def _block(self, cells: Attention, row: int, first: int) -> Attention:
        own = cells[self.cell_offset[row] - first : self.cell_offset[row + 1] - first]
        return np.moveaxis(own.reshape(self.steps[row], self.words[row], self.layers), -1, 0).copy()


class AttentionStore(PartsStore[AttentionPart, Attention]):
    """All committed records of an attention space by key, each as its (L, S, K) array."""

    kind = "attention"
    computes = "`molsaki attention CONFIG`"

    def _open_parts(self, commits: Sequence[Commit]) -> list[AttentionPart]:
        parts = [AttentionPart(self.space, commit) for commit in commits]
        if len(layers := {part.layers for part in parts}) > 1:
            raise DamagedCacheError(f"{self.space.path}: parts of {sorted(layers)} layers side by side; {VERIFY}")
        return parts

    def _read(self, part: AttentionPart, rows: Sequence[int]) -> Sequence[Attention]:
        return part.read(rows)

    @property
    def layers(self) -> int:
        """L; raises `MissingRecordsError` for a store without records."""
        if not self.parts:
            raise MissingRecordsError(f"{self.space.path}: no attention yet; `molsaki attention CONFIG` computes it")
        return self.parts[0].layers

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
        found = self.gather(((place, at) for place, at in where if at is not None), AttentionPart.read_totals)
        return [found.get(place) for place in range(len(keys))]

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
    return rows_of_keys(part for part in parts if part.has_totals or not with_totals)


def _spans(spans: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], row: int) -> tuple[Span, ...]:
    return tuple((int(start), int(end)) for start, end in spans[offsets[row] : offsets[row + 1]])
