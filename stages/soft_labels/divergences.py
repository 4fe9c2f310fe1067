"""Divergences of a student's next-token distributions from a teacher's, row by row.

In: the student's logits (N, V) and what is kept of the teacher's rows. Out: a divergence in nats for each row (N,), and
with it, from the same normaliser, the cross-entropy of the tokens that stand there. Why: a token says what was written,
a distribution also what else could have been.

With p the teacher's and q the student's distribution, both at temperature T (q = softmax(logits / T)):

    forward-kl       KL(p ‖ q) = Σ p ln(p / q)
    reverse-kl       KL(q ‖ p) = Σ q ln(q / p)
    jensen-shannon   β KL(p ‖ m) + (1 − β) KL(q ‖ m),   m = β p + (1 − β) q

The last is that of GKD (arXiv 2306.13649): β weighs the teacher, in the mixture m as before it. Divided by β it becomes
the forward KL for β → 0, divided by 1 − β the reverse KL for β → 1; at 0 and 1 it is 0 whatever the student says, and
refused. Of `sampled` rows, which are draws from p at T = 1, there is −Σ (count / draws) ln q instead: an unbiased
estimate of the cross-entropy −Σ p ln q, which is the forward KL but for the entropy of p (RS-KD, arXiv 2503.16870).

Where the K likeliest tokens are kept, both sides' other tokens are one bucket each, the tail. Sums are then over K + 1
buckets: exact for K = V, and never above the divergence of the full distributions for K < V (data processing
inequality), but for rounding.

Everything is computed in float32, or float64 for such a student. No row is a difference of numbers near each other: the
student's tail is summed by itself, and its normaliser is made of tail and kept tokens, so that there is one pass over V
for each temperature. Gradients flow into the student's logits alone. Logarithms of shares are no lower than `LOWEST`.

Shapes: N rows, V vocabulary of the student, W of the teacher, K tokens kept.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from stages.mixture import at_least_float32
from stages.soft_labels.normaliser import NOWHERE, log_sum

Kind = Literal["forward-kl", "reverse-kl", "jensen-shannon"]
LOWEST = -65504.0
"""Lowest logarithm of a share, that of float16: where a teacher or student says −∞, losses and gradients are finite."""
LEAST_TAIL = 1e-4
"""Share below which a teacher's tail, 1 − Σ p, is not known of logits in float16, which lie up to 2^-11 of themselves
off; where a student's share is held against it, it counts as this."""


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Which divergence; `beta` is that of `jensen-shannon`.

    `scaled` multiplies by T²: gradients of a divergence at temperature T are about 1 / T² of those at 1 (Hinton et al.,
    arXiv 1503.02531), so that what it weighs beside a cross-entropy does not depend on T then.
    """

    kind: Kind = "forward-kl"
    temperature: float = 1.0
    beta: float = 0.5
    scaled: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no divergence."""
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature: expected a number above 0, found {self.temperature}")
        if self.kind == "jensen-shannon" and not 0 < self.beta < 1:
            raise ValueError(
                f"beta: expected a number between 0 and 1, found {self.beta}; at 0 and 1 the divergence is 0 whatever "
                "the student says, take forward-kl for small and reverse-kl for large ones"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class LikeliestRows:
    """The teacher's K likeliest tokens, all different within a row.

    `tokens_NK` int64, the likeliest first; `logits_NK` minus the row's largest, before any temperature; `log_norm_N` is
    ln Σ_v exp(logit_v / T) over the teacher's whole vocabulary, of such logits and at the temperature in use.
    """

    tokens_NK: torch.Tensor
    logits_NK: torch.Tensor
    log_norm_N: torch.Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledRows:
    """Tokens drawn from the teacher's distribution at T = 1, `tokens_NK` int64, and how often, `counts_NK`, or 0."""

    tokens_NK: torch.Tensor
    counts_NK: torch.Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class FullRows:
    """The teacher's logits `logits_NW` over its whole vocabulary.

    A vocabulary is often padded, and not always to the same width: the tokens that both have are compared then, those
    up to min(V, W), and each side's distribution is the one over these.
    """

    logits_NW: torch.Tensor


Rows: TypeAlias = LikeliestRows | SampledRows | FullRows


def soft_loss(student_NV: torch.Tensor, rows: Rows, divergence: Divergence) -> torch.Tensor:
    """The divergence of each row, (N,); of `SampledRows` the estimated cross-entropy, for T = 1 and `forward-kl` alone.

    Raises `ValueError` for another temperature or kind with those.
    """
    none_N0 = torch.empty(len(student_NV), 0, dtype=torch.long, device=student_NV.device)
    return _soft(at_least_float32(student_NV), none_N0, rows, divergence)[0]


def with_cross_entropy(
    student_NV: torch.Tensor, wanted_N: torch.Tensor, rows: Rows, divergence: Divergence
) -> tuple[torch.Tensor, torch.Tensor]:
    """−ln q of the wanted tokens at T = 1, and the divergence of each row, (N,) both.

    At temperature 1 the two share their normaliser. It is that of the student's whole vocabulary, also where a
    divergence is over a part of it.
    """
    student_NV, wanted_N1 = at_least_float32(student_NV), wanted_N[:, None]
    soft_N, entropy_N1 = _soft(student_NV, wanted_N1, rows, divergence)
    if entropy_N1 is None:
        log_norm_N, said_N1 = log_sum(student_NV, wanted_N1)
        entropy_N1 = log_norm_N[:, None] - said_N1
    return entropy_N1[:, 0], soft_N


def _soft(
    student_NV: torch.Tensor, wanted_NM: torch.Tensor, rows: Rows, divergence: Divergence
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The divergence, and −ln q of the wanted tokens (N, M) where the same normaliser gives it."""
    if isinstance(rows, SampledRows):
        return _sampled(student_NV, wanted_NM, rows, divergence)
    if isinstance(rows, FullRows):
        return _full(student_NV, wanted_NM, rows, divergence)
    return _likeliest(student_NV, wanted_NM, rows, divergence)


def _full(
    student_NV: torch.Tensor, wanted_NM: torch.Tensor, rows: FullRows, divergence: Divergence
) -> tuple[torch.Tensor, torch.Tensor | None]:
    width, both = student_NV.shape[1], min(student_NV.shape[1], rows.logits_NW.shape[1])
    scaled_NV = _over(student_NV[:, :both], divergence)
    log_norm_N = torch.logsumexp(scaled_NV, dim=1)
    log_q_NV = (scaled_NV - log_norm_N[:, None]).clamp(min=LOWEST)
    teacher_NV = rows.logits_NW[:, :both].to(student_NV.dtype)
    teacher_NV = _over((teacher_NV - teacher_NV.amax(dim=1, keepdim=True)).clamp(min=LOWEST), divergence)
    log_p_NV = torch.log_softmax(teacher_NV, dim=1)
    shared = both == width and divergence.temperature == 1
    entropy_NM = log_norm_N[:, None] - student_NV.gather(1, wanted_NM) if shared else None
    return _sum(log_p_NV.exp(), log_p_NV, log_q_NV, divergence), entropy_NM


def _likeliest(
    student_NV: torch.Tensor, wanted_NM: torch.Tensor, rows: LikeliestRows, divergence: Divergence
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """K + 1 buckets; without a tail where no token is left for it.

    Tokens that only the teacher's vocabulary has belong to its tail. What the kept ones of a teacher's row sum to
    beyond 1, by rounding, is taken from all of them.
    """
    width = student_NV.shape[1]
    log_q_NK, log_q_tail_N, entropy_NM = _student_buckets(student_NV, wanted_NM, rows.tokens_NK, divergence)
    log_p_NK = _over(rows.logits_NK.to(student_NV.dtype), divergence) - rows.log_norm_N.to(student_NV.dtype)[:, None]
    log_p_NK = log_p_NK.masked_fill(rows.tokens_NK >= width, NOWHERE)
    log_kept_N1 = torch.logsumexp(log_p_NK, dim=1, keepdim=True)
    whole = rows.tokens_NK.shape[1] >= width
    log_p_NK = (log_p_NK - (log_kept_N1 if whole else log_kept_N1.clamp(min=0))).clamp(min=LOWEST)
    p_NK = log_p_NK.exp()
    if whole:
        return _sum(p_NK, log_p_NK, log_q_NK, divergence), entropy_NM
    tail_N = -torch.expm1(log_kept_N1[:, 0].clamp(max=0))
    p_NB = torch.cat([p_NK, tail_N[:, None]], dim=1)
    log_p_NB = torch.cat([log_p_NK, tail_N.clamp(min=LEAST_TAIL).log()[:, None]], dim=1)
    log_q_NB = torch.cat([log_q_NK, log_q_tail_N[:, None]], dim=1)
    return _sum(p_NB, log_p_NB, log_q_NB, divergence), entropy_NM


def _student_buckets(
    student_NV: torch.Tensor, wanted_NM: torch.Tensor, tokens_NK: torch.Tensor, divergence: Divergence
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Logarithms of the kept tokens' shares (N, K) and the tail's (N,), at temperature T; −ln q of the wanted at T = 1.

    1 − Σ q would lose a small tail in float32, and its gradient, p_tail / q_tail times a difference, before that.
    """
    unknown_NK = tokens_NK >= student_NV.shape[1]
    # The first is the teacher's likeliest, which is no padding: masked twice, it counts once.
    known_NK = torch.where(unknown_NK, tokens_NK[:, :1], tokens_NK)
    tail_N, kept_NK, said_NM = log_sum(
        student_NV, known_NK, wanted_NM, without_NK=known_NK, temperature=divergence.temperature
    )
    kept_NK = _over(kept_NK, divergence).masked_fill(unknown_NK, NOWHERE).clamp(min=NOWHERE)
    log_norm_N = torch.logaddexp(torch.logsumexp(kept_NK, dim=1), tail_N)
    log_q_NK = (kept_NK - log_norm_N[:, None]).clamp(min=LOWEST)
    entropy_NM = log_norm_N[:, None] - said_NM if divergence.temperature == 1 else None
    return log_q_NK, (tail_N - log_norm_N).clamp(min=LOWEST), entropy_NM


def _sampled(
    student_NV: torch.Tensor, wanted_NM: torch.Tensor, rows: SampledRows, divergence: Divergence
) -> tuple[torch.Tensor, torch.Tensor]:
    """−Σ (count / draws) ln q; tokens that only the teacher's vocabulary has are as if they had not been drawn."""
    if divergence.kind != "forward-kl" or divergence.temperature != 1:
        raise ValueError(
            "sampled rows are draws at temperature 1 and give the cross-entropy of forward-kl alone; found "
            f"{divergence.kind} at {divergence.temperature}"
        )
    unknown_NK = rows.tokens_NK >= student_NV.shape[1]
    counts_NK = rows.counts_NK.to(student_NV.dtype).masked_fill(unknown_NK, 0)
    known_NK = rows.tokens_NK.masked_fill(unknown_NK, 0)
    log_norm_N, kept_NK, said_NM = log_sum(student_NV, known_NK, wanted_NM)
    log_q_NK = (kept_NK - log_norm_N[:, None]).clamp(min=LOWEST)
    shares_NK = counts_NK / counts_NK.sum(dim=1, keepdim=True).clamp(min=1)
    return -(shares_NK * log_q_NK).sum(dim=1), log_norm_N[:, None] - said_NM


def _sum(p: torch.Tensor, log_p: torch.Tensor, log_q: torch.Tensor, divergence: Divergence) -> torch.Tensor:
    """The divergence over the last dimension; `p` is `log_p.exp()` but for a tail too small to be known.

    With p ln p of p itself a raised `log_p` makes a divergence smaller, so that it stays a lower bound.
    """
    beta, q = divergence.beta, log_q.exp()
    if divergence.kind == "forward-kl":
        terms = torch.xlogy(p, p) - p * log_q
    elif divergence.kind == "reverse-kl":
        terms = q * (log_q - log_p)
    else:
        log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
        terms = beta * (torch.xlogy(p, p) - p * log_m) + (1 - beta) * q * (log_q - log_m)
    total = terms.sum(dim=-1)
    return total * divergence.temperature**2 if divergence.scaled else total


def _over(logits: torch.Tensor, divergence: Divergence) -> torch.Tensor:
    return logits if divergence.temperature == 1 else logits / divergence.temperature
