"""Labelled outputs are read, judged and finished as a careful reader does it.

`answers.jsonl` holds what models write, the gold answer as a data file may hold it, the answer that a reader sees in
the text (null where there is none), and whether it is the gold one. `rationales.jsonl` holds what a teacher writes and
the reasoning that has to stay word for word. Labels say what is right, whatever the parser makes of it.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from data.answers.canonical import canonical_answer, same_answer
from data.answers.choices import with_choices
from data.answers.parse import parse_answer
from data.dataset import is_right
from data.prompts import answer_sentence, finish_rationale
from data.records import AnswerKind, Question

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Case:
    """An output and what a careful reader says of it; `asked` carries the canonical gold answer."""

    text: str
    asked: Question
    gold: str
    answer: str | None
    right: bool
    trouble: str


@dataclass(frozen=True, kw_only=True)
class RationaleCase:
    """An output with the reasoning that has to stay before the one sentence that states the answer."""

    output: str
    asked: Question
    answer: str
    kept: str
    trouble: str


def _asked(kind: AnswerKind, gold: str, stem: str = "?", choices: Sequence[str] = ()) -> Question:
    return Question(
        id="1",
        dataset="test",
        text=with_choices(stem, choices) if choices else stem,
        answer=canonical_answer(gold, kind, choices),
        answer_kind=kind,
        choices=tuple(choices),
    )


def answer_cases() -> list[Case]:
    """All of `answers.jsonl`, in its order."""
    return [
        Case(
            text=row["text"],
            asked=_asked(row["kind"], row["gold"], row.get("question", "?"), row.get("choices", ())),
            gold=row["gold"],
            answer=row["answer"],
            right=row["right"],
            trouble=row["trouble"],
        )
        for row in map(json.loads, (FOLDER / "answers.jsonl").read_text("utf-8").splitlines())
    ]


def rationale_cases() -> list[RationaleCase]:
    """All of `rationales.jsonl`, in its order."""
    return [
        RationaleCase(
            output=row["output"],
            asked=_asked(row["kind"], row["answer"], row["question"], row.get("choices", ())),
            answer=row["answer"],
            kept=row["kept"],
            trouble=row["trouble"],
        )
        for row in map(json.loads, (FOLDER / "rationales.jsonl").read_text("utf-8").splitlines())
    ]


def is_as_labelled(found: str | None, case: Case) -> bool:
    """Whether the answer found is the one that a reader sees; labels of kind text are made canonical first."""
    kind = case.asked.answer_kind
    label = canonical_answer(case.answer, kind) if kind == "text" else case.answer
    return found is label if found is None or label is None else same_answer(found, label, kind)


def _troubles(cases: Iterable[Case | RationaleCase]) -> list[str]:
    return list(dict.fromkeys(case.trouble for case in cases))


ANSWERS, RATIONALES = answer_cases(), rationale_cases()


def test_every_label_has_the_form_of_its_kind() -> None:
    kinds = [case for case in ANSWERS if case.asked.answer_kind != "text" and case.answer is not None]
    formless = [
        (case.text, case.answer)
        for case in kinds
        if canonical_answer(case.answer, case.asked.answer_kind, case.asked.choices) != case.answer
    ]
    assert formless == []
    assert [case.text for case in ANSWERS if case.answer is None and case.right] == []


@pytest.mark.parametrize("trouble", _troubles(ANSWERS))
def test_the_answer_that_a_reader_sees_is_found(trouble: str) -> None:
    cases = [case for case in ANSWERS if case.trouble == trouble]
    found = [(case, parse_answer(case.text, case.asked)) for case in cases]
    failing = [
        f"{case.asked.answer_kind} {case.text!r}: expected {case.answer!r}, found {answer!r}"
        for case, answer in found
        if not is_as_labelled(answer, case)
    ]
    assert not failing, f"{len(failing)} of {len(cases)}:\n" + "\n".join(failing)


@pytest.mark.parametrize("trouble", _troubles(ANSWERS))
def test_an_answer_is_judged_against_gold_as_files_hold_it(trouble: str) -> None:
    cases = [case for case in ANSWERS if case.trouble == trouble]
    failing = [
        f"{case.asked.answer_kind} {case.text!r}, gold {case.gold!r} ({case.asked.answer!r}): expected {case.right}"
        for case in cases
        if is_right(parse_answer(case.text, case.asked), case.asked) is not case.right
    ]
    assert not failing, f"{len(failing)} of {len(cases)}:\n" + "\n".join(failing)


@pytest.mark.parametrize("trouble", _troubles(RATIONALES))
def test_reasoning_stays_word_for_word_before_one_sentence_with_the_answer(trouble: str) -> None:
    cases = [case for case in RATIONALES if case.trouble == trouble]
    failing = []
    for case in cases:
        expected = f"{case.kept} {answer_sentence(case.asked, case.answer)}".lstrip()
        found = finish_rationale(case.output, case.asked, case.answer)
        if found != expected:
            failing.append(f"{case.output!r}:\n  expected {expected!r}\n  found    {found!r}")
    assert not failing, f"{len(failing)} of {len(cases)}:\n" + "\n".join(failing)
