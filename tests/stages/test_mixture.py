"""Layer weights of teacher and student: values worked out by hand, then properties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.mixture import LayerRouter, mix_layers, router_factor, share_of_even, teacher_layer_weights


def everything(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def test_teacher_weights_by_hand():
    # Layer 0: |3-1| + |2-3| = 3 and |1-1| + |1-1| = 0, over S (K-1) = 4 pairs: 0.75. Layer 1 is flat: 0.
    attention = torch.tensor([[[[1.0, 3.0, 2.0], [1.0, 1.0, 1.0]], [[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]]]])
    weights = teacher_layer_weights(attention, everything(1, 2), everything(1, 3), tau=0.5)
    first = math.exp(0.75 / 0.5) / (math.exp(0.75 / 0.5) + 1)
    torch.testing.assert_close(weights, torch.tensor([[first, 1 - first]]))


def test_padding_changes_no_teacher_weight():
    torch.manual_seed(0)
    attention = torch.rand(1, 4, 3, 5)
    plain = teacher_layer_weights(attention, everything(1, 3), everything(1, 5), tau=0.1)
    padded = torch.full((1, 4, 6, 9), 7.0)
    padded[:, :, :3, :5] = attention
    steps, words = torch.arange(6)[None] < 3, torch.arange(9)[None] < 5
    torch.testing.assert_close(teacher_layer_weights(padded, steps, words, tau=0.1), plain)


@pytest.mark.parametrize("words", [0, 1])
def test_layers_weigh_the_same_where_eq_4_is_undefined(words: int):
    weights = teacher_layer_weights(torch.rand(1, 4, 2, words), everything(1, 2), everything(1, words), tau=0.1)
    torch.testing.assert_close(weights, torch.full((1, 4), 0.25))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.floats(0.01, 10))
def test_teacher_weights_are_a_distribution(layers: int, steps: int, words: int, tau: float):
    weights = teacher_layer_weights(
        torch.rand(2, layers, steps, words), everything(2, steps), everything(2, words), tau
    )
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    assert (weights >= 0).all()


def test_mixing_is_the_weighted_sum_of_layers():
    attention = torch.tensor([[[[1.0, 2.0]], [[10.0, 20.0]]]])
    mixed = mix_layers(attention, torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(mixed, torch.tensor([[[7.75, 15.5]]]))


def test_the_router_starts_with_even_weights():
    weights = LayerRouter(3, 4, tau=0.5)(torch.randn(2, 3, 5, 4), everything(2, 5))
    torch.testing.assert_close(weights, torch.full((2, 3), 1 / 3))


def test_router_by_hand():
    router = LayerRouter(2, 2, tau=0.5)
    with torch.no_grad():
        router.score.weight[0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        router.score.bias[1] = 0.25
    values = torch.tensor([[[[3.0, 4.0], [0.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    # RMSNorm of (3, 4) is (3, 4) / sqrt(12.5), that of (0, 2) is (0, 2) / sqrt(2): h_1[0] = 3 / sqrt(12.5).
    logits = torch.tensor([[3 / math.sqrt(12.5), 0.25]]) / 0.5
    torch.testing.assert_close(router(values, everything(1, 2)), torch.softmax(logits, dim=-1))


def test_a_router_with_a_factor_takes_the_mean_over_tokens_by_hand():
    router = LayerRouter(2, 2, tau=0.5, factor=0.3)
    with torch.no_grad():
        router.score.weight[0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        router.score.bias[1] = 0.25
    values = torch.tensor([[[[3.0, 4.0], [0.0, 2.0], [9.0, 9.0]], [[1.0, 1.0], [1.0, 1.0], [9.0, 9.0]]]])
    # As above, of two tokens and without the third, times the factor.
    logits = torch.tensor([[0.3 * 3 / math.sqrt(12.5) / 2, 0.25]]) / 0.5
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(router(values, mask), torch.softmax(logits, dim=-1))
    assert router(values, torch.zeros(1, 3, dtype=torch.bool)).isfinite().all(), "a text without tokens"


@pytest.mark.parametrize(("layers", "width", "tokens"), [(2, 8, 5), (6, 96, 40)])
@pytest.mark.parametrize("learning_rate", [5e-5, 2e-3])
def test_a_step_of_the_optimizer_moves_a_score_by_the_routers_own_rate(
    layers: int, width: int, tokens: int, learning_rate: float
):
    """Whatever the model, the text and the student's rate: value states of size 1 move it by all of that."""
    factor = router_factor(layers, width, router_learning_rate=0.1, learning_rate=learning_rate)
    router = LayerRouter(layers, width, tau=1.0, factor=factor)
    values = torch.ones(1, layers, tokens, width)
    optimizer = torch.optim.AdamW(router.parameters(), lr=learning_rate, weight_decay=0.0)
    router(values, everything(1, tokens))[0, 0].backward()
    optimizer.step()
    scores = torch.log(router(values, everything(1, tokens))[0])
    moved = (scores[1] - scores[0]) / 2  # the first layer's score went down, all others went up
    torch.testing.assert_close(moved.item(), 0.1 + learning_rate, rtol=1e-3, atol=0)  # W's part and b's


def test_router_ignores_padding_tokens():
    router = LayerRouter(2, 3, tau=0.5)
    torch.nn.init.normal_(router.score.weight)
    values = torch.randn(1, 2, 4, 3)
    longer = torch.cat([values, 100 * torch.randn(1, 2, 2, 3)], dim=2)
    mask = torch.arange(6)[None] < 4
    torch.testing.assert_close(router(longer, mask), router(values, everything(1, 4)))


def test_router_learns_from_the_first_step():
    router = LayerRouter(2, 3, tau=0.5)
    router(torch.randn(1, 2, 4, 3), everything(1, 4))[0, 0].backward()
    assert router.score.weight.grad is not None
    assert router.score.weight.grad.abs().sum() > 0


def test_evenness_of_weights_by_hand():
    weights = torch.tensor([[0.25] * 4, [0.5, 0.5, 0, 0], [1.0, 0, 0, 0]])
    torch.testing.assert_close(share_of_even(weights), torch.tensor([1.0, 0.5, 0.0]))
    assert share_of_even(torch.ones(2, 1)).tolist() == [1.0, 1.0], "a model of one layer"
