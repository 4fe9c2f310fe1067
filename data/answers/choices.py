"""Which choice a text names: by its letter, its words, its number, or the formula that it is.

Enters: the words of a statement, or a sentence that states nothing outright. Leaves: the letter, or None where no
choice or several are named.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from string import ascii_uppercase

from data.answers.amounts import stated_number
from data.answers.numbers import number_text, numbers_in_digits, plain_numbers
from data.answers.outputs import plain_label
from data.answers.statements import sentences
from data.patterns import regex
from data.records import Question

CHOICES_HEADING = "Answer Choices:"
LEADING_WORD = r"(?:[Ss]o|[Tt]hus|[Tt]herefore|[Hh]ence|[Tt]hen)\b"
_TO = regex(r"(?<=[0-9])\s+to\s+(?=[0-9])", re.IGNORECASE)
_RATIO_OR_RANGE = regex(r"[0-9]\s*([:∶–-])\s*[0-9]")
_LETTER_IN_BRACKETS = regex(r"\(\s*([A-Za-z])\s*\)")
_SEVERAL_LETTERS = regex(
    r"\(\s*[A-Za-z]\s*\)(?:[^()]{0,60}\b(?:[Oo]r|[Aa]nd)\s+|\s*[,/&;]\s*)\(\s*[A-Za-z]\s*\)"
    r"|^\W*[A-Z]\)?\s*(?:[,/&;和或、]|\bor\b|\band\b)\s*(?:(?:or|and)\s+)?\(?[A-Z]\)?(?=\W*$|\s*[,/&;]|\s+(?:or|and)\b|[\u3000-\u9fff])"
)
# A letter of which something is said other than that it is right: "(A) is loud", "(E) would be too cold".
_DISCUSSED = regex(
    r"\(\s*[A-Za-z]\s*\)(?!\s+it\s+is\W*\Z)(?:\s+[^().;,]{1,60}?)?\s+(?:is|are|was|were|has|have|does|do|can|could|would|will|might|may)"
    r"(?:n['’]t)?\b(?!\s+(?:\w+\s+){0,3}?(?:correct|right|best|answer|choice|option|one)\b)"
)
_LETTER_ALONE = regex(
    rf"\W*(?:{LEADING_WORD}\W*)?(?:(?:option|choice)\s+)?([A-Z])\s*"
    r"(?:[).:,;]|$|\s[-–—(]|\s+(?:because|since|as|is|which|over|here|rather|instead)\b|[\u0e00-\u0e7f\u3000-\u9fff\uac00-\ud7af])"
)
_LETTER_NAMED = regex(
    r"\b(?:[Oo]ption|[Cc]hoice|[Cc]hoose|[Pp]ick|[Ss]elect|[Aa]nswer|ANSWER|OPTION|CHOICE)\s+\(?([A-Z])\b(?!['’])\)?"
    r"(?=\W*(?:$|[.,;:]|\s(?:is|as|because|since)\b))"
    rf"|(?:^|\b{LEADING_WORD})\W*([A-Z])\)?\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
    r"|\b(?:[Ii]t['’]s|(?:[Ii]t|[Tt]his|[Tt]hat)\s+(?:is|must\s+be|would\s+be|has\s+to\s+be)|[Gg]o(?:ing)?\s+with|say)\s+\(?([A-Z])\)?"
    r"(?=\W*(?:$|[.,;]))"
    r"|\b[Oo]nly\s+\(?([A-Z])\)?\s+(?:fits|works|remains|makes\s+sense|is\s+(?:left|possible|correct|right))\b"
    r"|\b(?:option|choice|answer|one)\s+(?:that|which|left|with)\s[^.]{1,60}\sis\s+\(?([A-Z])\)?(?=\W*$)"
)
_CONCLUDED = regex(r"\b(?:so|thus|therefore|hence|leaves|leaving|only)\s+\(?([A-Z])\)?\W*\Z")
# What choices may differ by beside words and numbers: "x - 2" and "x + 2", "7!" and "7"; not the hyphen of "x-ray".
_SPOKEN = regex(
    r"#-?[0-9]+(?:[./][0-9]+)?|[\w'’]+|(?<=[0-9)])!|(?<=\b[a-z])!|(?<=[0-9]):(?=#)|(?<![^\W\d_])-|-(?![^\W\d_])"
    r"|[+*^/√=<>≤≥×÷()]"
)
_BEFORE_SOLE_NUMBER = regex(r"[\s$€£₹(]*(?:[Rr]s\.?)?\s*")
_AFTER_SOLE_NUMBER = regex(
    r"[\s%°.)]*(?:[^\W\d_]+/[^\W\d_]+|[^\W\d_]{2,}[^\W\d_ ./'’]*|[a-zA-Z])?[^\W\d+*^/√=<>≤≥×÷!-]*"
)


def letters_of(choices: Sequence[str]) -> str:
    """The letters of the choices in order."""
    return ascii_uppercase[: len(choices)]


def choice_text(question: Question, letter: str) -> str:
    """A choice as it is listed: "(B) populated areas"."""
    return f"({letter}) {question.choices[ascii_uppercase.index(letter)]}"


def with_choices(stem: str, choices: Sequence[str]) -> str:
    """A question followed by the list of its choices."""
    lines = [f"({letter}) {choice}" for letter, choice in zip(letters_of(choices), choices, strict=True)]
    return "\n".join([stem, CHOICES_HEADING, *lines])


def stated_choice(stated: str, question: Question, *, outright: bool = True) -> str | None:
    """A letter in brackets, a letter alone, the text of one choice, the one choice that is named, or its number.

    What is denied does not count ("not (A) but (C)"). A sentence that does not state an answer outright may only name
    one letter.
    """
    letters = letters_of(question.choices)
    concluded = None if outright else _CONCLUDED.search(stated)
    if concluded and concluded[1] in letters:
        return str(concluded[1])
    stated = _denied_choices(question.choices).sub(" ", stated)
    if _SEVERAL_LETTERS.search(stated):
        return None
    if not outright:
        stated = _DISCUSSED.sub(" ", stated)
    bracketed = [letter.upper() for letter in _LETTER_IN_BRACKETS.findall(stated) if letter.upper() in letters]
    if not outright and len(set(bracketed)) > 1:
        return None
    first, named = _LETTER_ALONE.match(stated), _LETTER_NAMED.search(stated)
    for alone in filter(None, (first, None if bracketed else named)):
        if found := [letter for letter in alone.groups() if letter and letter in letters]:
            return str(found[0])
    if bracketed:
        return str(bracketed[0])
    stated = _as_listed(stated, question.choices)
    result = stated.rpartition("=")[2]
    return canonical_choice(stated, question) or _named_choice(stated, question) or _named_choice(result, question)


def _as_listed(stated: str, choices: Sequence[str]) -> str:
    """A statement in which "2 to 3" is 2:3 or 2-3 where choices are written so."""
    if not _TO.search(stated):
        return stated
    listed = next((found[1] for choice in choices if (found := _RATIO_OR_RANGE.search(choice))), None)
    return _TO.sub(":" if listed in (":", "∶") else "-", stated) if listed else stated


@lru_cache(maxsize=4096)
def _denied_choices(choices: tuple[str, ...]) -> re.Pattern[str]:
    """What says of a choice, by its letter, its text or both, that it is not the answer."""
    texts = "|".join(re.escape(choice) for choice in sorted(choices, key=len, reverse=True) if choice)
    text = rf"(?i:{texts})(?!\w)" if texts else "(?!)"
    return re.compile(
        r"\b(?i:not|neither|nor|unlike|rather\s+than|instead\s+of)\s+(?i:(?:option|choice|the|an?)\s+)*?"
        rf"(?:(?:\(\s*[A-Za-z]\s*\)|[A-Z](?![\w'’]))(?:[).:]*\s*{text})?|{text})"
    )


def sentence_of_its_own(text: str, question: Question) -> str | None:
    """The one choice that a sentence or line consists of: "(C) the desert. It is dry there."."""
    found = {canonical_choice(sentence, question) for sentence in sentences(text)} - {None}
    return found.pop() if len(found) == 1 else None


def canonical_choice(text: str, question: Question) -> str | None:
    """The letter of a choice that is all that a text says: "B", "(B)", "(B) populated areas", "populated areas"."""
    text = _as_listed(text, question.choices)
    head = re.match(r"\W*(?:(?:[Oo]ption|[Cc]hoice)\s+)?([A-Za-z])\b\W*", text)
    letter = head.group(1).upper() if head else ""
    if head and letter in list(letters_of(question.choices)):
        rest = text[head.end() :]
        # The mark before a choice may be its own: of "(A) -30" and "(A) √2".
        marked = text[head.end(1) :].lstrip(").:, ")
        same = (same_words(question.choices[ascii_uppercase.index(letter)], said) for said in (rest, marked))
        if not rest or any(same):
            return letter
    return _letter_of([choice for choice in question.choices if same_words(choice, text)], question)


def _named_choice(stated: str, question: Question) -> str | None:
    """The one choice whose text is stated, among other words if need be; "this or that" is none."""
    named = _mentioned(stated, question.choices)
    if not named:
        return _by_value(stated, question)
    others = f" {_spoken(stated)} "
    for choice in named:
        others = others.replace(f" {_spoken(choice)} ", "  ")
    return None if " or " in others else _letter_of(named, question)


def _by_value(stated: str, question: Question) -> str | None:
    """The letter of the one choice that is the stated number: of "24 minutes" for "24"."""
    said = stated_number(stated)
    values = [_sole_number(choice) for choice in question.choices]
    letters = [letter for letter, value in zip(letters_of(question.choices), values, strict=True) if value == said]
    return letters[0] if said is not None and len(letters) == 1 else None


@lru_cache(maxsize=4096)
def _sole_number(choice: str) -> str | None:
    """The number of a choice that is a number with a unit, "24 minutes" and "$65", and no formula."""
    text = plain_numbers(plain_label(choice))
    found = numbers_in_digits(text)
    if len(found) != 1:
        return None
    (start, end), value = found[0]
    alone = _BEFORE_SOLE_NUMBER.fullmatch(text[:start]) and _AFTER_SOLE_NUMBER.fullmatch(text[end:])
    return number_text(value) if alone else None


def _letter_of(named: Sequence[str], question: Question) -> str | None:
    """The letter of the named choices if they are one.

    A few published questions list one text twice; it then means the gold one, since nothing tells them apart.
    """
    if len({_spoken(choice) for choice in named}) != 1:
        return None
    equal = list(letters_saying(named[0], question.choices))
    return question.answer if question.answer in equal else equal[0]


def _mentioned(stated: str, choices: Sequence[str]) -> list[str]:
    """The choices that occur in a statement and are not part of a longer one that does."""
    padded = f" {_spoken(stated)} "
    found = [choice for choice in choices if _spoken(choice) and f" {_spoken(choice)} " in padded]
    return [
        choice
        for choice in found
        if not any(choice != other and f" {_spoken(choice)} " in f" {_spoken(other)} " for other in found)
    ]


@lru_cache(maxsize=65536)
def _spoken(text: str) -> str:
    """Words, exact numbers and signs of operation of a text, without case, currency, units' marks and punctuation."""
    text = re.sub(r"(?<=\d)\s*[:∶]\s*(?=\d)", ":", re.sub(r"[−–—]", "-", plain_label(text).casefold()))
    text = plain_numbers(text.replace("#", " "))
    place, pieces = 0, []
    for (start, end), value in numbers_in_digits(text):
        pieces += [text[place:start], f"#{number_text(value)}"]
        place = end
    return " ".join(_SPOKEN.findall("".join([*pieces, text[place:]]))).strip("() ")


def letters_saying(stated: str, choices: Sequence[str]) -> Iterator[str]:
    """The letters of the choices that a text says word for word."""
    return (letter for letter, choice in zip(letters_of(choices), choices, strict=True) if same_words(choice, stated))


def same_words(choice: str, stated: str) -> bool:
    """Whether a choice and a text are the same words, numbers and signs."""
    return _spoken(choice) == _spoken(stated) and bool(_spoken(choice))
