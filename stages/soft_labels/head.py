"""A teacher's head as numbers: a hidden state enters, its logits leave, with and without the model around it.

In: a model, or what was stored of it. Out: `TeacherHead`, whose logits are float32 whatever the weights are: a product
in bfloat16 is off by half a hundredth of a logit's size, and a softmax makes as much of every share.

Shapes: N rows, C width, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from data.errors import ModelError
from stages.head import Head, at_targets, has_plain_head, scaled

MOST_WEIGHTS = 2**25
"""Weights in float32 at a time, 128 MiB, where they are kept in another type."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherHead:
    """`weight` (V, C), `bias` (V,) or None, and what the family does to logits behind them (`stages.head.SCALES`)."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.weight.shape[0]

    def on(self, device: torch.device) -> "TeacherHead":
        """The same where hidden states of a batch are; itself if it is there already."""
        if self.weight.device == device:
            return self
        bias = None if self.bias is None else self.bias.to(device)
        return TeacherHead(weight=self.weight.to(device), bias=bias, scales=self.scales)

    def arrays(self, dtype: Literal["float16", "float32"]) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight and bias as they are stored."""
        weight, bias = (None if one is None else one.to(getattr(torch, dtype)) for one in (self.weight, self.bias))
        assert weight is not None, "a head has a weight"
        return weight.cpu().numpy(), None if bias is None else bias.cpu().numpy()

    @torch.no_grad()
    def logits(self, hidden_NC: torch.Tensor) -> torch.Tensor:
        """The logits (N, V), float32, or float64 for such weights; no gradient."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        hidden_NC = hidden_NC.to(self.weight.device, dtype)
        logits_NV = torch.empty(len(hidden_NC), self.vocabulary, dtype=dtype, device=hidden_NC.device)
        rows = max(1, MOST_WEIGHTS // self.weight.shape[1])
        for first in range(0, self.vocabulary, rows):
            logits_NV[:, first : first + rows] = hidden_NC @ self.weight[first : first + rows].to(dtype).T
        if self.bias is not None:
            logits_NV += self.bias.to(dtype)
        return scaled(logits_NV, self.scales)


def head_of(model: PreTrainedModel) -> TeacherHead:
    """The head of a model, without a copy of its weights.

    Raises `ModelError` where logits are more than a matrix and what is known of the family, where that matrix is
    quantised, and where it lies on a disk.
    """
    head = Head(model)
    module = head.module
    if not isinstance(module, nn.Linear) or not _in_memory(module) or not has_plain_head(model):
        raise ModelError(
            f"model type {model.config.model_type}: what makes logits of its hidden states is no plain matrix, or one "
            "that is quantised or not in memory, so that hidden states are no soft labels; keep likeliest tokens (top)"
        )
    return TeacherHead(
        weight=module.weight.detach(),
        bias=None if module.bias is None else module.bias.detach(),
        scales=head.scales,
    )


def _in_memory(module: nn.Linear) -> bool:
    """Whether it is a plain one, none that is derived from it for numbers of other kinds, with its weights at hand."""
    return type(module) is nn.Linear and module.weight.is_floating_point() and not module.weight.is_meta


@torch.no_grad()
def ends_at_its_head(model: PreTrainedModel) -> bool:
    """Whether the head sees what the body returns, and nothing comes between; two tokens are tried."""
    ids_BT = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    following_BT = torch.zeros_like(ids_BT)
    (seen,) = at_targets(model, {"input_ids": ids_BT}, [following_BT], plain_head=True)
    hidden_BTC = model.base_model(input_ids=ids_BT, use_cache=False)[0]
    return bool(torch.equal(seen.said, hidden_BTC[0]))
