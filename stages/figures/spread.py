"""How values are spread over records: mean and percentiles, as figures and reports show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

PERCENTILES = {"p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and percentiles, interpolated linearly."""

    mean: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float


def spread(values_N: npt.NDArray[np.floating[Any]]) -> Spread:
    """The spread of at least one value."""
    percentiles = np.percentile(values_N, tuple(PERCENTILES.values()))
    return Spread(mean=float(np.mean(values_N)), **dict(zip(PERCENTILES, map(float, percentiles), strict=True)))


def spread_by_column(
    values_NL: npt.NDArray[np.floating[Any]] | Sequence[npt.NDArray[np.floating[Any]]],
) -> tuple[Spread, ...]:
    """The spread of each column of a matrix (N, L) over its rows, such as a layer's weight over records."""
    return tuple(spread(column) for column in np.asarray(values_NL, dtype=np.float64).T)
