"""The attention loss (Eq. 6 after arXiv 2604.15701).

In: the mixed stepwise attention of teacher and student. Out: one number. Why: it tells how differently the two spread
their attention over the critical words, step by step, however many tokens, heads and layers each of them has.

Shapes: B batch, S reasoning steps, K critical words. Masks are True where there is a step or word.
"""

import torch

from stages.mixture import at_least_float32
from stages.settings import Rows

FLOOR = 1e-6
"""Added to each word's attention before shares are taken: a row of zeros is even then, and no logarithm infinite."""


def attention_loss(
    teacher: torch.Tensor,
    student: torch.Tensor,
    step_mask: torch.Tensor,
    word_mask: torch.Tensor,
    *,
    rows: Rows = "softmax",
) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's attention rows from the teacher's.

        L_att = mean over records of (1/S) Σ_s KL(softmax(A^t[s, :]) ‖ softmax(A^s[s, :]))         Eq. 6

    `teacher` and `student` (B, S, K), `step_mask` (B, S), `word_mask` (B, K); each softmax runs over the record's own K
    words. With `rows="share"`, `A[s, :] / Σ_k A[s, k]` is in the place of each softmax (`row_log_probabilities`).
    Returns a scalar in nats, float32 (float64 for such a student). Gradients flow into the student's side;
    targets from the cache carry none.
    A record without steps or without words counts 0 in the mean.
    """
    log_teacher = row_log_probabilities(teacher, word_mask, rows)
    log_student = row_log_probabilities(student, word_mask, rows)
    away = ~word_mask[:, None, :]
    per_word = (log_teacher.exp() * (log_teacher - log_student)).masked_fill(away, 0.0)
    per_step = per_word.sum(dim=-1).masked_fill(~step_mask, 0.0)
    return (per_step.sum(dim=-1) / step_mask.sum(dim=-1).clamp(min=1)).mean()


def row_log_probabilities(attention: torch.Tensor, word_mask: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Each step's attention as a distribution over the record's own words: its logarithms, (B, S, K).

    `attention` (B, S, K), not negative, and `word_mask` (B, K). `softmax` is of the attention as it stands, so that
    steps of few tokens give nearly even rows; `share` is `(A + FLOOR) / Σ (A + FLOOR)`, which does not depend on that.
    What stands where there is no word is of no meaning, but finite.
    """
    away = ~word_mask[:, None, :]
    attention = at_least_float32(attention)
    scores = torch.log(attention + FLOOR) if rows == "share" else attention
    return torch.log_softmax(scores.masked_fill(away, torch.finfo(torch.float32).min), dim=-1)
