"""A user's own file, JSON Lines or whatever the end of its name says: question, answer, and if wanted id and choices.

    {"question": "Where does bread bake?", "answer": "oven", "choices": ["pond", "oven"]}

What all answers of questions without choices have in common is the kind of each: numbers, yes or no, else text. The
questions count to a data set named as the file; they are nobody's benchmark, so worked examples are those of the kind.
Without `answer` a question has no label; that is a column of another name where one says the same, and then it is
refused (`data.rows.own_columns`).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from data.answers import canonical_answer, letters_of, with_choices
from data.dataset import DataSet, Placed, questions_of
from data.errors import ConfigError
from data.records import AnswerKind, Question
from data.rows.files import Reader, file_rows
from data.rows.own_columns import with_known_columns
from data.rows.row import Refuse, Row
from data.settings import DataSource


def own_questions(source: DataSource, refuse: Refuse, usual: Reader | None = None) -> Iterator[Placed]:
    """The questions of a file; `usual` reads it where its name does not say what it is."""
    if source.path is None:
        raise ConfigError(f"data {source.name}: expected path, the file with the questions, found none")
    setting = f"data {source.name}: path"
    found = list(file_rows(Path(source.path), setting=setting, usual=usual, refuse=refuse))
    rows = with_known_columns(found, f"data {source.name}: {source.path}", refuse)
    return questions_of(rows, partial(_question, kind=_kind(rows)), refuse)


def _kind(rows: Sequence[Row]) -> AnswerKind:
    """What all answers of questions without choices have in common."""
    answers = [row.optional("answer") for row in rows if row.optional("choices") is None]
    labels = [answer for answer in answers if answer is not None]
    kinds: tuple[AnswerKind, ...] = ("number", "boolean")
    fitting = (kind for kind in kinds if labels and all(canonical_answer(label, kind) is not None for label in labels))
    return next(fitting, "text")


def _question(row: Row, kind: AnswerKind) -> Question:
    choices = _choices(row)
    text, raw = row.text("question"), row.optional("answer")
    answer = row.gold(raw, "choice" if choices else kind, choices)
    named = [letter for letter, choice in zip(letters_of(choices), choices, strict=True) if choice == str(raw).strip()]
    if named and answer not in named:
        raise row.error(f"the answer {raw!r} is the letter of one choice and the text of another")
    return Question(
        id=row.identifier("id"),
        dataset=row.dataset,
        text=with_choices(text, choices) if choices else text,
        answer=answer,
        answer_kind="choice" if choices else kind,
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
        raise row.error(f"expected 2 to 26 choices, as a list or separated by |, found {listed!r}")
    return tuple(str(choice).strip() for choice in choices)


SET = DataSet(questions=own_questions)
