"""Muon (Keller Jordan, 2024) in float32: a momentum step whose matrices are made nearly orthogonal.

In: matrices with their gradients. Out: the matrices after a step. Why not torch.optim.Muon: it computes in bfloat16,
which many CPUs only emulate (torch 2.13).

Shapes: N matrices of one shape, R rows, C columns.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that is applied to singular values: its slope at zero is steep, and it ends between 0.7 and 1.2."""
TIMES = 5
EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """As torch.optim.Muon with Nesterov's momentum and `adjust_lr_fn="match_rms_adamw"`, for two-dimensional weights.

    A weight R × C moves by `lr · 0.2 · √max(R, C)` times its orthogonal step, about as far as AdamW would move it
    (arXiv 2502.16982), so that both learn at one rate.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], *, lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # closures: none
        """Take a step; weights of one shape are made orthogonal together."""
        assert closure is None, "the loss is computed before"
        for group in self.param_groups:
            of_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    of_shape[weight.shape].append(weight)
            for weights in of_shape.values():
                self._move(weights, group)

    def _move(self, weights: list[nn.Parameter], group: dict[str, Any]) -> None:
        directions = []
        for weight in weights:
            assert weight.grad is not None, "weights without gradients stay"
            state = self.state[weight]
            average = state.setdefault("momentum_buffer", torch.zeros_like(weight))
            average.lerp_(weight.grad, 1 - group["momentum"])
            directions.append(weight.grad.lerp(average, group["momentum"]))
        steps_NRC = orthogonal(torch.stack(directions))
        size = 0.2 * max(weights[0].shape) ** 0.5
        for weight, step in zip(weights, steps_NRC, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=group["lr"] * size)


def orthogonal(matrices_NRC: torch.Tensor) -> torch.Tensor:
    """Nearly U Vᵀ of each matrix U S Vᵀ, by Newton-Schulz iterations in float32; singular values end near 1."""
    wide = matrices_NRC.shape[1] <= matrices_NRC.shape[2]
    found = matrices_NRC.float() if wide else matrices_NRC.float().mT
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)
    first, third, fifth = COEFFICIENTS
    for _ in range(TIMES):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), found, beta=first)
    return found if wide else found.mT
