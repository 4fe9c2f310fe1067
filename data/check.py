"""What there is to know about questions before a teacher is paid for them.

Enters: a `DataSource`, or questions. Leaves: counts of what is worth a look, each with the ids of the first: texts that
stand there twice, questions that training and measuring share, labels that no answer can be. Nothing is judged as wrong
here but rows that cannot be read, which are all collected.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data.answers.canonical import kind_of
from data.answers.parse import parse_answer
from data.dataset import is_right
from data.errors import MolsakiError
from data.prompts import answer_sentence, predict_target
from data.readers import chosen_questions
from data.records import Question
from data.settings import DataSource

NAMED = 3
"""So many ids are named."""
LISTED = 20
"""So many rows that cannot be read are listed of a source."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """How many questions something is true of, and the ids of the first."""

    count: int
    first: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What a source has given; `errors` are the first of what was `refused`."""

    read: tuple[Question, ...]
    refused: int
    errors: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What there is to know about the questions of one source.

    `answers` counts them by the kind of their answer, those without label left out. `repeated` have the text of an
    earlier one, `contradicted` are those of them that have another label. `unreadable` labels are not read back from
    the sentence with which a rationale states them, `unreadable_alone` not from the label alone, as a student learns to
    answer at once: whatever is answered counts as wrong. `compared_as_words` are labels of the kind text that look like
    numbers, or like yes or no.
    """

    rows: int
    answers: Mapping[str, int]
    without_answer: Found
    repeated: Found
    contradicted: Found
    unreadable: Found
    unreadable_alone: Found
    compared_as_words: Found


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Questions of the second list that stand in the first as well: by their text, or by id alone with another text."""

    same_text: Found
    same_id: Found


def read_all(source: DataSource) -> Questions:
    """The questions of a source; rows and sources that cannot be read are counted, not raised."""
    refused = 0
    errors: list[str] = []

    def refuse(error: MolsakiError) -> None:
        nonlocal refused
        refused += 1
        if len(errors) < LISTED:
            errors.append(str(error))

    read: tuple[Question, ...] = ()
    try:
        read = tuple(question for _, question in chosen_questions(source, refuse))
    except MolsakiError as error:
        refuse(error)
    return Questions(read=read, refused=refused, errors=tuple(errors))


def check_questions(questions: Iterable[Question]) -> Findings:
    """Look at every question of a source by itself, and for texts that stand there twice."""
    answers: Counter[str] = Counter()
    labels: dict[str, set[str | None]] = {}
    found: dict[str, list[str]] = {name: [] for name in Findings.__annotations__ if name not in ("rows", "answers")}
    rows = 0
    for question in questions:
        rows += 1
        names = list(_of_one(question))
        text = plain_words(question.text)
        if text in labels:
            names += ["repeated"] + ["contradicted"] * (question.answer not in labels[text])
        labels.setdefault(text, set()).add(question.answer)
        if question.answer is not None:
            answers[question.answer_kind] += 1
        for name in names:
            found[name].append(question.id)
    return Findings(rows=rows, answers=dict(answers), **{name: some(ids) for name, ids in found.items()})


def shared_questions(first: Sequence[Question], second: Sequence[Question]) -> Shared:
    """What two lists have in common."""
    texts = {plain_words(question.text) for question in first}
    ids = {(question.dataset, question.id) for question in first}
    same_text = [question for question in second if plain_words(question.text) in texts]
    known = {id(question) for question in same_text}
    others = [question for question in second if id(question) not in known]
    same_id = [question.id for question in others if (question.dataset, question.id) in ids]
    return Shared(same_text=some([question.id for question in same_text]), same_id=some(same_id))


def plain_words(text: str) -> str:
    """A text as it is compared with others: without regard to case, white space and the form of a character."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def some(ids: Sequence[str]) -> Found:
    """All of these questions, the first of them by id."""
    return Found(count=len(ids), first=tuple(ids[:NAMED]))


def _of_one(question: Question) -> Iterable[str]:
    """What there is to say of a question by itself."""
    if question.answer is None:
        yield "without_answer"
        return
    if not is_right(parse_answer(answer_sentence(question, question.answer), question), question):
        yield "unreadable"
    if not is_right(parse_answer(predict_target(question), question), question):
        yield "unreadable_alone"
    if question.answer_kind == "text" and kind_of(question.answer) != "text":
        yield "compared_as_words"
