"""A user's own files, JSON Lines and tables."""

from pathlib import Path

import pytest

from data.readers import read_questions
from data.settings import DataSource
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
