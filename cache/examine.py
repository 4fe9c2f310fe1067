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

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.certificates import SMALLEST_NORMAL
from cache.keys import hex_keys, record_key
from cache.layout import ATTENTION, STEP_ATTENTION, TEXT_END, Array
from cache.parts.examine import Examined, Reading
from cache.rounding import ALL_BITS
from cache.step_totals import step_totals
from data.records import Marked

SLACK = 0.1
"""How far a teacher's number format (bfloat16 at worst) may lift a sum of attention; rounding on disk comes on top."""
SUMMING = 2.0**-8
"""How far two sums of the same attention may be apart, for they were added up in float32 or, on a GPU, in TF32."""
SMALLEST = float(np.finfo(np.float16).smallest_subnormal)


def examine(reading: Reading, keep_bits: int = ALL_BITS) -> Examined:
    """Decode a part and judge each of its records; nothing that is found in it raises.

    `keep_bits` says how values were rounded.
    """
    counts = reading.counts
    nothing = np.zeros(counts["records"], dtype=bool)
    steps, words = reading.whole("steps"), reading.whole("words")
    misfit = None if steps is None or words is None else _misfit(steps, words, counts)
    if misfit:
        reading.blame("steps", misfit)
    if steps is None or words is None or misfit:
        return Examined(layout=ATTENTION, keys=(), sound=nothing, faults=reading.faults(), arrays={})
    lengths = {"step": steps.astype(np.int64), "word": words.astype(np.int64)}
    lengths["cell"] = lengths["step"] * lengths["word"]
    reading.place(lengths)
    return _judged(reading, lengths, rounding=2.0 ** -(keep_bits + 1))


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


def _judged(reading: Reading, lengths: Mapping[str, npt.NDArray[np.int64]], *, rounding: float) -> Examined:
    records = len(lengths["step"])
    sound = np.ones(records, dtype=bool)
    for name in reading.offsets:
        if name in reading.present:
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
        found = list(_complaints(keys[row], marked, partial(reading.of, row=row), reading.present, rounding))
        for array, kind, what in found:
            reading.blame(array, what, [row], kind=kind)
        sound[row] = not found
    if sound.any():  # so that every record has its two texts
        lengths = {**lengths, "text_byte": _text_lengths(reading.arrays["text"])}
    return Examined(
        layout=ATTENTION,
        keys=tuple(keys),
        sound=sound,
        faults=reading.faults(),
        arrays=reading.arrays,
        lengths=lengths,
    )


def _text_lengths(text: Array) -> npt.NDArray[np.int64]:
    """How many bytes question and rationale of each record are, with their ends."""
    ends = np.flatnonzero(text == TEXT_END[0])[1::2] + 1
    return np.diff(ends, prepend=0)


def _check_cell_offset(reading: Reading) -> None:
    """It follows from steps and words: a wrong one is a fault and no loss."""
    stored = reading.whole("cell_offset")
    if stored is not None and not np.array_equal(stored, reading.offsets["attention"]):
        reading.blame("cell_offset", "does not fit steps and words", range(len(stored) - 1))


def _texts(reading: Reading, records: int) -> Sequence[tuple[str, str] | None]:
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


def _marked(reading: Reading, row: int, texts: tuple[str, str] | None) -> Marked | None:
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
