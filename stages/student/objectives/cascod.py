"""CasCoD (Dai et al., EMNLP 2024, C-W-D/CasCoD): from the question to the rationale, from both to the answer."""

from typing import TYPE_CHECKING

from data.errors import ConfigError
from stages.student.objective import Objective

if TYPE_CHECKING:
    import torch

    from cache.fingerprints import Spec
    from stages.settings import ObjectiveSettings
    from stages.student.step import TrainingStep


class Cascod(Objective):
    """`L = (1 − α) L_rat + α L_ans`, each the mean over its own tokens; α = 0.1 as in the original's script.

    In a cross-entropy over all target tokens the answer, which is short, hardly counts; here it has a share of its own.

    Departure: the original makes two texts of a record, question → rationale and question + rationale → answer, and
    asks twice at test time. To a decoder the first is the beginning of the second: here one text holds both, and a
    student that is asked to explain goes on to the answer. Its rationales are free of the answer; here the sentence
    that states it is the second part.
    """

    name = "cascod"
    preset_tasks = ("explain",)
    default_alpha = 0.1
    needs_parts = True

    def __init__(self, settings: "ObjectiveSettings") -> None:
        super().__init__(settings)
        if self.tasks != self.preset_tasks or self.terms:
            raise ConfigError("objective.name: cascod is one task of two parts; it takes neither other tasks nor terms")

    def losses(self, step: "TrainingStep") -> "dict[str, torch.Tensor]":
        """Return the weighed sum of the two parts."""
        l_rat, l_ans = step.parts()
        return {"loss": (1 - self.alpha) * l_rat + self.alpha * l_ans, "L_rat": l_rat, "L_ans": l_ans}

    def described(self) -> "Spec":
        """With its share of the answer."""
        return {**super().described(), "alpha": self.alpha}
