"""Many numbers as few that can be drawn: curves over training of several students.

In: what each student logged (step, value). Out: a `Curve` of at most so many points with its range over students.
Nothing here knows how it is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Log = Sequence[tuple[float, float]]
"""Steps, rising, each with the value that was logged there."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A value over training: the mean over students, and the lowest and highest of them, at each of `steps`."""

    steps: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    students: int


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
