"""Gold answers written in ten ways are read back: all of the four benchmarks, and rows of the other sets."""

from pathlib import Path
from string import ascii_uppercase

import pytest

from data.answers.numbers import number_text, number_value
from data.answers.parse import parse_answer
from data.dataset import is_right
from data.readers import read_questions
from data.records import Question
from data.sets import DatasetName
from data.settings import DataSource
from tests.ways_of_answering import WAYS, spelled

FILES: dict[DatasetName, tuple[str, ...]] = {
    "svamp": ("chilled_train.jsonl", "chilled_test.jsonl"),
    "gsm8k": ("train.jsonl", "test.jsonl"),
    "commonsenseqa": ("train_rand_split.jsonl", "dev_rand_split.jsonl"),
    "strategyqa": ("train.json", "dev.json"),
}
ANSWERS = {"svamp": 10_000, "gsm8k": 87_920, "commonsenseqa": 109_620, "strategyqa": 22_900}


def unread(questions: list[Question]) -> list[tuple[str, str]]:
    """Question and output, for every way in which a gold answer is not read back."""
    outputs = [(question, way(question)) for question in questions for way in WAYS[question.answer_kind]]
    assert len(outputs) == 10 * len(questions)
    return [
        (question.id, output) for question, output in outputs if not is_right(parse_answer(output, question), question)
    ]


def other(question: Question) -> Question:
    """The question as if another answer were the gold one."""
    match question.answer_kind:
        case "choice":
            place = ascii_uppercase.index(question.answer or "A")
            answer = ascii_uppercase[(place + 1) % len(question.choices)]
        case "boolean":
            answer = "no" if question.answer == "yes" else "yes"
        case _:
            answer = number_text((number_value(question.answer or "") or 0) + 1)
    return Question(**{**question.__dict__, "answer": answer})


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FILES))
def test_a_gold_answer_is_read_back_from_each_of_ten_ways_of_writing_it(
    benchmark_data: Path, name: DatasetName
) -> None:
    paths = [benchmark_data / name / file for file in FILES[name]]
    questions = [each for path in paths for each in read_questions(DataSource(name=name, path=str(path)))]
    assert 10 * len(questions) == ANSWERS[name]
    assert unread(questions) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FILES))
def test_another_answer_is_never_taken_for_the_gold_one(benchmark_data: Path, name: DatasetName) -> None:
    path = benchmark_data / name / FILES[name][-1]
    for question in read_questions(DataSource(name=name, path=str(path))):
        told_apart = len(set(question.choices)) == len(question.choices)
        for way in WAYS[question.answer_kind] if told_apart else ():
            assert not is_right(parse_answer(way(other(question)), question), question)


def number(answer: str, benchmark: str) -> Question:
    return Question(
        id=answer,
        dataset=benchmark,
        text="How many?",
        answer=answer,
        answer_kind="number",
        benchmark=benchmark,  # type: ignore[arg-type]
    )


def aqua(choices: tuple[str, ...], answer: str) -> Question:
    return Question(
        id=choices[0],
        dataset="aqua",
        text="Which?",
        answer=answer,
        answer_kind="choice",
        choices=choices,
        benchmark="aqua",
    )


ROWS = [
    *(number(answer, "multiarith") for answer in ("0", "7", "39", "1200", "1000001")),
    *(number(answer, "addsub") for answer in ("4.25", "0.08", "10.666666666666666")),
    *(number(answer, "singleeq") for answer in ("0.9166666666666666", "7750", "-3", "2400000")),
    *(number(answer, "asdiv") for answer in ("16.3", "9.4", "0.125", "2/3", "-0.5")),
    aqua(("$61", "$65", "$67.40", "$70", "$78.20"), "E"),
    aqua(("24 minutes", "32 minutes", "36 minutes", "64 minutes", "72 minutes"), "C"),
    aqua(("-30", "+30", "0", "15", "-15"), "B"),
    aqua(("15.38%", "42%", "39.86%", "22.35%", "32.51%"), "A"),
    aqua(("5(√3 + 1)", "6(√3 + √2)", "7(√3 – 1)", "8(√3 – 2)", "None of these"), "C"),
    aqua(("2!", "3!", "7!", "8!", "9!"), "C"),
    aqua(("(zy – 2x)/z", "(zy – 2)/z", "(zx – y)/(z – 2)", "(zy – 2x)/(z -2)", "(zy – x)/(z + 2)"), "D"),
    aqua(("(99,10)", "(85,9)", "(50,7)", "(1,1)", "(1,0)"), "D"),
    aqua(("1/2", "3/4", "1/4", "2/3", "5/6"), "B"),
    aqua(("4,000", "4,200", "4,500", "4,800", "5,000"), "A"),
    aqua(("2 : 3", "3 : 2", "5 : 3", "1 : 3", "2 : 1"), "B"),
]


@pytest.mark.parametrize("question", ROWS, ids=lambda question: f"{question.dataset}-{question.id}")
def test_rows_like_those_of_the_other_sets_are_read_back(question: Question) -> None:
    assert unread([question]) == []


def test_numbers_are_spelled_as_people_do() -> None:
    assert [spelled(value) for value in (0, 21, 105, 2300, -1_000_001)] == [
        "zero",
        "twenty-one",
        "one hundred and five",
        "two thousand three hundred",
        "minus one million one",
    ]


@pytest.mark.slow
def test_gsm8k_solutions_without_their_last_line_give_their_answer_but_for_one_in_a_hundred(
    benchmark_data: Path,
) -> None:
    read, count = 0, 0
    for file in FILES["gsm8k"]:
        for question in read_questions(DataSource(name="gsm8k", path=str(benchmark_data / "gsm8k" / file))):
            read += is_right(parse_answer(question.reference or "", question), question)
            count += 1
    assert (read, count) == (8726, 8792)
