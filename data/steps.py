"""Where the sentences of a text end: what cuts it into reasoning steps.

Enters: a question or a rationale, the numbers of its lists, and a rule for steps. Leaves: the steps as character spans.
Cases of every kind, with what is right, lie in `tests/data/steps.jsonl`; why these are rules of our own, and what they
cannot see, stands in docs/decisions/0017-ends-of-sentences.md.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from data.errors import ConfigError
from data.lists import CLOSED, LOOKED_AT, SENTENCE_ENDS, STOPS, Item, place_of
from data.patterns import regex
from data.records import Span

StepRule: TypeAlias = Literal["periods", "sentences", "lines"]
"""Cut after periods; after question and exclamation marks and at line ends as well; or at line ends alone."""

_ENDS = {"periods": f".．…{STOPS}", "sentences": SENTENCE_ENDS}
# A point is part of a number where digits follow it at once and no letter but the x of a product, and no closing mark,
# stands before it: 3.5, $.50, 2x.5.
_NO_POINT = rf"(?:(?<![.．])|(?!\d)|(?<=[^\W\d_].)(?<!\d[xX].)|(?<={CLOSED}.))"
# What closes a quotation, a bracket, bold type or a formula stays with the sentence that it ends.
_CLOSING = r"((?:[\"'”’)\]`」』）》〉】］｝]|\*{1,3}(?!\w)|\$(?!\w)|\\[)\]])*)"
_RUN = {rule: rf"{_NO_POINT}(?:[{ends}]{_NO_POINT}| \.(?!\d))*{_CLOSING}" for rule, ends in _ENDS.items()}
_MARKS = {
    "periods": regex(rf"[{_ENDS['periods']}]{_RUN['periods']}"),
    "sentences": regex(rf"[\r\n{_ENDS['sentences']}](?:(?<=[\r\n])[\r\n]*|{_RUN['sentences']})"),
    "lines": regex(r"[\r\n]+"),
}

_ADDRESS = 80
"""Characters of an address before and behind a mark."""
_NEXT = regex(r"(\s*)[\"'“‘(\[«*_`$€£#「『（]*(\w*)")
_LONGEST = 6
"""Letters of the longest abbreviation without periods inside."""
_CLOCK = ("a.m", "p.m")
_OPENING = "([{\"'“‘«*_`$€£~<"
_DOTTED = regex(r"(?:[^\W\d_]\.|Ph\.)+[^\W\d_]")
_EQUATION = regex(r"\d[\d.,]{0,15}%?\s?(?:[+*/×÷=−]|x\s?\d|-\s|-\d)")

_ABBREVIATIONS = {
    "title": "mr mrs ms Ph Mx Prof Rev Fr Hon Sen Rep Gov Pres Gen Col Capt Cpt Lt Sgt Maj Cmdr Adm",
    "place": "st dr Mt Ft Pt",
    "numbered": "no nos nr p pp vol vols ch chap Sec Fig Figs eq eqs",
    "within": "vs e.g i.e eg ie cf viz approx ca resp incl excl esp avg",
    "month": "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec",
    "unit": "etc in ft yd yds mi oz lb lbs sq cu fl tsp tbsp qt qts pt pts gal gals hr hrs min mins sec secs wk wks yr "
    "yrs km cm mm m kg g mg l ml mph doz pkg a.m p.m A.D B.C C.E B.C.E",
    "name": "inc ltd co corp jr sr bros dept govt univ assoc ave blvd rd hwy v",
}
"""By what may follow; one with a capital letter is no abbreviation without it."""
_KINDS = {
    form: kind
    for kind, words in _ABBREVIATIONS.items()
    for word in words.split()
    for form in ((word,) if word[0].isupper() or len(word) == 1 else (word, word.capitalize(), word.upper()))
} | {"al": "name"}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_AFTER_NUMBERS = _set("in m g l mi min sec pt gal doz")
"""Units that are other words where no number stands before them."""
OPENERS = _set(
    "A After All Also Altogether An And Another Any As At Because Before Both But By Each Every Finally First For From "
    "Given He Hence Her Here His How However I If In Is It Its Let My Next Now Of On Once One Only Or Our Second She "
    "Since So Some That The Their Then There Therefore These They This Those Thus To Together Total Two Was We What "
    "When Where Which While Who Why With You Your"
)
"""Words that with a capital letter begin a sentence and do not go on with a name."""
_WHEN = _set(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August "
    "September October November December Eastern Central Mountain Pacific Standard EST EDT CST CDT MST PST PDT ET CT "
    "PT GMT UTC"
)
"""What goes on behind a time of day."""
_BEFORE_LETTERS = _set(
    "Angle Answer Bag Bank Book Bottle Box Brand Building Bus Car Case Choice Circle City Class Company Container "
    "Course Event Factory Farm Field Figure Gate Group House Island Item Jar Job Lane Line Machine Model Movie "
    "Number Office Option Page Part Person Phase Pipe Plan Player Point Product Project Pump Road Room Route "
    "School Section Set Shop Square Stage Store Street Student Tank Team Test Town Train Tree Triangle Type "
    "Variable Village Vitamin Worker"
)
"""What a single letter names one of."""
_BEFORE_THE_WORD_NO = _set("answer answered answers is said say says was")


def step_spans(text: str, rule: StepRule, items: Sequence[Item] = ()) -> Iterator[Span]:
    """Pieces between two cuts, without the white space around them; a piece of white space alone is no step.

    `items` are those of the text's own lists, by `list_items`. Raises ConfigError for a rule that does not exist.
    """
    if rule not in _MARKS:
        raise ConfigError(f"steps: expected one of {', '.join(get_args(StepRule))}, found {rule!r}")
    start = 0
    for end in (*_cuts(text, rule, items), len(text)):
        piece = text[start:end]
        first = start + len(piece) - len(piece.lstrip())
        last = start + len(piece.rstrip())
        if first < last:
            yield first, last
        start = end


def _cuts(text: str, rule: StepRule, items: Sequence[Item]) -> Iterable[int]:
    """Where a step ends, in order; never between a number of a list and what it numbers."""
    found = _MARKS[rule].finditer(text)
    if rule == "lines":
        return (cut.end() for cut in found)
    ends = [cut.end() for cut in found if _ends_sentence(text, cut)]
    if not items:
        return ends
    inside = {place for item in items for place in range(item.start + 1, item.content + 1)}
    begins = (item.begins for item in items if item.begins is not None)
    return sorted({*(end for end in ends if end not in inside), *begins})


def _ends_sentence(text: str, found: re.Match[str]) -> bool:
    """Whether marks end a sentence: no abbreviation's period, and nothing behind them that goes on with it."""
    start, end = found.span()
    mark, before, after = text[start], text[start - 1 : start], text[end : end + 1]
    if mark in "\r\n":
        return True
    if mark in STOPS:
        return not (after == "と" and found.start(1) < end)
    if mark in ".．" and end == start + 1 and before.isalpha():
        short = _abbreviation(text, start)
        if short is not None:
            return not _goes_on(short, text, end)
    if not after.isspace():
        return not after or not (
            after.islower()
            or after in ",;:/%&+=|^_@-–—?!"
            or (mark == "…" and after.isdigit())
            or _is_in_address(text, start)
        )
    if end == start + 1 and mark in ".?":
        return True
    return _ends_before_space(text, found)


def _is_in_address(text: str, mark: int) -> bool:
    """Whether a mark stands in an address of mail or of the web, as far as that can be seen from near."""
    before = (" " + text[max(0, mark - _ADDRESS) : mark]).rpartition(" ")[2]
    after = text[mark : mark + _ADDRESS].partition(" ")[0]
    return "://" in before or "www." in before or "@" in before or "@" in after


def _ends_before_space(text: str, found: re.Match[str]) -> bool:
    """Several marks, marks that something closes, and exclamation marks, with white space behind them."""
    start, end = found.span()
    marks = text[start : found.start(1)]
    gap, word, _ = _next(text, end)
    if marks == "!" and (text[start - 1 : start].isdigit() or text[start - 1 : start] in ")n"):
        return text[end : end + 2].lstrip()[:1] not in tuple("=*/×÷+-−")
    if "\n" in gap:
        return True
    if "…" in marks or marks.count(".") > 1:
        return word[:1].isupper()
    return end == found.start(1) or not word[:1].islower()


def _next(text: str, end: int) -> tuple[str, str, int]:
    """White space behind a mark, and the word behind that with its place, without opening marks; both may be empty."""
    found = _NEXT.match(text, end)
    assert found is not None
    return found[1], found[2], found.start(2)


@dataclass(frozen=True)
class _Abbreviation:
    word: str
    kind: str
    lead: str
    """The text before it, as far as it is looked at."""
    place: int
    """Where it begins."""


def _abbreviation(text: str, period: int) -> _Abbreviation | None:
    """What is short for something in front of a period, or may be a person's initial."""
    near = text[max(0, period - LOOKED_AT) : period]
    token = near.split()[-1].lstrip(_OPENING)
    if len(token) > _LONGEST and token.isalpha():
        return None
    token = token[max(token.rfind("-"), token.rfind("/")) + 1 :].lstrip("0123456789.,")
    if "." in token and token not in _KINDS and not _DOTTED.fullmatch(token):
        token = token[token.rfind(".") + 1 :]
    lead = near[: len(near) - len(token)]
    kind = _KINDS.get(token)
    if kind is None:
        kind = "initial" if len(token) == 1 and token.isupper() else "dotted" if _DOTTED.fullmatch(token) else None
    elif token in _AFTER_NUMBERS and not (lead.rstrip(" -~")[-1:].isnumeric() or lead.endswith("per ")):
        kind = None
    return None if kind is None else _Abbreviation(token, kind, lead, period - len(token))


def _goes_on(short: _Abbreviation, text: str, end: int) -> bool:
    """Whether the sentence goes on behind an abbreviation."""
    gap, word, place = _next(text, end)
    if short.kind == "initial":
        return _is_initial(short, gap, word)
    if word[:1].islower():
        return True
    if ("\n" in gap or (len(gap) > 1 and word[:1].isupper())) and short.kind not in ("title", "numbered", "within"):
        return False
    if not word:
        return True
    if word[0].isdigit():
        return _goes_on_with_number(short, text, place)
    match short.kind:
        case "title" | "within":
            return True
        case "place" | "name" | "dotted":
            return word not in OPENERS or (not gap and len(word) == 1)
        case "numbered":
            return short.word.lower() != "no" and word.isupper() and word != "I"
        case _:
            return short.word.lower() in _CLOCK and word in _WHEN


def _goes_on_with_number(short: _Abbreviation, text: str, number: int) -> bool:
    if short.word.lower() in _CLOCK:
        return False
    if short.word.lower() == "no":
        before = short.lead.split()[-1:]
        return not before or (before[0] not in _BEFORE_THE_WORD_NO and not before[0].endswith("?"))
    return short.kind not in ("unit", "name", "dotted") or _EQUATION.match(text, number) is None


def _is_initial(short: _Abbreviation, gap: str, word: str) -> bool:
    """Whether a capital letter with a period stands for a name (J. K. Rowling) or in front of an item (A. Rivers)."""
    if place_of(short.lead, short.place) in ("text", "line", "sentence"):
        return True
    if not gap and len(word) == 1:
        return True
    if not word[:1].isupper() or word in OPENERS or "\n" in gap:
        return False
    if not gap:
        return True
    *_, second, first = ("", "", *short.lead.split())
    if short.word == "I" or first == word:
        return False
    if first[:1].isupper():
        return first not in OPENERS and first not in _BEFORE_LETTERS
    return first == "by" or (first == "and" and len(second) > 1)
