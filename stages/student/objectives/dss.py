"""Distilling step by step (Hsieh et al. 2023, google-research/distilling-step-by-step): two tasks, two prompts."""

from typing import TYPE_CHECKING

from stages.student.objective import Objective

if TYPE_CHECKING:
    import torch

    from stages.student.step import TrainingStep


class Dss(Objective):
    """`L = α L_pre + (1 − α) L_exp`, each task with a prompt of its own.

    Departure: the original puts both prefixes before T5's encoder and the targets into its decoder; here one decoder
    reads prompt and target, and the prompt carries no loss. Its rationales do not state the answer; ours end with it.
    """

    name = "dss"
    tasks = ("predict", "explain")
    settings_used = ("alpha",)

    def losses(self, step: "TrainingStep") -> "dict[str, torch.Tensor]":
        """Return the weighted sum of the two tasks' losses."""
        l_pre, l_exp = step.cross_entropy("predict"), step.cross_entropy("explain")
        return {"loss": self.alpha * l_pre + (1 - self.alpha) * l_exp, "L_pre": l_pre, "L_exp": l_exp}
