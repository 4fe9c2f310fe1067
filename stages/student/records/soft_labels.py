"""What soft labels a batch learns from: the teacher's rows beside the student's own target tokens.

In: the stored rows of records by key, and where a record's target tokens end. Out: tensors of a batch, one row for each
target token of `explain`, records one after another. A token learns from a row if both begin and end at the same
characters; the others count in no loss of soft labels, and how many do is in the log.

Shapes: N target tokens of a batch, P pieces of text, K kept tokens, C width of the teacher.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cache.soft_labels.block import SoftLabelBlock
from stages.settings import SoftLabelTerm
from stages.soft_labels.divergences import Divergence, FullRows, LikeliestRows, Rows, SampledRows
from stages.soft_labels.head import TeacherHead
from stages.soft_labels.pieces import joined, pieces, wanted

NORMS = {1.0: 0, 2.0: 1}
"""Which of the stored log-normalisers is that of a temperature."""
COUNTED = "soft_counted"
"""Name in a batch of which rows or pieces there are."""


def divergence_of(settings: SoftLabelTerm) -> Divergence:
    """What is computed of rows."""
    return Divergence(
        kind=settings.divergence, temperature=settings.temperature, beta=settings.mixture, scaled=settings.squared
    )


@dataclass(frozen=True, kw_only=True)
class SoftTargets:
    """Soft labels by key, and how they are learned from."""

    blocks: Mapping[str, SoftLabelBlock]
    settings: SoftLabelTerm

    def of(self, records: Sequence[tuple[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        """The tensors of a batch of records, each a key and where its target tokens end (N,)."""
        found = [(self.blocks[key], ends) for key, ends in records]
        return self._pieces(found) if self.settings.match == "text" else self._rows(found)

    def _rows(self, found: Sequence[tuple[SoftLabelBlock, np.ndarray]]) -> dict[str, torch.Tensor]:
        """`soft_counted` (N,), and the layout's own arrays, in which any row stands where it is false."""
        places = [rows_of_tokens(block.ends, ends) for block, ends in found]
        batch = {COUNTED: torch.from_numpy(np.concatenate(places) >= 0)}
        for name in ("tokens", "logits", "log_norms", "counts", "hidden"):
            if getattr(found[0][0], name) is not None:
                values = [_taken(getattr(block, name), place) for (block, _), place in zip(found, places, strict=True)]
                batch[f"soft_{name}"] = torch.from_numpy(np.concatenate(values))
        return batch

    def _pieces(self, found: Sequence[tuple[SoftLabelBlock, np.ndarray]]) -> dict[str, torch.Tensor]:
        """`soft_piece` (N,) of each target token, from 0, and `soft_wanted` (P,), the teacher's log-probabilities."""
        of_each = [pieces(block.ends, ends) for block, ends in found]
        joint = joined(of_each)
        told = np.concatenate([block.log_probability for block, _ in found])
        return {
            "soft_piece": torch.from_numpy(joint.of_student),
            "soft_wanted": torch.from_numpy(wanted(told, joint).astype(np.float32)),
            COUNTED: torch.ones(len(joint.of_student), dtype=torch.bool),
        }


def rows_of_tokens(teacher_ends: np.ndarray, student_ends: np.ndarray) -> np.ndarray:
    """For each of the student's target tokens (N,) the row of the teacher's that stands for the same text; −1: none."""
    if np.array_equal(teacher_ends, student_ends):
        return np.arange(len(student_ends))
    row_of = dict(_spans(teacher_ends))
    rows = np.full(len(student_ends), -1)
    for span, place in _spans(student_ends):
        rows[place] = row_of.get(span, -1)
    return rows


def _spans(ends: np.ndarray) -> Iterator[tuple[tuple[int, int], int]]:
    """Spans and places of tokens, the end token's an empty one; not those of tokens that share a character."""
    spans = list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
    for place, span in enumerate(spans[:-1]):
        shared = span[0] == span[1] or (spans[place + 1][1] == span[1] and place + 2 < len(spans))
        if not shared:
            yield span, place
    yield spans[-1], len(spans) - 1


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of an array; where there is none the first, which counts in nothing and is a row like others."""
    taken = values[np.maximum(rows, 0)]
    return taken.astype(np.int64) if taken.dtype.kind == "u" else np.ascontiguousarray(taken)


def teacher_rows(
    batch: Mapping[str, torch.Tensor], some: slice, settings: SoftLabelTerm, head: TeacherHead | None
) -> Rows:
    """The teacher's rows of some target tokens of a batch; `head` makes logits of hidden states."""
    if "soft_hidden" in batch:
        assert head is not None, "hidden states are stored with the head"
        return FullRows(logits_NW=head.logits(batch["soft_hidden"][some]))
    tokens_NK = batch["soft_tokens"][some]
    if "soft_counts" in batch:
        return SampledRows(tokens_NK=tokens_NK, counts_NK=batch["soft_counts"][some])
    log_norm_N = batch["soft_log_norms"][some, NORMS[settings.temperature]]
    return LikeliestRows(tokens_NK=tokens_NK, logits_NK=batch["soft_logits"][some], log_norm_N=log_norm_N)
