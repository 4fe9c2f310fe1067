"""The student's normaliser, and a few of its logits, at the price of a cross-entropy.

In: the student's logits (N, V). Out: their logsumexp, over all tokens or all but a few, and the logits of tokens that
somebody asks for. Why: `logsumexp` behind `scatter` beside `gather` gives the same, but each of these has a gradient
(N, V) of its own. Here one (N, V) lives between the passes, and the backward pass writes one more, once, and adds to a
few of its numbers. A cross-entropy of torch's has one between the passes, and two more in the backward pass.

Shapes: N rows, V vocabulary, K tokens left out of a row, M tokens asked for.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

NOWHERE = -1e30
"""Logit of tokens that are left out of a sum; finite, for −∞ has no gradient where all are left out."""


def log_sum(
    logits_NV: torch.Tensor, *asked: torch.Tensor, without_NK: torch.Tensor | None = None, temperature: float = 1.0
) -> tuple[torch.Tensor, ...]:
    """ℓ = ln Σ_{v not in without} exp(x_v / T), (N,), and for each of `asked`, tokens (N, M), the logits x (N, M).

    float32 or float64, as the logits; tokens are int64. A row's tokens may stand in several of `asked`, and twice in
    one of them. Where a row leaves all tokens out, ℓ is about `NOWHERE` / T. Its gradients are no graph: there is no
    second derivative.
    """
    found: tuple[torch.Tensor, ...] = _LogSum.apply(logits_NV, temperature, without_NK, *asked)  # type: ignore[no-untyped-call]
    return found


class _LogSum(torch.autograd.Function):
    """∂ℓ / ∂x_v = exp(x_v / T − ℓ) / T, and 0 for tokens left out; ∂x_v / ∂x_v = 1 for those asked for."""

    @staticmethod
    def forward(
        ctx: Any, logits_NV: torch.Tensor, temperature: float, without_NK: torch.Tensor | None, *asked: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        weights_NV = logits_NV.clone() if without_NK is None else logits_NV.scatter(1, without_NK, NOWHERE)
        largest_N1 = weights_NV.amax(dim=1, keepdim=True)
        weights_NV.sub_(largest_N1)
        if temperature != 1:
            weights_NV.div_(temperature)
        sum_N = weights_NV.exp_().sum(dim=1)
        ctx.temperature = temperature
        ctx.save_for_backward(weights_NV, sum_N, *asked)
        return largest_N1[:, 0] / temperature + sum_N.log(), *(logits_NV.gather(1, tokens) for tokens in asked)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_sum_N: torch.Tensor, *of_asked: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # Nothing is written into what is saved: a graph that is kept is gone through again.
        weights_NV, sum_N, *asked = ctx.saved_tensors
        gradient_NV = weights_NV * (of_sum_N / (sum_N * ctx.temperature))[:, None]
        for tokens, gradient in zip(asked, of_asked, strict=True):
            gradient_NV.scatter_add_(1, tokens, gradient)
        return gradient_NV, None, None, *(None for _ in asked)
