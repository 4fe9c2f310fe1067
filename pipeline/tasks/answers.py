r"""Answers by one regular expression each: what lm-evaluation-harness can be told of `data.answers`.

In: a question. Out: the expression by which an answer of its kind is taken out of a text, what is left out before it is
compared, and how the gold answer may be written; and, for what a student wrote, the verdict that follows.

An expression knows the forms that students learn ("42", "The answer is 42.", "(B) bank", "yes") and few others:
number words, formulas, units and corrections are beyond it. Each is anchored at the beginning of the text and tries,
in this order, the last outright statement, and what the kind falls back on; it reads up to where the text asks itself
something new. None takes more than a multiple of the text's length.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from data.answers.choices import letters_of
from data.records import AnswerKind, Question

NOT_FOUND = "[invalid]"
"""What lm-evaluation-harness takes for the answer of a text in which there is none."""
_TEXT = r"(?:(?!\n[ \t]{0,8}Q:).)*"
"""As much as there is, up to the next question."""
_SAYS = rf"{_TEXT}(?:\banswers?\b(?:\s+(?:is|are|would\s+be|will\s+be|must\s+be)\b|\s*[:=])|####|\\boxed\{{)"
_OPENS = r"[\s:*$(\"'“\[{]*"
_NUMBER = r"[-−+]?[$€£]?\s?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:\s?/\s?[0-9]+)?"
_YES_NO = r"(yes|no|true|false)\b"
_LINE = r"([^\n]*?)[\s.!?]*(?:\n|\Z)"

PATTERNS: Mapping[AnswerKind, str] = {
    "number": rf"{_SAYS}{_OPENS}({_NUMBER})|{_TEXT}={_OPENS}({_NUMBER})|(?:{_TEXT}[^-−\w.,/]|)({_NUMBER})",
    "numbers": rf"{_SAYS}[\s:]*{_LINE}|\s*{_LINE}",
    "choice": rf"{_SAYS}{_OPENS}(?:([A-Z])(?![\w'’])|{_LINE})|\s*\(?([A-Z])(?![\w'’])|\s*{_LINE}",
    "boolean": rf"{_SAYS}{_OPENS}{_YES_NO}|\W*{_YES_NO}|{_TEXT}\b{_YES_NO}\W*\Z",
    "text": rf"{_SAYS}{_OPENS}{_LINE}|{_TEXT}(?<=\n)\s*{_LINE}|\s*{_LINE}",
}
_ZEROS = (r"\.0+$", r"(?<=\.[0-9])0+$", r"(?<=\.[0-9]{2})0+$", r"(?<=\.[0-9]{3})0+$", r"^0+(?=[0-9])")
_MARKS = (r"[\s.!?)\"'”\]}*$]+$", r"^[\"'“(\[*]+")
IGNORED: Mapping[AnswerKind, tuple[str, ...]] = {
    "number": (r"[\s,$€£+]", *_ZEROS),
    "numbers": (r"[\s$€£]", r"\.+$", r"\.0+(?=;|$)"),
    "choice": _MARKS,
    "boolean": (),
    "text": (*_MARKS, r"(?i)^(?:the|an?)\s+(?=\S)"),
}
"""What is left out of both sides, one after the other, before they are compared without regard to case."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How answers of one kind are taken out of a text and compared."""

    pattern: str
    ignored: tuple[str, ...]

    def answer(self, output: str) -> str:
        """What a text answers, as the filter `regex` has it: of the first match the first group that holds anything."""
        found = re.search(self.pattern, output)
        return next((group.strip() for group in found.groups() if group), NOT_FOUND) if found else NOT_FOUND

    def says(self, output: str, accepted: tuple[str, ...]) -> bool:
        """Whether a text answers one of these, as the metric `exact_match` has it."""
        answered = self._compared(self.answer(output))
        return any(answered == self._compared(each) for each in accepted)

    def _compared(self, text: str) -> str:
        for ignored in self.ignored:
            text = re.sub(ignored, "", text)
        return text.lower()


def rule_of(kind: AnswerKind) -> Rule:
    """The rule of one kind of answers."""
    case = "" if kind == "choice" else "i"
    return Rule(pattern=rf"(?s{case})\A(?:{PATTERNS[kind]})", ignored=IGNORED[kind])


def accepted(question: Question) -> tuple[str, ...]:
    """The ways in which the gold answer may be written."""
    assert question.answer is not None, "only labelled questions are asked"
    match question.answer_kind:
        case "number":
            return tuple(dict.fromkeys((question.answer, _as_fraction(question.answer))))
        case "boolean":
            return ("yes", "true") if question.answer == "yes" else ("no", "false")
        case "choice":
            named = dict(zip(letters_of(question.choices), question.choices, strict=True)).get(question.answer)
            return (question.answer,) if named is None else (question.answer, named)
        case _:
            return (question.answer,)


def _as_fraction(number: str) -> str:
    try:
        value = Fraction(number)
    except ValueError:
        return number
    return number if value.denominator == 1 else f"{value.numerator}/{value.denominator}"
