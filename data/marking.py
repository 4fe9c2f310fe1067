"""Where the reasoning steps and the critical words of a text lie, as character spans.

Enters: a question, a rationale, a rule for steps and a rule for critical words. Leaves: one `Marked` record. Character
spans are the coordinates that teacher and student share whatever their tokenizers, so they are computed once, here,
from the text alone.

Question and rationale are searched one after the other: no step and no critical word reaches over the border.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from data.errors import ConfigError
from data.lists import CLOSED, SPACELESS, Item, list_items
from data.patterns import regex
from data.records import Marked, Span
from data.steps import StepRule, step_spans

MARKING_RULES = 2
"""Raised when steps or critical words of some text are other ones than before."""

# Letters that have no case and stand right beside digits: Hebrew to Burmese, Hangul, Ethiopic, and those of SPACELESS.
_CASELESS = rf"\u0590-\u0dff\u1100-\u137f\u3130-\u318f\uac00-\ud7ff{SPACELESS}"

# What may stand right before a sign, beside white space: "(-3)", "=-3", "$-3", "4*-3", "是-3".
_SIGNS, _BEFORE_SIGN = "+-−＋－", regex(rf"[(\[{{=<>:;,*/×÷^$€£\"'“‘（［｛＝：；，、＊￥{SPACELESS}]")
# After these a plus or minus takes away from something, even with a space between: "8 -3", "(2) -3", "5% -3".
_AFTER_OPERAND = ")]}%）］｝％"
# A digit after a letter with a case belongs to a name (B12, H2O), except after the x of a product (2x3).
_BEFORE = rf"(?:(?<!\w.)|(?<=\d[xX].)|(?<=[{_CASELESS}]\d)(?<!\d\d))"
_COMMA = r"(?:[,٬]|(?<=[０-９])，(?=[０-９]))"
_POINT = r"(?:[.．٫](?=\d))"
_FRACTION = rf"(?<![/／]\d)\d*[/／]\d+(?![\d/／]|{_POINT}|{_COMMA}\d{{3}})"
_THOUSANDS = rf"\d{{0,2}}(?:{_COMMA}\d{{3}})+(?!\d)(?:{_POINT}\d+)?"
_NUMBER = regex(
    rf"[\d.．¼½¾⅐-⅞](?:{_BEFORE}(?:(?<=\d)(?:{_FRACTION}|{_THOUSANDS}|\d*(?:{_POINT}\d+)?)|(?<=[.．])(?<!{CLOSED}.)\d+|(?<=[¼½¾⅐-⅞]))"
    r"|(?<=\d[¼½¾⅐-⅞]))"
)

# Between the words of a key word: white space, a line break included, or a hyphen, at which a line may end.
_BETWEEN_WORDS = regex(r"\s+|(?<=[^\W\d_])[-‐‑](?=[^\W\d_])")
_GAP = r"(?:\s+|[-‐‑]\s*)"
_HISSING = ("s", "x", "z", "ch", "sh")
_ENDS_IN_Y = regex(r"[^aeiou]y$")
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
    """Every number is critical: 42, 1,000, 3.5, -3, 3/4, the 45 of 45%, the 5 of $5; not the 1. and 2. of a list."""


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

    Steps (METHOD.md, stage one, 2): `periods` cuts after every period, as the paper does. That of a number (3.5), of an
    abbreviation ("Mr. Lee", "5 p.m. sharp"), of a name (www.x.org) or behind the number of a list ("1. Ann has …") ends
    nothing and is no cut; "。", "！", "？" and other scripts' full stops are one. `sentences` cuts after ? and ! and at
    line ends as well, `lines` at line ends only. Numbers that only number a list are no critical words of `Numbers`.
    Raises ConfigError for a rule that does not exist.
    """
    text = f"{question}\n{rationale}"
    parts = tuple((start, part, list_items(part)) for start, part in ((0, question), (len(question) + 1, rationale)))
    rule = _rule(critical)
    return Marked(
        question=question,
        rationale=rationale,
        text=text,
        step_spans=_shifted((start, step_spans(part, steps, items)) for start, part, items in parts),
        critical_spans=_shifted((start, _critical(part, rule, items)) for start, part, items in parts),
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


def _critical(part: str, rule: CriticalRule, items: Sequence[Item]) -> list[Span]:
    match rule:
        case Numbers():
            numbering = {item.number for item in items}
            return [span for span in number_spans(part) if span[1] not in numbering]
        case Keywords(words=words):
            return keyword_spans(part, words)
        case Regex(pattern=pattern):
            return [found.span() for found in re.finditer(pattern, part) if found.end() > found.start()]


def _signed(part: str, start: int) -> int:
    """Where a number that begins at `start` begins with its sign; a minus between two things is none."""
    sign = start - 1
    if sign < 0 or part[sign] not in _SIGNS:
        return start
    if not part[sign - 1 : sign].isspace():
        return sign if sign == 0 or _BEFORE_SIGN.match(part[sign - 1]) else start
    operand = part[part.rfind("\n", 0, sign) + 1 : sign].rstrip()[-1:]
    return start if operand and (operand in _AFTER_OPERAND or operand.isdecimal()) else sign


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
