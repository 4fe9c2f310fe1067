"""Soft labels: the student learns the distribution that the teacher had at each token of the rationale."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from stages.settings import SoftLabelTerm
from stages.student.terms.term import Term

if TYPE_CHECKING:
    import torch

    from cache.fingerprints import Spec
    from stages.student.step import TrainingStep

OF_TOKENS = ("divergence", "mixture", "temperature", "squared")
"""Settings that only distributions over one vocabulary have a use for."""


class SoftLabels(Term):
    """`(1 − λ) L_exp + λ L_soft`, with L_soft a divergence of the teacher's cached distributions and the student's."""

    symbol = "L_soft"
    takes_part_of = "explain"
    settings: SoftLabelTerm

    def losses(self, step: "TrainingStep") -> "dict[str, torch.Tensor]":
        """Return the mean divergence over target tokens, or over pieces of text."""
        return {"L_soft": step.soft_label_loss(self.settings)}

    def described(self) -> "Spec":
        """Without what makes no difference to the loss that is chosen."""
        settings, left_out = self.settings, {"weight"}
        if settings.match == "text":
            left_out |= set(OF_TOKENS)
        if settings.divergence != "jensen-shannon":
            left_out.add("mixture")
        if settings.temperature == 1:
            left_out.add("squared")
        return {name: value for name, value in asdict(settings).items() if name not in left_out}
