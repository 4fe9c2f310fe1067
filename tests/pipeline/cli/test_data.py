"""`molsaki data check`: what is said of questions, and how it ends."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.main import molsaki
from tests.data.published_rows import write_lines
from tests.fakes import tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path


def configure(folder: Path, train: Sequence[Mapping[str, object]], test: Sequence[Mapping[str, object]] = ()) -> None:
    """Write the questions and the configuration that names them."""
    write_lines(folder / "train.jsonl", train)
    data: dict[str, object] = {"train": [{"name": "jsonl", "path": "train.jsonl"}]}
    if test:
        write_lines(folder / "test.jsonl", test)
        data["test"] = [{"name": "jsonl", "path": "test.jsonl"}]
    model = {"model": "./model"}
    (folder / "run.yaml").write_text(json.dumps({"name": "mine", "data": data, "teacher": model, "student": model}))


def check(*arguments: str) -> Result:
    return CliRunner().invoke(molsaki, ["data", "check", "run.yaml", "--quiet", *arguments])


def said(result: Result) -> str:
    """What was said, each sentence on one line."""
    return " ".join(result.stdout.split())


GOOD = [{"question": f"Ann has {n} figs and eats 1. How many are left?", "answer": n - 1} for n in range(2, 8)]


def test_questions_without_fault_are_said_to_be_so(folder: Path) -> None:
    configure(folder, GOOD, [{"question": "What is 2 + 2?", "answer": 4}])
    result = check()
    assert result.exit_code == 0, result.output
    assert "train train.jsonl 6 6 number" in said(result) and "test test.jsonl 1 1 number" in said(result)
    assert "predict (student)" in result.stdout
    assert "Nothing to mend: every row is read" in result.stdout
    assert result.stderr == ""


def test_every_finding_has_a_sentence_that_says_what_to_do(folder: Path) -> None:
    train = [
        *GOOD,
        GOOD[0] | {"id": "again"},
        GOOD[1] | {"id": "other", "answer": 99},
        {"question": "Who is it?", "id": "none"},
    ]
    test = [{"question": GOOD[0]["question"], "answer": 1, "id": "leak"}]
    configure(folder, train, test)
    result = check("--set", "student.max_length=60")
    assert result.exit_code == 0
    text = said(result)
    assert "train train.jsonl: 1 question (none) without answer: they are never asked" in text
    assert "2 questions (again, other) with the text of an earlier one: a text is asked and learned from once" in text
    assert "1 question (other) of these with another answer than before: correct one of the two" in text
    assert "test: 1 question (leak) that stand in train too: what is measured on them was learned" in text
    assert "explain* (student): all 8 questions with more than 60 tokens: they are left out; raise student.max" in text
    assert "Nothing to mend" not in text


def test_answers_that_nobody_can_give_are_named(folder: Path) -> None:
    solution = "She has 3 figs.\nThen she has 2 more.\nSo there are 5. #### 5"
    configure(folder, [{"question": f"How many are {n}?", "answer": solution} for n in range(2)])
    text = said(check())
    assert (
        "all 2 questions whose answer is not read from the sentence that states it, nor where it stands alone: " in text
    )


def test_numbers_in_a_file_of_words_are_named(folder: Path) -> None:
    labels = ("Oslo", "Bergen", "Troms", "1,814")
    configure(folder, [{"question": f"What is {label[:2]}?", "answer": label, "id": label} for label in labels])
    assert "1 question (1,814) whose answer looks like a number, or like yes or no, in a file of words" in said(check())


def test_the_text_keeps_to_eighty_columns(folder: Path) -> None:
    configure(folder, [{"question": "Who is it?", "answer": "Ann", "id": f"{'long' * 20}-{n}"} for n in range(4)], GOOD)
    result = check("--set", "data.dev=[{name: jsonl, path: a-name-that-is-longer-than-there-is-room-for.jsonl}]")
    assert result.exit_code == 2
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_rows_that_cannot_be_read_are_all_named_after_everything_else(folder: Path) -> None:
    configure(folder, [*GOOD, *({"question": f"q{n}", "answer": "N/A"} for n in range(5))])
    result = check()
    assert result.exit_code == 2
    assert "train train.jsonl 6 6 number 5" in said(result)
    assert "5 rows cannot be read; the errors below say why" in said(result)
    errors = result.stderr.splitlines()
    assert [error.split(": the answer")[0] for error in errors] == [f"error: train.jsonl:{n}" for n in range(7, 12)]


def test_many_rows_that_cannot_be_read_are_counted(folder: Path) -> None:
    configure(folder, [{"question": "q"}, *[{"answer": 1}] * 30])
    errors = check().stderr.splitlines()
    assert len(errors) == 21 and errors[-1] == "  and 10 more rows of train.jsonl"


def test_a_file_that_is_not_there_does_not_hide_the_others(folder: Path) -> None:
    configure(folder, GOOD)
    result = check("--set", "data.test=[{name: jsonl, path: none.jsonl}]")
    assert result.exit_code == 2
    assert "train train.jsonl 6 6 number" in said(result)
    assert "test none.jsonl: nothing of it can be read" in said(result)
    assert result.stderr == "error: data jsonl: path: none.jsonl is not there\n"


def test_a_question_of_two_sources_is_refused_as_in_a_run(folder: Path) -> None:
    configure(folder, GOOD)
    source = "{name: jsonl, path: train.jsonl}"
    result = check("--set", f"data.train=[{source}, {source}]")
    assert result.exit_code == 2
    assert result.stderr == "error: data.train.1: train train-1 and 5 more stands in an earlier source too\n"


def test_the_same_as_json(folder: Path) -> None:
    configure(folder, [*GOOD, {"question": "q", "answer": "N/A"}], GOOD[:1])
    result = check("--json")
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    (one,) = found["checks"]
    assert found["run"] == "mine" and one["points"] == ["mine"]
    assert [(source["split"], source["findings"]["rows"], source["refused"]) for source in one["sources"]] == [
        ("train", 6, 1),
        ("test", 1, 0),
    ]
    assert one["shared"][0]["shared"]["same_text"] == {"count": 1, "first": ["test-1"]}
    assert [lengths["text"] for lengths in one["lengths"]] == ["prompt", "record", "predict", "explain"]
    assert one["critical"]["in_question"]["count"] == 0
    assert len(one["errors"]) == 1


def test_a_tokenizer_that_is_not_there_is_a_note(folder: Path) -> None:
    configure(folder, GOOD)
    result = check("--set", "teacher.model=./none")
    assert result.exit_code == 0
    assert "note: lengths under ./none are not known" in said(result)
    assert "predict (student)" in result.stdout


def test_questions_without_critical_words_are_counted(folder: Path) -> None:
    words = [{"question": "Who is it?", "answer": "Ann"}, {"question": "Who are the 2?", "answer": "Bo"}]
    configure(folder, words)
    assert "attention.critical numbers: 1 of 2 training questions hold none, nor does the sentence" in said(check())
    configure(folder, [{"question": "How many?", "answer": 5}, *GOOD])
    assert (
        "attention.critical numbers: 1 of 7 training questions hold none (train-1): their records have those of the "
        "rationale" in said(check())
    )


def test_words_that_the_teacher_is_to_name_cannot_be_known_yet(folder: Path) -> None:
    configure(folder, GOOD)
    options = ("--set", "attention.critical=keywords", "--set", "rationales.keywords=true")
    assert "attention.critical keywords: the teacher names the words, so which questions hold none" in said(
        check(*options)
    )
    listed = said(check(*options, "--set", "attention.keywords=[2 figs]"))
    assert "5 of 6 training questions hold none" in listed and "the teacher is asked for more, which cannot" in listed


def test_points_of_a_matrix_that_ask_the_same_are_looked_at_once(folder: Path) -> None:
    configure(folder, GOOD)
    write_lines(folder / "other.jsonl", [{"question": "What is 3 + 3?", "answer": 6}])
    tree = json.loads((folder / "run.yaml").read_text())
    sources = [[{"name": "jsonl", "path": name}] for name in ("train.jsonl", "other.jsonl")]
    tree["matrix"] = {"objective.name": ["dss", "molsaki"], "data.train": sources}
    (folder / "run.yaml").write_text(json.dumps(tree))
    result = check("--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["checks"]
    assert [len(one["points"]) for one in found] == [2, 2]
    assert [one["sources"][0]["findings"]["rows"] for one in found] == [6, 1]
    shown = check().stdout
    assert shown.count("points: ") == 2 and "train   other.jsonl" in shown


def test_a_configuration_that_cannot_be_used_is_refused_as_ever(folder: Path) -> None:
    (folder / "run.yaml").write_text("name: a\n")
    result = check()
    assert result.exit_code == 2 and "error: run.yaml" in result.stderr


def test_progress_goes_to_stderr_alone(folder: Path) -> None:
    configure(folder, GOOD)
    result = CliRunner().invoke(molsaki, ["data", "check", "run.yaml", "--json"])
    assert json.loads(result.stdout)["run"] == "mine"
