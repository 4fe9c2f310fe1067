"""Soft labels across tokenizers: pieces of text that end where a token of both sides ends, and how likely they are.

In: where the target tokens of teacher and student end, in characters of the rationale, and the log-probability that
each side gives to its own. Out: the piece of every token, and a loss for each of the student's. Why: distributions over
two vocabularies cannot be held against each other, but both sides wrote the same text, and what lies between two
borders that they have in common is the same string. Its log-probability is the sum of its tokens'.

The loss is ours. With d_p the student's log-probability of piece p minus the teacher's, n_p the tokens that the student
has in it, N = Σ n_p, and h(x) = x² / 2 as far as |x| ≤ 1, |x| − 1/2 beyond (Huber):

    L = (1 / N) Σ_p n_p h(d_p / n_p)

Why so:

- *Half a square.* Over texts that the teacher writes, the mean of half the squared difference of log-probabilities is
  the KL divergence up to the third order, so that L is in nats like the others. Its only minimum is equality.
- *By token of the student.* The gradient for the log-probability of a token is its piece's mean difference per token,
  over N, while that of the cross-entropy is −1 / N: no piece counts more for being long, as it would by (Σ d)². L is
  never more than with a piece for each token, were its difference known (Jensen).
- *A straight line beyond one nat a token.* A rationale may hold what the teacher itself finds unlikely (ln p = −20). No
  token pulls harder than the cross-entropy does.
- *Both ways.* Where the student is surer than the teacher it is drawn down, as by the divergences: otherwise every
  student that is sure enough would be a minimum, and the loss a cross-entropy that ends somewhere. Beside a
  cross-entropy, which pulls up, the weights of the two decide.

Limits: of each distribution only the tokens that were written are known. A piece's probability is that of its usual
tokens, not of all that spell it. A first token that reaches into the prompt counts whole. Characters of several tokens
are one piece also for two equal tokenizers.

Shapes: M target tokens of the teacher, N of the student, P pieces; the end token is the last of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from stages.mixture import at_least_float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Pieces:
    """Which of `count` pieces each target token of the teacher (M,) and of the student (N,) lies in, by number."""

    of_teacher: np.ndarray
    of_student: np.ndarray
    count: int

    @property
    def share(self) -> float:
        """Share of the student's target tokens behind which a piece ends: 1 where the teacher has a border at each."""
        return self.count / len(self.of_student)


def target_ends(spans: np.ndarray, start: int, length: int) -> np.ndarray:
    """Where target tokens end, in characters of a rationale of that `length` that begins at `start`, (N,) int32.

    `spans` (T, 2) are the characters that each token of a text covers; those that reach beyond `start` are target
    tokens, and the end token behind them ends with the rationale.
    """
    ends = spans[spans[:, 1] > start, 1] - start
    return np.maximum.accumulate(np.append(ends, length)).astype(np.int32)


def pieces(teacher_ends: np.ndarray, student_ends: np.ndarray) -> Pieces:
    """Cut one rationale at the borders that both sides have; the end token, the last of each, is a piece of its own.

    Ends do not decrease; tokens that end at the same character, which is one of several tokens, are never parted. What
    one side has behind the other's last token of the text, as where one drops a blank, belongs to the last piece.
    """
    of_teacher, of_student = teacher_ends[:-1], student_ends[:-1]
    assert len(of_teacher) and len(of_student), "a rationale has tokens"
    borders = np.intersect1d(of_teacher, of_student)
    borders = borders[borders < min(of_teacher[-1], of_student[-1])]
    last = len(borders) + 1
    return Pieces(
        of_teacher=np.append(np.searchsorted(borders, of_teacher), last),
        of_student=np.append(np.searchsorted(borders, of_student), last),
        count=last + 1,
    )


def joined(found: Sequence[Pieces]) -> Pieces:
    """The pieces of several rationales, their tokens one behind the other."""
    firsts = np.cumsum([0, *(one.count for one in found)])
    return Pieces(
        of_teacher=np.concatenate([one.of_teacher + first for one, first in zip(found, firsts, strict=False)]),
        of_student=np.concatenate([one.of_student + first for one, first in zip(found, firsts, strict=False)]),
        count=int(firsts[-1]),
    )


def wanted(teacher_M: np.ndarray, found: Pieces) -> np.ndarray:
    """The teacher's log-probability of each piece (P,), from those of its target tokens at temperature 1."""
    sums: np.ndarray = np.bincount(found.of_teacher, teacher_M, found.count)
    return sums


def piece_loss(student_N: torch.Tensor, piece_N: torch.Tensor, wanted_P: torch.Tensor) -> torch.Tensor:
    """h(d_p / n_p) of the piece of each of the student's tokens, (N,): their mean over all tokens is L.

    `student_N` are log-probabilities of target tokens at temperature 1, `piece_N` the piece of each, and `wanted_P`
    the teacher's of the pieces. Float32, or float64 for such a student; gradients flow into the student's alone.
    """
    student_N = at_least_float32(student_N)
    of_piece_P = student_N.new_zeros(len(wanted_P)).index_add(0, piece_N, student_N)
    tokens_P = torch.bincount(piece_N, minlength=len(wanted_P))
    means_P, wanted_means_P = of_piece_P / tokens_P, wanted_P.detach().to(student_N) / tokens_P
    return nn.functional.huber_loss(means_P, wanted_means_P, reduction="none")[piece_N]
