"""What becomes of what a teacher wrote: an output enters, `kept` or the reason against it leaves.

A reason is counted in every summary. It depends on the question and the output alone, so that it is the same whichever
engine, job or order of work the output came from; that two samples are alike is told where they are read.
"""

from cache.rationales import KEPT
from data.answers.parse import parse_answer
from data.dataset import is_right
from data.keyword_prompts import NamedWords, read_keywords
from data.leaks import lets_on
from data.prompts import answer_sentence, finish_rationale
from data.records import Phase, Question
from stages.engines.contract import Generation

WRONG = "wrong answer"
NOT_FOUND = "no answer found"
CUT_OFF = "cut off at max_tokens"
TOO_LONG = "prompt too long"
NO_GOLD = "no gold answer"
EMPTY = "empty"
NOT_IN_FILE = "no rationale in the file"
RESTATES = "only restates the answer"
LEAKS = "speaks of the answer that it was shown"
NO_KEYWORD = "names no word of the text"

ASKED_AGAIN = frozenset({WRONG, NOT_FOUND, CUT_OFF, EMPTY})
"""Outcomes of the plain phase after which the second phase asks; the rest would end no better."""
WHATEVER_SAMPLE = frozenset({TOO_LONG, NO_GOLD, NOT_IN_FILE})
"""Outcomes that are those of every other sample, too."""


def judge(question: Question, generation: Generation | None, phase: Phase) -> tuple[str, str | None]:
    """Decide what becomes of a rationale: (`kept` or the reason against it, the answer found in it)."""
    if question.answer is None:
        return NO_GOLD, None
    if generation is None:
        return NOT_IN_FILE, None
    if generation.finish_reason == "too_long":
        return TOO_LONG, None
    if not generation.text.strip():
        return _empty(generation), None
    answer = parse_answer(generation.text, question)
    # The answer to a rationale without its end is a number on the way, if it is one at all.
    if generation.finish_reason == "length":
        return CUT_OFF, answer
    if answer is None:
        return NOT_FOUND, None
    if not is_right(answer, question):
        return WRONG, answer
    return _right_outcome(question, generation.text, phase), answer


def whole_characters(text: str) -> str:
    """The text with a mark for every half of a character, which no file can hold: a server may send such."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def judge_keywords(question: Question, rationale: str, generation: Generation | None) -> tuple[str, NamedWords]:
    """Decide what becomes of a list of key words: (`kept` or the reason against it, what was found in it)."""
    nothing = NamedWords(words=(), missing=0)
    if generation is None or generation.finish_reason == "too_long":
        return TOO_LONG, nothing
    if not generation.text.strip():
        return _empty(generation), nothing
    whole = generation.finish_reason == "stop"
    named = read_keywords(generation.text, question.text, rationale, whole=whole)
    return (KEPT if named.words else NO_KEYWORD), named


def _empty(generation: Generation) -> str:
    """Why there is no text: the model has none, or had not come to it when its tokens ran out, having only thought."""
    return CUT_OFF if generation.finish_reason == "length" else EMPTY


def _right_outcome(question: Question, output: str, phase: Phase) -> str:
    """Whether a rationale that reaches the gold answer explains anything, and does not say that it was shown."""
    assert question.answer is not None
    finished = finish_rationale(output, question, question.answer)
    if finished == answer_sentence(question, question.answer):
        return RESTATES
    return LEAKS if phase == "gold_shown" and lets_on(output, finished, question) else KEPT
