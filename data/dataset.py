"""What a data set declares about itself in its module of `data.sets`, how it is found by its name, and scored."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from data.answers.canonical import same_answer
from data.errors import ConfigError, DataError
from data.records import Question
from data.rows.files import file_rows
from data.rows.hub import hub_rows
from data.rows.row import Refuse, Row
from data.sets import DatasetName
from data.settings import DataSource

Placed: TypeAlias = tuple[str, Question]
"""A question, after the place where it stands, for messages."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set: its questions, where they usually lie, and how answers to them are scored."""

    questions: Callable[[DataSource, Refuse], Iterable[Placed]]
    """All questions that a source names, before `skip` and `limit`; rows that cannot be read go to the second."""
    hub: str | None = None
    """Its usual place on the hub, after a colon the name of a configuration; None where none is dependable."""
    rounded_labels: bool = False
    """Its labels are rounded results ("16.3" for 114 / 7): what rounds to the label is right, too."""


def published(*, read: Callable[[Row], Question], hub: str | None = None, rounded_labels: bool = False) -> DataSet:
    """A published set, from a file in its authors' format or from the hub; `read` understands a row of either."""

    def questions(source: DataSource, refuse: Refuse) -> Iterator[Placed]:
        if source.kind is not None:
            raise ConfigError(f"data {source.name}: kind is for files of your own (jsonl, csv); leave it out")
        if source.path is None:
            rows = hub_rows(source, hub)
        else:
            setting = f"data {source.name}: path"
            rows = file_rows(Path(source.path), dataset=source.name, setting=setting, refuse=refuse)
        return questions_of(rows, read, refuse)

    return DataSet(questions=questions, hub=hub, rounded_labels=rounded_labels)


def questions_of(rows: Iterable[Row], read: Callable[[Row], Question], refuse: Refuse) -> Iterator[Placed]:
    """What `read` makes of each row, but for those that it refuses."""
    for row in rows:
        try:
            question = read(row)
        except DataError as error:
            refuse(error)
        else:
            yield row.where, question


def data_set(name: DatasetName) -> DataSet:
    """The declaration of the set of this name; its module is loaded when it is first asked for."""
    declared = import_module(f"data.sets.{name}").SET
    assert isinstance(declared, DataSet), f"data/sets/{name}.py: expected SET to be a DataSet, found {declared!r}"
    return declared


def is_right(answer: str | None, question: Question) -> bool:
    """Whether a canonical answer is the gold one as its set is scored; none is wrong, and so is any without gold."""
    if answer is None or question.answer is None:
        return False
    rounded = question.benchmark is not None and data_set(question.benchmark).rounded_labels
    return same_answer(answer, question.answer, question.answer_kind, rounded=rounded)
