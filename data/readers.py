"""Questions of any data set, and rationales that someone else's teacher wrote.

Enters: a `DataSource`, or a file of rationales. Leaves: a list of `Question` records, the same whether a set comes from
a file or from the hub; rationales by question id. What a row of a set means is said in its module of `data.sets`.

A file that is not there is a ConfigError; a line that cannot be read is a DataError that names file and line.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from data.answers import canonical_answer, canonical_choice, parse_answer, plain_text, same_answer, statements
from data.dataset import Placed, data_set
from data.errors import ConfigError, DataError
from data.prompts import answer_sentence
from data.records import Question
from data.rows.files import file_rows
from data.settings import DataSource

_STATED_ANSWERS = ("answer", "palm_label", "palm_value")


def read_questions(source: DataSource) -> list[Question]:
    """The questions that a source names, after `skip` and up to `limit`.

    Raises ConfigError for a source that cannot be used and DataError for a row that cannot be read.
    """
    declared = data_set(source.name)
    stop = None if source.limit is None else source.skip + source.limit
    chosen = list(islice(_with_different_ids(declared.questions(source)), source.skip, stop))
    if not chosen:
        place = source.path or f"{source.hub or declared.hub} ({source.split})"
        left = f"no question is left in {place} after skip: {source.skip}"
        raise ConfigError(f"data {source.name}: {left if source.skip else f'{place} holds no question'}")
    return chosen


def _with_different_ids(questions: Iterable[Placed]) -> Iterator[Question]:
    """Every question, as long as no two of the source have the same id."""
    places: dict[str, str] = {}
    for where, question in questions:
        if question.id in places:
            raise DataError(f"{where}: the id {question.id!r} is taken by {places[question.id]}")
        places[question.id] = where
        yield question


def read_rationales(path: str, questions: Sequence[Question]) -> dict[str, str]:
    """Existing rationales for these questions, by question id, from JSON Lines.

    A row holds `id` (or `ID`, `question_id`), `rationale` (or `palm_rationale`) and, if the answer is not in the text,
    `answer` (or `palm_label`, `palm_value`). An answer that the text does not give is added as the sentence that states
    it, so that the parser judges what that teacher really answered. Rows of other questions are left out, and so are
    rows whose rationale or answer is null: that teacher gave none.
    """
    wanted = {question.id: question for question in questions}
    found: dict[str, str] = {}
    for row in file_rows(Path(path), dataset="rationales", setting="rationales.path"):
        identifier = row.optional("id", "ID", "question_id")
        if identifier is None:
            raise row.error(f"expected a field 'id', 'ID' or 'question_id', found {_listed(row.fields)}")
        if not {"rationale", "palm_rationale"} & row.fields.keys():
            raise row.error(f"expected a field 'rationale' or 'palm_rationale', found {_listed(row.fields)}")
        question = wanted.get(str(identifier))
        rationale = row.optional("rationale", "palm_rationale")
        answers = [row.fields[name] for name in _STATED_ANSWERS if name in row.fields]
        if question is None or rationale is None or None in answers:
            continue
        if question.id in found:
            raise row.error(f"a second rationale for question {question.id!r}")
        if any(canonical_answer(answer, "text") is None for answer in answers if answer != ""):
            raise row.error(f"expected an answer, found {answers[0]!r}")
        text = row.text("rationale", "palm_rationale")
        found[question.id] = _with_answer(text, question, next(iter(answers), None))
    return found


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
    found = parse_answer(rationale, question) if any(statements(plain_text(rationale))) else None
    return found is not None and same_answer(found, answer, question.answer_kind)
