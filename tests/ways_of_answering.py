"""Ten ways of writing an answer, for each kind of question: what a parser has to read back."""

from collections.abc import Callable, Mapping

from data.answers.choices import choice_text
from data.answers.numbers import number_value
from data.records import AnswerKind, Question

Way = Callable[[Question], str]

_SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def spelled(number: int) -> str:
    """A whole number in English words."""
    if number < 0:
        return f"minus {spelled(-number)}"
    for scale, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if number >= scale:
            rest = number % scale
            joint = "" if not rest else " and " if scale == 100 else " "
            return f"{spelled(number // scale)} {name}{joint}{spelled(rest) if rest else ''}"
    if number < 20:
        return _SMALL[number]
    return _TENS[number // 10] + (f"-{_SMALL[number % 10]}" if number % 10 else "")


def _gold(question: Question) -> str:
    assert question.answer is not None
    return question.answer


def _grouped(question: Question) -> str:
    """With a comma between groups of three digits."""
    whole, point, decimals = _gold(question).removeprefix("-").partition(".")
    grouped = whole if "/" in whole else format(int(whole), ",")
    return f"{'-' if _gold(question).startswith('-') else ''}{grouped}{point}{decimals}"


def _priced(question: Question) -> str:
    grouped = _grouped(question)
    return f"-${grouped[1:]}" if grouped.startswith("-") else f"${grouped}"


def _in_words(question: Question) -> str:
    value = number_value(_gold(question))
    assert value is not None
    return spelled(value.numerator) if value.denominator == 1 else _gold(question)


def _with_zeros(question: Question) -> str:
    gold = _gold(question)
    return gold if "/" in gold else f"{gold}00" if "." in gold else f"{gold}.00"


def _listed(question: Question) -> str:
    return choice_text(question, _gold(question))


def _text(question: Question) -> str:
    return _listed(question)[4:]


WAYS: Mapping[AnswerKind, tuple[Way, ...]] = {
    "number": (
        lambda q: f"First 3 + 4 = 7. The answer is {_gold(q)}.",
        lambda q: f"There were 3 at first.\n#### {_grouped(q)}",
        lambda q: f"It is 3 + 4 and so on, so \\[\\boxed{{{_gold(q)}}}\\]",
        lambda q: f"Therefore, the answer is {_priced(q)}.",
        lambda q: f"2 of them stay.\n\n**Final Answer:** {_gold(q)} apples",
        lambda q: _gold(q),
        lambda q: f"3 + 4 = 7 at first. In the end the sum of 2 parts = {_grouped(q)} apples",
        lambda q: f"Of the 3 friends nobody had any. At the end there are {_gold(q)} apples left.",
        lambda q: f"There are 2 of them. The answer is {_in_words(q)} apples.",
        lambda q: f"So the final answer is: {_with_zeros(q)} km/h",
    ),
    "choice": (
        lambda q: f"(A) and (B) do not fit. The answer is ({_gold(q)}).",
        lambda q: f"The answer is {_listed(q)}.",
        lambda q: f"({_gold(q)})",
        lambda q: _gold(q),
        lambda q: f"{_gold(q)}) {_text(q)}",
        lambda q: f"It is hard to tell.\n**{_gold(q)}**",
        lambda q: f"It follows from what is known. So option {_gold(q)} is correct.",
        lambda q: f"The answer is {_text(q)}.",
        lambda q: _text(q),
        lambda q: f"It follows that \\boxed{{\\text{{{_gold(q)}}}}}",
    ),
    "boolean": (
        lambda q: f"There is no doubt. The answer is {_gold(q)}.",
        lambda q: f"{_gold(q).capitalize()}.",
        lambda q: f"{_gold(q).capitalize()}, because one of them is older.",
        lambda q: f"One of them is older. So {_gold(q)}.",
        lambda q: "True" if _gold(q) == "yes" else "False",
        lambda q: f"So the answer is {_gold(q) == 'yes'}.",
        lambda q: f"It is older.\n\\boxed{{\\text{{{_gold(q).capitalize()}}}}}",
        lambda q: f"There is no way around it.\n**{_gold(q).capitalize()}**",
        lambda q: f"One is older.\n#### {_gold(q)}",
        lambda q: f"Final Answer: {_gold(q).upper()}",
    ),
}
