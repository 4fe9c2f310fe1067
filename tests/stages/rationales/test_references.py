"""Which rationales students are measured by: judged like those they learn from, and never those themselves."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import ConfigError, DataError
from data.readers import read_questions
from data.records import Question
from data.settings import DataSource, RationaleFields
from stages.rationales.references import References, find_references
from stages.settings import RationaleSettings, ReferenceSettings

VLLM = RationaleSettings()


def question(number: int, answer: str = "7", reference: str | None = None) -> Question:
    text = f"Ann has {number} figs and finds more. How many?"
    return Question(
        id=f"q-{number}", dataset="svamp", text=text, answer=answer, answer_kind="number", reference=reference
    )


def write(path: Path, rows: Sequence[object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_file_that_training_reads_gives_what_the_judge_keeps(tmp_path: Path) -> None:
    rows = [
        {"id": "q-1", "rationale": "3 + 4 = 7. So the answer is 7."},
        {"id": "q-2", "rationale": "3 + 5 = 8.", "answer": 8},
        {"id": "q-3", "rationale": "The answer is 7."},
        {"id": "q-4", "rationale": None},
        {"id": "q-6", "rationale": "3 + 4 = 7.", "answer": "7"},
    ]
    file = RationaleSettings(engine="file", path=write(tmp_path / "r.jsonl", rows))
    asked = [question(number) for number in range(1, 7)]
    found = find_references(asked, [question(9)], None, file)
    assert found.texts == (
        "3 + 4 = 7. The answer is 7.",  # finished
        None,  # wrong
        None,  # says nothing but the answer
        None,
        None,  # not there
        "3 + 4 = 7. The answer is 7.",  # the answer stands in a field of its own
    )
    assert (found.count, found.problem) == (2, "")


def test_an_id_that_training_questions_have_too_is_theirs(tmp_path: Path) -> None:
    """Rows without ids of their own are called by their numbers, in training and test alike."""
    file = RationaleSettings(
        engine="file", path=write(tmp_path / "r.jsonl", [{"id": f"q-{n}", "rationale": "3 + 4 = 7."} for n in (1, 2)])
    )
    found = find_references([question(1), question(2)], [question(1)], None, file)
    assert [text is None for text in found.texts] == [True, False]


def test_a_question_of_another_data_set_has_that_sets_solution_and_nothing_of_the_file(tmp_path: Path) -> None:
    """The file may have its id, and by chance its answer."""
    rows = [{"id": f"q-{n}", "rationale": "3 + 4 = 7."} for n in (1, 2, 3)]
    file = RationaleSettings(engine="file", path=write(tmp_path / "r.jsonl", rows))
    others = [replace(question(2, reference="2 and 5 make 7."), dataset="gsm8k"), replace(question(3), dataset="asdiv")]
    found = find_references([question(1), *others], [question(9)], None, file)
    assert found.texts == ("3 + 4 = 7. The answer is 7.", "2 and 5 make 7. The answer is 7.", None)


def test_a_file_for_training_with_a_row_that_cannot_be_told_gives_none_and_says_why(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [{"id": "q-1", "rationale": "3 + 4 = 7."}] * 2)
    found = find_references([question(1)], [question(9)], None, RationaleSettings(engine="file", path=path))
    assert found.texts == (None,) and "a second rationale for question 'q-1'" in found.problem


def test_a_file_that_is_named_goes_first_with_its_own_fields(tmp_path: Path) -> None:
    rows = [{"ID": "q-1", "why": "3 + 4 = 7."}]
    named = ReferenceSettings(
        path=write(tmp_path / "own.jsonl", rows), fields=RationaleFields(id="ID", rationale="why")
    )
    asked = [question(1, reference="1 and 6 make 7."), question(2, reference="2 and 5 make 7.")]
    found = find_references(asked, asked, named, VLLM)
    assert found == References(texts=("3 + 4 = 7. The answer is 7.", None))


def test_what_is_wrong_with_a_file_that_is_named_is_said_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^evaluation\.references\.path: there is no file none\.jsonl"):
        find_references([question(1)], [], ReferenceSettings(path="none.jsonl"), VLLM)
    path = write(tmp_path / "own.jsonl", [{"ID": "q-1"}])
    with pytest.raises(DataError, match=r"evaluation\.references\.fields\.id says which"):
        find_references([question(1)], [], ReferenceSettings(path=path), VLLM)
    path = write(tmp_path / "own.jsonl", [{"id": "q-1", "rationale": "3 + 4 = 7."}])
    with pytest.raises(ConfigError, match=r"^evaluation\.references\.fields\.answer: "):
        find_references([question(1)], [], ReferenceSettings(path=path, fields=RationaleFields(answer="said")), VLLM)


def test_the_solutions_of_a_data_set_are_references_where_no_file_is_read() -> None:
    found = find_references([question(1, reference="1 and 6 make 7."), question(2)], [], None, VLLM)
    assert found.texts == ("1 and 6 make 7. The answer is 7.", None)


def test_most_of_svamp_s_test_questions_and_all_of_gsm8k_s_have_one(benchmark_data: Path) -> None:
    source = DataSource(name="svamp", path=str(benchmark_data / "svamp" / "chilled_test.jsonl"))
    training = DataSource(name="svamp", path=str(benchmark_data / "svamp" / "chilled_train.jsonl"))
    file = RationaleSettings(
        engine="file",
        path=str(benchmark_data / "palm_rationales" / "svamp_palm_joined.jsonl"),
        fields=RationaleFields(id="ID", rationale="palm_rationale", answer="palm_value"),
    )
    questions = read_questions(source)
    found = find_references(questions, read_questions(training), None, file)
    assert len(questions) == 300 and found.problem == "" and 200 < found.count < 300
    gsm8k = read_questions(DataSource(name="gsm8k", path=str(benchmark_data / "gsm8k" / "test.jsonl"), limit=200))
    assert find_references(gsm8k, [], None, VLLM).count >= 198
