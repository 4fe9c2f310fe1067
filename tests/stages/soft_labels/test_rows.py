"""What is kept of a teacher's rows: by hand, against float64, and whatever the block and the batch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import ModelError
from stages.soft_labels import rows as rows_module
from stages.soft_labels.rows import (
    LOWEST,
    blocks,
    in_blocks,
    likeliest,
    log_probability,
    sampled,
    uniforms,
    without_empty_columns,
)


def random_logits(rows: int, vocabulary: int, seed: int = 0) -> torch.Tensor:
    return 4 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) + 20


# The likeliest


def test_the_likeliest_by_hand():
    found = likeliest(torch.tensor([[1.0, 5.0, 3.0, 4.5], [2.0, 2.0, 2.0, 7.0]]), 3)
    assert found.tokens.tolist() == [[1, 3, 2], [3, 0, 1]]
    assert found.logits.tolist() == [[0, -0.5, -2], [0, -5, -5]]
    norm = math.log(1 + math.exp(-0.5) + math.exp(-2) + math.exp(-4))
    assert found.log_norms[0, 0] == pytest.approx(norm, abs=1e-7)
    at_two = math.log(1 + math.exp(-0.25) + math.exp(-1) + math.exp(-2))
    assert found.log_norms[0, 1] == pytest.approx(at_two, abs=1e-7)
    kinds = [found.tokens.dtype, found.logits.dtype, found.log_norms.dtype]
    assert kinds == [np.uint32, np.float16, np.float32]


def test_what_is_equal_in_float16_alone_stands_by_id():
    found = likeliest(torch.tensor([[9.0, 1.00001, 1.0, 1.00002]]), 4)
    assert found.tokens.tolist() == [[0, 1, 2, 3]] and len(set(found.logits[0].tolist())) == 2
    assert likeliest(torch.tensor([[9.0, 1.00001, 1.0, 1.00002]]), 2).tokens.tolist() == [[0, 3]]


def test_logits_below_float16_and_without_bottom_are_clipped():
    found = likeliest(torch.tensor([[0.0, -1e6, -math.inf]]), 3)
    assert found.logits.tolist() == [[0, LOWEST, LOWEST]] and found.tokens.tolist() == [[0, 1, 2]]
    assert found.log_norms.tolist() == [[0, 0]]
    assert log_probability(torch.tensor([[0.0, -1e6, -math.inf]]), torch.tensor([2])).tolist() == [LOWEST]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_they_are_those_of_a_plain_sort(data: st.DataObject):
    """Of logits with many equal ones, as bfloat16 has them."""
    count = data.draw(st.integers(1, 9))
    values = data.draw(st.lists(st.lists(st.integers(-3, 3), min_size=count, max_size=count), min_size=1, max_size=4))
    k = data.draw(st.integers(1, count))
    found = likeliest(torch.tensor(values, dtype=torch.bfloat16), k)
    for row, of_row in enumerate(values):
        expected = sorted(range(count), key=lambda token: (-of_row[token], token))[:k]
        assert found.tokens[row].tolist() == expected
        assert found.logits[row].tolist() == [of_row[token] - max(of_row) for token in expected]


@pytest.mark.parametrize("vocabulary", [7, 40_000])
def test_log_norms_and_log_probabilities_are_those_of_float64(vocabulary: int):
    logits, wanted = random_logits(6, vocabulary), torch.arange(6)
    exact = logits.double()
    found = likeliest(logits, 5)
    for column, temperature in enumerate((1, 2)):
        relative = (exact - exact.amax(dim=1, keepdim=True)) / temperature
        expected = torch.logsumexp(relative, dim=1).numpy()
        np.testing.assert_allclose(found.log_norms[:, column], expected, atol=1e-6, rtol=0)
    expected = torch.log_softmax(exact, dim=1)[torch.arange(6), wanted].numpy()
    np.testing.assert_allclose(log_probability(logits, wanted), expected, atol=2e-6, rtol=0)


def test_the_token_that_stands_there_has_the_log_probability_that_its_row_gives_it():
    logits = random_logits(5, 50)
    found = likeliest(logits, 50)
    for row in range(5):
        token, place = 17, found.tokens[row].tolist().index(17)
        of_row = float(found.logits[row, place]) - found.log_norms[row, 0]
        assert log_probability(logits[row : row + 1], torch.tensor([token]))[0] == pytest.approx(of_row, abs=1e-2)


@pytest.mark.parametrize("k", [0, 5])
def test_more_tokens_than_there_are_cannot_be_kept(k: int):
    with pytest.raises(ValueError, match="k: expected 1 to 4"):
        likeliest(torch.zeros(1, 4), k)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(broken: float):
    with pytest.raises(ModelError, match="no finite numbers"):
        likeliest(torch.tensor([[0.0, 1.0], [0.0, broken]]), 1)


# Draws


def test_draws_by_hand():
    # Shares 1/2, 1/4, 1/4 end at 0.5, 0.75, 1.
    logits = torch.tensor([[math.log(2), 0.0, 0.0]] * 2)
    found = sampled(logits, np.array([[0.1, 0.6, 0.76, 0.9], [0.0, 0.5, 0.8, 0.99]]))
    assert found.tokens.tolist() == [[2, 0, 1, 0], [2, 0, 1, 0]]
    assert found.counts.tolist() == [[2, 1, 1, 0], [2, 1, 1, 0]]
    assert (found.tokens.dtype, found.counts.dtype) == (np.uint32, np.uint16)
    assert without_empty_columns(found).tokens.tolist() == [[2, 0, 1], [2, 0, 1]]


def test_counts_sum_to_the_draws_and_follow_the_distribution():
    logits = random_logits(4, 30, 1) / 4
    found = sampled(logits, uniforms("a" * 64, 0, 4, 40_000))
    assert (found.counts.sum(axis=1, dtype=np.int64) == 40_000).all()
    shares = np.zeros((4, 30))
    for row in range(4):
        drawn = found.counts[row] > 0
        counts, tokens = found.counts[row, drawn].astype(int), found.tokens[row, drawn].astype(int)
        assert sorted(zip(-counts, tokens, strict=True)) == list(zip(-counts, tokens, strict=True))
        assert len(set(tokens)) == len(tokens)
        shares[row, tokens] = counts / 40_000
    np.testing.assert_allclose(shares, torch.softmax(logits, dim=1).numpy(), atol=0.015, rtol=0)


def test_draws_depend_on_key_seed_and_row_alone():
    logits = random_logits(6, 20)
    numbers = uniforms("a" * 64, 3, 6, 8)
    together = sampled(logits, numbers)
    for row in range(6):
        alone = sampled(logits[row : row + 1], numbers[row : row + 1])
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
        np.testing.assert_array_equal(alone.counts[0], together.counts[row])
    assert not np.array_equal(numbers, uniforms("b" * 64, 3, 6, 8))
    assert not np.array_equal(numbers, uniforms("a" * 64, 4, 6, 8))
    assert len(np.unique(numbers)) == numbers.size, "rows have draws of their own"


def test_draws_stay_the_same_from_release_to_release():
    expected = [0.5318093506718949, 0.7952363672980878, 0.8111775436999287]
    np.testing.assert_allclose(uniforms("k", 0, 1, 3)[0], expected, rtol=1e-15)


def test_what_has_no_share_is_never_drawn():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])
    found = sampled(logits, np.array([[0.0, 0.49, 0.5, 1 - 2**-53]]))
    assert found.tokens[0, :2].tolist() == [1, 3] and found.counts.tolist() == [[2, 2, 0, 0]]


def test_more_draws_than_a_count_can_hold_are_refused():
    with pytest.raises(ValueError, match="draws: expected at most 65,535"):
        sampled(torch.zeros(1, 2), np.zeros((1, 70_000)))


# Blocks


def test_blocks_hold_no_more_logits_than_they_may_and_change_nothing(monkeypatch: pytest.MonkeyPatch):
    logits, wanted = random_logits(11, 9), torch.arange(11) % 9
    whole = (*likeliest(logits, 4), log_probability(logits, wanted))
    for most, expected in ((9 * 4, 4), (1, 1), (10**6, 11)):
        monkeypatch.setattr(rows_module, "MOST_LOGITS", most)
        sizes = [block.stop - block.start for block in blocks(11, 9)]
        assert sum(sizes) == 11 and max(sizes) == expected
        cut = in_blocks(
            11, 9, lambda block: (*likeliest(logits[block], 4), log_probability(logits[block], wanted[block]))
        )
        for one, other in zip(cut, whole, strict=True):
            np.testing.assert_array_equal(one, other)
