"""Accuracies and paired intervals: by hand, then against plain resampling loops."""

import numpy as np
import pytest

from stages.figures.statistics import accuracy, paired_bootstrap


def test_accuracy_by_hand():
    result = accuracy(np.array([[1, 1, 0, 0], [1, 1, 1, 0]]))
    assert result.mean == pytest.approx(0.625)
    assert result.deviation == pytest.approx(np.sqrt(2 * 0.125**2))
    assert (result.seeds, result.questions) == (2, 4)


def test_one_seed_has_no_spread():
    assert accuracy(np.array([[1, 0]])).deviation == 0


def test_equal_methods_differ_by_nothing():
    correct = np.random.default_rng(0).integers(0, 2, (3, 50))
    result = paired_bootstrap(correct, correct)
    assert (result.mean, result.low, result.high) == (0, 0, 0)


def test_a_method_that_is_always_better_by_all_questions_has_a_point_for_an_interval():
    result = paired_bootstrap(np.zeros((2, 5)), np.ones((2, 5)))
    assert (result.mean, result.low, result.high) == (1, 1, 1)


def test_one_seed_resamples_questions_only():
    # Difference is 1 on half of 100 questions: the interval is that of a share of 0.5 among 100, about ±0.098.
    other = np.array([[1, 0] * 50])
    result = paired_bootstrap(np.zeros((1, 100)), other)
    assert result.mean == 0.5
    assert result.low == pytest.approx(0.402, abs=0.011)
    assert result.high == pytest.approx(0.598, abs=0.011)


def test_seeds_that_disagree_widen_the_interval():
    questions = np.random.default_rng(1).integers(0, 2, (1, 200))
    agreeing = np.repeat(questions, 4, axis=0)
    disagreeing = np.array([[1] * 200, [1] * 200, [0] * 200, [0] * 200])
    base = np.zeros((4, 200))
    narrow, wide = paired_bootstrap(base, agreeing), paired_bootstrap(base, disagreeing)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_equals_plain_resampling():
    random = np.random.default_rng(2)
    base, other = random.integers(0, 2, (4, 30)), random.integers(0, 2, (4, 30))
    means = []
    for _ in range(4000):
        seeds, questions = random.integers(0, 4, 4), random.integers(0, 30, 30)
        means.append((other - base)[np.ix_(seeds, questions)].mean())
    result = paired_bootstrap(base, other)
    assert result.low == pytest.approx(np.quantile(means, 0.025), abs=0.02)
    assert result.high == pytest.approx(np.quantile(means, 0.975), abs=0.02)


def test_unpaired_shapes_are_refused():
    with pytest.raises(ValueError, match="same seeds and questions"):
        paired_bootstrap(np.zeros((1, 2)), np.zeros((1, 3)))
