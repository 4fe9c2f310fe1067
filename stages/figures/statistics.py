"""What can be said from many numbers: means, spreads, paired differences of two methods, curves of few points.

In: a matrix right/wrong of seeds × questions; values by record; logs of several students. Out: numbers with their
uncertainty. Both methods answer the same questions with the same seeds, so differences are taken pair by pair, which
removes what seeds and questions have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
PERCENTILES = {"p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95}
Log = Sequence[tuple[float, float]]
"""Steps, rising, each with the value that was logged there."""


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """Mean over seeds and standard deviation between seeds (0 for a single one) of something asked by question."""

    mean: float
    deviation: float
    seeds: int
    questions: int


@dataclass(frozen=True, kw_only=True)
class Accuracy(SeedMean):
    """The same of right and wrong, as shares of 1."""


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Mean of `other − base` with a percentile bootstrap interval, in the unit of both; of accuracies shares of 1."""

    mean: float
    low: float
    high: float
    level: float
    seeds: int
    questions: int


def seed_mean(values: np.ndarray) -> SeedMean:
    """Summarise one method: `values` (seeds, questions); the deviation has n − 1 below."""
    by_seed = np.asarray(values, dtype=np.float64).mean(axis=1)
    deviation = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else 0.0
    return SeedMean(mean=float(by_seed.mean()), deviation=deviation, seeds=len(by_seed), questions=int(values.shape[1]))


def accuracy(correct: np.ndarray) -> Accuracy:
    """The same of `correct` (seeds, questions), 0 and 1."""
    return Accuracy(**vars(seed_mean(correct)))


def paired_bootstrap(
    base: np.ndarray, other: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> PairedDifference:
    """Interval of the mean difference under resampling of seeds and of questions.

    `base` and `other` (seeds, questions), row and column i of both being the same seed and question. Each resample
    draws seeds with replacement and, independently, questions with replacement (the two-way bootstrap), since another
    run would have other seeds and another test set other questions. With one seed only questions are drawn. Raises
    `ValueError` for shapes that differ or are empty.
    """
    if base.shape != other.shape or base.size == 0:
        raise ValueError(f"paired methods need the same seeds and questions, found {base.shape} and {other.shape}")
    difference = np.asarray(other, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    seeds, questions = difference.shape
    random = np.random.default_rng(seed)
    # Drawing n with replacement is drawing how often each stands in the sample.
    seed_counts = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    question_counts = random.multinomial(questions, np.full(questions, 1 / questions), size=resamples)
    means = np.einsum("rs,sq,rq->r", seed_counts, difference, question_counts, optimize=True) / difference.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return PairedDifference(
        mean=float(difference.mean()),
        low=float(low),
        high=float(high),
        level=level,
        seeds=seeds,
        questions=questions,
    )


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
