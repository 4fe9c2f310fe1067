r"""What an answer looks like, and how to find it in what a model wrote.

Enters: a model's output and the question that it answers. Leaves: the canonical answer, or None where there is none.

Canonical forms, by the question's kind:

- number: a plain decimal without sign of zero, separators or trailing zeros ("42", "-3.5", "0.75"), a reduced fraction
  where no finite decimal exists ("2/3"). Currency, units and the percent sign are left out: "45%" is "45", and "0.45"
  is another number. What may be written for a number: `data.numbers`.
- numbers: several in their order, "8; 128", or a ratio or time of day, "9:7"; the units are left out.
- choice: the letter, "A" for the first choice.
- boolean: "yes" or "no"; true and false mean the same.
- text: the words with single spaces between them and without marks at the end; compared without regard to case and to
  an article in front.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import zip_longest
from string import ascii_uppercase

from data.numbers import (
    decimal_places,
    number_text,
    number_value,
    numbers_in_digits,
    numbers_in_words,
    plain_numbers,
    words_as_digits,
)
from data.records import AnswerKind, Question, Span

# Differences up to this share are the rounding of floating-point labels and results; whole numbers have none.
NUMBER_TOLERANCE = Fraction(1, 1_000_000)
# Sets whose labels are rounded results ("16.3" for 114 / 7): what rounds to the label is right, too.
ROUNDED_LABELS = frozenset({"asdiv"})
_SCALE_ASKED_FOR = re.compile(r"\b(?:how\s+many|in)\s+(hundred|thousand|million|billion)s?\b", re.IGNORECASE)
_YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
# The word, where it does not belong to the one after it.
_NO = r"no(?!\s+(?:one|body|way|idea|answer|doubt|matter|longer)\b)"

# "The answer is …", "Final answer: …", "the answer to how many he has is …", "The correct option is …", "#### …"; what
# follows is the answer.
_STATED = re.compile(
    r"(?:(?:\banswer(?:s|\s+choice|\s+option)?|\b(?:correct|right|best)\s+(?:option|choice))\s*(?:\([^()\n]*\)\s*)?"
    r"(?:(?:is|are|would\s+be|=|:)(?!\w)|(?:to|for)\s[^.\n]{1,120}?\sis\b)\s*:?|####)\s*",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_SENTENCE_END = re.compile(
    r"(?<!\b[DMS]r)(?<!\bM[rs]s)(?<!\bMs)(?<!\bSt)(?<!\bvs)(?<!\bsq)[.!?]+(?=\s|$)|\n", re.IGNORECASE
)
_NEXT_QUESTION = re.compile(r"\n\s*Q:")
_BOLD = re.compile(r"(?<![0-9])\*\*|\*\*(?![0-9])")
_TYPESET_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([0-9]+)\}\s*\{([0-9]+)\}|([0-9])\s*([0-9]))")
_TYPESET_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_RATIO = re.compile(r"\d+(?:\.\d+)?(?:\s*(?::|\bto\b)\s*\d+(?:\.\d+)?)+")
_LETTER_IN_BRACKETS = re.compile(r"\(\s*([A-Za-z])\s*\)")
_SEVERAL_LETTERS = re.compile(r"\(\s*[A-Z]\s*\)[^()]{0,60}\b(?:or|and)\s+\(\s*[A-Z]\s*\)", re.IGNORECASE)
_LETTER_ALONE = re.compile(
    r"\W*(?:(?:option|choice)\s+)?([A-Z])\s*(?:[).:,;]|$|\s[-–—]|\s+(?:because|since|is|which)\b)"
)
_LETTER_NAMED = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|[Cc]hoose|[Pp]ick|[Ss]elect|[Aa]nswer)\s+\(?([A-Z])\b(?!['’])\)?"
    r"(?=\W*(?:$|[.,;:]|\s(?:is|as|because|since)\b))|^\W*([B-Z])\)?\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
)
# What choices may differ by beside words and numbers: "x - 2" and "x + 2", "7!" and "7"; not the hyphen of "x-ray".
_SPOKEN = re.compile(
    r"#-?[0-9]+(?:[./][0-9]+)?|[\w'’]+|(?<=[0-9)])!|(?<=\b[a-z])!|(?<=[0-9]):(?=#)|(?<![^\W\d_])-|-(?![^\W\d_])"
    r"|[+*^/√=<>≤≥×÷()]"
)
_BEFORE_SOLE_NUMBER = re.compile(r"[\s$€£₹(]*(?:[Rr]s\.?)?\s*")
_AFTER_SOLE_NUMBER = re.compile(r"[\s%°.)]*(?:[^\W\d_]{2,}[^\W\d_ ./'’]*|[a-zA-Z])?[^\W\d+*^/√=<>≤≥×÷!-]*")
_YES_AND_NO = re.compile(
    r"\b(?:(?:yes|true)\W+(?:and|or)?\W*(?:no|false)|(?:no|false)\W+(?:and|or)?\W*(?:yes|true))\b", re.I
)

# What stands before a word that it denies, with up to two words between.
_DENIED = re.compile(r"\b(?:not|never|\w+n['’]t)\s+((?:\w+\s+){0,2})\Z", re.IGNORECASE)


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
    numbers the last result after an equals sign, else the last number; for several numbers those of the last sentence;
    for choices the one that the last sentence names; for yes and no the last sentence that begins or ends with one of
    them; for text the last line. Who hedges ("5 or 6", "(A) or (B)") has not answered.
    """
    text = _in_the_unit_asked_for(plain_text(output), question)
    stated = list(statements(text))
    answers = [answer for answer in (_read(statement, question) for statement in stated) if answer is not None]
    if answers:
        return answers[-1]
    return None if stated and _leaves_open(stated[-1], question) else _unstated(text, question)


def same_answer(a: str, b: str, kind: AnswerKind) -> bool:
    """Whether two canonical answers mean the same; unless both are whole, numbers may differ by a millionth part."""
    if kind in ("number", "numbers"):
        return _same_numbers(a, b, rounded=False)
    if kind == "text":
        return _without_article(a) == _without_article(b)
    return a.casefold() == b.casefold()


def is_right(answer: str | None, question: Question) -> bool:
    """Whether a canonical answer is the question's gold answer; no answer is wrong, and so is any without gold.

    Where a set's labels are rounded (`ROUNDED_LABELS`), so is the answer, to as many decimals as the label shows.
    """
    if answer is None or question.answer is None:
        return False
    if question.answer_kind in ("number", "numbers") and question.benchmark in ROUNDED_LABELS:
        return _same_numbers(answer, question.answer, rounded=True)
    return same_answer(answer, question.answer, question.answer_kind)


def canonical_answer(raw: object, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
    """The canonical form of an answer as a data file gives it, or None where it has not the form of its kind."""
    text = str(raw).strip()
    if kind == "number":
        value = _written_number(raw) if isinstance(raw, str) else _stored_number(raw)
        return None if value is None else number_text(value)
    if kind == "numbers":
        return _written_numbers(text)
    if kind == "boolean":
        return _YES_NO.get(text.casefold())
    if kind == "choice":
        letters = list(letters_of(choices))
        named = [letter for letter, choice in zip(letters, choices, strict=True) if _same_words(choice, text)]
        bare = text.strip("().: ").upper()
        return bare if bare in letters else next(iter(named), None)
    return " ".join(text.split()).rstrip(".! ") or None


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
    """An output without bold type and what sets formulas, up to where it goes on to ask itself another question."""
    text = _BOLD.sub("", _NEXT_QUESTION.split(output, maxsplit=1)[0]).replace("\\$", "$").replace("{,}", ",")
    text = re.sub(r"(?<=[0-9])\\[,!;:](?=[0-9]{3})", ",", text.replace("\\%", "%").replace("\\times", "×"))
    text = _TYPESET_TEXT.sub(r"\1", re.sub(r"\\[,!;:]", " ", text))
    return _TYPESET_FRACTION.sub(_typeset_fraction, text)


def _in_the_unit_asked_for(text: str, question: Question) -> str:
    """To "how many millions" the answer "26 million" is 26; to other questions it is 26,000,000."""
    asked = _SCALE_ASKED_FOR.search(question.text) if question.answer_kind in ("number", "numbers") else None
    return re.sub(rf"\s+{asked[1]}s?\b", "", text, flags=re.IGNORECASE) if asked else text


def _typeset_fraction(found: re.Match[str]) -> str:
    """3/4, apart from a whole number right before it."""
    follows_number = found.start() > 0 and found.string[found.start() - 1].isdigit()
    return f"{' ' if follows_number else ''}{found[1] or found[3]}/{found[2] or found[4]}"


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


def _written_number(raw: str) -> Fraction | None:
    sign, bare = ("-", raw.strip()[1:]) if raw.strip()[:1] in ("-", "−") else ("", raw.strip())
    return number_value(plain_numbers(sign + bare.lstrip("$€£ ").removesuffix("%").rstrip()))


def _written_numbers(text: str) -> str | None:
    """Numbers between semicolons, and ratios and times of day, each with its unit in brackets if need be."""
    pieces = [re.sub(r"\([^()]*\)", "", piece).strip() for piece in text.split(";")]
    found = [_ratio(piece) if _RATIO.fullmatch(piece) else canonical_answer(piece, "number") for piece in pieces]
    return None if None in found else "; ".join(piece for piece in found if piece)


def _ratio(text: str) -> str:
    """The parts as they are written, "9:7"."""
    return re.sub(r"\s*(?::|\bto\b)\s*", ":", text)


def _stored_number(raw: object) -> Fraction | None:
    """A number that a data file holds as a number; truth values and the infinite are none."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        return None
    return Fraction(str(raw))


def _same_numbers(answer: str, gold: str, *, rounded: bool) -> bool:
    pairs = list(zip_longest(re.split(r"[;:]\s*", answer), re.split(r"[;:]\s*", gold), fillvalue=""))
    return answer == gold or all(_same_number(a, b, rounded=rounded) for a, b in pairs)


def _same_number(answer: str, gold: str, *, rounded: bool) -> bool:
    first, second = number_value(answer), number_value(gold)
    if first is None or second is None:
        return False
    if first.denominator == second.denominator == 1:
        return first == second
    tolerance = NUMBER_TOLERANCE * max(abs(second), Fraction(1))
    if rounded and decimal_places(gold):
        tolerance = max(tolerance, Fraction(1, 2 * 10 ** decimal_places(gold)))
    return abs(first - second) <= tolerance


def _without_article(text: str) -> str:
    return re.sub(r"^(?:the|an?)\s+(?=\S)", "", text.casefold())


def _read(statement: Statement, question: Question) -> str | None:
    """The answer in the words that state it."""
    match question.answer_kind:
        case "number":
            return _read_number(statement.text)
        case "numbers":
            return _read_numbers(statement.text)
        case "choice":
            return canonical_choice(statement.line, question) or _read_choice(statement.text, question)
        case "boolean":
            return _read_yes_no(statement.text)
        case _:
            return canonical_answer(statement.text, "text")


def _leaves_open(statement: Statement, question: Question) -> bool:
    """Whether an unreadable statement is meant so: no choice or several named, "5 or 6", "yes or no"."""
    match question.answer_kind:
        case "choice":
            return True
        case "number":
            return re.search(r"[0-9]", statement.text) is not None
        case "boolean":
            return _YES_AND_NO.search(statement.text) is not None
        case _:
            return False


def _unstated(text: str, question: Question) -> str | None:
    """The answer in an output that does not say outright what it is."""
    last_sentence = next((piece for piece in reversed(_SENTENCE_END.split(text)) if piece.strip()), "").strip()
    match question.answer_kind:
        case "number":
            return _last_number(plain_numbers(text)) or _only_spelled(last_sentence)
        case "numbers":
            return _read_numbers(last_sentence)
        case "choice":
            return canonical_choice(text, question) or _read_choice(last_sentence, question)
        case "boolean":
            return _edge_yes_no(text)
        case _:
            return canonical_answer(text.strip().rpartition("\n")[2], "text")


def _read_number(stated: str) -> str | None:
    """The first number of a statement, or of what follows its last equals sign; "84 / 2" is a quotient."""
    text = words_as_digits(plain_numbers(_affirmed(stated)))
    result = text.rpartition("=")[2]
    text = re.sub(r"(?<=\d)\s*/\s*(?=\d)", "/", result if numbers_in_digits(result) else text)
    found = numbers_in_digits(text)
    if not found or _hedged(text, [span for span, _ in found]):
        return None
    return number_text(found[0][1])


def _affirmed(stated: str) -> str:
    """A statement without what it denies: of "not 5 but 6" the 6."""
    denied = re.match(r"\W*not\b", stated, re.IGNORECASE)
    return stated.partition(" but ")[2] if denied else stated


def _hedged(text: str, spans: Sequence[Span]) -> bool:
    """Whether the first number is only one of two that are offered: "5 or 6", "between 5 and 6"."""
    if len(spans) < 2:
        return False
    return bool(
        re.fullmatch(r"\s+or\s+[$€£]?", text[spans[0][1] : spans[1][0]])
        or re.search(r"\bbetween\s+[$€£]?$", text[: spans[0][0]])
    )


def _last_number(text: str) -> str | None:
    """The last result after an equals sign, else the last number."""
    results = [number for number in (_first_number(piece) for piece in text.split("=")[1:]) if number]
    numbers = results or [number_text(value) for _, value in numbers_in_digits(text)]
    return next(reversed(numbers), None)


def _only_spelled(sentence: str) -> str | None:
    """The number that a sentence spells out, where it is one."""
    spelled = list(numbers_in_words(sentence))
    return number_text(spelled[0]) if len(spelled) == 1 else None


def _first_number(piece: str) -> str | None:
    """The number with which a piece begins, units and currency before it passed over."""
    head = re.match(r"[\s$€£~≈]*[+−-]?[\d.,/]*\d", piece)
    found = numbers_in_digits(head.group()) if head else []
    return number_text(found[0][1]) if found else None


def _read_numbers(stated: str) -> str | None:
    """A ratio or time of day, else all numbers of a statement in their order."""
    text = words_as_digits(plain_numbers(stated))
    ratio = _RATIO.search(text)
    if ratio:
        return _ratio(ratio.group())
    return "; ".join(number_text(value) for _, value in numbers_in_digits(text)) or None


def _read_choice(stated: str, question: Question) -> str | None:
    """A letter in brackets, a letter alone, the text of one choice, the one choice that is named, or its number."""
    letters = letters_of(question.choices)
    if _SEVERAL_LETTERS.search(stated):
        return None
    bracketed = [letter.upper() for letter in _LETTER_IN_BRACKETS.findall(stated) if letter.upper() in letters]
    alone = _LETTER_ALONE.match(stated) or _LETTER_NAMED.search(stated)
    named = [*bracketed, *((letter for letter in alone.groups() if letter and letter in letters) if alone else ())]
    if named:
        return str(named[0])
    result = stated.rpartition("=")[2]
    return canonical_choice(stated, question) or _named_choice(stated, question) or _named_choice(result, question)


def canonical_choice(text: str, question: Question) -> str | None:
    """The letter of a choice that is all that a text says: "B", "(B)", "(B) populated areas", "populated areas"."""
    head = re.match(r"\W*([A-Za-z])\b\W*", text)
    letter = head.group(1).upper() if head else ""
    if head and letter in list(letters_of(question.choices)):
        rest = text[head.end() :]
        # The mark before a choice may be its own: of "(A) -30" and "(A) √2".
        marked = text[head.end(1) :].lstrip(").:, ")
        same = (_same_words(question.choices[ascii_uppercase.index(letter)], said) for said in (rest, marked))
        if not rest or any(same):
            return letter
    return _letter_of([choice for choice in question.choices if _same_words(choice, text)], question)


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
    stated_number = _read_number(stated)
    values = [_sole_number(choice) for choice in question.choices]
    lettered = zip(letters_of(question.choices), values, strict=True)
    letters = [letter for letter, value in lettered if value == stated_number]
    return letters[0] if stated_number is not None and len(letters) == 1 else None


def _sole_number(choice: str) -> str | None:
    """The number of a choice that is a number with a unit, "24 minutes" and "$65", and no formula."""
    text = plain_numbers(choice)
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
    letters = letters_of(question.choices)
    equal = [letter for letter, choice in zip(letters, question.choices, strict=True) if _same_words(choice, named[0])]
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
    text = plain_numbers(re.sub(r"[−–—]", "-", text.casefold()).replace("#", " "))
    place, pieces = 0, []
    for (start, end), value in numbers_in_digits(text):
        pieces += [text[place:start], f"#{number_text(value)}"]
        place = end
    return " ".join(_SPOKEN.findall("".join([*pieces, text[place:]]))).strip("() ")


def _same_words(choice: str, stated: str) -> bool:
    return _spoken(choice) == _spoken(stated) and bool(_spoken(choice))


def _read_yes_no(stated: str) -> str | None:
    found = re.search(rf"\b(not\s+)?(yes|{_NO}|true|false)\b", stated, re.IGNORECASE)
    if not found or _YES_AND_NO.search(stated):
        return None
    answer = _YES_NO[str(found.group(2)).casefold()]
    return answer if not found.group(1) else "no" if answer == "yes" else "yes"


def _edge_yes_no(text: str) -> str | None:
    """Yes or no, true or false, where it opens a sentence by itself ("No, it …") or closes the text ("so yes.")."""
    opening = re.findall(
        r"(?:^|(?<=[.!?\n]))[^\w\n.!?]*(yes|no|true|false)\b"
        r"(?:\s*(?=[,.;:!]|$)|(?=\s+(?:[-–—]|because\b|since\b)))",
        text,
        re.IGNORECASE | re.MULTILINE,
    )
    closing = re.search(r"\b(yes|no|true|false)\b[^\w]*\Z", text, re.IGNORECASE)
    if closing:
        answer = _YES_NO[closing.group(1).casefold()]
        denied = _DENIED.search(text[: closing.start()])
        if denied is None:
            return answer
        # What just "not quite true" denies is not for us to say.
        return None if denied.group(1) else "no" if answer == "yes" else "yes"
    if opening:
        return _YES_NO[opening[-1].casefold()]
    return "yes" if re.match(r"\W*yes\b", text, re.IGNORECASE) else None
