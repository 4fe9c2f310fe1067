"""The terms that objectives are made of beside their tasks, one a file; see stages/student/objective.py."""

from collections.abc import Mapping

from stages.student.terms.attention import Attention
from stages.student.terms.mutual_information import MutualInformation
from stages.student.terms.soft_labels import SoftLabels
from stages.student.terms.term import Term

TERMS: Mapping[str, type[Term]] = {
    "attention": Attention,
    "soft_labels": SoftLabels,
    "mutual_information": MutualInformation,
}
"""By the name that a configuration has for them."""
