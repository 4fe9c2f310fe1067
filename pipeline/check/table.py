"""What is known about the questions of a run, as tables and sentences for people.

In: the checks of a run. Out: text on stdout, at most 80 columns wide but for ids that are longer: a table of sources, a
table of lengths, and a sentence for each finding that says what to do.
"""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from data.check import Findings, Found
from pipeline.check.gather import Check, Critical, SharedSplits, SourceCheck
from pipeline.check.lengths import Lengths
from pipeline.console.tables import one_line, print_rows

WIDTH = 80
SOURCE, ID, POINTS = 18, 40, 3
"""Characters of a source's name in the table and of an id, and points of a matrix that are named."""
TEXTS = {
    "prompt": "prompt (teacher)",
    "record": "record* (teacher)",
    "predict": "predict (student)",
    "explain": "explain* (student)",
}
FINE = "Nothing to mend: every row is read, no question stands there twice, and every answer can be given."


def print_checks(checks: Sequence[Check]) -> None:
    """Print all of them, with the names of their points where there are several."""
    for number, check in enumerate(checks):
        if len(checks) > 1:
            click.echo(("\n" if number else "") + _points(check.points))
        _print(check)


def _print(check: Check) -> None:
    print_rows(("for", "source", "rows", "answers", "no answer", "twice", "refused"), map(_source_row, check.sources))
    if check.lengths:
        click.echo()
        print_rows(("tokens of", "median", "95%", "longest", "limit", "over"), map(_length_row, check.lengths))
        _say("* with the answer's sentence alone; the rationale comes on top")
    lines = list(_remarks(check))
    click.echo()
    for line in lines if lines or check.errors else [FINE]:
        _say(line)
    for line in check.notes:
        _say(f"note: {line}")


def _say(line: str) -> None:
    click.echo(textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def _points(names: Sequence[str]) -> str:
    more = f" and {len(names) - POINTS:,} more" if len(names) > POINTS else ""
    return f"points: {', '.join(names[:POINTS])}{more}"


def _source_row(source: SourceCheck) -> tuple[str, ...]:
    found = source.findings
    answers = "\n".join(f"{count:,} {kind}" for kind, count in found.answers.items())
    counts = (found.without_answer.count, found.repeated.count, source.refused)
    name = one_line(_name(source), SOURCE)
    return source.split, name, f"{found.rows:,}", answers, *(f"{count:,}" if count else "" for count in counts)


def _name(source: SourceCheck) -> str:
    """The last part of its path or hub id."""
    return one_line(Path(source.place).name, ID)


def _length_row(lengths: Lengths) -> tuple[str, ...]:
    figures = (f"{lengths.median:,.0f}", f"{lengths.most:,}", f"{lengths.longest:,}")
    limit = "" if lengths.limit is None else f"{lengths.limit:,}"
    return TEXTS[lengths.text], *figures, limit, f"{lengths.over.count:,}" if lengths.over.count else ""


def _remarks(check: Check) -> Iterator[str]:
    """A sentence for each finding, with what to do."""
    for source in check.sources:
        yield from (f"{source.split} {_name(source)}: {said}" for said in _of_source(source))
    for shared in check.shared:
        yield from _of_shared(shared)
    if check.critical is not None:
        yield from _of_critical(check.critical)
    for lengths in check.lengths:
        yield from _of_lengths(lengths)


def _of_source(source: SourceCheck) -> Iterator[str]:
    found, trains = source.findings, source.split == "train"
    if source.refused:
        what = f"{_rows(source.refused)} cannot be read" if found.rows else "nothing of it can be read"
        yield f"{what}; the errors below say why"
    if found.without_answer.count:
        lost = "never asked, and nothing is learned from them" if trains else "never scored"
        column = "; labels have to stand in the column 'answer'" if source.name in {"jsonl", "csv"} else ""
        yield f"{_some(found.without_answer, found.rows)} without answer: they are {lost}{column}"
    if found.repeated.count:
        counted = "a text is asked and learned from once" if trains else "a text counts as often as it stands there"
        yield f"{_some(found.repeated)} with the text of an earlier one: {counted}; leave one of each"
    if found.contradicted.count:
        yield f"{_some(found.contradicted)} of these with another answer than before: correct one of the two"
    yield from _of_labels(found)


def _of_labels(found: Findings) -> Iterator[str]:
    sentence, alone = found.unreadable, found.unreadable_alone
    wrong = "whoever gives it is judged wrong; write the label more plainly, or leave it empty"
    if sentence.count:
        both = ", nor where it stands alone" if alone == sentence else ""
        yield f"{_some(sentence, found.rows)} whose answer is not read from the sentence that states it{both}: {wrong}"
    if alone.count and alone != sentence:
        yield f"{_some(alone, found.rows)} whose answer is not read where it stands alone: {wrong}"
    if found.compared_as_words.count:
        yield (
            f"{_some(found.compared_as_words)} whose answer looks like a number, or like yes or no, in a file of "
            "words: it is compared as words, 1200 with 1,200; say the source's kind, or correct the others"
        )


def _of_shared(shared: SharedSplits) -> Iterator[str]:
    first, second = shared.first, shared.second
    if shared.shared.same_text.count:
        why = (
            "what is measured on them was learned" if first == "train" else "what is chosen by them is measured on them"
        )
        yield f"{second}: {_some(shared.shared.same_text)} that stand in {first} too: {why}; leave them out of {first}"
    if shared.shared.same_id.count:
        yield (
            f"{second}: {_some(shared.shared.same_id)} with the id of another question in {first}: predictions and "
            "files of rationales are told apart by it; give them ids of their own"
        )


def _of_critical(critical: Critical) -> Iterator[str]:
    rule, of = f"attention.critical {critical.rule}", f"of {critical.questions:,} training questions"
    later = "; the teacher is asked for more, which cannot be known yet" if critical.asked else ""
    lost, some = critical.in_none, critical.in_question
    if critical.asked and lost.count == critical.questions:
        yield f"{rule}: the teacher names the words, so which questions hold none cannot be known yet"
        return
    if some.count > lost.count:
        yield f"{rule}: {some.count:,} {of} hold none {_ids(some)}: their records have those of the rationale{later}"
    if lost.count:
        remedy = later or "; another rule may find some"
        yield (
            f"{rule}: {lost.count:,} {of} hold none, nor does the sentence with their answer {_ids(lost)}: "
            f"they are left out unless the rationale holds one{remedy}"
        )


def _of_lengths(lengths: Lengths) -> Iterator[str]:
    if lengths.over.count:
        which = _some(lengths.over, lengths.texts)
        yield (
            f"{TEXTS[lengths.text]}: {which} with more than {lengths.limit:,} tokens: they are left out; raise "
            f"{lengths.setting}, if the model knows so many positions"
        )


def _some(found: Found, total: int | None = None) -> str:
    """`3 questions (a, b, c)`, or `all 3 questions` of a total."""
    if found.count == total and total > 1:
        return f"all {found.count:,} questions"
    return f"{found.count:,} question{'' if found.count == 1 else 's'} {_ids(found)}"


def _ids(found: Found) -> str:
    """The first of them."""
    more = ["…"] if found.count > len(found.first) else []
    return f"({', '.join([*(one_line(each, ID) for each in found.first), *more])})"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
