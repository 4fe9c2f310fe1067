"""The attention loss (Eq. 6 after arXiv 2604.15701).

In: the mixed stepwise attention of teacher and student. Out: one number. Why: it tells how differently the two spread
their attention over the critical words, step by step, however many tokens, heads and layers each of them has.

Shapes: B batch, S reasoning steps, K critical words. Masks are True where there is a step or word.
"""

import torch

from stages.mixture import at_least_float32


def attention_loss(
    teacher: torch.Tensor, student: torch.Tensor, step_mask: torch.Tensor, word_mask: torch.Tensor
) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's attention rows from the teacher's.

        L_att = mean over records of (1/S) Σ_s KL(softmax(A^t[s, :]) ‖ softmax(A^s[s, :]))         Eq. 6

    `teacher` and `student` (B, S, K), `step_mask` (B, S), `word_mask` (B, K); each softmax runs over the record's own K
    words. Returns a scalar in nats, float32 (float64 for such a student). Gradients flow into the student's side;
    targets from the cache carry none.
    A record without steps or without words counts 0 in the mean.
    """
    away = ~word_mask[:, None, :]
    lowest = torch.finfo(torch.float32).min
    log_teacher = torch.log_softmax(at_least_float32(teacher).masked_fill(away, lowest), dim=-1)
    log_student = torch.log_softmax(at_least_float32(student).masked_fill(away, lowest), dim=-1)
    per_word = (log_teacher.exp() * (log_teacher - log_student)).masked_fill(away, 0.0)
    per_step = per_word.sum(dim=-1).masked_fill(~step_mask, 0.0)
    return (per_step.sum(dim=-1) / step_mask.sum(dim=-1).clamp(min=1)).mean()
