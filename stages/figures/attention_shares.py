"""Where teachers look, as figures over many records: the statistics behind `molsaki plot`, in numpy alone.

In: stored attention and totals of single records. Out: shares of a step's attention by who receives it (Fig. 1b after
arXiv 2604.15701), the layers of a record put together, and the spread of shares over records. Nothing here needs torch,
so that a figure takes no longer than reading the store.

Steps of different records are aligned where the rationale begins: step 1 is the rationale's first, step −1 the
question's last, and there is no step 0. Each position is a mean over those records that have it, so that positions far
from the middle tell of long records only; how many there are stands beside each.

Shapes: L layers, S reasoning steps, K critical words, N values.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from cache.step_totals import StepTotals
from data.records import Marked
from stages.figures.statistics import Spread, spread

Floats = npt.NDArray[np.floating[Any]]
Group = Literal["critical", "other", "special", "sinks"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""Who receives a step's attention, each token once: their shares add up to one."""


@dataclass(frozen=True, kw_only=True)
class StepShares:
    """Shares at one position, over the `records` that have such a step."""

    step: int
    records: int
    critical: Spread
    other: Spread
    special: Spread
    sinks: Spread


def step_numbers(marked: Marked) -> npt.NDArray[np.int64]:
    """Number the steps (S,) from where the rationale begins: … −2, −1 in the question, 1, 2 … in the rationale."""
    begin = marked.rationale_start
    question = sum(start < begin for start, _ in marked.step_spans)
    numbers = np.arange(len(marked.step_spans), dtype=np.int64) - question
    return np.where(numbers < 0, numbers, numbers + 1)


def record_shares(totals: StepTotals, layer_weights_L: Floats) -> Floats:
    """Shares of each step's attention (S, 4) in the order of `GROUPS`, of the layers weighed by `layer_weights_L`.

    `share[s, g] = Σ_l p_l received_l[s, g] / tokens[s]`; NaN for a step without tokens, which gives nothing.
    """
    received_GLS = np.stack([getattr(totals, group) for group in GROUPS])
    tokens_S = np.where(totals.tokens > 0, totals.tokens, np.nan)
    shares: Floats = (np.einsum("gls,l->sg", received_GLS, layer_weights_L) / tokens_S[:, None]).astype(np.float64)
    return shares


def shares_by_step(records: Iterable[tuple[npt.NDArray[np.int64], Floats]]) -> list[StepShares]:
    """The spread of shares at each position, from the step numbers (S,) and shares (S, 4) of single records."""
    pairs = list(records)
    numbers_N = np.concatenate([np.empty(0, np.int64), *(numbers for numbers, _ in pairs)])
    shares_NG = np.concatenate([np.empty((0, len(GROUPS))), *(shares for _, shares in pairs)])
    has_tokens = ~np.isnan(shares_NG).any(axis=1)
    numbers_N, shares_NG = numbers_N[has_tokens], shares_NG[has_tokens]
    return [_at(int(number), shares_NG[numbers_N == number]) for number in np.unique(numbers_N)]


def _at(number: int, shares_NG: Floats) -> StepShares:
    critical, other, special, sinks = (spread(shares_NG[:, place]) for place in range(len(GROUPS)))
    return StepShares(step=number, records=len(shares_NG), critical=critical, other=other, special=special, sinks=sinks)


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """How the layers of a record are put together; `label` says so in figures, `weigh` gives weights (L,)."""

    label: str
    weigh: Callable[[Floats], Floats]
    needs_attention: bool = False
    """Whether the weights depend on the record's attention (L, S, K); if not, any array of L layers will do."""

    def mixed(self, attention_LSK: Floats) -> Floats:
        """The layers weighed and added up, (S, K) in float64."""
        return mixed(attention_LSK, self.weigh(attention_LSK))


def mixed(attention_LSK: Floats, layer_weights_L: Floats) -> Floats:
    """`A = Σ_l p_l A_l`, (S, K) in float64."""
    together: Floats = np.einsum("lsk,l->sk", attention_LSK.astype(np.float64), layer_weights_L)
    return together


def mean_of_layers() -> LayerChoice:
    """All layers alike."""
    return LayerChoice(label="mean of all layers", weigh=lambda attention: np.full(len(attention), 1 / len(attention)))


def one_layer(layer: int) -> LayerChoice:
    """One layer, counted from 1."""
    return LayerChoice(label=f"layer {layer}", weigh=lambda attention: np.eye(len(attention))[layer - 1])


def teachers_mixture(tau: float) -> LayerChoice:
    """The mixture that students learn from: Eq. 4, record by record."""
    return LayerChoice(
        label=f"layers mixed by Eq. 4 (tau {tau:g})",
        weigh=lambda attention: record_layer_weights(attention, tau),
        needs_attention=True,
    )


def record_layer_weights(attention_LSK: npt.NDArray[np.floating], tau: float) -> npt.NDArray[np.float64]:
    """Layers in which attention varies most from word to word weigh most.

        G(A_l) = Σ_s Σ_{k<K} |A_l[s, k+1] − A_l[s, k]| / (S (K − 1)),   p = softmax(G / τ)        Eq. 4

    Eq. 4 after arXiv 2604.15701; returns (L,). Departure: for K = 1 G is undefined; the layers then weigh the same.
    """
    _, steps, words = attention_LSK.shape
    change = np.abs(np.diff(attention_LSK.astype(np.float64), axis=2)).sum(axis=(1, 2))
    scaled = change / max(1, steps * (words - 1)) / tau
    unnormalised = np.exp(scaled - scaled.max())
    weights: npt.NDArray[np.float64] = unnormalised / unnormalised.sum()
    return weights
