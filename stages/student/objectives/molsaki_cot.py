"""The attention loss on Fine-tune-CoT: one task, the rationale, and where the teacher looked; a combination of ours."""

from stages.settings import TermSettings
from stages.student.objective import Objective
from stages.student.terms.attention import attention_term


class MolsakiCot(Objective):
    """`L = L_exp + β L_att`."""

    name = "molsaki-cot"
    preset_tasks = ("explain",)
    default_beta = 1.0

    def preset_terms(self) -> TermSettings:
        """The attention loss as molsaki has it."""
        return TermSettings(attention=attention_term(self.settings, self.beta))
