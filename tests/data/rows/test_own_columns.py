"""Columns of a user's own file that go by other names: each is refused by name, and none is read as no answer."""

import json
from pathlib import Path

import pytest

from data.errors import DataError
from data.readers import read_questions
from data.records import Question
from data.settings import DataSource
from tests.data.published_rows import write_lines


def read(path: Path) -> list[Question]:
    return read_questions(DataSource(name="csv" if path.suffix == ".csv" else "jsonl", path=str(path)))


def refused(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        read(path)
    return str(raised.value)


@pytest.mark.parametrize(
    "header",
    [
        "question, answer",
        " question ,answer ",
        '"question","answer"',
        'question, "answer"',
        "'question','answer'",
        "\ufeffquestion,answer",
        "\ufeff\ufeff question,\ufeffanswer",
        "question,\xa0answer",
    ],
)
def test_what_stands_around_the_name_of_a_column_is_left_out(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\nq, 5\n")
    assert [(question.text, question.answer) for question in read(path)] == [("q", "5")]


def test_cells_behind_blanks_may_be_quoted_where_names_have_blanks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question, answer\n"One, two?", "1,200"\n')
    assert [(question.text, question.answer) for question in read(path)] == [("One, two?", "1200")]


def test_keys_of_json_are_bare_names_too(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{" question": "q", "answer ": 5, "id": 1}])
    assert [(question.id, question.text, question.answer) for question in read(path)] == [("1", "q", "5")]
    twice = write_lines(tmp_path / "b.jsonl", [{"question": "q", "answer": 5, "answer ": 6}])
    assert "b.jsonl:1: two fields have the same name but for blanks or quotes" in refused(twice)


@pytest.mark.parametrize(
    "column",
    [
        *("Answer", "ANSWER", "answers", "label", "Label", "target", "gold", "output", "solution", "response"),
        *("Correct Answer", "final_answer", "ground-truth", "answerKey"),
    ],
)
def test_an_answer_under_another_name_is_refused_by_name(tmp_path: Path, column: str) -> None:
    lines = write_lines(tmp_path / "a.jsonl", [{"question": "q", column: "5"}, {"question": "r", column: "6"}])
    table = tmp_path / "a.csv"
    table.write_text(f"question,{column}\nq,5\n")
    expected = (
        f"found the column {column!r}, expected 'answer': rename it, or add an empty 'answer' where there is no label"
    )
    assert refused(lines) == f"data jsonl: {lines}: {expected}"
    assert refused(table) == f"data csv: {table}: {expected}"


@pytest.mark.parametrize("column", ["Question", "input", "problem", "prompt", "body", "instruction", "text"])
def test_a_question_under_another_name_is_refused_by_name(tmp_path: Path, column: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{column: "q", "answer": "5"}])
    assert refused(path) == f"data jsonl: {path}: found the column {column!r}, expected 'question': rename it"


@pytest.mark.parametrize("column", ["options", "Choices", "answer_choices", "Answer Choices", "choice"])
def test_choices_under_another_name_are_refused_and_no_letter_becomes_a_text(tmp_path: Path, column: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "q", "answer": "B", column: ["a", "b"]}])
    assert f"found the column {column!r}, expected 'choices': rename it" in refused(path)


@pytest.mark.parametrize(
    "columns",
    [("A", "B", "C"), ("option1", "option2"), ("choice_a", "choice_b"), ("opa", "opb", "opc"), ("sol1", "sol2")],
)
def test_choices_in_columns_of_their_own_are_refused(tmp_path: Path, columns: tuple[str, ...]) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "q", "answer": "B"} | dict.fromkeys(columns, "x")])
    shown = f"found the columns {columns[0]!r} and {columns[1]!r}, expected one column 'choices'"
    assert f"{shown}, where a | stands between them" in refused(path)


def test_all_wrong_names_are_said_at_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"instruction": "add", "input": "2 2", "output": "4", "ID": 1}])
    problems = refused(path).removeprefix(f"data jsonl: {path}: ").split("; ")
    assert problems == [
        "found the columns 'instruction' and 'input', expected 'question': rename it",
        "found the column 'output', expected 'answer': rename it, or add an empty 'answer' where there is no label",
        "found the column 'ID', expected 'id': rename it",
    ]


def test_a_column_beside_the_right_one_means_nothing(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "5", "label": "algebra", "solution": "2 + 3", "options": None, "choices": None}
    assert read(write_lines(tmp_path / "a.jsonl", [row]))[0].answer == "5"
    without_label = {"question": "q", "answer": None, "label": "algebra", "body": "x"}
    assert read(write_lines(tmp_path / "b.jsonl", [without_label]))[0].answer is None


def test_rows_of_two_forms_in_one_file_are_named_by_line(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": 5}, {"question": "r", "Answer": 6}, {"question": "s"}]
    path = write_lines(tmp_path / "a.jsonl", rows)
    assert refused(path).startswith(f"{path}:2: found the column 'Answer', expected 'answer'")


def test_a_file_without_answers_and_anything_like_them_is_one_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,topic\nq,algebra\nr,sums\n")
    assert [question.answer for question in read(path)] == [None, None]


def test_a_file_without_questions_names_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("What is 2 + 2?,4\nWhat is 3 + 3?,6\n")
    assert refused(path) == f"data csv: {path}: expected the column 'question', found 'What is 2 + 2?', '4'"


def test_what_is_found_is_not_shown_at_any_length(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{f"column {n}": n for n in range(1000)}])
    assert refused(path).endswith(
        "found 'column 0', 'column 1', 'column 2', 'column 3', 'column 4', 'column 5', 'column 6', 'column 7', …"
    )
    long = write_lines(tmp_path / "b.jsonl", [{"question": "q", "answer": n} for n in (1, 2, "x" * 100_000)])
    assert len(refused(long)) < 600
    widest = write_lines(tmp_path / "c.jsonl", [{"question": "q", "x" * 100_000: 1, "y" * 100_000: 2, "answer": ["x"]}])
    assert len(refused(widest)) < 600


def test_one_row_without_question_is_named_by_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "q", "answer": 1}, {"answer": 2}])
    assert refused(path) == f"{path}:2: expected text in the field 'question', found None"


def test_the_first_five_rows_that_are_refused_are_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "q"}, *({"answer": number} for number in range(9))])
    *lines, more = refused(path).splitlines()
    assert more == "  there may be more; `molsaki data check CONFIG` lists them"
    assert [line.partition(": ")[0] for line in lines] == [f"{path}:{number}" for number in range(2, 7)]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("question;answer\nq;3,5\n", "found semicolons: save it with commas"),
        ("question\tanswer\nq\t3\n", "found tabs: let its name end in .tsv"),
        ("question|answer\nq|3\n", "found upright strokes: save it with commas"),
        ('"question,answer"\n"q,3"\n', "found quotes around all of them: save it with commas"),
    ],
)
def test_a_table_that_is_apart_by_something_else_is_refused_by_it(tmp_path: Path, content: str, found: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    header = content.splitlines()[0].strip('"')
    shown = f"{path}:1: the header is one column, {header!r}; expected commas between columns, {found}"
    assert refused(path) == shown


def test_a_file_of_tabs_is_read_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('id\tquestion\tanswer\nx\tOne, two?\t"1,200"\ny\tr\t3\n')
    assert [(q.id, q.text, q.answer) for q in read(path)] == [("x", "One, two?", "1200"), ("y", "r", "3")]
    path.write_text("question,answer\nq,3\n")
    assert "expected tabs between columns, found commas" in refused(path)


def test_a_published_set_may_have_columns_that_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"qid": "1", "question": "Is it?", "Answer": "x", "answer": True, "term": "it"}))
    assert read_questions(DataSource(name="strategyqa", path=str(path)))[0].answer == "yes"
