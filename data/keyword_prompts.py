"""Key words by the teacher: how it is asked which words of a question and its rationale are key, and what it answers.

Enters: a question with a rationale, then what the teacher wrote. Leaves: a few-shot prompt, then `NamedWords`: those of
its words that occur in the text. The paper (§3.1) lets the teacher name them where the critical words are no numbers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from data.answers.outputs import without_thoughts
from data.marking import holds_keyword
from data.patterns import regex
from data.prompts import conversation, worked_rationale
from data.worked_examples import worked_examples

STOP_STRINGS: tuple[str, ...] = ("\n\n", "\nQ:")
MAX_TOKENS = 96
"""Room for some twenty key words."""
MOST_WORDS = 5
"""A longer phrase is a piece of a sentence."""

_INSTRUCTION = (
    "You are given a question and an explanation of its answer. Name the key words of both: the few words without "
    "which question and explanation cannot be understood. Copy them as they stand there, separate them by commas, and "
    "write nothing else."
)
_LABEL = "Key words:"


def keyword_prompt(question: str, rationale: str) -> str:
    """The prompt after which a model without chat template lists the key words of a question and its rationale."""
    blocks = [f"{given}\n{_LABEL} {named}" for given, named in _worked()]
    return "\n\n".join([*blocks, f"{_given(question, rationale)}\n{_LABEL}"])


def keyword_messages(question: str, rationale: str) -> list[dict[str, str]]:
    """The same as a conversation, for models with a chat template: worked examples are earlier turns."""
    return conversation(_INSTRUCTION, _worked(), _given(question, rationale))


@dataclass(frozen=True, kw_only=True)
class NamedWords:
    """The words that a teacher named and that occur in the text, each once, and how many more it named."""

    words: tuple[str, ...]
    missing: int


def read_keywords(output: str, question: str, rationale: str, *, whole: bool = True) -> NamedWords:
    """Find in a teacher's output the words that it names, and keep those that occur in question or rationale.

    They may be separated by commas, semicolons or line ends, numbered, quoted or in bold type, introduced ("Key
    words:") and explained ("bank: where money is kept"). Without `whole` the output was cut off: its last word may be
    half of one and does not count.
    """
    candidates = list(dict.fromkeys(_candidates(output)))
    if not whole:
        candidates = candidates[:-1]
    text = f"{question}\n{rationale}"
    words: dict[str, str] = {}
    missing = 0
    for candidate in candidates:
        found = _found(candidate, text)
        missing += not found
        words |= {word.casefold(): word for word in found if word.casefold() not in words}
    return NamedWords(words=tuple(words.values()), missing=missing)


def _worked() -> Iterator[tuple[str, str]]:
    """What is given in each worked example, and its key words."""
    for worked in worked_examples("keywords"):
        yield _given(worked.text, worked_rationale(worked)), ", ".join(worked.keywords)


def _given(question: str, rationale: str) -> str:
    return f"Q: {question}\nA: {rationale}"


_MARKUP = regex(r"```\w*|\*\*|__|[`\"“”„«»]|(?<!\w)['‘’]|['‘’](?!\w)")
_LIST_MARK = regex(r"^\s*(?:[-*•·–—]\s+|\(?\d{1,2}[.):]\s+|\(?[A-Za-z]\)\s+)")
_INTRODUCTION = regex(
    r"^\s*(?:Q|A|question|answer|explanation|rationale)\s*:|"
    r"^[^\n,;:]*\b(?:key\s*-?\s*(?:words?|phrases?|terms?)|(?:critical|important) words?)\b(?:[^\n,;:]*:|\s+are\s)",
    re.IGNORECASE,
)
_BORDER = regex(r"[;|•，、\t]|(?<!\d),|,(?!\d)|\s(?=\d{1,2}[.)]\s)")
_EXPLANATION = regex(r"\s*(?:[:(\[=→]|->)|\s+[-–—]\s")
_POSSESSIVE = regex(r"['’]s?$")
_JOINED = regex(r"\s+(?:and|or|&)\s+|\s*/\s*", re.IGNORECASE)
_LEADING = regex(r"^(?:(?:and|or|the|an?|etc)(?:\s+|$)|&\s*)+", re.IGNORECASE)


def _candidates(output: str) -> Iterator[str]:
    """The entries of a list as it was written, without what only belongs to a list."""
    text = _MARKUP.sub("", re.split(r"\n\s*Q:", without_thoughts(output), maxsplit=1)[0])
    for line in text.split("\n"):
        for entry in _BORDER.split(_INTRODUCTION.sub("", line.strip())):
            plain = " ".join(_LIST_MARK.sub("", entry, count=1).split()).strip(" .,:!?…*[]{}<>#")
            if plain:
                yield re.sub(r"^\(([^()]*)\)$", r"\1", plain)


def _found(candidate: str, text: str) -> list[str]:
    """What of an entry occurs in the text: all of it, the part before an explanation, or both sides of an "and"."""
    whole = _LEADING.sub("", candidate)
    before = _EXPLANATION.split(whole, maxsplit=1)[0].strip()
    for entry in (whole, before, _POSSESSIVE.sub("", before)):
        if _occurs(entry, text):
            return [entry]
    pieces = [_LEADING.sub("", piece) for piece in _JOINED.split(before)]
    return pieces if len(pieces) > 1 and all(_occurs(piece, text) for piece in pieces) else []


def _occurs(entry: str, text: str) -> bool:
    return bool(re.search(r"\w", entry)) and len(entry.split()) <= MOST_WORDS and holds_keyword(text, entry)
