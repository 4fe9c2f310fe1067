"""The mixture of layers: how much each layer of teacher and student counts (Eq. 4 and 5 after arXiv 2604.15701).

In: stepwise attention of all layers, or the student's value states. Out: one distribution over layers a record.
Why: the layers that tell key information apart differ from record to record, and no layer of the student belongs to a
particular one of the teacher.

Shapes: B batch, L layers, T tokens, S reasoning steps, K critical words, C = key-value heads × head size. Masks are
True where there is a step, word or token.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from cache.targets import Combined

CHUNK = 512
Target = Combined
"""The teacher's `attention` (P, S, K) to learn from, and its `layer_weights` (L,), both float32."""


def teacher_layer_weights(
    attention: torch.Tensor, step_mask: torch.Tensor, word_mask: torch.Tensor, tau: float
) -> torch.Tensor:
    """Layers in which attention varies most from word to word weigh most; no parameters.

        G(A_l) = Σ_s Σ_{k<K} |A_l[s, k+1] − A_l[s, k]| / (S (K − 1)),   p = softmax(G / τ)        Eq. 4

    `attention` (B, L, S, K), `step_mask` (B, S), `word_mask` (B, K) with the words at the front; returns (B, L) in
    float32. Pairs of words are neighbours in the order of the text.
    Departure: for K = 1 (and no step) G is undefined; the layers then weigh the same.
    """
    attention = at_least_float32(attention)
    pair_mask = (word_mask[:, 1:] & word_mask[:, :-1])[:, None, None, :] & step_mask[:, None, :, None]
    change = (attention[..., 1:] - attention[..., :-1]).abs().masked_fill(~pair_mask, 0.0)
    pairs = pair_mask.sum(dim=(2, 3)).clamp(min=1)
    return torch.softmax(change.sum(dim=(2, 3)) / pairs / tau, dim=-1)


def mix_layers(attention: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """`A = Σ_l p_l A_l`: `attention` (B, L, S, K) and `weights` (B, L) give (B, S, K)."""
    return torch.einsum("blsk,bl->bsk", at_least_float32(attention), weights)


class LayerRouter(nn.Module):
    """The student's layer weights, learned with it and thrown away afterwards.

        h_l = Σ_i RMSNorm(V_l)[i, :],   H = [h_1 … h_L],   p = softmax((W H + b) / τ)             Eq. 5

    W is (L, L·C), b is (L,). RMSNorm has no gain of its own, for W would absorb it. The text of the paper at hand does
    not say how W and b begin: here at zero, so that training starts from even weights. The value states are not
    detached.

    A sum over T tokens of L·C numbers moves p far with every step of an optimizer whose steps have a size of their own,
    such as AdamW's. With a `factor`, `factor · H / T` is in the place of H; see `router_factor`.
    """

    def __init__(self, layers: int, width: int, tau: float, *, factor: float | None = None) -> None:
        super().__init__()
        self.tau, self.factor = tau, factor
        self.score = nn.Linear(layers * width, layers)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, value_states: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """`value_states` (B, L, T, C) and `token_mask` (B, T) give weights (B, L), float32."""
        normed = nn.functional.rms_norm(at_least_float32(value_states), value_states.shape[-1:])
        summed = torch.einsum("bltc,bt->blc", normed, token_mask.to(normed))
        if self.factor is not None:
            tokens = token_mask.sum(dim=1).clamp(min=1).to(normed)
            summed = self.factor * summed / tokens[:, None, None]
        return torch.softmax(at_least_float32(self.score(summed.flatten(1))) / self.tau, dim=-1)


def router_factor(layers: int, width: int, *, router_learning_rate: float, learning_rate: float) -> float:
    """By what a `LayerRouter`'s means have to be multiplied for a learning rate of its own.

    AdamW moves each of the L·C weights of a score by about `learning_rate`. Behind this factor all of them together
    move the score by `router_learning_rate` at most, as the rate of an output layer falls with its width after arXiv
    2203.03466 (μP); a rate of its own needs no second group of parameters then.
    """
    return router_learning_rate / (learning_rate * layers * width)


def share_of_even(weights: torch.Tensor) -> torch.Tensor:
    """Entropy of weights over layers (…, L), as a share of that of even weights: 1 for these, 0 for a single layer."""
    weights = at_least_float32(weights)
    entropy = -torch.special.xlogy(weights, weights).sum(dim=-1)
    return entropy / math.log(weights.shape[-1]) if weights.shape[-1] > 1 else torch.ones_like(entropy)


def at_least_float32(numbers: torch.Tensor) -> torch.Tensor:
    """Return `numbers` in float32, or in float64 if they are."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def mixed_targets(blocks: Sequence[np.ndarray], tau: float) -> list[Target]:
    """Mix each record's layers with the teacher's weights at temperature `tau` (Eq. 4 after arXiv 2604.15701)."""
    targets: list[Target] = []
    for start in range(0, len(blocks), CHUNK):
        chunk = [np.asarray(block, dtype=np.float32) for block in blocks[start : start + CHUNK]]
        attention, step_mask, word_mask = pad_blocks(chunk)
        weights = teacher_layer_weights(attention, step_mask, word_mask, tau)
        mixed = mix_layers(attention, weights)
        for row, block in enumerate(chunk):
            _, s, k = block.shape
            targets.append(Target(attention=mixed[row, None, :s, :k].numpy(), layer_weights=weights[row].numpy()))
    return targets


def pad_blocks(blocks: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack blocks (L, S, K) to (B, L, S, K) with zeros behind; also the step mask (B, S) and the word mask (B, K)."""
    layers = blocks[0].shape[0]
    most_steps = max(block.shape[1] for block in blocks)
    most_words = max(block.shape[2] for block in blocks)
    attention = torch.zeros(len(blocks), layers, most_steps, most_words)
    step_mask = torch.zeros(len(blocks), most_steps, dtype=torch.bool)
    word_mask = torch.zeros(len(blocks), most_words, dtype=torch.bool)
    for row, block in enumerate(blocks):
        _, s, k = block.shape
        attention[row, :, :s, :k] = torch.from_numpy(block)
        step_mask[row, :s] = True
        word_mask[row, :k] = True
    return attention, step_mask, word_mask
