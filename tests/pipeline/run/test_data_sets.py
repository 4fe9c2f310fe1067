"""All of the benchmark data from the prompt over a scripted teacher to the marked text, with everything counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Literal

import pytest

from cache.rationales import RationaleStore
from cache.spaces import Space
from data.answers.choices import choice_text
from data.answers.numbers import number_text, number_value
from data.answers.parse import parse_answer
from data.prompts import answer_sentence, rationale_prompt
from data.readers import read_questions
from data.records import Question
from data.settings import DatasetName, DataSource
from stages.attention.select import NO_CRITICAL_WORD, SAME_RECORD, select_examples
from stages.engines.contract import Generation
from stages.models.identity import ModelIdentity
from stages.rationales.judge import CUT_OFF, EMPTY, NO_GOLD, NOT_FOUND, RESTATES, WRONG
from stages.rationales.spec import rationale_slug, rationale_spec
from stages.rationales.write import kept_rationales, write_rationales
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import AttentionSettings, RationaleSettings, TeacherSettings
from tests.fakes import ScriptedEngine
from tests.ways_of_answering import WAYS

TEACHER = TeacherSettings(model="teacher", dtype="float32", device="cpu")
IDENTITY = ModelIdentity(source="hub", path="owner/teacher", revision="0" * 40, tokenizer="1" * 64)
SETTINGS = RationaleSettings(engine="transformers", shots=4, piece=2048, second_phase=False)
CRITICAL: dict[str, Literal["numbers", "keywords"]] = {
    **{"svamp": "numbers", "gsm8k": "numbers"},
    **{"commonsenseqa": "keywords", "strategyqa": "keywords"},
}
REASON = "What is known is put together. One thing follows from it."


@dataclass(frozen=True, kw_only=True)
class Case:
    """The files of a data set, its questions, and what is to become of the different ones."""

    name: DatasetName
    files: tuple[str, ...]
    rows: int
    asked: int
    kept: int
    dropped: dict[str, int]
    not_marked: dict[str, int]


CASES = [
    Case(
        name="svamp",
        files=("svamp/chilled_train.jsonl", "svamp/chilled_test.jsonl"),
        rows=1000,
        asked=1000,
        kept=589,
        dropped={RESTATES: 211, WRONG: 50, NOT_FOUND: 50, CUT_OFF: 50, EMPTY: 50},
        not_marked={},
    ),
    Case(
        name="gsm8k",
        files=("gsm8k/train.jsonl", "gsm8k/test.jsonl"),
        rows=8792,
        asked=8792,
        kept=5266,
        dropped={RESTATES: 1770, WRONG: 439, NOT_FOUND: 439, CUT_OFF: 439, EMPTY: 439},
        not_marked={},
    ),
    Case(
        name="commonsenseqa",
        files=(
            "commonsenseqa/train_rand_split.jsonl",
            "commonsenseqa/dev_rand_split.jsonl",
            "commonsenseqa/test_rand_split_no_answers.jsonl",
        ),
        rows=12102,
        asked=12102,
        kept=6030,
        dropped={RESTATES: 2740, WRONG: 548, NOT_FOUND: 548, CUT_OFF: 548, EMPTY: 548, NO_GOLD: 1140},
        not_marked={},
    ),
    Case(
        name="strategyqa",
        files=("strategyqa/train.json", "strategyqa/dev.json", "strategyqa/strategyqa_test_unlabelled.json"),
        rows=2780,
        asked=2778,  # two questions stand there twice
        kept=1833,
        dropped={WRONG: 114, NOT_FOUND: 114, CUT_OFF: 114, EMPTY: 114, NO_GOLD: 489},
        not_marked={NO_CRITICAL_WORD: 30, SAME_RECORD: 1},
    ),
]


def wrong(question: Question) -> str:
    """A sentence with another answer than the gold one."""
    assert question.answer is not None
    match question.answer_kind:
        case "choice":
            place = (ascii_uppercase.index(question.answer) + 1) % len(question.choices)
            return f"The answer is {choice_text(question, ascii_uppercase[place])}."
        case "boolean":
            return f"The answer is {'no' if question.answer == 'yes' else 'yes'}."
        case _:
            return f"The answer is {number_text((number_value(question.answer) or 0) + 1)}."


def scripted(question: Question, place: int) -> str | Generation:
    """Of twenty questions in a row sixteen are answered rightly, in ten ways, and four fail in a way of their own.

    Some of the ways stand alone, since that is how they are written; they only restate the answer. So does "There are 2
    of them", with which three others begin, where 2 is the answer and no number of the question.
    """
    way = WAYS[question.answer_kind][place % 10]
    match place % 20:
        case 16:
            return f" {REASON} {wrong(question)}"
        case 17:
            return f" {REASON} I don't know."
        case 18:
            return Generation(
                text=f" {REASON} {answer_sentence(question, question.answer or '')}", finish_reason="length"
            )
        case 19:
            return "\n"
        case _:
            bare = place % 10 in (3, 4, 5, 8) and question.answer_kind in ("choice", "number")
            return f" {way(question)}" if bare else f" {REASON} {way(question)}"


def script(questions: Sequence[Question]) -> Callable[[str], str | Generation]:
    answers: dict[str, str | Generation] = {}
    for place, question in enumerate(questions):
        if question.answer is not None:
            answers.setdefault(rationale_prompt(question, shots=SETTINGS.shots), scripted(question, place))
    return answers.__getitem__


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_question_goes_from_prompt_to_marked_text_and_every_drop_is_counted(
    benchmark_data: Path, tmp_path: Path, case: Case
) -> None:
    sources = [DataSource(name=case.name, path=str(benchmark_data / file)) for file in case.files]
    questions = [question for source in sources for question in read_questions(source)]
    spec = rationale_spec(IDENTITY, TEACHER, SETTINGS)
    store = RationaleStore(Space.open_or_create(tmp_path, "rationales", rationale_slug(IDENTITY, SETTINGS), spec))
    summary = write_rationales(
        questions,
        store,
        TEACHER,
        SETTINGS,
        identity=IDENTITY,
        progress=SilentProgress(),
        stop=StopSignal(),
        engine=ScriptedEngine(script(questions)),
    )
    assert (len(questions), summary.asked) == (case.rows, case.asked)
    assert (summary.kept, dict(summary.dropped)) == (case.kept, case.dropped)
    assert summary.kept + sum(summary.dropped.values()) == summary.asked

    rationales = kept_rationales(questions, store, SETTINGS)
    selection = select_examples(rationales, AttentionSettings(critical=CRITICAL[case.name]))
    assert dict(selection.dropped) == case.not_marked
    for example in selection.examples:
        marked, question = example.marked, example.rationale.question
        assert question.answer is not None
        assert marked.rationale.endswith(answer_sentence(question, question.answer))
        assert parse_answer(marked.rationale, question) == question.answer
        assert len(marked.step_spans) >= 2 and marked.critical_spans
