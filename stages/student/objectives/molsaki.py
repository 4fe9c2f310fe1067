"""MoLSAKI (after arXiv 2604.15701): DSS, and the student learns to look where the teacher looked, step by step."""

from typing import TYPE_CHECKING

from stages.student.objective import ROUTER_ENTROPY, Objective

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from cache.fingerprints import Spec
    from stages.student.step import TrainingStep
    from stages.student.targets import TargetRule

MIXTURE = ("tau_teacher", "tau_student", "router", "router_learning_rate")
"""Settings that only a mixture of layers has a use for."""


class Molsaki(Objective):
    """`L = α L_pre + (1 − α) L_exp + β L_att` (Eq. 7), L_att on the layers that `objective.alignment` brings together.

    The student's attention comes from the forward pass of L_exp; the teacher's targets are constants.
    """

    name = "molsaki"
    tasks = ("predict", "explain")
    settings_used = ("alpha", "beta", "alignment", *MIXTURE, "rows")
    needs_attention = True

    def aligner(self, student: "PreTrainedModel", teacher_layers: int, *, learning_rate: float) -> "nn.Module":
        """Return what picks or mixes the student's layers; the router of Eq. 5 is part of it."""
        from stages.student.alignment import student_layers

        return student_layers(student, self.settings, teacher_layers, learning_rate=learning_rate)

    def target_rule(self, teacher_layers: int, student_layers: int) -> "TargetRule":
        """Mix the teacher's layers by Eq. 4, or take those that the student's are paired with."""
        from stages.student.alignment import target_rule

        return target_rule(self.settings, teacher_layers, student_layers)

    def losses(self, step: "TrainingStep") -> "dict[str, torch.Tensor]":
        """Return the three losses, the share of each of the student's layers in L_att, and how even these are."""
        l_pre, l_exp = step.cross_entropy("predict"), step.cross_entropy("explain")
        l_att, layer_weights, entropy = step.attention_loss(self.settings.rows)
        loss = self.alpha * l_pre + (1 - self.alpha) * l_exp + self.beta * l_att
        losses = {"loss": loss, "L_pre": l_pre, "L_exp": l_exp, "L_att": l_att, "layer_weights": layer_weights}
        return {**losses, ROUTER_ENTROPY: entropy} if self.settings.alignment == "mixture" else losses

    def described(self) -> "Spec":
        """Without what makes no difference where no layers are mixed, and without what is the paper's."""
        left_out = set(MIXTURE) if self.settings.alignment != "mixture" else set()
        if self.settings.router == "paper":
            left_out |= {"router", "router_learning_rate"}
        if self.settings.rows == "softmax":
            left_out.add("rows")
        return {name: value for name, value in super().described().items() if name not in left_out}
