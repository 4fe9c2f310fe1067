"""Judging an attention part record by record: its files enter, the faults found in it and the sound records leave.

A record is sound when everything of it decodes, its key is the hash of its text and spans, and its numbers can be
attention: finite, not below zero, no step giving more than its tokens have, no word looked at before it was written,
and no more counted for several words at once than words that may share a token receive.

Two bounds come from character spans, because the teacher's tokens are not stored. They take it that no token reaches
over white space from one visible character to another. So words without white space between them may share a token, and
a step's attention to them counts a token once for each; and a word that follows a step's end without white space may
lie in the step's last token.

Shape letters: L layers, S steps, K critical words; n records of a part.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.certificates import SMALLEST_NORMAL
from cache.chunked import decode, open_array, open_rebuilt
from cache.commits import VERIFY
from cache.keys import KEY_BYTES, hex_keys, record_key
from cache.layout import ARRAYS, LAYOUTS, STEP_ATTENTION, TEXT_END, Array
from cache.rounding import ALL_BITS
from cache.step_totals import step_totals
from data.errors import DamagedCacheError
from data.records import Marked

SLACK = 0.1
"""How far a teacher's number format (bfloat16 at worst) may lift a sum of attention; rounding on disk comes on top."""
SUMMING = 2.0**-8
"""How far two sums of the same attention may be apart, for they were added up in float32 or, on a GPU, in TF32."""
SMALLEST = float(np.finfo(np.float16).smallest_subnormal)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong in one array of a part, and which of its records (rows) that concerns."""

    array: str
    what: str
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Examined:
    """One part as far as it can be read: a key for each record, whether it is sound, and the arrays themselves."""

    keys: tuple[str, ...]
    sound: npt.NDArray[np.bool_]
    faults: tuple[Fault, ...]
    arrays: Mapping[str, Array]

    def select(self, chosen: npt.NDArray[np.bool_]) -> dict[str, Array]:
        """Return the arrays of a part that holds the chosen records only; they have to be sound."""
        assert not (chosen & ~self.sound).any(), "a record that is not sound is never written again"
        steps, words = (self.arrays[name].astype(np.int64) for name in ("steps", "words"))
        lengths = {"record": np.ones_like(steps), "step": steps, "word": words, "cell": steps * words}
        rows = {dimension: np.repeat(chosen, length) for dimension, length in lengths.items()}
        first = {name: LAYOUTS[name].dimensions[0] for name in self.arrays}
        texts = self.arrays["text"].tobytes().split(TEXT_END)
        kept = np.flatnonzero(chosen).tolist()
        text = b"".join(texts[2 * row + which] + TEXT_END for row in kept for which in (0, 1))
        keys = b"".join(bytes.fromhex(self.keys[row]) for row in kept)
        return {
            **{name: array[rows[first[name]]] for name, array in self.arrays.items() if first[name] in rows},
            "cell_offset": np.concatenate([[0], np.cumsum((steps * words)[chosen])]).astype(np.int64),
            "key": np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES),
            "text": np.frombuffer(text, np.uint8),
        }


def examine(
    folder: Path,
    counts: Mapping[str, int],
    *,
    arrays: Collection[str] = ARRAYS,
    broken: Collection[str] = (),
    rebuilt: Collection[str] = (),
    keep_bits: int = ALL_BITS,
) -> Examined:
    """Decode a part and judge each of its records; nothing that is found in it raises.

    `arrays` are those that the part was committed with. Of them those in `broken` are not opened: a file of theirs is
    missing, or their metadata are not ours. Those in `rebuilt` are read with the metadata that follow from the counts,
    for their own are damaged. Chunks are checked one by one, so that a damaged one costs the records in it and no
    others. `keep_bits` says how values were rounded.
    """
    reading = _Reading(folder=folder, counts=counts, broken=broken, rebuilt=rebuilt)
    nothing = np.zeros(counts["records"], dtype=bool)
    steps, words = reading.whole("steps"), reading.whole("words")
    misfit = None if steps is None or words is None else _misfit(steps, words, counts)
    if misfit:
        reading.blame("steps", misfit)
    if steps is None or words is None or misfit:
        return Examined(keys=(), sound=nothing, faults=reading.faults(), arrays={})
    reading.place(steps.astype(np.int64), words.astype(np.int64))
    return _judged(reading, len(steps), arrays, rounding=2.0 ** -(keep_bits + 1))


def _misfit(steps: Array, words: Array, counts: Mapping[str, int]) -> str | None:
    """Say where the numbers of steps and words are not those that the part's arrays have room for."""
    found = {
        "records": len(words),
        "steps": int(steps.sum(dtype=np.int64)),
        "words": int(words.sum(dtype=np.int64)),
        "cells": int((steps.astype(np.int64) * words).sum()) if len(steps) == len(words) else -1,
    }
    if min(steps.min(initial=1), words.min(initial=1)) < 1:
        return "a record without steps or words"
    wrong = [name for name, number in found.items() if number != counts[name]]
    return "; ".join(f"{found[name]} {name}, the arrays hold {counts[name]}" for name in wrong) or None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reading:
    """Reads the arrays of one part and gathers what is wrong with them."""

    folder: Path
    counts: Mapping[str, int]
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

    def place(self, steps: npt.NDArray[np.int64], words: npt.NDArray[np.int64]) -> None:
        """Learn where each record lies in the arrays."""
        lengths = {"cell": steps * words, "step": steps, "word": words}
        for name, layout in LAYOUTS.items():
            if layout.dimensions[0] in lengths:
                self.offsets[name] = np.concatenate([[0], np.cumsum(lengths[layout.dimensions[0]])])

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
        size, total = LAYOUTS[name].chunk_rows, int(offsets[-1])
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
        rebuilt = name in self.rebuilt
        array = open_rebuilt(self.folder, name, self.counts) if rebuilt else open_array(self.folder, name)
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


def _judged(reading: _Reading, records: int, arrays: Collection[str], *, rounding: float) -> Examined:
    sound = np.ones(records, dtype=bool)
    for name in reading.offsets:
        if name in arrays:
            sound &= reading.rows(name)
    texts = _texts(reading, records)
    stored_keys = reading.whole("key")
    _check_cell_offset(reading)
    keys = [""] * records if stored_keys is None else list(hex_keys(stored_keys))
    for row in range(records):
        marked = texts[row] and _marked(reading, row, texts[row])
        if not marked:
            sound[row] = False
            continue
        keys[row] = keys[row] or record_key(marked)  # text and spans have checksums of their own
        if not sound[row]:
            continue
        found = list(_complaints(keys[row], marked, partial(reading.of, row=row), arrays, rounding))
        for array, kind, what in found:
            reading.blame(array, what, [row], kind=kind)
        sound[row] = not found
    return Examined(keys=tuple(keys), sound=sound, faults=reading.faults(), arrays=reading.arrays)


def _check_cell_offset(reading: _Reading) -> None:
    """It follows from steps and words: a wrong one is a fault and no loss."""
    stored = reading.whole("cell_offset")
    if stored is not None and not np.array_equal(stored, reading.offsets["attention"]):
        reading.blame("cell_offset", "does not fit steps and words", range(len(stored) - 1))


def _texts(reading: _Reading, records: int) -> Sequence[tuple[str, str] | None]:
    """Question and rationale of each record, None where they are no text."""
    stored = reading.whole("text")
    if stored is None:
        return [None] * records
    *texts, rest = stored.tobytes().split(TEXT_END)
    if rest or len(texts) != 2 * records:
        what = f"{len(texts)} texts for {records} records"
        reading.blame("text", what, range(records))
        return [None] * records
    found: list[tuple[str, str] | None] = []
    for row in range(records):
        try:
            found.append((texts[2 * row].decode(), texts[2 * row + 1].decode()))
        except UnicodeDecodeError as error:
            reading.blame("text", f"not UTF-8 ({error})", [row], kind="not UTF-8")
            found.append(None)
    return found


def _marked(reading: _Reading, row: int, texts: tuple[str, str] | None) -> Marked | None:
    """The record itself; None where its spans could not be read."""
    if texts is None or "step_spans" not in reading.arrays or "word_spans" not in reading.arrays:
        return None
    question, rationale = texts
    return Marked(
        question=question,
        rationale=rationale,
        text=f"{question}\n{rationale}",
        step_spans=tuple((start, end) for start, end in reading.of("step_spans", row).tolist()),
        critical_spans=tuple((start, end) for start, end in reading.of("word_spans", row).tolist()),
    )


def _complaints(
    key: str, marked: Marked, of: "partial[Array]", arrays: Collection[str], rounding: float
) -> Iterator[tuple[str, str, str]]:
    """Yield array, kind and words of everything that is wrong with one record that decodes."""
    if key != (expected := record_key(marked)):
        yield "key", "key", f"{key}, the hash of its record is {expected}"
    for name, spans in (("step_spans", marked.step_spans), ("word_spans", marked.critical_spans)):
        if outside := [span for span in spans if not 0 <= span[0] < span[1] <= len(marked.text)]:
            yield name, "span", f"{outside[0]} is no span of a text of {len(marked.text)} characters"
            return
    tokens_S = of("step_tokens")
    if tokens_S.min() < 0:
        yield "step_tokens", "tokens", f"{tokens_S.min()} tokens in a step"
    steps, words = len(marked.step_spans), len(marked.critical_spans)
    attention_SKL = of("attention").astype(np.float32).reshape(steps, words, -1)
    of_attention = list(_attention_complaints(marked, attention_SKL, tokens_S, rounding))
    yield from of_attention
    if STEP_ATTENTION in arrays and not of_attention:
        yield from _receiver_complaints(marked, of(STEP_ATTENTION), attention_SKL, tokens_S, rounding)


def _attention_complaints(
    marked: Marked, attention_SKL: npt.NDArray[np.float32], tokens_S: npt.NDArray[Any], rounding: float
) -> Iterator[tuple[str, str, str]]:
    if not np.isfinite(attention_SKL).all():
        yield "attention", "not finite", "a value that is not finite"
        return
    if (lowest := attention_SKL.min()) < 0:
        yield "attention", "negative", f"{lowest:.4g}, below zero"
    spaces = _spaces(marked.text)
    lifted = 1 + SLACK + rounding
    most = tokens_S[:, None] * _words_in_a_token(marked, spaces) * lifted + SMALLEST * attention_SKL.shape[1]
    sums_SL = attention_SKL.sum(axis=1)
    for step, layer in _first(sums_SL > most):
        yield "attention", "sum", f"step {step} gives {sums_SL[step, layer]:.4g} and has {tokens_S[step]} tokens"
    for step, word in _first((attention_SKL != 0).any(axis=2) & _later(marked, spaces)):
        yield "attention", "acausal", f"step {step} looks at word {word}, which comes after it"


def _receiver_complaints(
    marked: Marked, receivers_SRL: Array, attention_SKL: npt.NDArray[np.float32], tokens_S: Array, rounding: float
) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with what else the steps look at; attention itself was found possible.

    What counts for several words is no more than all of them receive but the one that receives most, and nothing where
    no token can belong to two.
    """
    if not np.isfinite(receivers_SRL).all():
        yield STEP_ATTENTION, "not finite", "a value that is not finite"
        return
    if (lowest := receivers_SRL.min()) < 0:
        yield STEP_ATTENTION, "negative", f"{lowest:.4g}, below zero"
    attention_LSK = np.moveaxis(attention_SKL, -1, 0).astype(np.float64)
    totals = step_totals(attention_LSK, np.moveaxis(receivers_SRL, -1, 0), tokens_S)
    # Below float16's smallest normal number rounding takes a share of that number, not of the value.
    little = 2 * rounding * SMALLEST_NORMAL * (3 + attention_SKL.shape[1])
    given_LS = totals.critical + totals.special + totals.sinks
    for layer, step in _first(given_LS > tokens_S * (1 + SLACK + rounding) + little):
        what = f"step {step} gives {given_LS[layer, step]:.4g} in all and has {tokens_S[step]} tokens"
        yield STEP_ATTENTION, "sum", what
    spaces = _spaces(marked.text)
    sum_LS = attention_LSK.sum(axis=2)
    most_LS = (sum_LS - attention_LSK.max(axis=2)) * (1 + rounding + SUMMING) + sum_LS * rounding + little
    if _words_in_a_token(marked, spaces) == 1:
        most_LS = np.zeros_like(most_LS)
    for layer, step in _first(totals.overlap > most_LS):
        what = (
            f"step {step} gives {totals.overlap[layer, step]:.4g} to several words at once, more than these words of "
            f"{sum_LS[layer, step]:.4g} in all can share"
        )
        yield STEP_ATTENTION, "overlap", what


def _first(wrong: npt.NDArray[np.bool_]) -> list[list[int]]:
    """The first place at which something is wrong, if there is any."""
    places: list[list[int]] = np.argwhere(wrong)[:1].tolist()
    return places


def _spaces(text: str) -> npt.NDArray[np.int64]:
    return np.array([place for place, letter in enumerate(text) if letter.isspace()], dtype=np.int64)


def _words_in_a_token(marked: Marked, spaces: npt.NDArray[np.int64]) -> int:
    """Most critical words that one token can overlap: those without white space between them."""
    words = sorted(marked.critical_spans)
    most = run = 1
    for (_, end), (start, _) in pairwise(words):
        run = 1 if _next_space(spaces, np.array([end]))[0] < start else run + 1
        most = max(most, run)
    return most


def _later(marked: Marked, spaces: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which words begin after a step's end, with white space in between."""
    ends_S = np.array([end for _, end in marked.step_spans], dtype=np.int64)
    starts_K = np.array([start for start, _ in marked.critical_spans], dtype=np.int64)
    later: npt.NDArray[np.bool_] = _next_space(spaces, ends_S)[:, None] < starts_K[None, :]
    return later


def _next_space(spaces: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The first white space at or after each place; far behind the text where there is none."""
    with_end = np.append(spaces, np.iinfo(np.int64).max)
    found: npt.NDArray[np.int64] = with_end[np.searchsorted(spaces, places)]
    return found
