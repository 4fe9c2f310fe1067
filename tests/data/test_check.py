"""What is found in questions before anything is paid for, worked out by hand."""

from pathlib import Path

import pytest

from data.check import Found, check_questions, plain_words, read_all, shared_questions
from data.readers import read_questions
from data.records import AnswerKind, Question
from data.settings import DataSource
from tests.data.published_rows import write_lines

NONE = Found(count=0, first=())


def question(name: str, text: str, answer: str | None, kind: AnswerKind = "number", dataset: str = "mine") -> Question:
    return Question(id=name, dataset=dataset, text=text, answer=answer, answer_kind=kind)


def test_rows_are_counted_by_the_kind_of_their_answer() -> None:
    found = check_questions(
        [
            question("a", "q", "5"),
            question("b", "r", "yes", "boolean"),
            question("c", "s", "7"),
            question("d", "t", None),
        ]
    )
    assert (found.rows, found.answers) == (4, {"number": 2, "boolean": 1})
    assert found.without_answer == Found(count=1, first=("d",))
    assert {found.repeated, found.contradicted, found.unreadable, found.unreadable_alone} == {NONE}


def test_texts_are_compared_without_case_white_space_and_forms_of_characters() -> None:
    assert plain_words(" Has  Ann\n½\xa0figs? ") == plain_words("has ann 1⁄2 FIGS?")
    found = check_questions(
        [
            question("a", "Has Ann figs?", "yes", "boolean"),
            question("b", "has  ann\nfigs?", "yes", "boolean"),
            question("c", "Has Ann figs?", "no", "boolean"),
            question("d", "Has Ann a fig?", "no", "boolean"),
        ]
    )
    assert found.repeated == Found(count=2, first=("b", "c"))
    assert found.contradicted == Found(count=1, first=("c",))


def test_only_the_first_ids_are_named() -> None:
    found = check_questions([question(f"q-{number}", "same", "1") for number in range(9)])
    assert found.repeated == Found(count=8, first=("q-1", "q-2", "q-3"))


def test_answers_that_are_not_read_back_are_found() -> None:
    plain = question("a", "What is 2 + 3?", "5")
    odd = question("b", "What is it?", "yes and no", "boolean")
    found = check_questions([plain, odd])
    assert found.unreadable == Found(count=1, first=("b",)) == found.unreadable_alone


def test_numbers_among_words_are_found() -> None:
    answers = ("Oslo", "1814", "yes", "9:7", "Bergen")
    found = check_questions([question(answer, answer, answer, "text") for answer in answers])
    assert found.compared_as_words == Found(count=3, first=("1814", "yes", "9:7"))


def test_questions_of_two_lists_are_the_same_by_text_or_by_id() -> None:
    first = [question("a", "one", "1"), question("b", "two", "2"), question("c", "three", "3")]
    second = [
        question("x", "ONE", "1"),
        question("b", "two", "2"),
        question("c", "four", "4"),
        question("c", "five", "5", dataset="other"),
    ]
    shared = shared_questions(first, second)
    assert shared.same_text == Found(count=2, first=("x", "b"))
    assert shared.same_id == Found(count=1, first=("c",))


def test_every_row_that_cannot_be_read_is_collected_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    lines = ['{"question": "q", "answer": 5}', "{", "3", '{"answer": 5}', '{"question": "r", "answer": "N/A"}']
    path.write_text(
        "\n".join([*lines, '{"question": "s", "answer": 7}', '{"question": "t", "answer": 7, "id": "mine-1"}'])
    )
    found = read_all(DataSource(name="jsonl", path=str(path)))
    assert [each.text for each in found.read] == ["q", "s"]
    assert found.refused == 5
    assert [error.removeprefix(f"{path}:")[:1] for error in found.errors] == ["2", "3", "4", "5", "7"]


def test_broken_rows_of_arrays_and_tables_are_collected_too(tmp_path: Path) -> None:
    array = tmp_path / "mine.json"
    array.write_text('[3,\n{"question": "q"},\n4,\n{"question": "r"}]')
    table = tmp_path / "mine.csv"
    table.write_text("question,answer\nq,1\nr\ns,2\nt,3,4\n")
    for path, refused in ((array, 2), (table, 2)):
        found = read_all(DataSource(name="jsonl", path=str(path)))
        assert (len(found.read), found.refused) == (2, refused)


def test_rows_of_a_published_set_are_collected_too(tmp_path: Path) -> None:
    row = {"ID": "a", "Body": "Ann has 3 figs.", "Question": "How many?", "Answer": 3}
    rows = [row, row | {"ID": "b", "Answer": "three or so"}, row | {"ID": "c", "Body": None}, row | {"ID": "d"}]
    path = write_lines(tmp_path / "train.jsonl", rows)
    found = read_all(DataSource(name="svamp", path=str(path)))
    assert ([each.id for each in found.read], found.refused) == (["a", "d"], 2)


def test_twenty_errors_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [{"question": "q"}, *[{"answer": 1}] * 30])
    found = read_all(DataSource(name="jsonl", path=str(path)))
    assert (len(found.read), found.refused, len(found.errors)) == (1, 30, 20)


@pytest.mark.parametrize("path", ["none.jsonl", "."])
def test_a_source_that_cannot_be_read_is_one_error(path: str) -> None:
    found = read_all(DataSource(name="jsonl", path=path))
    assert (found.read, found.refused) == ((), 1)


def test_what_can_be_read_is_what_a_run_reads(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [{"question": f"q{n}", "answer": n} for n in range(9)])
    source = DataSource(name="jsonl", path=str(path), skip=2, limit=4)
    assert list(read_all(source).read) == read_questions(source)
