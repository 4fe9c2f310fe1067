"""What an answer looks like, and how to find it in what a model wrote.

Enters: a model's output and the question that it answers. Leaves: the canonical answer, or None where there is none.

Canonical forms, by the question's kind:

- number: a plain decimal without sign of zero, separators or trailing zeros ("42", "-3.5", "0.75"), a reduced fraction
  where no finite decimal exists ("2/3"). Currency, units and the percent sign are left out: "45%" is "45".
- choice: the letter, "A" for the first choice.
- boolean: "yes" or "no"; true and false mean the same.
- text: the words with single spaces between them and without marks at the end; compared without regard to case.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from string import ascii_uppercase

from data.marking import number_spans
from data.records import AnswerKind, Question

# Differences up to this share are the rounding of floating-point labels and results.
NUMBER_TOLERANCE = Fraction(1, 1_000_000)
# More characters than this are a model that repeats a digit, no answer.
LONGEST_NUMBER = 100
_YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}

# "The answer is …", "Final answer: …", "the answer to how many he has is …", "#### …"; what follows is the answer.
_STATED = re.compile(
    r"(?:\banswer(?:s|\s+choice|\s+option)?\s*(?:\([^()\n]*\)\s*)?"
    r"(?:(?:is|are|would\s+be|=|:)(?!\w)|(?:to|for)\s[^.\n]{1,120}?\sis\b)\s*:?|####)\s*",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)|\n")
_NEXT_QUESTION = re.compile(r"\n\s*Q:")
_NUMBER_FORM = re.compile(r"[+-]?(?:[0-9]+/[0-9]+|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)")
_MIXED_NUMBER = re.compile(r"(?<![\d.,/])(\d+) (\d+)/(\d+)(?![\d/])")
_SIGN_BEFORE_CURRENCY = re.compile(r"(?<![\w)])([-−])\s?([$€£])(?=[\d.])")
_LETTER_IN_BRACKETS = re.compile(r"\(\s*([A-Za-z])\s*\)")
_LETTER_ALONE = re.compile(r"\W*(?:(?:option|choice)\s+)?([A-Z])\s*(?:[).:,;]|$|\s-)")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A place at which an output says outright what its answer is."""

    start: int
    """Where the words that announce the answer begin."""
    answer_start: int
    """Where the answer itself begins."""
    end: int
    """Where its sentence or line ends."""
    text: str
    """The answer as it is written there."""
    line: str
    """The same up to the end of the line, for answers that hold a period."""


def parse_answer(output: str, question: Question) -> str | None:
    r"""Find the canonical answer in a model's output.

    The last outright statement that can be read counts ("The answer is …", "#### …", "\boxed{…}"). Without one: for
    numbers the last result after an equals sign, else the last number; for choices the one that the last sentence
    names; for yes and no the last sentence that begins or ends with one of them; for text the last line.
    """
    text = plain_text(output)
    stated = [_read(statement, question) for statement in statements(text)]
    answers = [answer for answer in stated if answer is not None]
    if answers:
        return answers[-1]
    # Whoever announces a choice and then names none or several has not chosen.
    return None if stated and question.answer_kind == "choice" else _unstated(text, question)


def same_answer(a: str, b: str, kind: AnswerKind) -> bool:
    """Whether two canonical answers mean the same; numbers may differ by a millionth part of the second."""
    if kind != "number":
        return a.casefold() == b.casefold()
    first, second = number_value(a), number_value(b)
    if first is None or second is None:
        return a == b
    return abs(first - second) <= NUMBER_TOLERANCE * max(abs(second), Fraction(1))


def is_right(answer: str | None, question: Question) -> bool:
    """Whether a canonical answer is the question's gold answer; no answer is wrong, and so is any without gold."""
    if answer is None or question.answer is None:
        return False
    return same_answer(answer, question.answer, question.answer_kind)


def canonical_answer(raw: object, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
    """The canonical form of an answer as a data file gives it, or None where it has not the form of its kind."""
    text = str(raw).strip()
    if kind == "number":
        value = _written_number(raw) if isinstance(raw, str) else _stored_number(raw)
        return None if value is None else number_text(value)
    if kind == "boolean":
        return _YES_NO.get(text.casefold())
    if kind == "choice":
        letters = list(letters_of(choices))
        named = [letter for letter, choice in zip(letters, choices, strict=True) if _same_words(choice, text)]
        bare = text.strip("().: ").upper()
        return bare if bare in letters else next(iter(named), None)
    return " ".join(text.split()).rstrip(".! ") or None


def _written_number(raw: str) -> Fraction | None:
    sign, bare = ("-", raw.strip()[1:]) if raw.strip()[:1] in ("-", "−") else ("", raw.strip())
    return number_value(sign + bare.lstrip("$€£ ").removesuffix("%").rstrip())


def _stored_number(raw: object) -> Fraction | None:
    """A number that a data file holds as a number; truth values and the infinite are none."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        return None
    return Fraction(str(raw))


def letters_of(choices: Sequence[str]) -> str:
    """The letters of the choices in order."""
    return ascii_uppercase[: len(choices)]


def choice_text(question: Question, letter: str) -> str:
    """A choice as it is listed: "(B) populated areas"."""
    return f"({letter}) {question.choices[ascii_uppercase.index(letter)]}"


def with_choices(stem: str, choices: Sequence[str]) -> str:
    """A question followed by the list of its choices."""
    lines = [f"({letter}) {choice}" for letter, choice in zip(letters_of(choices), choices, strict=True)]
    return "\n".join([stem, "Answer Choices:", *lines])


def plain_text(output: str) -> str:
    """An output without bold type and typeset fractions, up to where it goes on to ask itself another question."""
    text = _NEXT_QUESTION.split(output, maxsplit=1)[0].replace("**", "").replace("\\$", "$").replace("{,}", ",")
    return re.sub(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r"\1/\2", text)


def statements(text: str) -> Iterator[Statement]:
    """Every outright statement of an answer in a plain text, in order."""
    found = [(match.start(), match.end(), None) for match in _STATED.finditer(text)]
    boxed = [(match.start(), match.start(1), match) for match in _BOXED.finditer(text)]
    for start, answer_start, box in sorted([*found, *boxed], key=lambda place: place[0]):
        ending = _SENTENCE_END.search(text, answer_start)
        end = box.end() if box else ending.end() if ending else len(text)
        body = box.group(1) if box else text[answer_start:end]
        line = text[answer_start:].partition("\n")[0]
        yield Statement(start=start, answer_start=answer_start, end=end, text=body.strip(), line=line.strip())


def number_value(text: str) -> Fraction | None:
    """The exact value of one number as people write it, or None: "1,000.50", "-3", "3/4", "½"."""
    if len(text) == 1 and unicodedata.category(text) == "No":
        return Fraction(unicodedata.numeric(text)).limit_denominator(100)
    bare = text.replace(",", "").replace("−", "-").replace("–", "-").strip()
    if len(bare) > LONGEST_NUMBER or not _NUMBER_FORM.fullmatch(bare) or re.search(r"/0+$", bare):
        return None
    return Fraction(bare)


def number_text(value: Fraction) -> str:
    """The canonical form of a number: a finite decimal where there is one, else a reduced fraction."""
    rest, places = value.denominator, 0
    while rest % 10 == 0 or rest % 2 == 0 or rest % 5 == 0:
        rest //= 10 if rest % 10 == 0 else 2 if rest % 2 == 0 else 5
        places += 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    whole, part = (digits[:-places], digits[-places:].rstrip("0")) if places else (digits, "")
    return ("-" if value < 0 else "") + whole + ("." + part if part else "")


def _read(statement: Statement, question: Question) -> str | None:
    """The answer in the words that state it."""
    match question.answer_kind:
        case "number":
            return _read_number(statement.text)
        case "choice":
            return canonical_choice(statement.line, question) or _read_choice(statement.text, question)
        case "boolean":
            return _read_yes_no(statement.text)
        case _:
            return canonical_answer(statement.text, "text")


def _unstated(text: str, question: Question) -> str | None:
    """The answer in an output that does not say outright what it is."""
    last_sentence = next((piece for piece in reversed(_SENTENCE_END.split(text)) if piece.strip()), "").strip()
    match question.answer_kind:
        case "number":
            results = [number for number in (_first_number(piece) for piece in text.split("=")[1:]) if number]
            return next(reversed(results or _numbers(text)), None)
        case "choice":
            return canonical_choice(text, question) or _read_choice(last_sentence, question)
        case "boolean":
            return _edge_yes_no(text)
        case _:
            return canonical_answer(text.strip().rpartition("\n")[2], "text")


def _read_number(stated: str) -> str | None:
    """The first number of a statement, or of what follows its last equals sign; "84 / 2" is a quotient."""
    result = stated.rpartition("=")[2] if _numbers(stated.rpartition("=")[2]) else stated
    return next(iter(_numbers(re.sub(r"(?<=\d)\s*/\s*(?=\d)", "/", result))), None)


def _first_number(piece: str) -> str | None:
    """The number with which a piece begins, units and currency before it passed over."""
    head = re.match(r"[\s$€£~≈]*[+−-]?[\d.,/]*\d", piece)
    return next(iter(_numbers(head.group())), None) if head else None


def _numbers(text: str) -> list[str]:
    """All numbers of a text in canonical form; "1 1/2" is one number."""
    values: list[str] = []
    joined = _SIGN_BEFORE_CURRENCY.sub(r"\2\1", _MIXED_NUMBER.sub(_mixed, text))
    for start, end in number_spans(joined):
        value = number_value(joined[start:end])
        if value is not None:
            values.append(number_text(value))
    return values


def _mixed(found: re.Match[str]) -> str:
    """A whole number and a proper fraction as one fraction; anything else stays as it is."""
    whole, upper, lower = (int(piece) for piece in found.groups())
    return f"{whole * lower + upper}/{lower}" if upper < lower else found.group()


def _read_choice(stated: str, question: Question) -> str | None:
    """A letter in brackets, a letter alone, the text of one choice, or the one choice that is named."""
    letters = letters_of(question.choices)
    bracketed: list[str] = [
        letter.upper() for letter in _LETTER_IN_BRACKETS.findall(stated) if letter.upper() in letters
    ]
    if bracketed:
        return bracketed[0]
    alone = _LETTER_ALONE.match(stated)
    if alone and alone.group(1) in letters:
        return str(alone.group(1))
    return canonical_choice(stated, question) or _named_choice(stated, question)


def canonical_choice(text: str, question: Question) -> str | None:
    """The letter of a choice that is all that a text says: "B", "(B)", "(B) populated areas", "populated areas"."""
    head = re.match(r"\W*([A-Za-z])\b\W*", text)
    letter = head.group(1).upper() if head else ""
    if head and letter in list(letters_of(question.choices)):
        rest = text[head.end() :]
        if not rest or _same_words(question.choices[ascii_uppercase.index(letter)], rest):
            return letter
    return _letter_of([choice for choice in question.choices if _same_words(choice, text)], question)


def _named_choice(stated: str, question: Question) -> str | None:
    """The one choice whose text is stated, among other words if need be; "this or that" is none."""
    named = _mentioned(stated, question.choices)
    others = f" {_words(stated)} "
    for choice in named:
        others = others.replace(f" {_words(choice)} ", "  ")
    return None if " or " in others else _letter_of(named, question)


def _letter_of(named: Sequence[str], question: Question) -> str | None:
    """The letter of the named choices if they are one.

    A few published questions list one text twice; it then means the gold one, since nothing tells them apart.
    """
    if len({_words(choice) for choice in named}) != 1:
        return None
    letters = letters_of(question.choices)
    equal = [letter for letter, choice in zip(letters, question.choices, strict=True) if _same_words(choice, named[0])]
    return question.answer if question.answer in equal else equal[0]


def _mentioned(stated: str, choices: Sequence[str]) -> list[str]:
    """The choices that occur in a statement and are not part of a longer one that does."""
    padded = f" {_words(stated)} "
    found = [choice for choice in choices if _words(choice) and f" {_words(choice)} " in padded]
    return [
        choice
        for choice in found
        if not any(choice != other and f" {_words(choice)} " in f" {_words(other)} " for other in found)
    ]


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w'’]+", text.casefold()))


def _same_words(choice: str, stated: str) -> bool:
    return _words(choice) == _words(stated) and bool(_words(choice))


def _read_yes_no(stated: str) -> str | None:
    found = re.search(r"\b(not\s+)?(yes|no|true|false)\b", stated, re.IGNORECASE)
    if not found:
        return None
    answer = _YES_NO[str(found.group(2)).casefold()]
    return answer if not found.group(1) else "no" if answer == "yes" else "yes"


def _edge_yes_no(text: str) -> str | None:
    """Yes or no, true or false, where it opens a sentence by itself ("No, it …") or closes the text ("so yes.")."""
    word = r"(yes|no|true|false)\b"
    found = re.findall(
        rf"(?:^|(?<=[.!?\n]))[^\w\n.!?]*{word}\s*(?=[,.;:!]|$)|\b{word}[^\w]*\Z", text, re.IGNORECASE | re.MULTILINE
    )
    return _YES_NO[(found[-1][0] or found[-1][1]).casefold()] if found else None
