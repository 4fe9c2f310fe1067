"""The certificate: what storing attention in float16, rounded or not, changes for whoever trains from it.

In: exact stepwise attention (L, S, K) a record, as the teacher's pass gives it. Out: a `Certificate`, committed with
the part. Why here and now: afterwards the exact values are gone. Values are compared in all records, layer weights and
targets (Eq. 4 and 6 after arXiv 2604.15701) in a sample of them.

Shapes: L layers, S reasoning steps, K critical words.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.certificates import SMALLEST_NORMAL, Certificate
from cache.rounding import stored_values
from stages.mixture import mixed_targets
from stages.settings import ObjectiveSettings

MOST_COMPARED = 64
"""Most records of a part whose layer weights and targets are compared."""
TAU = ObjectiveSettings().tau_teacher
"""Temperature of the compared layer weights: a store is not made for one objective, so the default."""

Exact = npt.NDArray[np.floating[Any]]


def certify(blocks: Sequence[Exact], keep_bits: int) -> Certificate:
    """Compare the (L, S, K) `blocks` with what is stored of them; at least one block."""
    errors = [relative_errors(block, stored_values(block, keep_bits)) for block in blocks]
    changes = [_changes(block, stored_values(block, keep_bits)) for block in sampled(blocks)]
    values = sum(error.size for error in errors)
    changed, distance, divergence = (np.array(column) for column in zip(*changes, strict=True))
    return Certificate(
        tau=TAU,
        records=len(blocks),
        values=values,
        sampled_records=len(changes),
        largest_relative_error=max(float(error.max()) for error in errors),
        mean_relative_error=sum(float(error.sum()) for error in errors) / values,
        largest_weight_change=float(changed.max()),
        mean_weight_distance=float(distance.mean()),
        largest_target_divergence=float(divergence.max()),
        mean_target_divergence=float(divergence.mean()),
    )


def sampled(blocks: Sequence[Exact]) -> Sequence[Exact]:
    """At most `MOST_COMPARED` blocks at equal distances, the first among them: the same ones every time."""
    return blocks[:: -(-len(blocks) // MOST_COMPARED)]


def relative_errors(exact: Exact, stored: npt.NDArray[np.float16]) -> npt.NDArray[np.float64]:
    """`|stored − exact| / max(|exact|, 2^-14)`, of each value."""
    wide = exact.astype(np.float64)
    errors: npt.NDArray[np.float64] = np.abs(stored - wide) / np.maximum(np.abs(wide), SMALLEST_NORMAL)
    return errors


def target_divergence(exact: npt.NDArray[np.float32], stored: npt.NDArray[np.float32]) -> float:
    """`(1/S) Σ_s KL(softmax(exact[s, :]) ‖ softmax(stored[s, :]))` of (S, K) targets, Eq. 6, in nats.

    As `stages.losses.attention_loss`, but in float64: what float16 changes is lost in the rounding of float32.
    """
    log_exact, log_stored = _log_softmax(exact), _log_softmax(stored)
    return max(0.0, float((np.exp(log_exact) * (log_exact - log_stored)).sum(axis=-1).mean()))


def _log_softmax(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = rows.astype(np.float64) - rows.max(axis=-1, keepdims=True)
    logs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs


def _changes(exact: Exact, stored: npt.NDArray[np.float16]) -> tuple[float, float, float]:
    """Largest change of a layer weight, total variation of the weights, divergence of the targets of one record."""
    (before,), (after,) = mixed_targets([exact], TAU), mixed_targets([stored], TAU)
    difference = np.abs(after.layer_weights.astype(np.float64) - before.layer_weights)
    divergence = target_divergence(before.attention, after.attention)
    return float(difference.max()), float(difference.sum() / 2), divergence
