"""What training needs of stage one is worked out once: later students neither read nor mark a text."""

import json
from pathlib import Path

import pytest

from pipeline.config.matrix import load_matrix
from pipeline.run.points import Run, look
from tests.pipeline.conftest import Experiment

STAGE_ONE = ("rationales", "attention")


def never(*_: object, **__: object) -> None:
    raise AssertionError("worked out again")


@pytest.fixture
def begun(experiment: Experiment) -> Experiment:
    """An experiment of which one of two students is trained."""
    for command in (*((name, "run.yaml") for name in STAGE_ONE), ("train", "run.yaml", "--seed", "0")):
        result = experiment(*command)
        assert result.exit_code == 0, result.output
    return experiment


@pytest.fixture
def nothing_read(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Neither questions nor rationales can be read, and no text can be marked."""
    monkeypatch.setattr("pipeline.run.inputs.read_questions", never)
    monkeypatch.setattr("cache.rationales.RationaleStore.attempts", never)
    monkeypatch.setattr("stages.attention.select.mark", never)
    return monkeypatch


def selections() -> list[Path]:
    return sorted(Path("store/texts").glob("*.selection"))


def plans() -> list[object]:
    matrix = load_matrix(Path("run.yaml"))
    (stages,) = look(Run(matrix=matrix, folder=Path("runs") / matrix.name))
    return [stages.open(name).plan() for name in ("attention", "train")] + [stages.all_attention.rationale_plan]


def test_looking_and_stage_one_keep_nothing(experiment: Experiment):
    for command in (*STAGE_ONE, "status"):
        assert experiment(command, "run.yaml").exit_code == 0
    assert not Path("store/texts").exists()


def test_the_next_student_reads_no_question_no_rationale_and_marks_nothing(begun: Experiment, nothing_read):
    result = begun("train", "run.yaml", "--seed", "1")
    assert result.exit_code == 0, result.output
    assert begun.scripted.trained == [0, 1] and begun.scripted.examples == 10
    assert len(selections()) == 1


def test_plans_and_fingerprints_are_those_of_what_was_worked_out(begun: Experiment):
    kept = plans()
    trained = [path.read_text() for path in Path("runs/small/student").glob("*/training.json")]
    selections()[0].unlink()
    assert plans() == kept
    for text in trained:
        assert begun("status", "run.yaml", "--json").exit_code == 0
        assert json.loads(text)["fingerprint"]
    assert begun("train", "run.yaml").exit_code == 0
    assert begun.scripted.trained == [0, 1]  # that of seed 0 stays what it was


@pytest.mark.parametrize(
    "change",
    [
        lambda experiment: experiment.write_questions("train.jsonl", range(2, 21)),
        lambda experiment: Path("run.yaml").write_text(Path("run.yaml").read_text().replace("limit: 10", "limit: 9")),
    ],
)
def test_other_questions_are_another_selection(begun: Experiment, change):
    change(begun)
    for name in (*STAGE_ONE, "train"):
        result = begun(name, "run.yaml")
        assert result.exit_code == 0, result.output
    assert len(selections()) == 2 and begun.scripted.trained == [0, 0, 1]


def test_other_marking_is_another_selection(begun: Experiment):
    for name in (*STAGE_ONE, "train"):
        assert begun(name, "run.yaml", "--set", "attention.steps=lines").exit_code == 0
    assert len(selections()) == 2


def test_a_file_of_questions_that_is_gone_is_said_though_records_are_kept(begun: Experiment):
    Path("train.jsonl").unlink()
    result = begun("train", "run.yaml", "--seed", "1")
    assert result.exit_code == 2 and "train.jsonl is not there" in result.stderr.replace("\n", " ")


def test_a_damaged_selection_is_made_again(begun: Experiment):
    (path,) = selections()
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert begun("train", "run.yaml", "--seed", "1").exit_code == 0
    assert path.read_bytes() == whole


def test_questions_written_while_they_were_read_are_kept_under_no_name(begun: Experiment, monkeypatch):
    selections()[0].unlink()
    described = iter(range(100))
    monkeypatch.setattr("pipeline.run.inputs.Inputs.described", lambda *_: {"sources": next(described)})
    assert begun("train", "run.yaml", "--seed", "1").exit_code == 0
    assert selections() == [] and begun.scripted.trained == [0, 1]
