"""Where the sentences of a text end and where its lists are numbered: what cuts it into reasoning steps.

Enters: a question or a rationale, and a rule for steps. Leaves: the steps as character spans, and the numbers that only
number a list. Cases of every kind, with what is right, lie in `tests/data/steps.jsonl`; why these are rules of our own,
and what they cannot see, stands in docs/decisions/0017-ends-of-sentences.md.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from data.errors import ConfigError
from data.records import Span

StepRule: TypeAlias = Literal["periods", "sentences", "lines"]
"""Cut after periods; after question and exclamation marks and at line ends as well; or at line ends alone."""

SPACELESS = "\u0e00-\u109f\u1780-\u17ff\u2e80-\u312f\u31a0-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
"""Thai, Lao, Tibetan, Burmese, Khmer, Chinese and Japanese, which have no spaces between words; for a class of `re`."""

# Full stops of other scripts, and the marks of full width.
_STOPS = "。｡！？।॥۔።។։"
_ENDS = {"periods": f".．…{_STOPS}", "sentences": f".．…{_STOPS}?!؟"}
# A point is part of a number where digits follow it at once and no letter or closing mark stands before it: 3.5, $.50.
_NO_POINT = r"(?:(?<![.．])|(?!\d)|(?<=[^\W\d_].)|(?<=[)\]\"'”’].))"
# What closes a quotation, a bracket, bold type or a formula stays with the sentence that it ends.
_CLOSING = r"((?:[\"'”’)\]`」』）》〉】］｝]|\*{1,3}(?!\w)|\$(?!\w)|\\[)\]])*)"
_RUN = {rule: rf"{_NO_POINT}(?:[{ends}]{_NO_POINT}| \.(?!\d))*{_CLOSING}" for rule, ends in _ENDS.items()}
_MARKS = {
    "periods": re.compile(rf"[{_ENDS['periods']}]{_RUN['periods']}"),
    "sentences": re.compile(rf"[\r\n{_ENDS['sentences']}](?:(?<=[\r\n])[\r\n]*|{_RUN['sentences']})"),
    "lines": re.compile(r"[\r\n]+"),
}

_LOOKED_AT = 32
"""Characters before a mark that can make a difference."""
_NEXT = re.compile(r"(\s*)[\"'“‘(\[«*_`$€£#「『（]*(\w*)")
_LONGEST = 6
"""Letters of the longest abbreviation without periods inside."""
_CLOCK = ("a.m", "p.m")
_OPENING = "([{\"'“‘«*_`$€£~<"
_DOTTED = re.compile(r"(?:[^\W\d_]\.|Ph\.)+[^\W\d_]")
_EQUATION = re.compile(r"\d[\d.,]{0,15}%?\s?(?:[+*/×÷=−]|x\s?\d|-\s|-\d)")

_ABBREVIATIONS = {
    "title": "mr mrs ms Ph Mx Prof Rev Fr Hon Sen Rep Gov Pres Gen Col Capt Cpt Lt Sgt Maj Cmdr Adm",
    "place": "st dr Mt Ft Pt",
    "numbered": "no nos nr p pp vol vols ch chap Sec Fig Figs eq eqs",
    "within": "vs e.g i.e eg ie cf viz approx ca resp incl excl esp avg",
    "month": "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec",
    "unit": "etc in ft yd yds mi oz lb lbs sq cu fl tsp tbsp qt qts pt pts gal gals hr hrs min mins sec secs wk wks yr yrs "
    "km cm mm m kg g mg l ml mph doz pkg a.m p.m A.D B.C C.E B.C.E",
    "name": "inc ltd co corp jr sr bros dept govt univ assoc ave blvd rd hwy v",
}
"""By what may follow; one with a capital letter is no abbreviation without it."""
_KINDS = {
    form: kind
    for kind, words in _ABBREVIATIONS.items()
    for word in words.split()
    for form in ((word,) if word[0].isupper() or len(word) == 1 else (word, word.capitalize(), word.upper()))
} | {"al": "name"}
_AFTER_NUMBERS = frozenset("in m g l mi min sec pt gal doz".split())
"""Units that are other words as well, where no number stands before them."""
_OPENERS = frozenset(
    "A After All Also Altogether An And Another Any As At Because Before Both But By Each Every Finally First For From "
    "Given He Hence Her Here His How However I If In Is It Its Let My Next Now Of On Once One Only Or Our Second She Since "
    "So Some That The Their Then There Therefore These They This Those Thus To Together Total Two Was We What When Where "
    "Which While Who Why With You Your".split()
)
"""Words that with a capital letter begin a sentence; they do not go on with a name."""
_WHEN = frozenset(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August "
    "September October November December Eastern Central Mountain Pacific Standard EST EDT CST CDT MST PST PDT ET CT PT "
    "GMT UTC".split()
)
"""What goes on behind a time of day."""
_BEFORE_LETTERS = frozenset("Answer Box Case Choice Class Figure Group Option Part Plan Point Section Team Type Vitamin".split())
_BEFORE_THE_WORD_NO = frozenset("answer answered answers is said say says was".split())

# A number or a letter with its mark, or the word "step" with a number, in front of something.
_STEP = "(?i:step|part|case|point|question|schritt|[ée]tape|paso|passo|шаг|步骤|步驟|ステップ|단계)"
_ITEM = re.compile(
    rf"(?<!\w)(?:{_STEP}\s?#?(?P<step>\d{{1,3}})|(?P<open>[(（]?)(?:(?P<number>\d{{1,2}})|(?P<letter>[A-Z])))"
    rf"(?P<mark>[.．:：)）、]|\s?[-–—](?=\s))(?:\*{{1,3}}|_{{1,2}})?"
    rf"(?:\s+|(?<!\w[.．:：])|(?=[{SPACELESS}]))(?=(?P<next>[^\s.,;]))(?(step)|(?!\d{{1,2}}[.)）:]\s))"
)
_MAY_BE_LISTED = re.compile(rf"[1A](?<!\d1)(?:[.．)）:：、]|\s?[-–—]\s)|{_STEP}\s?#?\d")
_ONE_MARK = str.maketrans("．）：–—", ".):--")
_ALLOWED: dict[str, tuple[str, ...]] = {
    ".": ("text", "line", "sentence", "clause"),
    ")": ("text", "line", "sentence", "clause", "comma"),
    "()": ("text", "line", "sentence", "clause", "comma"),
    "、": ("text", "line", "sentence", "clause", "comma"),
    ":": ("text", "line"),
    "-": ("text", "line"),
    "A.": ("text", "line", "sentence"),
    "step": ("text", "line", "sentence", "clause", "comma"),
}
"""Behind what the items of a list may begin, by the mark that they have."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """The number in front of one item of a list, from its first character to what it numbers.

    `number` is where its digits end, None for a letter. `begins` is where the item begins a step of its own, for the
    period behind its number ends none.
    """

    start: int
    number: int | None
    content: int
    begins: int | None


@dataclass(kw_only=True)
class _Candidate:
    item: Item
    count: int
    kind: str
    place: str
    is_lone: bool
    is_followed: bool = False


def step_spans(text: str, rule: StepRule, items: Sequence[Item] = ()) -> Iterator[Span]:
    """Pieces between two cuts, without the white space around them; a piece of white space alone is no step.

    `items` are the text's own, by `list_items`. Raises ConfigError for a rule that does not exist.
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


def list_items(text: str) -> tuple[Item, ...]:
    """The numbers that only number what follows: "1. Ann has 3 figs. 2. She buys 4.", "(1) …", "Step 1: …", "**1.** …".

    A number is one where it begins the text, a line or a sentence (or, with a bracket, follows a comma), has a mark and
    something behind it, and belongs to a row 1, 2, 3, …; a lone 1 at the head of a line is one before a capital letter.
    So in "The answer is 1. 2. …", "He has 3. 4 are left." and "8. Tom had 3 and got 5." all numbers are numbers.
    """
    if _MAY_BE_LISTED.search(text) is None:
        return ()
    candidates = [one for found in _ITEM.finditer(text) if (one := _candidate(text, found)) is not None]
    later: dict[str, set[int]] = {}
    for one in reversed(candidates):
        counts = later.setdefault(one.kind, set())
        one.is_followed = one.count + 1 in counts
        if one.count == 1:
            counts.clear()
        counts.add(one.count)
    return tuple(_in_rows(candidates))


def _in_rows(candidates: Iterable[_Candidate]) -> Iterator[Item]:
    rows: dict[str, list[int]] = {}
    for one in candidates:
        row = rows.setdefault(one.kind, [])
        if one.kind == "step":
            yield one.item
        elif one.count == 1 and (one.is_followed or one.is_lone):
            row.append(1)
            yield one.item
        elif row and (row[-1] == one.count - 1 or (one.place in ("text", "line") and one.count - 1 in row)):
            row.append(one.count)
            yield one.item


def _candidate(text: str, found: re.Match[str]) -> _Candidate | None:
    """What may number something; None where it does not begin anything."""
    mark = found["mark"].strip().translate(_ONE_MARK)
    kind = "step" if found["step"] else "A." if found["letter"] else "()" if found["open"] and mark == ")" else mark
    if (found["letter"] and mark != ".") or (found["open"] and mark != ")"):
        return None
    before = text[max(0, found.start() - _LOOKED_AT) : found.start()]
    place = _place(before, found.start())
    if place not in _ALLOWED[kind]:
        return None
    name = "step" if found["step"] else "number" if found["number"] else None
    begins = found.start() - len(before) + len(before.rstrip("*_#>•- \t" if place == "line" else "*_"))
    follows = found["next"]
    return _Candidate(
        item=Item(
            start=found.start(),
            number=found.end(name) if name else None,
            content=found.end(),
            begins=begins if mark == "." and place in ("line", "sentence") else None,
        ),
        count=int(found[name]) if name else ord(found["letter"]) - ord("A") + 1,
        kind=kind,
        place=place,
        is_lone=place in ("text", "line") and mark in ".)、" and bool(name) and follows.isalpha() and not follows.islower(),
    )


def _place(before: str, start: int) -> str:
    """What ends right in front of a place, of which `before` is the text before it."""
    bare = before.rstrip("*_#>•- \t")
    if not bare:
        return "text" if start == len(before) else ""
    if bare[-1] in "\r\n":
        return "line"
    if bare[-1] in ":：;；":
        return "clause"
    if bare[-1] in ",，、" or bare.endswith((" and", " or", " then")):
        return "comma"
    return "sentence" if bare.rstrip("\"'”’)]`*$」』）")[-1:] in {*_ENDS["sentences"]} else ""


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
    if mark in _STOPS:
        return not (after == "と" and found.start(1) < end)
    if mark in ".．" and end == start + 1 and before.isalpha():
        short = _abbreviation(text, start)
        if short is not None:
            return not _goes_on(short, text, end)
    if not after.isspace():
        return not after or not (after.islower() or after in ",;:/%&+=|^_@-–—?!" or (mark == "…" and after.isdigit()))
    if end == start + 1 and mark in ".?":
        return True
    return _ends_before_space(text, found)


def _ends_before_space(text: str, found: re.Match[str]) -> bool:
    """Several marks, marks that something closes, and exclamation marks, with white space behind them."""
    start, end = found.span()
    marks = text[start : found.start(1)]
    gap, word = _NEXT.match(text, end).groups()
    if marks == "!" and (text[start - 1 : start].isdigit() or text[start - 1 : start] in ")n"):
        return text[end : end + 2].lstrip()[:1] not in tuple("=*/×÷+-−")
    if "\n" in gap:
        return True
    if "…" in marks or marks.startswith(".."):
        return word[:1].isupper()
    return end == found.start(1) or not word[:1].islower()


@dataclass(frozen=True)
class _Abbreviation:
    token: str
    kind: str
    lead: str
    """The text before it, as far as it is looked at."""
    place: int
    """Where it begins."""


def _abbreviation(text: str, period: int) -> _Abbreviation | None:
    """What is short for something in front of a period, or may be a person's initial."""
    near = text[max(0, period - _LOOKED_AT) : period]
    token = near.split()[-1].lstrip(_OPENING)
    if len(token) > _LONGEST and token.isalpha():
        return None
    token = token[max(token.rfind("-"), token.rfind("/")) + 1 :].lstrip("0123456789.,")
    lead = near[: len(near) - len(token)]
    kind = _KINDS.get(token)
    if kind is None:
        kind = "initial" if len(token) == 1 and token.isupper() else "dotted" if _DOTTED.fullmatch(token) else None
    elif token in _AFTER_NUMBERS and not lead.rstrip(" -~")[-1:].isnumeric():
        kind = None
    return None if kind is None else _Abbreviation(token, kind, lead, period - len(token))


def _goes_on(short: _Abbreviation, text: str, end: int) -> bool:
    """Whether the sentence goes on behind an abbreviation."""
    following = _NEXT.match(text, end)
    gap, word = following.groups()
    if short.kind == "initial":
        return _is_initial(short, gap, word)
    if word[:1].islower():
        return True
    if "\n" in gap and short.kind not in ("title", "numbered", "within"):
        return False
    if not word:
        return True
    if word[0].isdigit():
        return _goes_on_with_number(short, text, following.start(2))
    match short.kind:
        case "title" | "within":
            return True
        case "place" | "name" | "dotted":
            return word not in _OPENERS
        case "numbered":
            return short.token.lower() != "no" and word.isupper() and word != "I"
        case _:
            return short.token.lower() in _CLOCK and word in _WHEN


def _goes_on_with_number(short: _Abbreviation, text: str, number: int) -> bool:
    if short.token.lower() in _CLOCK:
        return False
    if short.token.lower() == "no":
        before = short.lead.split()[-1:]
        return not before or (before[0] not in _BEFORE_THE_WORD_NO and not before[0].endswith("?"))
    return short.kind not in ("unit", "name", "dotted") or _EQUATION.match(text, number) is None


def _is_initial(short: _Abbreviation, gap: str, word: str) -> bool:
    """Whether a capital letter with a period stands for a name, "J. K. Rowling", or in front of an item, "A. Rivers"."""
    if _place(short.lead, short.place) in ("text", "line", "sentence"):
        return True
    if not word[:1].isupper() or word in _OPENERS:
        return False
    if not gap:
        return True
    *_, second, first = ("", "", *short.lead.split())
    if first[:1].isupper():
        return first not in _OPENERS and first not in _BEFORE_LETTERS
    return short.token != "I" and (first == "by" or (first == "and" and len(second) > 1))
