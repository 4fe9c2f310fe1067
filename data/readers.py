"""Questions of any data set, and rationales that someone else's teacher wrote.

Enters: a `DataSource`, or a file of rationales. Leaves: a list of `Question` records, the same whether a set comes from
a file or from the hub; rationales by question id. What a row of a set means is said in its module of `data.sets`.

A file that is not there is a ConfigError; a line that cannot be read is a DataError that names file and line.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from data.answers.canonical import canonical_answer, same_answer
from data.answers.choices import canonical_choice
from data.answers.outputs import plain_text
from data.answers.parse import parse_answer
from data.answers.statements import statements
from data.dataset import Placed, data_set
from data.errors import ConfigError, DataError
from data.prompts import answer_sentence
from data.records import Question
from data.rows.files import file_rows
from data.rows.row import Refuse, Row, bare_name
from data.settings import DataSource, RationaleFields

MOST_REFUSED = 5
"""So many rows are named at once; `molsaki data check` names more."""


def read_questions(source: DataSource) -> list[Question]:
    """The questions that a source names, after `skip` and up to `limit`.

    Raises ConfigError for a source that cannot be used and DataError for rows that cannot be read, which names the
    first of them.
    """
    refused = _Refused()
    more: list[str] = []
    try:
        chosen = chosen_questions(source, refused)
    except _EnoughError:
        more = ["  there may be more; `molsaki data check CONFIG` lists them"]
    if refused.errors:
        raise DataError("\n".join([*map(str, refused.errors), *more])) from refused.errors[0]
    return [question for _, question in chosen]


class _EnoughError(Exception):
    """So many rows are refused that the rest need not be read."""


class _Refused:
    """The first rows that cannot be read."""

    def __init__(self) -> None:
        self.errors: list[DataError] = []

    def __call__(self, error: DataError) -> None:
        self.errors.append(error)
        if len(self.errors) == MOST_REFUSED:
            raise _EnoughError


def chosen_questions(source: DataSource, refuse: Refuse) -> list[Placed]:
    """The questions of a source with their places; rows that cannot be read go to `refuse` and are left out.

    Raises ConfigError for a source that cannot be used.
    """
    declared = data_set(source.name)
    stop = None if source.limit is None else source.skip + source.limit
    refused = 0

    def counted(error: DataError) -> None:
        nonlocal refused
        refused += 1
        refuse(error)

    different = _with_different_ids(declared.questions(source, counted), counted)
    chosen = list(islice(different, source.skip, stop))
    if not chosen and not refused:
        place = source.path or f"{source.hub or declared.hub} ({source.split})"
        left = f"no question is left in {place} after skip: {source.skip}"
        raise ConfigError(f"data {source.name}: {left if source.skip else f'{place} holds no question'}")
    return chosen


def _with_different_ids(questions: Iterable[Placed], refuse: Refuse) -> Iterator[Placed]:
    """Every question, as long as no two of the source have the same id."""
    places: dict[str, str] = {}
    for where, question in questions:
        if question.id in places:
            refuse(DataError(f"{where}: the id {question.id!r} is taken by {places[question.id]}"))
            continue
        places[question.id] = where
        yield where, question


def read_rationales(
    path: str, questions: Sequence[Question], *, fields: RationaleFields, setting: str = "rationales"
) -> dict[str, str]:
    """Existing rationales for these questions, by question id, from JSON Lines whose `fields` hold what is needed.

    An answer that the text does not give is added as the sentence that states it, so that the parser judges what that
    teacher really answered. Rows of other questions are left out, and so are rows whose rationale or answer is null:
    that teacher gave none. Raises DataError for a row without id or rationale, and ConfigError where an answer's field
    was named that no row has. `setting` is the key of a configuration that says which file and fields to read.
    """
    wanted = {question.id: question for question in questions}
    fields = RationaleFields(**{name: bare_name(value) for name, value in asdict(fields).items()})
    found: dict[str, str] = {}
    seen: dict[str, None] = {}
    for row in file_rows(Path(path), dataset="rationales", setting=f"{setting}.path"):
        seen |= dict.fromkeys(row.fields)
        question = wanted.get(_identifier(row, fields, setting))
        if question is None or row.optional(fields.rationale) is None or row.fields.get(fields.answer, "") is None:
            continue
        if question.id in found:
            raise row.error(f"a second rationale for question {question.id!r}")
        found[question.id] = _with_answer(row.text(fields.rationale), question, _stated(row, fields))
    if seen and fields.answer not in seen and fields.answer != RationaleFields.answer:
        there = f"no row of {path} has it, found {_listed(seen)}"
        raise ConfigError(f"{setting}.fields.answer: expected the field {fields.answer!r}, {there}")
    return found


def _identifier(row: Row, fields: RationaleFields, setting: str) -> str:
    """The id of a row that has a rationale, be it null."""
    for key, name in (("id", fields.id), ("rationale", fields.rationale)):
        if name not in row.fields:
            raise row.error(
                f"expected the field {name!r}, found {_listed(row.fields)}; "
                f"{setting}.fields.{key} says which field holds the {key}"
            )
    identifier = row.optional(fields.id)
    if identifier is None:
        raise row.error(f"expected an id in the field {fields.id!r}, found {row.fields[fields.id]!r}")
    return str(identifier)


def _stated(row: Row, fields: RationaleFields) -> object:
    """The answer that a row states beside its rationale, None where it states none."""
    stated = row.fields.get(fields.answer)
    if stated not in (None, "") and canonical_answer(stated, "text") is None:
        raise row.error(f"expected an answer, found {stated!r}")
    return stated


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _with_answer(rationale: str, question: Question, stated: object) -> str:
    """The rationale, with the teacher's answer at its end unless it is read from the text anyway."""
    if stated is None:
        return rationale
    kind = question.answer_kind
    answer = canonical_choice(str(stated), question) if kind == "choice" else canonical_answer(stated, kind)
    if answer is None:
        return f"{rationale} The answer is {str(stated).strip().removesuffix('.')}."
    return rationale if _states(rationale, question, answer) else f"{rationale} {answer_sentence(question, answer)}"


def _states(rationale: str, question: Question, answer: str) -> bool:
    """Whether a rationale says outright that this is the answer."""
    found = parse_answer(rationale, question) if any(statements(plain_text(rationale), question)) else None
    return found is not None and same_answer(found, answer, question.answer_kind)
