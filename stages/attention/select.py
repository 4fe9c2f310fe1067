"""From rationales to the records that teacher and students see: marked texts, each once, with the key of its content.

In: kept rationales and the rules for steps and critical words. Out: `Selection`, with what was left out counted by
reason.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache.keys import record_key
from data.errors import ConfigError
from data.marking import Keywords, Numbers, Regex, mark
from data.records import Marked, Question, Rationale
from stages.settings import AttentionSettings

NO_CRITICAL_WORD = "no critical word"
SAME_RECORD = "same record twice"


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training record."""

    rationale: Rationale
    marked: Marked
    key: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The records of a run, in the order of their questions: in memory, or read from the store one at a time."""

    examples: Sequence[Example]
    dropped: Mapping[str, int]


def select_examples(rationales: Sequence[Rationale], settings: AttentionSettings) -> Selection:
    """Mark the texts and leave out those without critical words; `ConfigError` where that leaves none."""
    examples: dict[str, Example] = {}
    dropped: Counter[str] = Counter()
    for rationale in rationales:
        marked = mark_rationale(rationale, settings)
        key = record_key(marked)
        if not marked.critical_spans:
            dropped[NO_CRITICAL_WORD] += 1
        elif key in examples:
            dropped[SAME_RECORD] += 1
        else:
            examples[key] = Example(rationale=rationale, marked=marked, key=key)
    if rationales and not examples:
        raise ConfigError(_nothing_found(len(rationales), settings))
    return Selection(examples=tuple(examples.values()), dropped=dict(dropped))


def mark_rationale(rationale: Rationale, settings: AttentionSettings) -> Marked:
    """Mark steps and critical words as the settings ask for it."""
    rule = marking_rule(settings, rationale.question, rationale.keywords)
    return mark(rationale.question.text, rationale.text, steps=settings.steps, critical=rule)


def _nothing_found(records: int, settings: AttentionSettings) -> str:
    sources = " and ".join(settings.keyword_sources) or "nobody"
    rule = {
        "numbers": "the rule `numbers`",
        "keywords": f"the rule `keywords` with {list(settings.keywords)} and those of {sources}",
        "regex": f"the pattern {settings.pattern!r}",
    }[settings.critical]
    return (
        f"attention.critical: {rule} finds no critical word in any of {records:,} records; "
        "set attention.critical to another rule (numbers, keywords, regex)"
    )


def marking_rule(
    settings: AttentionSettings, question: Question, named: Sequence[str] = ()
) -> Numbers | Keywords | Regex:
    """The rule that finds the critical words of one question; `named` are the words that the teacher named as key."""
    if settings.critical == "numbers":
        return Numbers()
    if settings.critical == "keywords":
        sources = settings.keyword_sources
        own = question.keywords if "data" in sources else ()
        return Keywords(
            words=tuple(dict.fromkeys((*settings.keywords, *own, *(named if "teacher" in sources else ()))))
        )
    return Regex(pattern=regex_of(settings))


def regex_of(settings: AttentionSettings) -> str:
    """The regular expression of the rule `regex`; raises `ConfigError` where it is not given."""
    if settings.pattern is None:
        raise ConfigError("attention.pattern: `critical: regex` needs a regular expression")
    return settings.pattern
