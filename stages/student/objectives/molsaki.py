"""MoLSAKI (after arXiv 2604.15701): DSS, and the student learns to look where the teacher looked, step by step."""

from stages.settings import TermSettings
from stages.student.objective import Objective
from stages.student.terms.attention import attention_term


class Molsaki(Objective):
    """`L = α L_pre + (1 − α) L_exp + β L_att` (Eq. 7)."""

    name = "molsaki"
    preset_tasks = ("predict", "explain")
    default_beta = 1.0

    def preset_terms(self) -> TermSettings:
        """The attention loss, weighed by β, on the layers that `objective.alignment` brings together."""
        return TermSettings(attention=attention_term(self.settings, self.beta))
