"""Rationales that students are measured by: what is known of questions that nobody learns from.

In: questions, and a file of rationales or the solutions that a data set brings along. Out: for each question a text as
a student would learn it, judged and finished as rationales to learn from are, or None. A file that training reads knows
questions by id alone: one whose id is a training question's too has none from there, nor has one of another data set.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cache.rationales import KEPT
from data.errors import ConfigError, DataError
from data.prompts import finish_rationale, worked_rationale
from data.readers import read_rationales
from data.records import Question
from stages.engines.contract import Generation
from stages.rationales.judge import judge, whole_characters
from stages.rationales.spec import named_file, rationale_file
from stages.settings import RationaleSettings, ReferenceSettings


@dataclass(frozen=True, kw_only=True)
class References:
    """A text for each question, or None; `problem` says why a file that was not asked for by name gave none."""

    texts: tuple[str | None, ...]
    problem: str = ""

    @property
    def count(self) -> int:
        """How many questions have one."""
        return sum(text is not None for text in self.texts)


def find_references(
    questions: Sequence[Question],
    training: Sequence[Question],
    named: ReferenceSettings | None,
    rationales: RationaleSettings,
) -> References:
    """The reference rationales of labelled questions: of the file that is `named`, else of that of `engine: file`.

    With neither, and for data sets that training has no question of, they are a data set's own solutions. Raises
    `ConfigError` or `DataError` for a named file that cannot be read; one that was named for training only is left out,
    and `problem` says why.
    """
    if named is not None:
        where = "evaluation.references"
        path = named_file(named.path, where)
        found = read_rationales(str(path), questions, fields=named.fields, setting=where)
        return _judged(questions, [found.get(question.id) for question in questions])
    own = [worked_rationale(each) if each.reference else None for each in questions]
    if rationales.engine != "file":
        return _judged(questions, own)
    learned, datasets = {question.id for question in training}, {question.dataset for question in training}
    others = [question for question in questions if question.id not in learned and question.dataset in datasets]
    try:
        found = read_rationales(str(rationale_file(rationales)), others, fields=rationales.fields)
    except (ConfigError, DataError) as error:
        return References(texts=(None,) * len(questions), problem=str(error))
    return _judged(
        questions,
        [
            found.get(question.id) if question.dataset in datasets else solution
            for question, solution in zip(questions, own, strict=True)
        ],
    )


def _judged(questions: Sequence[Question], texts: Sequence[str | None]) -> References:
    pairs = zip(questions, texts, strict=True)
    return References(texts=tuple(None if text is None else _finished(question, text) for question, text in pairs))


def _finished(question: Question, text: str) -> str | None:
    """The text as it is learned from; None where it would not be kept."""
    text = whole_characters(text)
    outcome, _ = judge(question, Generation(text=text, finish_reason="stop"), "imported")
    if outcome != KEPT:
        return None
    assert question.answer is not None, "what was kept has the gold answer"
    return finish_rationale(text, question, question.answer)
