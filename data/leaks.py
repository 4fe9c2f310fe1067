"""Whether a rationale lets on that its author was shown the answer: its text enters, yes or no leaves.

A student that learns from such a text learns to appeal to an answer that it will never be given. The phrases are few
and narrow: "the answer must be a cold place" is reasoning, and so is "of the given answer choices". Where the question
itself speaks of answers ("each correct answer gives 3 points"), words about answers say nothing about the author.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from data.answers.choices import CHOICES_HEADING, choice_text
from data.patterns import regex
from data.prompts import hint
from data.records import Question

_ANSWER = r"(?:(?:correct|right|final|true|actual|gold)\s+)*(?:answer|solution)"
# "answer choices", "answer options" and the like are the question's, not the answer.
_ALONE = r"\b(?!\s+(?:choices?|options?|sheets?|keys?)\b)"
_SHOWN = r"(?:given|provided|supplied|stated|shown|revealed|indicated|told|known)"
_PHRASES = (
    # the given answer, the provided correct answer, the known solution
    rf"\bthe\s+(?:already\s+)?(?:{_SHOWN}|expected|above)\s+{_ANSWER}{_ALONE}",
    # the correct answer is given, the answer was already provided; not "the answer is given by 3 + 4"
    rf"\b{_ANSWER}\s+(?:(?:is|was|has\s+been|had\s+been)\s+)?(?:already\s+|also\s+)?{_SHOWN}\b"
    r"(?!\s+by\s+(?!the\s+(?:question|problem|prompt|hint|user)\b))",
    # we are told that the answer, it is stated that the correct answer, we know the answer is
    rf"\b(?:(?:are|were|been|am|was|is)\s+(?:already\s+)?{_SHOWN}|(?:we|I)\s+(?:already\s+)?know)\s+"
    rf"(?:that\s+)?the\s+{_ANSWER}{_ALONE}",
    # the question says that the answer is, the user provided the answer
    r"\b(?:question|problem|prompt|task|text|note|user)\s+(?:already\s+|also\s+)?"
    r"(?:states?|says?|said|tells?|told|gives?|gave|provide[sd]?|indicate[sd]?|mention(?:s|ed)|specifie[sd]|shows?)\s+"
    rf"(?:us\s+)?(?:that\s+)?the\s+{_ANSWER}{_ALONE}",
    # as stated, the correct answer is; the correct answer as given in the problem; not "as shown above, the answer is"
    rf"\bas\s+(?:{_SHOWN}|mentioned|noted)(?!\s+(?:above|before|earlier))\b[^.,\n]{{0,30}},?\s+the\s+{_ANSWER}{_ALONE}",
    rf"\b{_ANSWER}\s+as\s+(?:{_SHOWN}|mentioned|noted)\b",
    # given the correct answer of 42, to arrive at the answer of 42, the correct answer being 42, the answer in brackets
    rf"\b(?:given|knowing)\s+the\s+{_ANSWER}{_ALONE}",
    rf"\bto\s+(?:get(?:\s+to)?|reach|arrive\s+at|obtain|explain|justify)\s+the\s+{_ANSWER}\s+of\b",
    rf"\bthe\s+{_ANSWER}\s+(?:being|in\s+(?:parenthes[ei]s|brackets?))\b",
    # this matches the correct answer, in agreement with the answer
    r"\b(?:match(?:es|ing)?|agree(?:s|ing)?\s+with|(?:agreement|line)\s+with|consistent\s+with|confirm(?:s|ed|ing)?)\s+"
    rf"(?:that\s+)?the\s+{_ANSWER}{_ALONE}",
    # according to the answer, working backwards from the correct answer
    rf"\b(?:according\s+to|based\s+on|backwards?\s+from|starting\s+from)\s+the\s+{_ANSWER}{_ALONE}",
    # the hint says, as hinted
    r"\b(?:the|this|your)\s+hint\b|\bhinted\b",
)
_TOLD = regex("|".join(f"(?:{phrase})" for phrase in _PHRASES), re.IGNORECASE)
_FROM = r"\b(?:since|because|as|given(?:\s+that)?|knowing(?:\s+that)?)\s+(?:we\s+know\s+(?:that\s+)?)?"
_FROM_ANSWER = rf"{_FROM}the\s+{_ANSWER}\s+(?:is|was|equals)\s+"
_SPEAKS_OF_ANSWERS = regex(r"\banswer(?:s|ed|ing)?\b|\bsolutions?\b|\bhint(?:s|ed)?\b", re.IGNORECASE)


def lets_on(output: str, rationale: str, question: Question) -> bool:
    """Whether an `output` that was written with the answer in sight, or the `rationale` made of it, says so.

    The line with the answer, copied, always does. A clause that reasons from the answer ("since the answer is 7, …")
    counts where it names the gold one.
    """
    if hint(question) in output:
        return True
    if _SPEAKS_OF_ANSWERS.search(question.text.replace(CHOICES_HEADING, "")):
        return False
    return bool(_TOLD.search(rationale) or _from_answer(tuple(_written(question))).search(rationale))


@lru_cache(maxsize=4096)
def _from_answer(answers: tuple[str, ...]) -> re.Pattern[str]:
    written = "|".join(map(re.escape, answers))
    named = rf"[\"“']?(?:{written})(?![\w%])(?!\.\d)[\"”']?"
    return re.compile(rf"{_FROM_ANSWER}{named}|{_FROM}{named}\s+is\s+the\s+{_ANSWER}{_ALONE}", re.IGNORECASE)


def _written(question: Question) -> Iterator[str]:
    """The forms in which a text may name the gold answer."""
    assert question.answer is not None
    yield question.answer
    if question.answer_kind == "choice":
        listed = choice_text(question, question.answer)
        yield from (listed, listed.partition(" ")[0], listed.partition(" ")[2])
