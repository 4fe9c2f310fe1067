"""Where the lists of a text are numbered: "1. Ann has 3 figs. 2. She buys 4." counts its sentences, not the figs.

Enters: a question or a rationale. Leaves: the numbers that only number a list, each with where the item begins and
where its content does. Cases of every kind lie in `tests/data/steps.jsonl`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from data.patterns import regex

SPACELESS = "\u0e00-\u109f\u1780-\u17ff\u2e80-\u312f\u31a0-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
"""Thai, Lao, Tibetan, Burmese, Khmer, Chinese and Japanese, which have no spaces between words; for a class of `re`."""
STOPS = "。｡！？।॥۔።។։"
"""Full stops of scripts that have their own, and marks of full width."""
SENTENCE_ENDS = f".．…{STOPS}?!؟"
CLOSED = r"\S[)\]\"'”’]"
"""A mark that closes, for it stands behind something: the point of "(at 5).6" begins no number, that of "(.5)" does."""
LOOKED_AT = 32
"""Characters before a mark that can make a difference."""

# A number or a letter with its mark, or the word "step" with a number, in front of something.
_STEP = "(?i:step|part|case|point|question|schritt|[ée]tape|paso|passo|шаг|步骤|步驟|ステップ|단계)"
_ITEM = regex(
    rf"(?<!\w)(?:{_STEP}\s?#?(?P<step>\d{{1,3}})|(?P<open>[(（]?)(?:(?P<number>\d{{1,2}})|(?P<letter>[A-Z])))"
    rf"(?P<mark>\.\)|[.．:：)）、]|\s?[-–—](?=\s))(?:\*{{1,3}}|_{{1,2}})?"
    rf"(?:\s+|(?<!\w[.．:：])|(?=[{SPACELESS}]))(?=(?P<next>[^\s.,;]))(?(step)|(?!\d{{1,2}}[.)）:]\s))"
)
_MAY_BE_LISTED = regex(rf"[1A](?<!\d1)(?:[.．)）:：、]|\s?[-–—]\s)|{_STEP}\s?#?\d")
_ONE_MARK = str.maketrans("．）：–—", ".):--")
Place: TypeAlias = Literal["text", "line", "sentence", "clause", "comma", "within"]
"""What begins at a place; `comma` is what follows a comma or "and", `within` all the rest."""
_HEADS: tuple[Place, ...] = ("text", "line")
_ANYWHERE: tuple[Place, ...] = (*_HEADS, "sentence", "clause", "comma")
_ALLOWED: dict[str, tuple[Place, ...]] = {
    ".": (*_HEADS, "sentence", "clause"),
    "A.": (*_HEADS, "sentence"),
    ":": _HEADS,
    "-": _HEADS,
    **dict.fromkeys((")", "()", "、", "step"), _ANYWHERE),
}
"""Where the items of a list may begin, by the mark that they have."""


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
    place: Place
    is_lone: bool
    is_followed: bool = False


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
        elif row and (row[-1] == one.count - 1 or (one.place in _HEADS and one.count - 1 in row)):
            row.append(one.count)
            yield one.item


def _candidate(text: str, found: re.Match[str]) -> _Candidate | None:
    """What may number something; None where it does not begin anything."""
    mark = found["mark"].strip()[-1].translate(_ONE_MARK)
    kind = "step" if found["step"] else "A." if found["letter"] else "()" if found["open"] and mark == ")" else mark
    if (found["letter"] and mark != ".") or (found["open"] and mark != ")"):
        return None
    before = text[max(0, found.start() - LOOKED_AT) : found.start()]
    place = place_of(before, found.start())
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
        is_lone=name == "number" and place in _HEADS and mark in ".)、" and follows.isalpha() and not follows.islower(),
    )


def place_of(before: str, start: int) -> Place:
    """What begins at `start`, by the text before it, of which `before` are the last characters."""
    bare = before.rstrip("*_#>•- \t")
    if not bare:
        return "text" if start == len(before) else "within"
    if bare[-1] in "\r\n":
        return "line"
    if bare == before and bare[-1] in ".:;,?!":  # the 1 of 99.1
        return "within"
    if bare[-1] in ":：;；":
        return "clause"
    if bare[-1] in ",，、" or bare.endswith((" and", " or", " then")):
        return "comma"
    return "sentence" if (bare.rstrip("\"'”’)]`*$」』）")[-1:] or "?") in SENTENCE_ENDS else "within"
