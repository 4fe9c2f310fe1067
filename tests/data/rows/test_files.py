"""Files of every form, and what is said of those that are broken."""

from pathlib import Path

import pytest

from data.errors import DataError
from data.readers import read_questions
from data.settings import DataSource
from tests.data.published_rows import (
    read_one,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<Set>\n<Problem", r"ASDiv\.xml:2: no XML: unclosed token"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>\n<Set/>", r"ASDiv\.xml:1: .*no document type declaration"),
        ("<Set>\n<Problem><Body>B.</Body></Problem></Set>", r"ASDiv\.xml:2: .*'Question' or 'question', found None"),
    ],
)
def test_a_broken_xml_file_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ASDiv.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_questions(DataSource(name="asdiv", path=str(path)))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[\n{"question": "q"},\n{"question" "r"}\n]', 3),
        ('[\n{"question": "q"}\n{"question": "r"}\n]', 2),
        ('[\n{"question": "q"},\n3\n]', 3),
        ('[\n{"question": "q"},\n', 3),
        ('{"question": "q"}\n{"question"', 2),
        ('[\n{"question": "q"}\n]\n[{"question": "r"}]', 4),
        (f'[\n{{"question": "q"}},\n{"[" * 100_000}', 3),
        (f'[\n{{"question": "q"}},\n{{"question": "q", "answer": {"1" * 5000}}}]', 3),
    ],
)
def test_a_broken_array_is_named_by_line(tmp_path: Path, content: str, line: int) -> None:
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"some\.json:{line}: "):
        read_questions(DataSource(name="jsonl", path=str(path)))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("question,answer\nq,1\nq,1,2\n", 3),
        ("question,answer\nq\n", 2),
        ('question,answer\n"q"x,1\n', 2),
        ("question,answer,question\nq,1,r\n", 1),
    ],
)
def test_a_broken_table_is_named_by_line(tmp_path: Path, content: str, line: int) -> None:
    path = tmp_path / "some.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"some\.csv:{line}: "):
        read_questions(DataSource(name="csv", path=str(path)))


def test_bytes_that_are_no_text_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(b'{"question": "q"}\n{"question": "\xff"}\n')
    with pytest.raises(DataError, match=r"some\.jsonl:2: expected UTF-8, found the byte 0xff"):
        read_questions(DataSource(name="jsonl", path=str(path)))


def test_a_table_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("question,answer\nq,1\n")
    assert read_one("csv", path).answer == "1"
