"""`molsaki rationales show`: what the teacher wrote, with steps and critical words, and what was dropped, and why.

In: a configuration whose rationales are stored, at least in part. Out: `Overview`: every attempt that counts, under its
outcome; then some of them in the terminal, or as JSON. Texts come from data sets and models: they are never taken for
markup, and what would steer a terminal is replaced, a character by a character, so that spans stay true.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache.rationales import KEPT, Attempt
from data.errors import ConfigError, MissingRecordsError
from data.keyword_prompts import read_keywords
from data.records import Phase, Question, Rationale, Span
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.console.tables import print_json, print_rows
from pipeline.run.inputs import Inputs
from pipeline.run.teacher import RationaleStage, no_rationales
from stages.attention.select import NO_CRITICAL_WORD, mark_rationale
from stages.rationales.write import Standing, standings
from stages.settings import AttentionSettings

if TYPE_CHECKING:
    from rich.text import Text

REPEATED = "same as another sample"
SAME = ("question_id", "dataset", "key", "phase", "sample", "question", "gold", "answer", "output", "rationale")
"""What an entry has of its attempt as it is."""
EXAMPLE = 90
"""Characters of an example of what was dropped."""
BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Controls that make a terminal show a text in another order."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One attempt under its outcome; of a kept rationale the spans are those in `question`, line break, `rationale`."""

    question_id: str
    dataset: str
    key: str
    phase: Phase
    sample: int
    outcome: str
    question: str
    gold: str
    answer: str
    output: str
    rationale: str
    keywords: tuple[str, ...] = ()
    step_spans: tuple[Span, ...] = ()
    critical_spans: tuple[Span, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why attempts were dropped: how many, and one of them."""

    reason: str
    attempts: int
    example: Entry


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What there is: `samples` are some entries of the outcome asked for, `of` how many there are of it.

    `named` counts the key words that the teacher named, `left_out` those among them that the text does not hold.
    """

    questions: int
    rationales: int
    samples: tuple[Entry, ...]
    of: int
    dropped: tuple[Reason, ...]
    named: int
    left_out: int


def show_rationales(
    config: Path,
    overrides: Sequence[str],
    *,
    number: int,
    outcome: str | None,
    datasets: Sequence[str],
    as_json: bool,
) -> None:
    """Print what a configuration's teacher has written so far: some of one outcome, by default of what was kept."""
    overview = look(load_config(config, overrides), number, outcome, datasets)
    if as_json:
        print_json(overview)
        return
    for entry in overview.samples:
        _print_entry(entry)
        click.echo()
    there = f"{overview.rationales:,} rationales of {overview.questions:,} questions are there"
    click.echo(f"{len(overview.samples):,} of {overview.of:,} {outcome or KEPT}; {there}")
    if overview.named:
        click.echo(
            f"{overview.named:,} key words named by the teacher, {overview.left_out:,} left out: not in the text"
        )
    if overview.dropped:
        click.echo()
        print_rows(("dropped for", "attempts", "for example", ""), map(_reason_row, overview.dropped))


def look(config: Config, number: int, outcome: str | None, datasets: Sequence[str]) -> Overview:
    """Sort the stored attempts by outcome and choose some; `ConfigError` where none has the outcome asked for."""
    stage = RationaleStage(Inputs(config))
    if not stage.begun:
        raise MissingRecordsError(no_rationales(stage.plan()))
    questions = _of_datasets(stage.questions, datasets)
    stands = standings(questions, stage.open().attempts(), config.rationales)
    entries = [entry for _, stand in stands for entry in _entries(stand, config.attention)]
    chosen = [entry for entry in entries if entry.outcome == (outcome or KEPT)]
    if outcome is not None and not chosen:
        there = ", ".join(repr(each) for each in dict.fromkeys(entry.outcome for entry in entries))
        raise ConfigError(f"--outcome: no attempt has {outcome!r}; there are {there or 'none yet'}")
    named = [attempt for _, stand in stands for attempt in stand.keywords]
    return Overview(
        questions=len(stands),
        rationales=sum(len(stand.kept) for _, stand in stands),
        samples=tuple(chosen[place] for place in _spread(len(chosen), number)),
        of=len(chosen),
        dropped=tuple(_reasons(entries)),
        named=sum(len(attempt.keywords) + _missing(attempt) for attempt in named),
        left_out=sum(map(_missing, named)),
    )


def _of_datasets(questions: Sequence[Question], datasets: Sequence[str]) -> list[Question]:
    there = dict.fromkeys(question.dataset for question in questions)
    if unknown := [name for name in datasets if name not in there]:
        raise ConfigError(f"--dataset: no question of {unknown[0]!r} among those of {', '.join(there)}")
    return [question for question in questions if not datasets or question.dataset in datasets]


def _entries(stand: Standing, settings: AttentionSettings) -> Iterator[Entry]:
    """Every attempt at a question: what is kept with its spans, what is dropped with its reason."""
    kept = iter(stand.kept)
    for attempt in stand.attempts:
        if attempt in stand.repeated:
            yield _entry(attempt, REPEATED)
        elif attempt.outcome != KEPT:
            yield _entry(attempt, attempt.outcome)
        else:
            yield _kept(attempt, next(kept), settings)
    yield from (_entry(attempt, attempt.outcome) for attempt in stand.keywords if attempt.outcome != KEPT)


def _kept(attempt: Attempt, rationale: Rationale, settings: AttentionSettings) -> Entry:
    marked = mark_rationale(rationale, settings)
    return replace(
        _entry(attempt, KEPT if marked.critical_spans else NO_CRITICAL_WORD),
        keywords=rationale.keywords or attempt.keywords,
        step_spans=marked.step_spans,
        critical_spans=marked.critical_spans,
    )


def _entry(attempt: Attempt, outcome: str) -> Entry:
    return Entry(**{name: getattr(attempt, name) for name in SAME}, outcome=outcome, keywords=attempt.keywords)


def _reasons(entries: Iterable[Entry]) -> list[Reason]:
    """The reasons by number of attempts, each with the first of them."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.outcome != KEPT:
            found.setdefault(entry.outcome, []).append(entry)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [Reason(reason=reason, attempts=len(some), example=some[0]) for reason, some in ordered]


def _missing(attempt: Attempt) -> int:
    return read_keywords(attempt.output, attempt.question, attempt.rationale).missing


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, at equal distances from the first on."""
    return [place * count // min(count, most) for place in range(min(count, most))]


def _print_entry(entry: Entry) -> None:
    """One attempt: its steps in lines with numbers where it has any, else all of what was written."""
    from rich.text import Text

    sample = f", sample {entry.sample}" if entry.sample else ""
    click.secho(visible(f"{entry.dataset} {entry.question_id}: {entry.outcome} ({entry.phase}{sample})"), bold=True)
    lines = _lines(entry)
    print_rows(("", ""), ((number, text if isinstance(text, Text) else Text(visible(text))) for number, text in lines))


def _lines(entry: Entry) -> "Iterator[tuple[str, str | Text]]":
    if entry.step_spans:
        text = f"{entry.question}\n{entry.rationale}"
        for number, span in enumerate(entry.step_spans, start=1):
            yield f"{number}", highlighted(text, span, entry.critical_spans, colour=_colours())
    else:
        yield "question", entry.question
        if entry.rationale:
            yield "rationale", entry.rationale
        yield "written", entry.output.strip() or "(nothing)"
    if entry.keywords:
        yield "key words", ", ".join(entry.keywords)
    if entry.outcome not in {KEPT, NO_CRITICAL_WORD}:
        yield "answer", f"{entry.answer or '(none)'}; {entry.gold or '(none)'} is right"


def highlighted(text: str, step: Span, words: Sequence[Span], *, colour: bool) -> "Text":
    """One step of a text, its critical words in colour, or in brackets where there is none."""
    from rich.text import Text

    found, place = Text(), step[0]
    for start, end in words:
        start, end = max(start, step[0]), min(end, step[1])
        if start < end:
            found.append(visible(text[place:start]))
            word = visible(text[start:end])
            found.append(word if colour else f"[{word}]", style="bold yellow" if colour else "")
            place = end
    found.append(visible(text[place : step[1]]))
    return found


def visible(text: str) -> str:
    """The text with every character replaced that would steer a terminal; line breaks stay."""
    return "".join(
        "\ufffd" if (unicodedata.category(each) == "Cc" and each not in "\n\t") or each in BIDIRECTIONAL else each
        for each in text
    ).replace("\t", " ")


def _colours() -> bool:
    from rich.console import Console

    console = Console()
    return console.is_terminal and not console.no_color


def _reason_row(each: Reason) -> "tuple[str, str, Text, Text]":
    from rich.text import Text

    example = each.example
    written = " ".join(visible(example.output).split()) or "(nothing)"
    short = written if len(written) <= EXAMPLE else f"…{written[-EXAMPLE:]}"
    name = visible(f"{example.dataset} {example.question_id}")
    return each.reason, f"{each.attempts:,}", Text(name), Text(short)
