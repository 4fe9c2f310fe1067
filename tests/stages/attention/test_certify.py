"""The certificate of what storing changes: by hand where that can be, else beside the formulas that training uses."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from cache.rounding import stored_values
from stages.attention.certify import MOST_COMPARED, TAU, certify, relative_errors, sampled, target_divergence
from stages.losses import attention_loss
from stages.mixture import mix_layers, teacher_layer_weights
from stages.settings import ObjectiveSettings


def made_up(count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = [(4, 1 + number % 5, 1 + number % 7) for number in range(count)]
    return [random.gamma(0.3, size=shape).astype(np.float32) for shape in shapes]


def everything(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def test_relative_errors_by_hand():
    exact = np.array([1.0, 0.5, 0.0, 2.0**-15], dtype=np.float32)
    stored = np.array([1.25, 0.5, 0.0, 0.0], dtype=np.float16)
    # Below 2^-14, relative to 2^-14.
    assert relative_errors(exact, stored).tolist() == [0.25, 0.0, 0.0, 0.5]


def test_divergence_of_targets_by_hand():
    # softmax(0, log 3) = (1/4, 3/4), softmax(0, 0) = (1/2, 1/2); the second step is the same in both.
    exact = np.array([[0.0, math.log(3)], [1.0, 2.0]], dtype=np.float32)
    stored = np.array([[0.0, 0.0], [1.0, 2.0]], dtype=np.float32)
    expected = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    assert target_divergence(exact, stored) == pytest.approx(expected, rel=1e-6)
    assert target_divergence(exact, exact) == 0


def test_divergence_of_targets_is_the_attention_loss():
    random = np.random.default_rng(1)
    exact, stored = random.gamma(1.0, size=(2, 5, 6)).astype(np.float32)
    loss = attention_loss(
        torch.from_numpy(exact)[None], torch.from_numpy(stored)[None], everything(1, 5), everything(1, 6)
    )
    assert target_divergence(exact, stored) == pytest.approx(loss.item(), rel=1e-5)


def test_divergence_of_targets_resolves_what_float32_does_not():
    exact = np.array([[0.0, 0.0]], dtype=np.float32)
    stored = np.array([[0.0, 1e-6]], dtype=np.float32)
    assert target_divergence(exact, stored) == pytest.approx(1e-12 / 8, rel=1e-2)  # δ²/8 for two equal words


@pytest.mark.parametrize("bits", [2, 5])
def test_certificate_equals_a_direct_computation(bits: int):
    blocks = made_up(12)
    found = certify(blocks, bits)
    errors, changes, distances, divergences = [], [], [], []
    for block in blocks:
        rounded = stored_values(block, bits)
        for exact, kept in zip(block.flat, rounded.flat, strict=True):
            errors.append(abs(float(kept) - float(exact)) / max(float(exact), 2**-14))
        exact, kept = torch.from_numpy(block)[None], torch.from_numpy(rounded.astype(np.float32))[None]
        masks = everything(1, block.shape[1]), everything(1, block.shape[2])
        before, after = (teacher_layer_weights(one, *masks, tau=0.1) for one in (exact, kept))
        changes.append((before - after).abs().max().item())
        distances.append((before - after).abs().sum().item() / 2)
        loss = attention_loss(mix_layers(exact, before), mix_layers(kept, after), *masks)
        divergences.append(loss.item())
    assert (found.records, found.values, found.sampled_records) == (12, sum(block.size for block in blocks), 12)
    assert found.largest_relative_error == pytest.approx(max(errors))
    assert found.mean_relative_error == pytest.approx(np.mean(errors))
    assert found.largest_weight_change == pytest.approx(max(changes), abs=1e-6)
    assert found.mean_weight_distance == pytest.approx(np.mean(distances), abs=1e-6)
    assert found.largest_target_divergence == pytest.approx(max(divergences), rel=0.02, abs=1e-6)
    assert found.mean_target_divergence == pytest.approx(np.mean(divergences), rel=0.02, abs=1e-6)
    assert found.mean_target_divergence > 1e-6


def test_float16_alone_costs_its_own_rounding_and_fewer_bits_cost_more():
    blocks = made_up(20)
    by_bits = [certify(blocks, bits) for bits in (10, 7, 4, 1)]
    assert 0 < by_bits[0].largest_relative_error <= 2**-11
    for finer, coarser in pairwise(by_bits):
        assert finer.largest_relative_error < coarser.largest_relative_error
        assert finer.mean_relative_error < coarser.mean_relative_error
        assert finer.mean_weight_distance < coarser.mean_weight_distance
        assert finer.mean_target_divergence < coarser.mean_target_divergence


def test_what_float16_holds_exactly_is_certified_as_unchanged():
    found = certify([np.array([[[0.5, 0.25, 0.0]], [[1.0, 1.5, 3.0]]], dtype=np.float32)], 1)
    assert (found.largest_relative_error, found.largest_weight_change, found.largest_target_divergence) == (0, 0, 0)


@pytest.mark.parametrize("count", [1, MOST_COMPARED, MOST_COMPARED + 1, 1000])
def test_sample_is_bounded_begins_with_the_first_and_is_the_same_every_time(count: int):
    blocks = made_up(count)
    chosen = sampled(blocks)
    assert min(count, MOST_COMPARED // 2) <= len(chosen) <= MOST_COMPARED
    assert chosen[0] is blocks[0]
    assert all(one is other for one, other in zip(chosen, sampled(blocks), strict=True))
    assert certify(blocks, 6).records == count


def test_layer_weights_are_compared_at_the_default_temperature():
    assert TAU == ObjectiveSettings().tau_teacher == certify(made_up(1), 5).tau
