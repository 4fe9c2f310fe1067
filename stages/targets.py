"""What the student's attention is trained towards: the teacher's layers, mixed once before training (Eq. 4).

In: cached stepwise attention (L, S, K) a record. Out: one (S, K) float32 array a record and the layer weights that made
it. Why once: the teacher's weights have no parameters, so nothing about them changes from epoch to epoch, from seed to
seed, or between students: of a store they are kept in a memory map that all of those share.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from cache.fingerprints import Spec
from cache.reader import AttentionStore
from cache.targets import Combined, combined
from stages.mixture import mix_layers, teacher_layer_weights
from stages.progress import Progress

CHUNK = 512
TARGET_RULES = 1
"""Raised when the same attention and temperature would lead to other targets than before."""

Target = Combined
"""The teacher's mixed stepwise attention (S, K) and its layer weights (L,), both float32."""


def stored_targets(store: AttentionStore, tau: float, progress: Progress) -> Mapping[str, Target]:
    """Targets of all records of a store at temperature `tau`, mixed now or by an earlier job; views of a memory map."""
    rule: Spec = {"rules": TARGET_RULES, "layers": "Eq. 4", "tau": tau}
    progress.start("targets", sum(len(part.keys) for part in store.parts))
    return combined(store, rule, lambda blocks: mixed_targets(blocks, tau), advance=progress.advance)


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
            targets.append(Target(attention=mixed[row, :s, :k].numpy(), layer_weights=weights[row].numpy()))
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
