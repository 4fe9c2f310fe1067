"""Learn the bare answer: plain fine-tuning."""

from stages.student.objective import Objective


class AnswerOnly(Objective):
    """`L = L_pre`: the cross-entropy of the answer; the rationale is never seen."""

    name = "answer-only"
    preset_tasks = ("predict",)
