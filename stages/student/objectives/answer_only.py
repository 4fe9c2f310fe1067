"""Learn the bare answer: plain fine-tuning."""

from typing import TYPE_CHECKING

from stages.student.objective import Objective

if TYPE_CHECKING:
    import torch

    from stages.student.step import TrainingStep


class AnswerOnly(Objective):
    """`L = L_pre`: the cross-entropy of the answer; the rationale is never seen."""

    name = "answer-only"
    tasks = ("predict",)

    def losses(self, step: "TrainingStep") -> "dict[str, torch.Tensor]":
        """Return the prediction loss alone."""
        l_pre = step.cross_entropy("predict")
        return {"loss": l_pre, "L_pre": l_pre}
