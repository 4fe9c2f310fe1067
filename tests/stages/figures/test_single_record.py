"""Eq. 4 for one record in numpy is that of the batches that students are trained on."""

import numpy as np
import pytest

from stages.figures.attention_shares import record_layer_weights
from stages.mixture import mixed_targets


def test_weights_worked_out_by_hand():
    attention = np.array([[[0.0, 1.0]], [[0.5, 0.5]]])  # G = 1 and 0
    odds = np.exp(1 / 0.5)
    np.testing.assert_allclose(record_layer_weights(attention, 0.5), [odds / (odds + 1), 1 / (odds + 1)])


@pytest.mark.parametrize("shape", [(4, 3, 5), (3, 1, 2), (2, 4, 1), (1, 1, 1)])
def test_they_are_those_of_the_batches(shape: tuple[int, int, int]):
    block = np.random.default_rng(0).gamma(0.5, size=shape).astype(np.float16)
    (target,) = mixed_targets([block], 0.1)
    np.testing.assert_allclose(record_layer_weights(block, 0.1), target.layer_weights, atol=1e-6)


def test_large_differences_do_not_overflow():
    attention = np.zeros((2, 1, 2))
    attention[0, 0, 1] = 60000
    np.testing.assert_array_equal(record_layer_weights(attention, 0.001), [1, 0])
