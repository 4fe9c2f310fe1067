"""Where the reasoning steps and the critical words of a text lie, as character spans.

Enters: a question, a rationale, a rule for steps and a rule for critical words. Leaves: one `Marked` record. Character
spans are the coordinates that teacher and student share whatever their tokenizers, so they are computed once, here,
from the text alone.

Question and rationale are searched one after the other: no step and no critical word reaches over the border.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Literal, TypeAlias

from data.errors import ConfigError
from data.records import Marked, Span

StepRule: TypeAlias = Literal["periods", "sentences", "lines"]

# A point is part of a number where digits follow it at once and no letter or closing mark stands before it: 3.5, $.50.
_NUMBER_POINT = r"(?<![^\W\d_])(?<![)\]\"'”’])\.(?=[0-9])"
# Marks that close a quotation or a bracket stay with the sentence that they end.
_CLOSING = r"[\"'”’)\]]*"
_PERIODS = rf"(?:(?!{_NUMBER_POINT})\.)+{_CLOSING}"
_CUTS = {
    "periods": re.compile(_PERIODS),
    "sentences": re.compile(rf"(?:(?!{_NUMBER_POINT})[.?!])+{_CLOSING}|[\r\n]+"),
    "lines": re.compile(r"[\r\n]+"),
}

# What may stand right before a sign, beside white space: "(-3)", "=-3", "$-3", "4*-3".
_SIGNS, _BEFORE_SIGN = "+-−", "([{=<>:;,*/×÷^$€£\"'“‘"
# After these a plus or minus takes away from something, even with a space between: "8 -3", "(2) -3", "5% -3".
_AFTER_OPERAND = ")]}%0123456789"
# A digit after a letter belongs to a name (B12, H2O), except after the x of a product (2x3).
_BEFORE = r"(?:(?<![\w])|(?<=[0-9][xX]))"
_FRACTION = r"(?<!/)[0-9]+/[0-9]+(?![0-9/]|\.[0-9]|,[0-9]{3})"
_THOUSANDS = r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?"
_DECIMAL = r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(rf"{_BEFORE}(?:{_FRACTION}|{_THOUSANDS}|{_DECIMAL}|[¼½¾⅐-⅞])|(?<=[0-9])[¼½¾⅐-⅞]")

# Between the words of a key word: white space, a line break included, or a hyphen, at which a line may end.
_BETWEEN_WORDS = re.compile(r"\s+|(?<=[^\W\d_])[-‐‑](?=[^\W\d_])")
_GAP = r"(?:\s+|[-‐‑]\s*)"
_HISSING = ("s", "x", "z", "ch", "sh")
_ENDS_IN_Y = re.compile(r"[^aeiou]y$")
_IRREGULAR = dict(
    re.findall(
        r"(\w+)/(\w+)",
        "calf/calves child/children foot/feet goose/geese half/halves knife/knives leaf/leaves life/lives loaf/loaves "
        "man/men mouse/mice person/people shelf/shelves thief/thieves tooth/teeth wife/wives wolf/wolves woman/women",
    )
)
_IRREGULAR_PLURALS = {plural: singular for singular, plural in _IRREGULAR.items()}
_NO_PLURALS = frozenset({"always", "does", "news", "plus", "this", "thus"})
"""Words in s of which something else is left without it, or nothing."""


@dataclass(frozen=True)
class Numbers:
    """Every number is critical: 42, 1,000, 3.5, -3, 3/4, and the 45 of 45% and the 5 of $5."""


@dataclass(frozen=True)
class Keywords:
    """Given words or phrases are critical: as whole words, in any case, in singular or plural; see `keyword_spans`."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Regex:
    """What a regular expression matches is critical; matches of no characters are passed over."""

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"attention.pattern: {self.pattern!r} is no regular expression: {error}") from error


CriticalRule: TypeAlias = Numbers | Keywords | Regex


def mark(
    question: str,
    rationale: str,
    *,
    steps: StepRule = "periods",
    critical: CriticalRule | Literal["numbers"] = "numbers",
) -> Marked:
    """Join question and rationale by a line break and mark reasoning steps and critical words.

    Steps (METHOD.md, stage one, 2): `periods` cuts after every run of periods that is not the point of a number, as the
    paper does (so "e.g." gives cuts of its own); `sentences` cuts after . ? ! and at line ends; `lines` at line ends.
    Raises ConfigError for a rule that does not exist.
    """
    text = f"{question}\n{rationale}"
    parts = ((0, question), (len(question) + 1, rationale))
    rule = _rule(critical)
    return Marked(
        question=question,
        rationale=rationale,
        text=text,
        step_spans=_shifted((start, _steps(part, steps)) for start, part in parts),
        critical_spans=_shifted((start, _critical(part, rule)) for start, part in parts),
    )


def number_spans(text: str) -> list[Span]:
    """Where the numbers of a text lie, each with its sign; currency, units and the percent sign stay outside."""
    return [(_signed(text, found.start()), found.end()) for found in _NUMBER.finditer(text)]


def keyword_spans(text: str, words: Iterable[str]) -> list[Span]:
    """Where words or phrases of several words lie: whole words in any case, in singular or plural.

    Between the words of a phrase may be white space, line breaks, or a hyphen. No two spans overlap: the longest
    phrase counts.
    """
    patterns = filter(None, map(_keyword_pattern, words))
    return _longest_first(found.span() for pattern in patterns for found in pattern.finditer(text))


def holds_keyword(text: str, word: str) -> bool:
    """Whether `keyword_spans` finds this word or phrase in a text."""
    pattern = _keyword_pattern(word)
    return pattern is not None and pattern.search(text) is not None


def _rule(critical: CriticalRule | str) -> CriticalRule:
    if critical == "numbers":
        return Numbers()
    if isinstance(critical, Numbers | Keywords | Regex):
        return critical
    raise ConfigError(f"critical: expected 'numbers', Numbers(), Keywords(…) or Regex(…), found {critical!r}")


def _shifted(found: Iterable[tuple[int, Iterable[Span]]]) -> tuple[Span, ...]:
    """Spans of parts as spans of the whole text."""
    return tuple((offset + start, offset + end) for offset, spans in found for start, end in spans)


def _steps(part: str, rule: StepRule) -> Iterator[Span]:
    """Pieces between two cuts, without the white space around them; a piece of white space alone is no step."""
    if rule not in _CUTS:
        raise ConfigError(f"steps: expected one of {', '.join(_CUTS)}, found {rule!r}")
    start = 0
    for end in chain((cut.end() for cut in _CUTS[rule].finditer(part)), (len(part),)):
        piece = part[start:end]
        first = start + len(piece) - len(piece.lstrip())
        last = start + len(piece.rstrip())
        if first < last:
            yield first, last
        start = end


def _critical(part: str, rule: CriticalRule) -> list[Span]:
    match rule:
        case Numbers():
            return number_spans(part)
        case Keywords(words=words):
            return keyword_spans(part, words)
        case Regex(pattern=pattern):
            return [found.span() for found in re.finditer(pattern, part) if found.end() > found.start()]


def _signed(part: str, start: int) -> int:
    """Where a number that begins at `start` begins with its sign; a minus between two things is none."""
    sign = start - 1
    if sign < 0 or part[sign] not in _SIGNS:
        return start
    line = part[part.rfind("\n", 0, sign) + 1 : sign]
    after_space = line[-1:].isspace() and line.rstrip()[-1:] not in _AFTER_OPERAND
    return sign if not line.strip() or after_space or line[-1] in _BEFORE_SIGN else start


@lru_cache(maxsize=4096)
def _keyword_pattern(word: str) -> re.Pattern[str] | None:
    """Whole words in any case, with white space or a hyphen between them; the last one in either number."""
    *before, last = _BETWEEN_WORDS.split(word.strip()) or [""]
    if not last:
        return None
    ending = "|".join(map(_literal, sorted(_both_numbers(last), key=lambda form: (-len(form), form))))
    start = "".join(_literal(piece) + _GAP for piece in before)
    return re.compile(rf"(?<!\w){start}(?:{ending})(?!\w)", re.IGNORECASE)


def _literal(piece: str) -> str:
    """The piece as a pattern; one apostrophe is as good as the other."""
    return re.sub("['’]", "['’]", re.escape(piece))


def _both_numbers(word: str) -> set[str]:
    """A word, its plural, and what it may be the plural of; some of these are no words, and then occur in no text."""
    if len(word) < 3 or not word[-1].isalpha():
        return {word}
    return {word, *_plurals(word), *_singulars(word)}


def _plurals(word: str) -> tuple[str, ...]:
    lower = word.lower()
    if lower in _IRREGULAR:
        return (_IRREGULAR[lower],)
    if lower.endswith("o"):
        return word + "s", word + "es"
    if lower.endswith(_HISSING):
        return (word + "es",)
    return (word[:-1] + "ies",) if _ENDS_IN_Y.search(lower) else (word + "s",)


def _singulars(word: str) -> tuple[str, ...]:
    lower = word.lower()
    if lower in _IRREGULAR_PLURALS:
        return (_IRREGULAR_PLURALS[lower],)
    if len(word) < 4 or not lower.endswith("s") or lower.endswith("ss") or lower in _NO_PLURALS:
        return ()
    if lower.endswith("ies"):
        return word[:-3] + "y", word[:-1]
    if lower.endswith("es") and lower[:-2].endswith((*_HISSING, "o")):
        return word[:-2], word[:-1]
    return (word[:-1],)


def _longest_first(spans: Iterable[Span]) -> list[Span]:
    """Of spans that overlap the longer one stays, of equally long ones the earlier."""
    kept: list[Span] = []
    for start, end in sorted(set(spans), key=lambda span: (span[0] - span[1], span)):
        if all(end <= other_start or other_end <= start for other_start, other_end in kept):
            kept.append((start, end))
    return sorted(kept)
