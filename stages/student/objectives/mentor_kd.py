"""Mentor-KD (Lee et al. 2024, arXiv 2410.09037, 2hojae/mentor-kd): rationales and soft labels of a mentor."""

from stages.settings import SoftLabelTerm, TermSettings
from stages.student.objective import Objective


class MentorKd(Objective):
    """`L = (1 − λ) L_exp + λ L_soft`, λ = 0.3 (`objective.beta`), KL(mentor ‖ student) at temperature 2 without T².

    The mentor is a `fine-tune-cot` student of middle size, which the configuration names as its teacher.
    """

    name = "mentor-kd"
    preset_tasks = ("explain",)
    default_beta = 0.3

    def preset_terms(self) -> TermSettings:
        """The soft labels, weighed by λ."""
        return TermSettings(soft_labels=SoftLabelTerm(weight=self.beta, temperature=2.0, squared=False))
