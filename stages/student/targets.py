"""What the student's attention is trained towards: the teacher's layers, combined once before training.

In: cached stepwise attention (L, S, K) a record. Out: P float32 matrices (S, K) a record, and the share that each layer
has in them. Why once: the teacher's side has no parameters, so nothing about it changes from epoch to epoch, from seed
to seed, or between students: of a store, targets are kept in a memory map that all of those share.

Shapes: B batch, L layers, P matrices of a record, S reasoning steps, K critical words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.fingerprints import Spec
from cache.keys import Keys, are_among
from cache.reader import AttentionStore
from cache.targets import Combine, combined
from stages.mixture import Target, mixed_targets
from stages.runtime.progress import TARGETS, Progress

TARGET_RULES = 2
"""Raised when the same attention and rule would lead to other targets than before."""


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


@dataclass(frozen=True)
class TeacherTargets:
    """The teacher's `attention`, (L, S, K) by a record's key, whether in a store or in memory."""

    attention: Mapping[str, np.ndarray]

    @property
    def layers(self) -> int:
        """Layers of the teacher whose attention it is; 0 where there is none."""
        return len(next(iter(self.attention.values()))) if self.attention else 0

    def missing(self, keys: Sequence[str]) -> int:
        """Of how many of these records there is no attention."""
        if isinstance(self.attention, AttentionStore) and isinstance(keys, Keys):
            return int((~are_among(keys.rows, self.attention.key_rows)).sum())
        return sum(key not in self.attention for key in keys)

    def get(self, keys: Sequence[str], rule: TargetRule, progress: Progress) -> Mapping[str, Target]:
        """Targets of these records by key; those of a store are views of a memory map, made now or by an earlier job.

        A store has those of other records too.
        """
        if not isinstance(self.attention, AttentionStore):
            return dict(zip(keys, rule.combine([self.attention[key] for key in keys]), strict=True))
        progress.start(TARGETS, sum(map(len, self.attention.parts)))
        return combined(self.attention, rule.spec, rule.combine, matrices=rule.matrices, advance=progress.advance)


def _chosen(blocks: Sequence[np.ndarray], layers: Sequence[int]) -> list[Target]:
    return [
        Target(
            attention=np.asarray(block[layers], dtype=np.float32),
            layer_weights=(np.bincount(layers, minlength=len(block)) / len(layers)).astype(np.float32),
        )
        for block in blocks
    ]
