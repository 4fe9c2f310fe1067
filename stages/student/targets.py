"""What the student's attention is trained towards: the teacher's layers, combined once before training.

In: cached stepwise attention (L, S, K) a record. Out: P float32 matrices (S, K) a record, and the share that each layer
has in them. Why once: the teacher's side has no parameters, so nothing about it changes from epoch to epoch, from seed
to seed, or between students: of a store, targets are kept in a memory map that all of those share.

Shapes: B batch, L layers, P matrices of a record, S reasoning steps, K critical words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cache.fingerprints import Spec
from cache.reader import AttentionStore
from cache.targets import Combine, Combined, combined
from stages.mixture import mix_layers, teacher_layer_weights
from stages.runtime.progress import Progress

CHUNK = 512
TARGET_RULES = 2
"""Raised when the same attention and rule would lead to other targets than before."""

Target = Combined
"""The teacher's `attention` (P, S, K) to learn from, and its `layer_weights` (L,), both float32."""


@dataclass(frozen=True, kw_only=True)
class TargetRule:
    """How the teacher's layers become `matrices` (P) targets; `spec` is what the memory map is filed under."""

    spec: Spec
    combine: Combine
    matrices: int


def mixture_rule(tau: float) -> TargetRule:
    """All layers mixed by Eq. 4 at temperature `tau`."""
    spec: Spec = {"rules": TARGET_RULES, "layers": "Eq. 4", "tau": tau}
    return TargetRule(spec=spec, combine=lambda blocks: mixed_targets(blocks, tau), matrices=1)


def chosen_layers_rule(layers: Sequence[int]) -> TargetRule:
    """The layers at these numbers, from 0, as they are."""
    chosen = list(layers)
    spec: Spec = {"rules": TARGET_RULES, "layers": [*chosen]}
    return TargetRule(spec=spec, combine=lambda blocks: _chosen(blocks, chosen), matrices=len(chosen))


def stored_targets(store: AttentionStore, rule: TargetRule, progress: Progress) -> Mapping[str, Target]:
    """Targets of all records of a store, combined now or by an earlier job; views of a memory map."""
    progress.start("targets", sum(len(part.keys) for part in store.parts))
    return combined(store, rule.spec, rule.combine, matrices=rule.matrices, advance=progress.advance)


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


def _chosen(blocks: Sequence[np.ndarray], layers: Sequence[int]) -> list[Target]:
    return [
        Target(
            attention=np.asarray(block[layers], dtype=np.float32),
            layer_weights=(np.bincount(layers, minlength=len(block)) / len(layers)).astype(np.float32),
        )
        for block in blocks
    ]


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
