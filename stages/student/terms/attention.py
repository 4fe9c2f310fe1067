"""The attention loss of MoLSAKI (Eq. 6 after arXiv 2604.15701): the student looks where the teacher looked."""

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from stages.settings import AlignmentSettings, AttentionTerm
from stages.student.terms.term import Term

if TYPE_CHECKING:
    import torch

    from cache.fingerprints import Spec
    from stages.student.step import TrainingStep

ROUTER_ENTROPY = "router_entropy"
"""Name in the log of how even the student's mixture of layers is, from 1 (all layers count alike) to 0 (one does)."""
GRADIENT_RATIO = "gradient_ratio"
"""Name in the log of how much the weighed L_att moves the student's weights against the weighed L_exp: the ratio of
their gradients' norms over the weights that both reach."""
MIXTURE = ("tau_teacher", "tau_student", "router", "router_learning_rate")
"""Settings that only a mixture of layers has a use for."""


class Attention(Term):
    """L_att on the layers that `alignment` brings together.

    The student's attention comes from the forward pass of L_exp; the teacher's targets are constants.
    """

    symbol = "L_att"
    needs_attention = True
    settings: AlignmentSettings

    def losses(self, step: "TrainingStep") -> "dict[str, torch.Tensor]":
        """Return the loss, the share of each of the student's layers in it, and how even these are."""
        l_att, layer_weights, entropy = step.attention_loss(self.settings.rows)
        losses = {"L_att": l_att, "layer_weights": layer_weights}
        return {**losses, ROUTER_ENTROPY: entropy} if self.settings.alignment == "mixture" else losses

    def described(self) -> "Spec":
        """Without what makes no difference where no layers are mixed, and without what is the paper's."""
        left_out = {"weight"} | (set(MIXTURE) if self.settings.alignment != "mixture" else set())
        if self.settings.router == "paper":
            left_out |= {"router", "router_learning_rate"}
        if self.settings.rows == "softmax":
            left_out.add("rows")
        return {name: value for name, value in asdict(self.settings).items() if name not in left_out}


def attention_term(settings: AlignmentSettings, weight: float) -> AttentionTerm:
    """The term that a preset has, by the keys that stand beside `objective.name`."""
    return AttentionTerm(
        weight=weight, **{each.name: getattr(settings, each.name) for each in fields(AlignmentSettings)}
    )
