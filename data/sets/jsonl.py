"""A user's own file, JSON Lines or whatever the end of its name says: question, answer, and if wanted id and choices.

    {"question": "Where does bread bake?", "answer": "oven", "choices": ["pond", "oven"]}

What most answers of questions without choices are is the kind of all: a number, yes or no, several numbers, else text,
unless the source says `kind`. An answer that is of another is refused, for a few odd ones would make text of a whole
file, in which 1200 is not 1,200. The questions count to a data set named as the file; they are nobody's benchmark, so
worked examples are those of the kind.

Without `answer` a question has no label; that is a column of another name where one says the same, and then it is
refused (`data.rows.own_columns`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data.answers.canonical import canonical_answer
from data.answers.choices import letters_of, with_choices
from data.dataset import DataSet, Placed, questions_of
from data.errors import ConfigError
from data.records import AnswerKind, Question
from data.rows.files import Reader, file_rows
from data.rows.own_columns import with_known_columns
from data.rows.row import Refuse, Row, shown
from data.settings import DataSource

NARROW: Mapping[AnswerKind, str] = {
    "number": "no number",
    "boolean": "neither yes nor no",
    "numbers": "neither numbers apart by semicolons nor a ratio",
}
"""The kinds that labels can tell, each with what an answer of another kind is."""


def own_questions(source: DataSource, refuse: Refuse, usual: Reader | None = None) -> Iterator[Placed]:
    """The questions of a file; `usual` reads it where its name does not say what it is."""
    if source.path is None:
        raise ConfigError(f"data {source.name}: expected path, the file with the questions, found none")
    setting = f"data {source.name}: path"
    found = list(file_rows(Path(source.path), setting=setting, usual=usual, refuse=refuse))
    rows = with_known_columns(found, f"data {source.name}: {source.path}", refuse)
    kind = Kind(answers=source.kind) if source.kind is not None else kind_told(_labels(rows))
    return questions_of(rows, partial(_question, kind=kind), refuse)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The kind of a file's answers; `others` says what is wrong with one of another kind, where labels told of some."""

    answers: AnswerKind
    others: str = ""


def kind_told(labels: Sequence[object]) -> Kind:
    """What at least nine of ten labels are, the narrowest kind first; else what more than half are; else text."""
    fitting: dict[AnswerKind, int] = {}
    for kind in NARROW:
        fitting[kind] = sum(canonical_answer(label, kind) is not None for label in labels)
        if labels and fitting[kind] >= 0.9 * len(labels):
            break
    else:
        kind = next((each for each, count in fitting.items() if count > 0.5 * len(labels)), "text")
    if kind == "text" or fitting[kind] == len(labels):
        return Kind(answers=kind)
    several = kind == "number" and all(canonical_answer(label, "numbers") is not None for label in labels)
    return Kind(
        answers=kind,
        others=f"{NARROW[kind]}, as {fitting[kind]:,} of the {len(labels):,} answers are: correct it, leave it empty "
        f"where there is no label, or set kind: {'numbers' if several else 'text'} for this source",
    )


def _labels(rows: Sequence[Row]) -> list[object]:
    """The labels of questions without choices."""
    answers = [row.optional("answer") for row in rows if row.optional("choices") is None]
    return [answer for answer in answers if answer is not None]


def _question(row: Row, kind: Kind) -> Question:
    choices = _choices(row)
    text, raw = row.text("question"), row.optional("answer")
    own: AnswerKind = "choice" if choices else kind.answers
    if not choices and kind.others and raw is not None and canonical_answer(raw, own) is None:
        raise row.error(f"the answer {shown(raw)} is {kind.others}")
    answer = row.gold(raw, own, choices)
    named = [letter for letter, choice in zip(letters_of(choices), choices, strict=True) if choice == str(raw).strip()]
    if named and answer not in named:
        raise row.error(f"the answer {shown(raw)} is the letter of one choice and the text of another")
    return Question(
        id=row.identifier("id"),
        dataset=row.dataset,
        text=with_choices(text, choices) if choices else text,
        answer=answer,
        answer_kind=own,
        choices=choices,
        keywords=choices,
    )


def _choices(row: Row) -> tuple[str, ...]:
    """Choices as a list, or in one text separated by |."""
    listed = row.optional("choices")
    if listed is None:
        return ()
    choices = listed.split("|") if isinstance(listed, str) else listed
    if (
        not isinstance(choices, list)
        or not 2 <= len(choices) <= 26
        or not all(isinstance(choice, str | int | float) and str(choice).strip() for choice in choices)
    ):
        raise row.error(f"expected 2 to 26 choices, as a list or separated by |, found {shown(listed)}")
    return tuple(str(choice).strip() for choice in choices)


SET = DataSet(questions=own_questions)
