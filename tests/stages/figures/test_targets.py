"""What is said of targets before training: by hand, and against what training itself makes of the same attention."""

import math

import numpy as np
import pytest
import torch

from data.errors import ConfigError
from stages.figures.targets import (
    FLOOR,
    MOST_RECORDS,
    nats_from_uniform,
    row_probabilities,
    says_of_targets,
    share_of_even,
    target_figures,
)
from stages.losses import FLOOR as FLOOR_OF_THE_LOSS
from stages.losses import attention_loss
from stages.mixture import mixed_targets
from stages.mixture import share_of_even as share_of_even_in_torch
from stages.settings import ObjectiveSettings, SinglePair


def records(count: int, *, layers: int = 3, largest: float = 5.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = [(layers, int(random.integers(1, 5)), int(random.integers(1, 6))) for _ in range(count)]
    return {f"{number:04d}": (random.random(shape) * largest).astype(np.float16) for number, shape in enumerate(shapes)}


def test_shares_and_softmax_of_a_row_by_hand():
    row = np.array([[math.log(3), 0.0]])
    assert row_probabilities(row, "softmax")[0].tolist() == pytest.approx([0.75, 0.25])
    assert row_probabilities(np.array([[3.0, 1.0]]), "share")[0].tolist() == pytest.approx([0.75, 0.25], abs=1e-6)
    assert row_probabilities(np.zeros((1, 4)), "share")[0].tolist() == [0.25] * 4
    assert FLOOR == FLOOR_OF_THE_LOSS


def test_nats_from_uniform_by_hand():
    """KL of (3/4, 1/4) from (1/2, 1/2); even rows are at 0, a row that has all in one of four words at log 4."""
    found = nats_from_uniform(np.array([[0.75, 0.25], [0.5, 0.5]]))
    assert found.tolist() == pytest.approx([0.75 * math.log(1.5) + 0.25 * math.log(0.5), 0.0])
    assert nats_from_uniform(np.array([1.0, 0, 0, 0])) == pytest.approx(math.log(4))


def test_share_of_even_by_hand():
    assert share_of_even(np.array([0.25] * 4)) == pytest.approx(1)
    assert share_of_even(np.array([1.0, 0, 0])) == 0
    assert share_of_even(np.array([0.5, 0.5, 0, 0])) == pytest.approx(0.5)
    assert share_of_even(np.array([1.0])) == 1


def test_the_layer_that_dominates_by_hand():
    """Of two layers the first varies in two records, the second in one; by tau 0.1 a change of 1 weighs e^10."""
    flat, steep = np.zeros((1, 2)), np.array([[0.0, 1.0]])
    attention = {"a": np.stack([steep, flat]), "b": np.stack([flat, steep]), "c": np.stack([steep, flat])}
    weights = target_figures(attention, ["a", "b", "c"], ObjectiveSettings()).weights
    high = math.exp(10) / (math.exp(10) + 1)
    assert weights is not None
    assert (weights.layer, weights.share) == (1, pytest.approx(2 / 3))
    assert weights.weight == pytest.approx((2 * high + 1 - high) / 3)
    entropy = -(high * math.log(high) + (1 - high) * math.log(1 - high)) / math.log(2)
    assert weights.entropy == pytest.approx(entropy)


@pytest.mark.parametrize("rows", ["softmax", "share"])
def test_the_distance_is_the_loss_of_a_student_that_looks_everywhere_alike(rows: str):
    attention, settings = records(20), ObjectiveSettings(rows=rows, tau_teacher=0.5)
    found = target_figures(attention, list(attention), settings)
    targets = mixed_targets(list(attention.values()), 0.5)
    losses, evenness = [], []
    for target in targets:
        teacher = torch.from_numpy(target.attention)
        masks = (torch.ones(teacher.shape[:2], dtype=torch.bool), torch.ones(1, teacher.shape[2], dtype=torch.bool))
        losses.append(float(attention_loss(teacher, torch.ones_like(teacher), *masks, rows=rows)))
        evenness.append(float(share_of_even_in_torch(torch.from_numpy(target.layer_weights))))
    assert found.nats_from_uniform == pytest.approx(np.mean(losses), rel=1e-4)
    assert found.weights is not None and found.weights.entropy == pytest.approx(np.mean(evenness), rel=1e-4)


@pytest.mark.parametrize(("alignment", "layer"), [("last", 2), (SinglePair(single=(1, 1)), 0)])
def test_one_layer_alone_is_its_own_target(alignment, layer: int):
    attention = records(5)
    found = target_figures(attention, list(attention), ObjectiveSettings(alignment=alignment))
    rows = [nats_from_uniform(row_probabilities(block[layer], "share")).mean() for block in attention.values()]
    assert found.weights is None and found.nats_from_uniform == pytest.approx(np.mean(rows))


def test_a_layer_that_the_teacher_has_not_is_refused():
    with pytest.raises(ConfigError, match=r"objective\.alignment: single: 4 is a layer of the teacher, which has 3"):
        target_figures(records(1), ["0000"], ObjectiveSettings(alignment=SinglePair(single=(4, 1))))


@pytest.mark.parametrize(("alignment", "says"), [("mixture", True), ("last", True), ("uniform", False)])
def test_layers_paired_in_turn_are_not_spoken_of(alignment, says: bool):
    assert says_of_targets(alignment) is says


class Counting(dict):
    """Remembers which records were read."""

    def __getitem__(self, key: str) -> np.ndarray:
        self.setdefault("read", [])
        super().__getitem__("read").append(key)
        return super().__getitem__(key)


def test_of_many_records_some_are_read_evenly_spaced():
    keys = [f"{number:04d}" for number in range(2 * MOST_RECORDS)]
    attention = Counting(dict.fromkeys(keys, np.ones((2, 1, 2))))
    found = target_figures(attention, keys, ObjectiveSettings())
    assert dict.__getitem__(attention, "read") == keys[::2]
    assert (found.records, found.stored) == (MOST_RECORDS, 2 * MOST_RECORDS)
