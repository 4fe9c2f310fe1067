"""Many numbers as few that can be drawn: curves over training of several students, and spreads over records.

In: what each student logged (step, value), or a matrix of weights, a row a record. Out: a `Curve` of at most so many
points with its range over students, or a `Spread` for each column. Nothing here knows how they are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Log = Sequence[tuple[float, float]]
"""Steps, rising, each with the value that was logged there."""
TAILS = (5, 25, 50, 75, 95)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A value over training: the mean over students, and the lowest and highest of them, at each of `steps`."""

    steps: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    students: int


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a value is spread over records: percentiles and mean."""

    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    mean: float


def curve(logs: Sequence[Log], most_points: int) -> Curve:
    """Mean over students, with their range, over at most `most_points` stretches of equally many steps.

    Within a stretch each student counts by the mean of what it logged there, and stands at the mean of those steps. A
    student that ended early is missing in later stretches; a stretch in which none logged anything has no point. Values
    that are not finite count as not logged.
    """
    finite = [
        log_N2[np.isfinite(log_N2[:, 1])] for log_N2 in (np.array(log, dtype=float).reshape(-1, 2) for log in logs)
    ]
    there = [log_N2 for log_N2 in finite if len(log_N2)]
    if not there:
        return Curve(steps=(), mean=(), low=(), high=(), students=0)
    last, stretches = max(log_N2[-1, 0] for log_N2 in there), min(most_points, max(map(len, there)))
    means = np.stack([_stretch_means(log_N2, last, stretches) for log_N2 in there])  # (students, 2, stretches)
    steps, values = means[:, :, ~np.isnan(means).all(axis=(0, 1))].transpose(1, 0, 2)
    return Curve(
        steps=tuple(np.nanmean(steps, axis=0).tolist()),
        mean=tuple(np.nanmean(values, axis=0).tolist()),
        low=tuple(np.nanmin(values, axis=0).tolist()),
        high=tuple(np.nanmax(values, axis=0).tolist()),
        students=len(there),
    )


def _stretch_means(log_N2: np.ndarray, last: float, stretches: int) -> np.ndarray:
    """Mean step and value (2, stretches) of a student in equal parts of (0, last]; NaN where it logged nothing."""
    place = np.ceil(log_N2[:, 0] / last * stretches).astype(int) - 1 if last > 0 else np.zeros(len(log_N2), dtype=int)
    place = place.clip(0, stretches - 1)
    count = np.bincount(place, minlength=stretches)
    sums = np.stack([np.bincount(place, weights=column, minlength=stretches) for column in log_N2.T])
    means: np.ndarray = np.divide(sums, count, out=np.full(sums.shape, np.nan), where=count > 0)
    return means


def spreads(weights_NL: np.ndarray) -> list[Spread]:
    """The spread of each column of a matrix (N, L) over its rows; N is at least 1."""
    percentiles = np.percentile(weights_NL, TAILS, axis=0)
    means = weights_NL.mean(axis=0)
    return [
        Spread(**dict(zip(("p5", "p25", "median", "p75", "p95"), map(float, column), strict=True)), mean=float(mean))
        for column, mean in zip(percentiles.T, means, strict=True)
    ]
