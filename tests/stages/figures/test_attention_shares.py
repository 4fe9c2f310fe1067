"""Statistics of figures, by hand."""

import subprocess
import sys

import numpy as np
import pytest

from cache.step_totals import StepTotals
from data.marking import mark
from stages.figures.attention_shares import (
    GROUPS,
    mean_of_layers,
    mixed,
    one_layer,
    record_layer_weights,
    record_shares,
    shares_by_step,
    step_numbers,
    teachers_mixture,
)


def totals(critical, special, sinks, tokens) -> StepTotals:
    return StepTotals(
        critical=np.array(critical, dtype=np.float64),
        special=np.array(special, dtype=np.float64),
        sinks=np.array(sinks, dtype=np.float64),
        overlap=np.zeros_like(np.array(critical, dtype=np.float64)),
        tokens=np.array(tokens),
    )


def test_steps_are_numbered_from_where_the_rationale_begins():
    marked = mark("Ann has 3 figs. Bo has 4. How many?", "3 + 4 = 7. The answer is 7.")
    assert step_numbers(marked).tolist() == [-3, -2, -1, 1, 2]


def test_shares_by_hand():
    # two layers, two steps of 4 and 5 tokens
    found = record_shares(
        totals([[1.0, 0.5], [3.0, 0.5]], [[2.0, 1.0], [0.0, 2.0]], [[0.0, 1.0], [0.0, 0.0]], [4, 5]),
        np.array([0.5, 0.5]),
    )
    assert GROUPS == ("critical", "other", "special", "sinks")
    np.testing.assert_allclose(found, [[0.5, 0.25, 0.25, 0.0], [0.1, 0.5, 0.3, 0.1]])
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_step_without_tokens_has_no_share():
    found = record_shares(totals([[0.0, 1.0]], [[0.0, 0.0]], [[0.0, 0.0]], [0, 2]), np.ones(1))
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [0.5, 0.5, 0.0, 0.0]
    (step,) = shares_by_step([(np.array([-1, 1]), found)])
    assert (step.step, step.records, step.critical.mean) == (1, 1, 0.5)


def test_each_position_is_over_the_records_that_have_it():
    def shares(*critical: float) -> np.ndarray:
        return np.array([[share, 1 - share, 0.0, 0.0] for share in critical])

    found = shares_by_step(
        [
            (np.array([-1, 1, 2]), shares(0.1, 0.2, 0.3)),
            (np.array([-1, 1]), shares(0.3, 0.4)),
            (np.array([-2, -1, 1]), shares(0.9, 0.5, 0.9)),
        ]
    )
    assert [(step.step, step.records) for step in found] == [(-2, 1), (-1, 3), (1, 3), (2, 1)]
    assert found[1].critical.mean == pytest.approx(0.3)
    assert found[2].critical.mean == pytest.approx(0.5)
    assert (found[2].critical.p25, found[2].critical.p75) == (pytest.approx(0.3), pytest.approx(0.65))
    assert found[1].other.mean == pytest.approx(0.7)


def test_layers_are_put_together_as_chosen():
    attention = np.arange(12, dtype=np.float16).reshape(2, 2, 3)
    assert mean_of_layers().mixed(attention).tolist() == [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]
    assert one_layer(2).mixed(attention).tolist() == attention[1].tolist()
    choice = teachers_mixture(0.1)
    assert choice.needs_attention and not one_layer(1).needs_attention
    np.testing.assert_allclose(choice.mixed(attention), mixed(attention, record_layer_weights(attention, 0.1)))


def test_nothing_heavy_is_loaded():
    heavy = ("torch", "zarr", "pandas", "matplotlib")
    code = f"import sys, stages.figures.attention_shares; print([n for n in {heavy} if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
