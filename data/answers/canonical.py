r"""What an answer looks like, however a data file writes it, and when two answers are the same.

Enters: a label of a data file, or two canonical answers. Leaves: the canonical form, or whether they mean the same.

Canonical forms, by the question's kind:

- number: a plain decimal without sign of zero, separators or trailing zeros ("42", "-3.5", "0.75"), a reduced fraction
  where no finite decimal exists ("2/3"). Currency, units and the percent sign are left out: "45%" is "45", and "0.45"
  is another number. What may be written for a number: `data.answers.numbers`.
- numbers: several in their order, "8; 128", or a ratio or time of day, "9:7"; the units are left out.
- choice: the letter, "A" for the first choice.
- boolean: "yes" or "no"; true and false mean the same.
- text: the words with single spaces between them and without marks at the end; compared without regard to case and to
  an article in front, and formulas by what they come to.

Labels may be set in LaTeX: of "\frac{3}{4}", "10\%", "\boxed{7}" and "\text{yes}" the canonical forms are 0.75, 10, 7
and yes.
"""

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import zip_longest

from data.answers.amounts import RATIO, ratio_text
from data.answers.choices import letters_of, letters_saying
from data.answers.expressions import calculated, same_formula
from data.answers.numbers import LONGEST_NUMBER, decimal_places, number_text, number_value, plain_numbers
from data.answers.outputs import in_plain_signs, plain_formulas, plain_label, unwrapped
from data.patterns import regex
from data.records import AnswerKind

# Differences up to this share are the rounding of floating-point labels and results; whole numbers have none.
NUMBER_TOLERANCE = Fraction(1, 1_000_000)
YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_FORMULA = regex(r"[\\^√]")
_QUOTED = regex(r"\"(.+)\"|'(.+)'|“(.+)”|‘(.+)’|`(.+)`|\*(.+)\*|\((.+)\)|\[(.+)\]", re.DOTALL)


def same_answer(answer: str, gold: str, kind: AnswerKind, *, rounded: bool = False) -> bool:
    """Whether two canonical answers mean the same; unless both are whole, numbers may differ by a millionth part.

    Where the gold one is `rounded`, so is the answer, to as many decimals as the gold one shows.
    """
    if kind in ("number", "numbers"):
        return _same_numbers(answer, gold, rounded=rounded)
    if kind == "text":
        first, second = _spelled_alike(answer), _spelled_alike(gold)
        return first == second or same_formula(first, second)
    return answer.casefold() == gold.casefold()


def canonical_answer(raw: object, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
    """The canonical form of an answer as a data file gives it, or None where it has not the form of its kind.

    A list, an object and what JSON calls NaN and Infinity are no answers of any kind.
    """
    if not isinstance(raw, str | int | float) or (isinstance(raw, float) and not math.isfinite(raw)):
        return None
    if kind == "text":
        return _plain_words(" ".join(unwrapped(str(raw).rstrip(".!? ")).split())) or None
    text = plain_label(raw) if isinstance(raw, str) else str(raw)
    match kind:
        case "number":
            value = _number_in_file(text if isinstance(raw, str) else raw)
            written = None if value is None else number_text(value)
            return written if written is None or len(written) <= LONGEST_NUMBER else None
        case "numbers":
            return _written_numbers(text)
        case "boolean":
            return YES_NO.get(text.casefold())
        case "choice":
            bare = text.strip("().: ").upper()
            return bare if bare in list(letters_of(choices)) else _labelled_choice(text, choices)
    return None


def kind_of(raw: str) -> AnswerKind:
    """The kind of an answer as it is written: a number, yes or no, several numbers, else words."""
    kinds: tuple[AnswerKind, ...] = ("number", "boolean", "numbers")
    return next((kind for kind in kinds if canonical_answer(raw, kind) is not None), "text")


def _plain_words(text: str) -> str:
    """Words without marks at their end, and without the quotes or brackets around them."""
    while (plain := _unquoted(text.rstrip(".!? "))) != text:
        text = plain
    return text


def _unquoted(text: str) -> str:
    quoted = _QUOTED.fullmatch(text)
    inner = str(quoted[quoted.lastindex or 0]) if quoted else text
    several = text[:1] in ("(", "[") and "," in inner  # a pair or an interval is none without its brackets
    return text if several or (quoted and set(inner) & {text[0], text[-1]}) else inner.strip()


def _number_in_file(raw: str | int | float) -> Fraction | None:
    """The number that a data file holds, written or as a number; truth values are none."""
    if not isinstance(raw, str):
        return None if isinstance(raw, bool) else Fraction(str(raw))
    sign, bare = ("-", raw.strip()[1:]) if raw.strip()[:1] in ("-", "−") else ("", raw.strip())
    value = number_value(plain_numbers(sign + bare.strip("()").lstrip("$€£ ").rstrip("%° ")))
    return calculated(raw) if value is None and _FORMULA.search(raw) else value


def _labelled_choice(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice whose text a label is, with its letter before it or without."""
    saying = next(letters_saying(text, choices), None)
    lettered = re.fullmatch(r"\(?([A-Z])[).:]\s*(\S.*)", text, re.DOTALL)
    if saying is None and lettered and lettered[1] in letters_saying(lettered[2], choices):
        return lettered[1]
    return saying


def _written_numbers(text: str) -> str | None:
    """Numbers between semicolons, and ratios and times of day, each with its unit in brackets if need be."""
    pieces = [re.sub(r"\([^()]*\)", "", piece).strip() for piece in text.split(";")]
    found = [ratio_text(piece) if RATIO.fullmatch(piece) else canonical_answer(piece, "number") for piece in pieces]
    return None if None in found else "; ".join(piece for piece in found if piece)


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


def _spelled_alike(text: str) -> str:
    """A text without case, article, and the ways of setting a formula."""
    plain = re.sub(r" ?, *", ", ", in_plain_signs(plain_formulas(text)).casefold())
    return re.sub(r"^(?:the|an?)\s+(?=\S)", "", plain)
