"""The student as the Trainer sees it: a model whose forward pass returns the losses of its objective."""

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.attention.packing import can_pack
from stages.attention.stepwise import IMPLEMENTATION
from stages.head import has_plain_head
from stages.soft_labels.head import TeacherHead
from stages.student.objective import Objective
from stages.student.step import TrainingStep


class DistillationModel(nn.Module):
    """The student with what only training needs around it: the objective and its aligner, such as the layer router."""

    accepts_loss_kwargs = False
    """Every loss is a weighed mean over its batch: the Trainer divides by the accumulation steps."""

    def __init__(
        self,
        student: PreTrainedModel,
        objective: Objective,
        *,
        learning_rate: float,
        teacher_layers: int = 0,
        teacher_head: TeacherHead | None = None,
    ) -> None:
        """An objective with attention needs `teacher_layers`; raises `ConfigError` for layers that do not fit.

        Soft labels that are hidden states need the `teacher_head`, which is no part of the model.

        `learning_rate` is that of the optimizer.
        """
        super().__init__()
        self.student = student
        self._no_split_modules = getattr(student, "_no_split_modules", None)  # what FSDP shards one by one
        self.objective = objective
        self.teacher_head = teacher_head
        self.aligner = objective.aligner(student, teacher_layers, learning_rate=learning_rate)
        self.plain_head, self.packs = has_plain_head(student), can_pack(student, IMPLEMENTATION)
        if objective.needs_attention or self.packs:
            student.set_attn_implementation(IMPLEMENTATION)

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `loss` and what the objective says of the batch beside it, as `TrainingCollator` stacked it."""
        if self.teacher_head is not None:
            self.teacher_head = self.teacher_head.on(batch["explain_ids"].device)  # no part of what moves
        step = TrainingStep(
            self.student,
            self.aligner,
            batch,
            plain_head=self.plain_head,
            packs=self.packs,
            teacher_head=self.teacher_head,
        )
        return self.objective.losses(step)
