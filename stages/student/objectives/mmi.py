"""MMI (Chen et al. 2024, arXiv 2403.03348): DSS whose two tasks are drawn to each other's words."""

from stages.settings import MutualInformationTerm, TermSettings
from stages.student.objective import Objective


class Mmi(Objective):
    """`L = α L_pre + (1 − α) L_exp + β L_mi`; see `MutualInformation` for the term and where paper and code part."""

    name = "mmi"
    preset_tasks = ("predict", "explain")
    default_beta = 0.1

    def preset_terms(self) -> TermSettings:
        """The mutual information, weighed by β."""
        return TermSettings(mutual_information=MutualInformationTerm(weight=self.beta))
