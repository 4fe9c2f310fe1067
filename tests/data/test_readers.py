"""Questions of a source and imported rationales: what is chosen, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data.answers.canonical import same_answer
from data.answers.parse import parse_answer
from data.errors import ConfigError, DataError
from data.readers import read_questions, read_rationales
from data.records import Question
from data.sets import DatasetName
from data.settings import DataSource, RationaleFields
from tests.data.published_rows import (
    ADDSUB_ROW,
    AQUA_ROW,
    CSQA_HUB_ROW,
    CSQA_ROW,
    GSM8K_ROW,
    MULTIARITH_ROW,
    SINGLEEQ_ROW,
    STRATEGY_ROW,
    SVAMP_ROW,
    write_lines,
)


def test_skip_and_limit_choose_questions(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": f"q{number}", "answer": number} for number in range(10)])
    read = read_questions(DataSource(name="jsonl", path=str(path), skip=3, limit=2))
    assert [question.answer for question in read] == ["3", "4"]


def test_synthetic_questions_come_from_seed_and_split() -> None:
    whole = read_questions(DataSource(name="synthetic", split="test", limit=8, seed=2))
    assert len(whole) == 8
    assert read_questions(DataSource(name="synthetic", split="test", limit=3, skip=5, seed=2)) == whole[5:]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("svamp", '{"ID": 1', "no JSON"),
        ("svamp", "[1]", "expected one JSON object, found list"),
        ("svamp", json.dumps({key: value for key, value in SVAMP_ROW.items() if key != "Body"}), "'Body', found None"),
        ("svamp", json.dumps(SVAMP_ROW | {"Answer": "five"}), "of the kind number, found 'five'"),
        ("gsm8k", '{"question": "q", "answer": "3"}', "'#### number'"),
        ("commonsenseqa", json.dumps(CSQA_ROW | {"answerKey": "F"}), "of the kind choice, found 'F'"),
        ("commonsenseqa", json.dumps(CSQA_HUB_ROW | {"choices": ["a"]}), "choices with 'label' and 'text'"),
        (
            "commonsenseqa",
            json.dumps(CSQA_HUB_ROW | {"choices": {"label": ["B", "A"], "text": ["a", "b"]}}),
            "labelled A, B, C",
        ),
        ("strategyqa", json.dumps(STRATEGY_ROW | {"answer": "maybe"}), "of the kind boolean"),
        ("multiarith", json.dumps(MULTIARITH_ROW | {"lSolutions": [1, 2]}), "one number in 'lSolutions', found [1, 2]"),
        ("singleeq", json.dumps(SINGLEEQ_ROW | {"lSolutions": ["x"]}), "of the kind number, found 'x'"),
        ("addsub", json.dumps({"iIndex": 1, "lSolutions": [1]}), "'sQuestion' or 'question', found None"),
        ("aqua", json.dumps(AQUA_ROW | {"options": "A)1"}), "2 to 26 options, found 'A)1'"),
        ("aqua", json.dumps(AQUA_ROW | {"correct": "F"}), "of the kind choice, found 'F'"),
        ("jsonl", '{"question": "", "answer": 3}', "'question', found None"),
        ("jsonl", '{"question": "q", "answer": "a", "choices": ["a"]}', "2 to 26 choices"),
        ("jsonl", '{"question": "q", "id": "first"}', "the id 'first' is taken by"),
        ("jsonl", '{"question": "q", "answer": [1, 2]}', "of the kind text, found [1, 2]"),
        ("jsonl", '{"question": "q", "answer": NaN}', "of the kind text, found nan"),
        ("jsonl", '{"question": "q", "answer": 1e999}', "of the kind text, found inf"),
        ("jsonl", f'{{"question": "q", "answer": {"1" * 5000}}}', "no JSON: a number of 5,000 digits"),
        ("svamp", json.dumps(SVAMP_ROW | {"Answer": 10**90}).replace("1000", "1000000000000000"), "of 103 digits"),
        ("svamp", json.dumps(SVAMP_ROW | {"Answer": 1e300}), "of the kind number, found 1e+300"),
        ("jsonl", '{"question": "q", "answer": ' + "[" * 100_000, "no JSON: brackets within brackets"),
        ("jsonl", '{"question": "half of \\ud800 it"}', "half of a character"),
        ("jsonl", '{"question": "q"} {"question": "r"}', "no JSON: Extra data (column 19)"),
        ("jsonl", '{"question": "q", "answer": "a", "choices": [["b"], "a"]}', "2 to 26 choices"),
        ("jsonl", '{"question": "q", "answer": "a", "choices": [null, "a"]}', "2 to 26 choices"),
        (
            "jsonl",
            '{"question": "q", "answer": "a", "choices": ["b", "a"]}',
            "the letter of one choice and the text of",
        ),
        ("commonsenseqa", json.dumps(CSQA_HUB_ROW | {"choices": {"label": [], "text": []}}), "labelled A, B, C"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, name: DatasetName, line: str, message: str) -> None:
    first = {
        **{"svamp": SVAMP_ROW, "gsm8k": GSM8K_ROW, "commonsenseqa": CSQA_ROW, "strategyqa": STRATEGY_ROW},
        **{"multiarith": MULTIARITH_ROW, "singleeq": SINGLEEQ_ROW, "addsub": ADDSUB_ROW, "aqua": AQUA_ROW},
    }
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(first.get(name, {"question": "q", "id": "first"}) | {"ID": "0", "qid": "0"}))
    path.write_text(path.read_text() + f"\n\n{line}\n")
    with pytest.raises(DataError) as raised:
        read_questions(DataSource(name=name, path=str(path)))
    assert str(raised.value).startswith(f"{path}:3: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", ""), ("a.json", "[]"), ("a.csv", "question,answer\n")])
def test_a_file_without_questions_says_so(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=rf"{name} holds no question$"):
        read_questions(DataSource(name="jsonl", path=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DataSource(name="jsonl", path="a" * 5000), "File name too long"),
        (DataSource(name="svamp", path="no/such.jsonl"), r"data svamp: path: no/such\.jsonl is not there"),
        (DataSource(name="jsonl", path="."), "is a folder, no file"),
        (DataSource(name="csv"), "data csv: expected path"),
        (DataSource(name="synthetic"), "expected limit"),
        (DataSource(name="synthetic", limit=1, path="a.jsonl"), "path and hub mean nothing"),
        (
            DataSource(name="synthetic", limit=1, split="validation"),
            "expected one of train, dev, test|test, dev, train",
        ),
    ],
)
def test_a_source_that_cannot_be_used_is_a_configuration_error(source: DataSource, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_questions(source)


def test_a_source_with_nothing_left_is_a_configuration_error(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "q"}])
    with pytest.raises(ConfigError, match="skip: 5"):
        read_questions(DataSource(name="jsonl", path=str(path), skip=5))


def test_reading_files_needs_neither_datasets_nor_pandas() -> None:
    check = "import sys, data.readers; sys.exit(bool({'datasets', 'pandas', 'numpy', 'pyarrow'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", check], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_imported_rationales_are_joined_by_id(tmp_path: Path) -> None:
    asked = [Question(id=str(number), dataset="d", text="?", answer="7", answer_kind="number") for number in range(8)]
    path = write_lines(
        tmp_path / "r.jsonl",
        [
            {"id": "0", "rationale": "3 + 4 = 7."},
            {"id": 1, "rationale": "3 + 4 = 7.", "answer": 7.0},
            {"id": "2", "rationale": "The answer is 7.", "answer": "7"},
            {"id": "3", "rationale": "3 + 4 = 7.", "answer": 8.0},
            {"id": "4", "rationale": "The answer is 7.", "answer": "both"},
            {"id": "5", "rationale": None, "answer": 7},
            {"id": "6", "rationale": "3 + 4 = 7.", "answer": None},
            {"id": "other", "rationale": "?"},
        ],
    )
    found = read_rationales(str(path), asked, fields=RationaleFields())
    assert found == {
        "0": "3 + 4 = 7.",
        "1": "3 + 4 = 7. The answer is 7.",
        "2": "The answer is 7.",
        "3": "3 + 4 = 7. The answer is 8.",
        "4": "The answer is 7. The answer is both.",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"rationale": "r"}', "the field 'id', found rationale; rationales.fields.id says which"),
        ('{"id": 1}', "the field 'rationale', found id; rationales.fields.rationale says which"),
        ('{"id": "", "rationale": "r"}', "an id in the field 'id', found ''"),
        ('{"id": 1, "rationale": "r"}\n{"id": 1, "rationale": "r"}', "a second rationale"),
        ("{", "no JSON"),
        ('{"id": 1, "rationale": ["r"]}', "expected text in the field 'rationale'"),
        ('{"id": 1, "rationale": "r", "answer": NaN}', "expected an answer, found nan"),
        ('{"id": 1, "rationale": "r", "answer": [7]}', "expected an answer, found"),
    ],
)
def test_broken_rationale_files_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(line)
    asked = [Question(id="1", dataset="d", text="?", answer="7", answer_kind="number")]
    with pytest.raises(DataError, match=rf"r\.jsonl:\d: .*{message}"):
        read_rationales(str(path), asked, fields=RationaleFields())


def test_the_fields_of_a_rationale_file_have_the_names_that_are_configured(tmp_path: Path) -> None:
    asked = [Question(id=str(number), dataset="d", text="?", answer="7", answer_kind="number") for number in range(2)]
    rows = [{"ID": 0, "why": "3 + 4 = 7.", "said": 8, "answer": 7}, {"ID": 1, "why": "So 7.", "rationale": "none"}]
    path = str(write_lines(tmp_path / "r.jsonl", rows))
    named = RationaleFields(id="ID", rationale="why", answer="said")
    assert read_rationales(path, asked, fields=named) == {"0": "3 + 4 = 7. The answer is 8.", "1": "So 7."}
    with pytest.raises(DataError, match=r"r\.jsonl:1: expected the field 'id', found ID, why, said, answer; rat"):
        read_rationales(path, asked, fields=RationaleFields())


def test_an_answer_field_that_was_named_and_is_in_no_row_is_a_configuration_error(tmp_path: Path) -> None:
    asked = [Question(id="0", dataset="d", text="?", answer="7", answer_kind="number")]
    path = write_lines(tmp_path / "r.jsonl", [{"id": "0", "rationale": "So 7."}])
    assert read_rationales(str(path), asked, fields=RationaleFields()) == {"0": "So 7."}
    with pytest.raises(ConfigError, match=r"^rationales\.fields\.answer: .*'said', no row of .* found id, rationale$"):
        read_rationales(str(path), asked, fields=RationaleFields(answer="said"))


def test_a_missing_rationale_file_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"rationales\.path: no/such\.jsonl is not there"):
        read_rationales("no/such.jsonl", [], fields=RationaleFields())


SVAMP_PALM = RationaleFields(id="ID", rationale="palm_rationale", answer="palm_value")
CQA_PALM = RationaleFields(rationale="palm_rationale", answer="palm_label")


def judged(questions: list[Question], rationales: dict[str, str]) -> dict[str, bool]:
    """Which imported rationales reach the gold answer."""
    return {
        question.id: same_answer(parse_answer(rationales[question.id], question) or "", question.answer or "", kind)
        for question in questions
        if question.id in rationales and (kind := question.answer_kind)
    }


def palm_correct(path: Path, key: str) -> set[str]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return {row[key] for row in rows if row["palm_correct"]}


def test_palm_rationales_of_svamp_are_judged_as_published(benchmark_data: Path) -> None:
    questions = [
        question
        for split in ("train", "test")
        for question in read_questions(
            DataSource(name="svamp", path=str(benchmark_data / "svamp" / f"chilled_{split}.jsonl"))
        )
    ]
    path = benchmark_data / "palm_rationales" / "svamp_palm_joined.jsonl"
    verdicts = judged(questions, read_rationales(str(path), questions, fields=SVAMP_PALM))
    assert len(verdicts) == 959  # the other 41 have no rationale or no answer
    assert {identifier for identifier, right in verdicts.items() if right} == palm_correct(path, "ID")
    assert sum(verdicts.values()) == 733


def test_palm_rationales_of_commonsenseqa_are_judged_as_published_but_for_capitals(benchmark_data: Path) -> None:
    questions = [
        question
        for split in ("train", "dev")
        for question in read_questions(
            DataSource(name="commonsenseqa", path=str(benchmark_data / "commonsenseqa" / f"{split}_rand_split.jsonl"))
        )
    ]
    path = benchmark_data / "palm_rationales" / "cqa_palm_joined.jsonl"
    verdicts = judged(questions, read_rationales(str(path), questions, fields=CQA_PALM))
    published = palm_correct(path, "id")
    assert len(published) == 8177
    assert len(verdicts) == 10962 - 3  # three have no answer
    right = {identifier for identifier, verdict in verdicts.items() if verdict}
    assert published <= right
    assert len(right - published) == 119  # "Canada" for the choice "canada", "trunk," for "trunk"
