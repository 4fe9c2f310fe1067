"""What is kept of a teacher's next-token distributions: logits enter a block of rows at a time, small arrays leave.

In: logits (n, V) of rows that stand in blocks no larger than `block_rows` says, so that those of all rows are never in
memory together. Out: numpy arrays in the forms of the layouts `top` and `sampled`, and the log-probability of the token
that stands in the place of each row. Nothing depends on how rows are cut into blocks.

Shapes: n rows of a block, N rows, V vocabulary, K tokens kept, D draws.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from data.errors import ModelError
from stages.mixture import at_least_float32

MOST_LOGITS = 2**25
"""Logits of a block: 128 MiB in float32, and about as much again three times while they are looked through."""
TEMPERATURES = (1.0, 2.0)
"""Those at which a row's normaliser is kept."""
LOWEST = float(np.finfo(np.float16).min)
"""Lowest logit and log-probability that is kept, in place of all below it and of −∞."""
MOST_DRAWS = int(np.iinfo(np.uint16).max)


class Likeliest(NamedTuple):
    """The K largest logits of each row, sorted from the largest, equal ones by id.

    `tokens` (N, K) uint32; `logits` (N, K) float16, minus the row's largest and no lower than `LOWEST`; `log_norms`
    (N, 2) float32, ln Σ_v exp((logit_v − largest) / T) over the whole vocabulary at each of `TEMPERATURES`.
    """

    tokens: np.ndarray
    logits: np.ndarray
    log_norms: np.ndarray


class Sampled(NamedTuple):
    """The different tokens drawn for each row, by count descending, equal ones by id; zeros behind the last.

    `tokens` (N, K) uint32, `counts` (N, K) uint16; each row's counts sum to the number of draws.
    """

    tokens: np.ndarray
    counts: np.ndarray


def blocks(rows: int, vocabulary: int) -> Iterator[slice]:
    """Cut so many rows into blocks of at most `MOST_LOGITS` logits, a row at least."""
    step = block_rows(vocabulary)
    return (slice(first, min(first + step, rows)) for first in range(0, rows, step))


def block_rows(vocabulary: int) -> int:
    """Rows of a block."""
    return max(1, MOST_LOGITS // vocabulary)


def in_blocks(rows: int, vocabulary: int, keep: Callable[[slice], tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """What `keep` makes of each block, one behind the other; it returns the same number of arrays for each."""
    found = [keep(block) for block in blocks(rows, vocabulary)]
    return tuple(np.concatenate(columns) for columns in zip(*found, strict=True))


def log_probability(logits_nV: torch.Tensor, wanted_n: torch.Tensor) -> np.ndarray:
    """Log-probability of the wanted tokens at temperature 1, (n,) float32, no lower than `LOWEST`."""
    relative_nV = _relative(logits_nV)
    chosen_n = relative_nV.gather(1, wanted_n.to(relative_nV.device)[:, None])[:, 0]
    found_n = (chosen_n.double() - _log_norms(relative_nV)[0]).clamp(min=LOWEST)
    return found_n.float().cpu().numpy()


def likeliest(logits_nV: torch.Tensor, k: int) -> Likeliest:
    """What is kept of the `k` likeliest tokens; of several as likely as the last one, those with the lowest ids.

    Raises `ValueError` for a `k` that the vocabulary does not have.
    """
    if not 1 <= k <= logits_nV.shape[1]:
        raise ValueError(f"k: expected 1 to {logits_nV.shape[1]}, as many tokens as there are, found {k}")
    relative_nV = _relative(logits_nV)
    tokens_nK = _largest(relative_nV, k).sort(dim=1).values
    logits_nK = relative_nV.gather(1, tokens_nK).clamp(min=LOWEST).half()
    # Ids ascend, so that a stable sort leaves tokens that are equal in float16 in their order.
    order_nK = torch.sort(logits_nK, dim=1, descending=True, stable=True).indices
    log_norms = torch.stack(_log_norms(relative_nV), dim=1)
    return Likeliest(
        tokens=tokens_nK.gather(1, order_nK).cpu().numpy().astype(np.uint32),
        logits=logits_nK.gather(1, order_nK).cpu().numpy(),
        log_norms=log_norms.float().cpu().numpy(),
    )


def _largest(relative_nV: torch.Tensor, k: int) -> torch.Tensor:
    """The numbers (n, K) of the largest, in any order; of equal ones at the cut those with the lowest numbers.

    topk promises nothing of these, so that rows in which not all that are equal to the last are taken are done anew.
    """
    largest, tokens = relative_nV.topk(min(k + 1, relative_nV.shape[1]), dim=1)
    least_n1, tokens_nK = largest[:, k - 1 : k], tokens[:, :k]
    torn_n = (largest[:, k:] == least_n1).any(dim=1)  # the next one is as large as the last
    if torn_n.any():
        rows_mV, least_m1 = relative_nV[torn_n], least_n1[torn_n]
        above_mV, equal_mV = rows_mV > least_m1, rows_mV == least_m1
        wanted_m1 = k - above_mV.sum(dim=1, keepdim=True)
        kept_mV = above_mV | (equal_mV & (equal_mV.cumsum(dim=1, dtype=torch.int32) <= wanted_m1))
        tokens_nK[torn_n] = kept_mV.nonzero()[:, 1].view(-1, k)
    return tokens_nK


def uniforms(key: str, seed: int, rows: int, draws: int) -> np.ndarray:
    """Sorted numbers in [0, 1) for the draws of a record's rows, (N, D) float64, of its key and a seed alone."""
    digest = hashlib.sha256(f"{key} {seed}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return np.sort(generator.random((rows, draws)), axis=1)


def sampled(logits_nV: torch.Tensor, uniforms_nD: np.ndarray) -> Sampled:
    """Draws from the distribution at temperature 1, with K = D columns: each number's place in its sums (inverse CDF).

    Sums are in float64, on the logits' device; what is drawn there differs from elsewhere only where a number lies
    within rounding of a border between two tokens.
    """
    shares_nV = torch.exp(_relative(logits_nV)).double()
    sums_nV = shares_nV.cumsum(dim=1)
    places_nD = torch.from_numpy(uniforms_nD).to(sums_nV.device) * sums_nV[:, -1:]
    drawn_nD = torch.searchsorted(sums_nV, places_nD, right=True).clamp(max=logits_nV.shape[1] - 1)
    return _counted(drawn_nD.cpu().numpy())


def without_empty_columns(found: Sampled) -> Sampled:
    """The same with as many columns as the row with the most different tokens has."""
    columns = int((found.counts > 0).sum(axis=1).max(initial=1))
    return Sampled(tokens=found.tokens[:, :columns].copy(), counts=found.counts[:, :columns].copy())


def _counted(drawn_ND: np.ndarray) -> Sampled:
    """Different tokens of sorted draws, and how often each was drawn."""
    rows, draws = drawn_ND.shape
    if draws > MOST_DRAWS:
        raise ValueError(f"draws: expected at most {MOST_DRAWS:,}, found {draws:,}")
    is_new = np.ones((rows, draws), dtype=bool)
    is_new[:, 1:] = drawn_ND[:, 1:] != drawn_ND[:, :-1]
    place = np.cumsum(is_new, axis=1) - 1
    row = np.arange(rows)[:, None]
    tokens, counts = np.zeros((rows, draws), np.int64), np.zeros((rows, draws), np.int64)
    tokens[row, place] = drawn_ND
    np.add.at(counts, (np.broadcast_to(row, place.shape), place), 1)
    order = np.lexsort((tokens, -counts), axis=1)
    return Sampled(
        tokens=np.take_along_axis(tokens, order, axis=1).astype(np.uint32),
        counts=np.take_along_axis(counts, order, axis=1).astype(np.uint16),
    )


def _relative(logits_nV: torch.Tensor) -> torch.Tensor:
    """Logits minus the largest of each row; `ModelError` where that is no number."""
    logits_nV = at_least_float32(logits_nV)
    largest_n1 = logits_nV.amax(dim=1, keepdim=True)
    if not bool(largest_n1.isfinite().all()):
        raise ModelError("the teacher's logits are no finite numbers; load it with teacher.dtype: float32 or bfloat16")
    return logits_nV - largest_n1


def _log_norms(relative_nV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logarithms of Σ exp(relative / T) at `TEMPERATURES`, (n,) float64 each; the second is of square roots."""
    shares_nV = torch.exp(relative_nV)
    return shares_nV.sum(dim=1).double().log(), shares_nV.sqrt_().sum(dim=1).double().log()
