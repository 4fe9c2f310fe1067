"""Whether an answer is right, in the way in which its data set is scored."""

from data.answers import same_answer
from data.dataset import data_set
from data.records import Question


def is_right(answer: str | None, question: Question) -> bool:
    """Whether a canonical answer is the question's gold answer; no answer is wrong, and so is any without gold."""
    if answer is None or question.answer is None:
        return False
    rounded = question.benchmark is not None and data_set(question.benchmark).rounded_labels
    return same_answer(answer, question.answer, question.answer_kind, rounded=rounded)
