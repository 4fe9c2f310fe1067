"""Mean and percentiles against values computed by hand."""

import numpy as np
import pytest

from stages.figures.statistics import Spread, spread, spread_by_column


def test_percentiles_lie_between_values_in_proportion():
    expected = Spread(mean=4.0, p5=1.2, p25=2.0, median=3.0, p75=4.0, p95=8.8)  # 1 + 0.2 · 1, 4 + 0.8 · 6
    assert vars(spread(np.array([1.0, 2.0, 3.0, 4.0, 10.0]))) == pytest.approx(vars(expected))


def test_one_value_is_all_of_them():
    assert set(vars(spread(np.array([0.25]))).values()) == {0.25}


def test_spreads_are_those_of_the_columns():
    first, second = spread_by_column([np.array([0.0, 1.0]), np.array([0.5, 1.0]), np.array([1.0, 1.0])])
    assert (first.p25, first.median, first.p75, first.mean) == (0.25, 0.5, 0.75, 0.5)
    assert first.p5 == pytest.approx(0.05)
    assert (second.p5, second.p95) == (1.0, 1.0)
