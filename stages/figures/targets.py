"""What students will be drawn to, before any is trained: how uneven the targets of the attention loss are.

In: stored attention, and which layers become a target. Out: how far its rows are from looking everywhere alike, how
many of the teacher's layers count in it, and which counts most. Rows that are nearly even teach little, and a mixture
in which one layer has everything is that layer. Numpy alone, so that `molsaki status` is done in a moment.

Shapes: L layers, P matrices of a record, S reasoning steps, K critical words, N records.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import ConfigError
from stages.figures.attention_shares import record_layer_weights
from stages.settings import AlignmentName, AlignmentSettings, Rows, SinglePair

Floats = npt.NDArray[np.floating[Any]]
MOST_RECORDS = 300
"""Records that are looked at; of more as many, evenly spaced."""
FLOOR = 1e-6
"""As in `stages.losses`, which loads torch."""


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """The teacher's layer weights (Eq. 4) at temperature `tau`.

    `entropy` is the mean of their entropies, as a share of that of even weights: 1 where all layers count alike, 0
    where one does. `layer`, from 1, is the one that most often has the largest weight: in `share` of the records, with
    `weight` in the mean of all.
    """

    tau: float
    entropy: float
    layer: int
    share: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class TargetFigures:
    """Targets of `records` out of `stored`.

    `nats_from_uniform` is the mean over records of the mean over rows of KL(target ‖ uniform): the attention loss of a
    student that looks everywhere alike. `weights` are None where no layers are mixed.
    """

    records: int
    stored: int
    rows: Rows
    nats_from_uniform: float
    weights: LayerWeights | None


def says_of_targets(alignment: AlignmentName | SinglePair) -> bool:
    """Whether targets follow from the teacher alone; layers paired in turn depend on how many the student has."""
    return alignment in ("mixture", "last") or isinstance(alignment, SinglePair)


def target_figures(attention: Mapping[str, Floats], keys: Sequence[str], settings: AlignmentSettings) -> TargetFigures:
    """Look at the targets that `settings` make of stored attention, (L, S, K) by key; there has to be a record.

    Raises `ConfigError` where the teacher has no such layer.
    """
    chosen = [keys[place * len(keys) // MOST_RECORDS] for place in range(MOST_RECORDS)]
    chosen = chosen if len(keys) > MOST_RECORDS else list(keys)
    nats: list[float] = []
    weights: list[Floats] = []
    for key in chosen:  # one by one: of a large store only the chunks that they lie in are decoded
        attention_LSK = attention[key]
        weights_L = _layer_weights(attention_LSK, settings)
        weights.append(weights_L)
        target_SK = np.einsum("lsk,l->sk", attention_LSK.astype(np.float64), weights_L)
        nats.append(float(nats_from_uniform(row_probabilities(target_SK, settings.rows)).mean()))
    return TargetFigures(
        records=len(chosen),
        stored=len(keys),
        rows=settings.rows,
        nats_from_uniform=float(np.mean(nats)),
        weights=_summed_up(weights, settings.tau_teacher) if settings.alignment == "mixture" else None,
    )


def _layer_weights(attention_LSK: Floats, settings: AlignmentSettings) -> Floats:
    """Share of each layer in the target."""
    layers = len(attention_LSK)
    if settings.alignment == "mixture":
        return record_layer_weights(attention_LSK, settings.tau_teacher)
    layer = settings.alignment.single[0] if isinstance(settings.alignment, SinglePair) else layers
    if layer > layers:
        raise ConfigError(f"objective.alignment: single: {layer} is a layer of the teacher, which has {layers}")
    weights: Floats = (np.arange(1, layers + 1) == layer).astype(np.float64)
    return weights


def _summed_up(weights: Iterable[Floats], tau: float) -> LayerWeights:
    weights_NL = np.array(list(weights))
    largest = np.bincount(weights_NL.argmax(axis=1), minlength=weights_NL.shape[1])
    layer = int(largest.argmax())
    return LayerWeights(
        tau=tau,
        entropy=float(np.mean([share_of_even(weights_L) for weights_L in weights_NL])),
        layer=layer + 1,
        share=float(largest[layer] / len(weights_NL)),
        weight=float(weights_NL[:, layer].mean()),
    )


def row_probabilities(attention_SK: Floats, rows: Rows) -> Floats:
    """Each step's attention as a distribution over the K words, as the attention loss makes it (Eq. 6)."""
    if rows == "share":
        above = attention_SK.astype(np.float64) + FLOOR
    else:
        scores = attention_SK.astype(np.float64)
        above = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities: Floats = above / above.sum(axis=-1, keepdims=True)
    return probabilities


def nats_from_uniform(probabilities: Floats) -> Floats:
    """KL(p ‖ uniform) = log K − H(p) of distributions (…, K), never below 0."""
    nats: Floats = np.maximum(np.log(probabilities.shape[-1]) - _entropy(probabilities), 0.0)
    return nats


def share_of_even(weights_L: Floats) -> float:
    """Entropy of weights as a share of that of even weights; 1 for a single layer, which has no other."""
    return float(_entropy(weights_L) / np.log(len(weights_L))) if len(weights_L) > 1 else 1.0


def _entropy(probabilities: Floats) -> Floats:
    logarithms = np.log(np.where(probabilities > 0, probabilities, 1))
    entropy: Floats = -(probabilities * logarithms).sum(axis=-1)
    return entropy
