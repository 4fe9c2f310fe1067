"""A user's own files, JSON Lines and tables."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from data.dataset import is_right
from data.errors import ConfigError, DataError
from data.readers import read_questions
from data.sets import DatasetName
from data.settings import DataSource, OwnKind
from tests.data.published_rows import CSQA_TEXT, read_one, write_lines


@pytest.mark.parametrize(
    ("answers", "kind", "canonical"),
    [
        (["1,000", 3.5, "-2"], "number", ["1000", "3.5", "-2"]),
        (["yes", "False", True], "boolean", ["yes", "no", "yes"]),
        (["yes", 3, "Oslo."], "text", ["yes", "3", "Oslo"]),
        ([None, 4], "number", [None, "4"]),
        ([None], "text", [None]),
    ],
)
def test_answers_of_a_users_file_tell_their_kind(
    tmp_path: Path, answers: list[object], kind: str, canonical: list[str | None]
) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [{"question": "What?", "answer": answer} for answer in answers])
    read = read_questions(DataSource(name="jsonl", path=str(path)))
    assert [question.answer for question in read] == canonical
    assert {question.answer_kind for question in read} == {kind}


def test_rows_without_id_are_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "a", "answer": 1}\n\n{"question": "b", "answer": 2, "id": 7}\n{"question": "c"}\n')
    read = read_questions(DataSource(name="jsonl", path=str(path)))
    assert [(question.id, question.dataset) for question in read] == [
        ("mine-1", "mine"),
        ("7", "mine"),
        ("mine-4", "mine"),
    ]


def test_choices_of_a_users_file_may_be_a_list_or_one_text(tmp_path: Path) -> None:
    lines = write_lines(
        tmp_path / "a.jsonl", [{"question": "Where does bread bake?", "answer": "oven", "choices": ["pond", "oven"]}]
    )
    table = tmp_path / "b.csv"
    table.write_text("id,question,answer,choices\nx,Where does bread bake?,b,pond | oven\n")
    for question in (read_one("jsonl", lines), read_one("csv", table)):
        assert (question.text, question.answer, question.choices) == (CSQA_TEXT, "B", ("pond", "oven"))


def test_csv_with_line_breaks_quotes_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes('question,answer\r\n"Two\r\nlines, ""so""?",3\r\nOne?,4\r\n'.encode("utf-8-sig"))
    read = read_questions(DataSource(name="csv", path=str(path)))
    assert [(question.text, question.answer, question.id) for question in read] == [
        ('Two\nlines, "so"?', "3", "mine-3"),
        ("One?", "4", "mine-4"),
    ]


def own(path: Path, labels: Sequence[object]) -> Path:
    return write_lines(path, [{"question": f"What is {n}?", "answer": label} for n, label in enumerate(labels)])


def refused(path: Path, kind: OwnKind | None = None) -> list[str]:
    with pytest.raises(DataError) as raised:
        read_questions(DataSource(name="jsonl", path=str(path), kind=kind))
    return str(raised.value).splitlines()


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([1, 2], "number"),
        ([1, "2", "9:7", "8; 128"], "numbers"),
        (["9:7", "8; 128"], "numbers"),
        (["yes", "no"], "boolean"),
        (["Oslo", "Bergen", "1814"], "text"),
        (["Oslo", 1814], "text"),  # half and half: what more than half are is neither
        (["Ann", "yes", 3], "text"),
    ],
)
def test_the_kind_is_the_narrowest_that_labels_have_in_common(tmp_path: Path, labels: list[object], kind: str) -> None:
    read = read_questions(DataSource(name="jsonl", path=str(own(tmp_path / "a.jsonl", labels))))
    assert {question.answer_kind for question in read} == {kind}


def test_one_odd_label_among_numbers_is_refused_and_makes_no_text_of_the_others(tmp_path: Path) -> None:
    path = own(tmp_path / "a.jsonl", ["1,200", 5, "N/A", 7])
    assert refused(path) == [
        f"{path}:3: the answer 'N/A' is no number, as 3 of the 4 answers are: correct it, leave it empty where "
        "there is no label, or set kind: text for this source"
    ]
    read = read_questions(DataSource(name="jsonl", path=str(own(tmp_path / "b.jsonl", ["1,200", 5, None, "", 7]))))
    assert [question.answer for question in read] == ["1200", "5", None, None, "7"]
    assert is_right("1200", read[0])


def test_up_to_five_odd_labels_are_named(tmp_path: Path) -> None:
    path = own(tmp_path / "a.jsonl", [*range(20), *(f"unknown {number}" for number in range(7))])
    assert [line.split(": ")[:2] for line in refused(path)[:-1]] == [
        [f"{path}:{21 + number}", f"the answer 'unknown {number}' is no number, as 20 of the 27 answers are"]
        for number in range(5)
    ]


def test_an_odd_label_among_yes_and_no_is_refused(tmp_path: Path) -> None:
    (line,) = refused(own(tmp_path / "a.jsonl", ["yes", "no", "maybe", True]))
    assert "a.jsonl:3: the answer 'maybe' is neither yes nor no, as 3 of the 4 answers are" in line


def test_a_few_ratios_among_numbers_are_refused_and_the_kind_that_takes_them_is_named(tmp_path: Path) -> None:
    path = own(tmp_path / "a.jsonl", [*range(19), "9:7"])
    (line,) = refused(path)
    assert line.startswith(f"{path}:20: the answer '9:7' is no number, as 19 of the 20 answers are")
    assert line.endswith("or set kind: numbers for this source")
    read = read_questions(DataSource(name="jsonl", path=str(path), kind="numbers"))
    assert read[-1].answer == "9:7" and {question.answer_kind for question in read} == {"numbers"}


def test_the_kind_that_a_source_says_counts_for_all_labels(tmp_path: Path) -> None:
    path = own(tmp_path / "a.jsonl", [5, 7, "Oslo"])
    read = read_questions(DataSource(name="jsonl", path=str(path), kind="text"))
    assert [(question.answer, question.answer_kind) for question in read] == [
        ("5", "text"),
        ("7", "text"),
        ("Oslo", "text"),
    ]
    assert refused(path, "number") == [f"{path}:3: expected an answer of the kind number, found 'Oslo'"]
    assert len(refused(path, "boolean")) == 3


def test_choices_have_a_kind_of_their_own_whatever_the_source_says(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "B", "choices": ["1", "2"]}, {"question": "r", "answer": 4}]
    path = write_lines(tmp_path / "a.jsonl", rows)
    for kind in (None, "number"):
        read = read_questions(DataSource(name="jsonl", path=str(path), kind=kind))  # type: ignore[arg-type]
        assert [(question.answer, question.answer_kind) for question in read] == [("B", "choice"), ("4", "number")]


@pytest.mark.parametrize("name", ["svamp", "synthetic"])
def test_other_sets_say_themselves_what_their_answers_are(name: DatasetName) -> None:
    with pytest.raises(ConfigError, match="kind"):
        read_questions(DataSource(name=name, kind="text", limit=1))
