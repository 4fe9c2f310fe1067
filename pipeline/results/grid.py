"""Seeds × what each was asked: rows of a table enter, a matrix of what every seed has leaves, and what two have alike.

Small and plain, so that printing the scores of a run does not import pandas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Asked = TypeVar("Asked", str, tuple[str, str])
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid(Generic[Asked]):
    """`values` (seeds, asked), both sorted; `left_out` counts what was asked that some seed has no value of."""

    seeds: tuple[int, ...]
    asked: tuple[Asked, ...]
    values: Values
    left_out: int

    def common(self, other: "Grid[Asked]") -> tuple[list[int], list[Asked]]:
        """Seeds and what was asked that both have, in order."""
        seeds, asked = set(other.seeds), set(other.asked)
        return [one for one in self.seeds if one in seeds], [one for one in self.asked if one in asked]

    def at(self, seeds: Sequence[int], asked: Sequence[Asked]) -> Values:
        """The values of some of its seeds and of some of what they were asked."""
        return self.values[np.ix_(_places(self.seeds, seeds), _places(self.asked, asked))]


def grid(seeds: Sequence[int], asked: Sequence[Asked], values: Sequence[float | None]) -> Grid[Asked]:
    """Put values, each of a seed and of what it was asked, into a grid; raises `ValueError` where one has two."""
    rows, columns = sorted(set(seeds)), sorted(dict.fromkeys(asked))
    if len(set(zip(seeds, asked, strict=True))) < len(values):
        raise ValueError("a seed has two values of what it was asked once")
    every = np.full((len(rows), len(columns)), np.nan)
    every[_places(rows, seeds), _places(columns, asked)] = [np.nan if one is None else one for one in values]
    whole = ~np.isnan(every).any(axis=0)
    return Grid(
        seeds=tuple(rows),
        asked=tuple(column for column, kept in zip(columns, whole, strict=True) if kept),
        values=every[:, whole],
        left_out=int((~whole).sum()),
    )


def _places(known: Sequence[object], wanted: Sequence[object]) -> list[int]:
    places = {one: number for number, one in enumerate(known)}
    return [places[one] for one in wanted]
