"""One record's soft labels: what a teacher gave at each place of the target text, as it is written and read.

Letters: N rows of the record, K tokens of a row, C width of the hidden state, V tokens of the vocabulary.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cache.layout import Array

FIELDS: Mapping[str, str] = {
    "end": "ends",
    "log_probability": "log_probability",
    "token": "tokens",
    "logit": "logits",
    "log_norm": "log_norms",
    "count": "counts",
    "hidden": "hidden",
}
"""Arrays of a part, and the fields of a block that are a record's rows of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftLabelBlock:
    """The rows of one record, one for each target token and the last one for the end behind them.

    `ends` (N,) is where each row's token ends, in characters of the rationale; `log_probability` (N,) is ln p of that
    token, at temperature 1. What else there is depends on the layout:

    top      `tokens` (N, K), the most likely ones first; `logits` (N, K), less the row's largest; `log_norms` (N, 2),
             ln Σ exp(logit / T) over the whole vocabulary for T = 1 and 2, so that ln p = logit / T − log_norm
    sampled  `tokens` (N, K), those drawn, and `counts` (N, K), how often; behind them zeros in both
    hidden   `hidden` (N, C), the last hidden state, which the head turns into logits
    """

    key: str
    ends: npt.NDArray[np.integer[Any]]
    log_probability: npt.NDArray[np.floating[Any]]
    tokens: npt.NDArray[np.integer[Any]] | None = None
    logits: npt.NDArray[np.floating[Any]] | None = None
    log_norms: npt.NDArray[np.floating[Any]] | None = None
    counts: npt.NDArray[np.integer[Any]] | None = None
    hidden: npt.NDArray[np.floating[Any]] | None = None

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return sum(array.nbytes for _, array in self.arrays())

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """Yield what it has, by the names of the arrays of a part."""
        for name, own in FIELDS.items():
            if (array := getattr(self, own)) is not None:
                yield name, array


class Head(NamedTuple):
    """What turns a hidden state into logits: `weight` (V, C), and `bias` (V,) where the teacher has one."""

    weight: npt.NDArray[np.floating[Any]]
    bias: npt.NDArray[np.floating[Any]] | None
