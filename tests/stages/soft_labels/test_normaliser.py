"""The student's normaliser: values by hand, torch's own operations, what is kept, what the graph bears."""

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from stages.soft_labels.normaliser import NOWHERE, log_sum

WITHOUT = torch.tensor([[0, 3], [5, 5], [1, 2]])
ASKED = (torch.tensor([[3, 0], [5, 1], [4, 4]]), torch.tensor([[3], [5], [4]]))
"""Tokens that are left out, ones that are not, one twice, and the same ones once more."""


def logits(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randn(3, 6, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()


def by_torch(logits_NV: torch.Tensor, temperature: float, without_NK: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    left_NV = logits_NV if without_NK is None else logits_NV.scatter(1, without_NK, NOWHERE)
    return torch.logsumexp(left_NV / temperature, dim=1), *(logits_NV.gather(1, tokens) for tokens in ASKED)


def weighed(outputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """A number that every output moves, each of its entries differently."""
    flat = torch.cat([one.flatten() for one in outputs])
    return (flat * torch.arange(1, len(flat) + 1, dtype=flat.dtype)).sum()


def test_a_sum_without_a_token_by_hand():
    # Weights 1, 2, 3 and 4; without the third 1 + 2 + 4 = 7.
    x = torch.tensor([[math.log(1), math.log(2), math.log(3), math.log(4)]], requires_grad=True)
    total, asked = log_sum(x, torch.tensor([[3, 2]]), without_NK=torch.tensor([[2]]))
    torch.testing.assert_close(total, torch.tensor([math.log(7)]))
    torch.testing.assert_close(asked, torch.tensor([[math.log(4), math.log(3)]]))
    (gradient,) = torch.autograd.grad(total.sum() + 10 * asked[0, 1], x)
    torch.testing.assert_close(gradient, torch.tensor([[1 / 7, 2 / 7, 10.0, 4 / 7]]))


@pytest.mark.parametrize("without", [None, WITHOUT])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_values_and_gradients_are_those_of_torch(temperature: float, without: torch.Tensor | None):
    for dtype, close in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        x = logits(dtype)
        found, expected = (
            log_sum(x, *ASKED, without_NK=without, temperature=temperature),
            by_torch(x, temperature, without),
        )
        torch.testing.assert_close(found, expected, atol=close, rtol=close)
        gradients = [torch.autograd.grad(weighed(one), x)[0] for one in (found, expected)]
        torch.testing.assert_close(*gradients, atol=close, rtol=close)
    assert torch.autograd.gradcheck(lambda x: log_sum(x, *ASKED, without_NK=without, temperature=temperature), logits())


def test_large_logits_and_rows_without_a_token_are_finite():
    x = torch.tensor([[3e38, -3e38, 0.0], [-math.inf, 1e4, 1e4], [1.0, 2.0, 3.0]], requires_grad=True)
    without = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 2]])
    (total,) = log_sum(x, without_NK=without, temperature=2.0)
    torch.testing.assert_close(total, torch.tensor([1.5e38, 5e3, NOWHERE / 2]))
    (gradient,) = torch.autograd.grad(total.sum(), x)
    torch.testing.assert_close(gradient[:2], torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 0.5]]))
    assert gradient.isfinite().all()


def test_the_logits_stay_as_they_are_and_one_matrix_is_kept():
    x, kept = logits(), []
    before = x.detach().clone()
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.shape) or one, lambda one: one):
        outputs = log_sum(x, *ASKED, without_NK=WITHOUT)
    assert torch.equal(x, before)
    assert sorted(kept) == sorted([x.shape, (3,), *(tokens.shape for tokens in ASKED)])
    del outputs


def test_a_graph_that_is_kept_gives_the_same_gradients_again():
    x = logits()
    total = weighed(log_sum(x, *ASKED, without_NK=WITHOUT))
    first, second = (torch.autograd.grad(total, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    total.backward()
    assert torch.equal(first, x.grad)


def test_what_is_computed_again_in_the_backward_pass_gives_the_same_gradients():
    x = logits()
    plain = weighed(log_sum(x, *ASKED, without_NK=WITHOUT))
    again = checkpoint(lambda x: weighed(log_sum(x, *ASKED, without_NK=WITHOUT)), x, use_reentrant=False)
    assert torch.equal(plain, again)
    assert torch.equal(torch.autograd.grad(plain, x)[0], torch.autograd.grad(again, x)[0])


def test_outputs_that_no_loss_uses_move_nothing():
    x = logits()
    total, asked, _ = log_sum(x, *ASKED, without_NK=WITHOUT)
    (gradient,) = torch.autograd.grad(total.sum(), x, retain_graph=True)
    assert (gradient.gather(1, WITHOUT) == 0).all()
    (gradient,) = torch.autograd.grad(asked.sum(), x)
    assert gradient.tolist() == [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 2, 0]]


def test_a_second_derivative_is_refused():
    x = logits()
    (gradient,) = torch.autograd.grad(weighed(log_sum(x, *ASKED)).square(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
