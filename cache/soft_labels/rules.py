"""What rows of soft labels have to be: the arrays of a part enter, what is wrong in them leaves, and in which rows.

The writer asks before a byte is written, and `cache.soft_labels.examine` of what it has read. Nothing here depends on a
record's text; that a row's own token is the one that `log_probability` speaks of cannot be told from what is stored.

For the layout `top` the K stored logits bound the norm over all V tokens: none of the others has a larger logit than
the last one stored. With ℓ_k stored in float16, so that the teacher's own was within ℓ_k (1 ± 2^-11), for T = 1 and 2

    Σ_k exp(ℓ_k (1 + 2^-11) / T)  ≤  exp(log_norm_T)  ≤  Σ_k exp(ℓ_k (1 − 2^-11) / T) + (V − K) exp(ℓ_K (1 − 2^-11) / T)

up to `SLACK` for what the teacher's own sums were rounded. So log_norm_T is never below 0 and never above ln V.

Letters: r rows, K tokens of a row, V tokens of the vocabulary.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.layout import Array
from cache.soft_labels.layout import TEMPERATURES, RowsSpec

Rows = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
HALF_PRECISION = 2.0**-11
"""Relative error of a number that was rounded to float16."""
SLACK = 1e-3
MOST_VALUES = 1 << 22
"""Values of an array that are judged at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Wrong:
    """Something that is wrong in one array, with the words for the first row (r,) that it is in."""

    array: str
    kind: str
    what: str
    rows: Rows


def wrong_rows(arrays: Mapping[str, Array], starts: Rows, spec: RowsSpec) -> Iterator[Wrong]:
    """Yield everything that is wrong in rows; `starts` (r,) are the first rows of their records."""
    yield from _found("end", "negative", arrays["end"] < 0, arrays["end"], "{}, below zero")
    fallen = np.diff(arrays["end"], prepend=arrays["end"][:1]) < 0
    yield from _found("end", "order", fallen & ~starts, arrays["end"], "{}, before the row in front of it ends")
    own = arrays["log_probability"]
    yield from _found("log_probability", "not finite", ~np.isfinite(own), own, "{}, not finite")
    yield from _found("log_probability", "positive", own > 0, own, "{}, above zero")
    judge = {"top": _wrong_in_top, "sampled": _wrong_in_sampled, "hidden": _wrong_in_hidden}[spec.layout]
    longest = max(array[:1].size for array in arrays.values())
    step = max(1, MOST_VALUES // max(longest, 1))
    for start in range(0, len(starts), step):
        some = {name: array[start : start + step] for name, array in arrays.items()}
        for wrong in judge(some, spec):
            rows = np.zeros(len(starts), dtype=bool)
            rows[start : start + step] = wrong.rows
            yield Wrong(array=wrong.array, kind=wrong.kind, what=wrong.what, rows=rows)


def _found(array: str, kind: str, rows: Rows, values: Array, what: str) -> Iterator[Wrong]:
    if rows.any():
        value = values[rows.argmax()]
        shown = f"{value:.6g}" if isinstance(value, np.floating) else str(value)
        yield Wrong(array=array, kind=kind, what=what.format(shown), rows=rows)


def _wrong_in_top(arrays: Mapping[str, Array], spec: RowsSpec) -> Iterator[Wrong]:
    logits, norms = arrays["logit"], arrays["log_norm"]
    yield from _wrong_tokens(arrays["token"], np.ones(logits.shape, dtype=bool), spec)
    broken = _any(~np.isfinite(logits))
    yield from _found("logit", "not finite", broken, broken, "a value that is not finite")
    logits = np.where(broken[:, None], 0, logits)
    yield from _found("logit", "first", logits[:, 0] != 0, logits[:, 0], "the first one is {}, expected 0")
    ascending = _any(np.diff(logits, axis=1) > 0)
    yield from _found("logit", "order", ascending, ascending, "not from the largest to the smallest")
    for place, temperature in enumerate(TEMPERATURES):
        norm = norms[:, place]
        endless = ~np.isfinite(norm)
        yield from _found("log_norm", "not finite", endless, norm, f"{{}} at temperature {temperature:g}, not finite")
        least, most = log_norm_bounds(logits, temperature, spec.vocabulary_size)
        outside = ((norm < np.maximum(least, 0)) | (norm > most)) & ~endless & ~broken & ~ascending
        if outside.any():
            row = outside.argmax()
            what = (
                f"{norm[row]:.6g} at temperature {temperature:g}, while the logits stored are those of "
                f"{max(least[row], 0):.6g} to {most[row]:.6g}"
            )
            yield Wrong(array="log_norm", kind=f"norm {temperature:g}", what=what, rows=outside)


def log_norm_bounds(logits: Floats, temperature: float, vocabulary_size: int | None) -> tuple[Floats, Floats]:
    """Return the least and the most (r,) that `log_norm` can be beside logits (r, K); no most without V."""
    scaled = logits.astype(np.float64) / temperature
    least = np.log(np.exp(scaled * (1 + HALF_PRECISION)).sum(axis=1)) - SLACK
    if vocabulary_size is None:
        return least, np.full(len(logits), np.inf)
    largest = np.exp(scaled * (1 - HALF_PRECISION))
    most = np.log(largest.sum(axis=1) + (vocabulary_size - logits.shape[1]) * largest[:, -1]) + SLACK
    return least, np.minimum(most, np.log(vocabulary_size) + SLACK)


def _wrong_in_sampled(arrays: Mapping[str, Array], spec: RowsSpec) -> Iterator[Wrong]:
    tokens, counts = arrays["token"], arrays["count"].astype(np.int64)
    drawn = counts > 0
    yield from _wrong_tokens(tokens, drawn, spec)
    behind = _any(~drawn & (tokens != 0))
    yield from _found("token", "behind", behind, behind, "a token that was never drawn")
    fewer, same = counts[:, 1:] < counts[:, :-1], counts[:, 1:] == counts[:, :-1]
    in_order = fewer | (same & ((tokens[:, 1:] > tokens[:, :-1]) | ~drawn[:, 1:]))
    mixed = _any(~in_order)
    yield from _found("count", "order", mixed, mixed, "not by how often, and then by token")
    sums = counts.sum(axis=1)
    if spec.draws is not None:
        yield from _found("count", "sum", sums != spec.draws, sums, f"{{}} draws in a row, expected {spec.draws:,}")


def _wrong_in_hidden(arrays: Mapping[str, Array], _: RowsSpec) -> Iterator[Wrong]:
    broken = _any(~np.isfinite(arrays["hidden"]))
    yield from _found("hidden", "not finite", broken, broken, "a value that is not finite")


def _wrong_tokens(tokens: Array, used: Rows, spec: RowsSpec) -> Iterator[Wrong]:
    """Judge tokens (r, K) where they are used: each of the vocabulary, and none twice in a row."""
    if spec.vocabulary_size is not None:
        largest = np.where(used, tokens, 0).max(axis=1, initial=0)
        outside = largest >= spec.vocabulary_size
        yield from _found("token", "outside", outside, largest, f"{{}} in a vocabulary of {spec.vocabulary_size:,}")
    different = np.where(used, tokens.astype(np.int64), -1 - np.arange(tokens.shape[1]))
    twice = _any(np.diff(np.sort(different, axis=1), axis=1) == 0)
    yield from _found("token", "twice", twice, twice, "a token that is twice in a row")


def _any(values: Rows) -> Rows:
    """Which rows have anything (r, …) that is true."""
    found: Rows = np.any(values, axis=1)
    return found
