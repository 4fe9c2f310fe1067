"""`run --limit N`: the first questions for real, into the real store, and what they tell about the rest."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.records import Prediction
from pipeline.run.execute import Timed
from pipeline.run.provenance import executions, read_provenance
from stages.runtime.progress import SilentProgress
from tests.pipeline.conftest import CONFIG, Experiment


def test_the_first_questions_go_through_all_stages_and_count_for_the_whole_run(experiment: Experiment) -> None:
    experiment.run("--limit", "4")
    assert len(experiment.scripted.attention) == 4 and experiment.scripted.trained == [0, 1]
    assert {path.name for path in Path("runs").iterdir()} == {"small-limit-4"}
    saved = yaml.safe_load(Path("runs/small-limit-4/config.yaml").read_text())
    assert saved["name"] == "small-limit-4" and saved["data"]["train"][0]["limit"] == 4
    experiment.run()
    assert len(experiment.scripted.attention) == 10, "what the teacher had done was done again"
    assert len(experiment.scripted.trained) == 4 and Path("runs/small/student/seed-0/training.json").exists()


def test_a_limit_counts_questions_source_after_source(experiment: Experiment) -> None:
    (experiment.folder / "run.yaml").write_text(
        CONFIG.replace("limit: 10}", "limit: 3}\n    - {name: svamp, path: train.jsonl, skip: 5}")
    )
    experiment.run("--limit", "5")
    saved = yaml.safe_load(Path("runs/small-limit-5/config.yaml").read_text())
    assert [source["limit"] for source in saved["data"]["train"]] == [3, 2]
    experiment.run("--limit", "2")
    saved = yaml.safe_load(Path("runs/small-limit-2/config.yaml").read_text())
    assert [source["limit"] for source in saved["data"]["train"]] == [2]


def test_more_than_there_is_takes_all(experiment: Experiment) -> None:
    experiment.run("--limit", "500")
    assert len(experiment.scripted.attention) == 10


def test_all_points_of_a_matrix_take_the_same_questions(experiment: Experiment) -> None:
    (experiment.folder / "run.yaml").write_text(CONFIG + "matrix: {objective.beta: [1, 3]}\n")
    experiment.run("--limit", "4")
    assert len(experiment.scripted.attention) == 4 and experiment.scripted.trained == [0, 1, 0, 1]
    assert Path("runs/small-limit-4/beta=3/student/seed-1/training.json").exists()


def test_a_matrix_over_data_is_limited_in_the_file(experiment: Experiment) -> None:
    text = CONFIG + "matrix: {data.train.0.limit: [4, 8]}\n"
    (experiment.folder / "run.yaml").write_text(text)
    result = experiment("run", "run.yaml", "--limit", "4")
    assert result.exit_code == 2 and "data.train.0.limit varies in the matrix" in result.stderr


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_limit_is_a_number_from_1(experiment: Experiment, number: str) -> None:
    assert experiment("run", "run.yaml", "--limit", number).exit_code == 2


def test_what_they_took_tells_what_the_rest_takes_and_from_how_much(experiment: Experiment) -> None:
    experiment.run("--limit", "4")
    printed = experiment("status", "run.yaml", "--json")
    plans = {plan["name"]: plan for plan in json.loads(printed.stdout)}
    assert plans["rationales"]["to_do"] == 6, "four questions of the whole run are done"
    for name, units in (("rationales", "4 questions"), ("train", "2 students"), ("evaluate", "2 students")):
        seconds = plans[name]["cost"]["seconds"]
        assert seconds["source"] == "past" and seconds["value"] > 0 and seconds["how"].endswith(f"of {units}")
    shown = experiment("status", "run.yaml").stdout
    assert "time and memory from 1 earlier execution of 4 questions" in " ".join(shown.split())


def test_another_objective_or_engine_is_another_pace(experiment: Experiment) -> None:
    experiment.run("--limit", "4")
    records = {record.stage: record for record in read_provenance(Path("runs/small-limit-4")).stages}
    root = Path("runs")
    assert executions(root, "train", records["train"].pace) == [records["train"]]
    experiment.run("--set", "objective.beta=3", "--set", "training.epochs=9", "--set", "name=longer")
    assert len(executions(root, "train", records["train"].pace)) == 2, "neither weight nor epochs change a step"
    experiment.run("--set", "objective.name=dss", "--set", "name=dss")
    assert len(executions(root, "train", records["train"].pace)) == 2
    assert len(executions(root, "evaluate", records["evaluate"].pace)) == 3, "all answer alike"


def test_loading_is_told_apart_from_what_grows_with_the_work() -> None:
    moments = iter([0.0, 2.0, 5.0, 30.0, 38.0, 39.0, 41.0, 50.0, 57.0, 58.0, 61.5])
    timed = Timed(SilentProgress(), clock=lambda: next(moments))
    timed.start("texts", 7)  # at 2 s
    timed.advance(7)
    timed.start("targets", 7)  # at 5 s
    timed.advance(7)
    timed.start("seed 0", 10, 2)  # at 30 s; the first step takes eight seconds, two more take three
    timed.advance()
    timed.advance()
    timed.advance()
    timed.start("seed 1", 10)  # at 50 s, after nine seconds of saving and loading; then steps of seven and of one
    timed.advance()
    timed.advance()
    assert (timed.start_seconds, timed.counted, timed.counted_seconds) == (30.0, 3, 4.0)
    assert timed.end_seconds() == 3.5
    assert Timed(SilentProgress()).end_seconds() == 0, "nothing was done"


def test_students_are_taken_to_write_as_much_as_they_learn_from(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two students answer four questions by seven characters; the answers they learn from, 3 to 6, have one."""

    def run_on(*arguments: Any, **options: Any) -> list[Prediction]:
        time.sleep(0.05)
        return [replace(one, output="1234567") for one in experiment.scripted.evaluate_student(*arguments, **options)]

    monkeypatch.setattr(sys.modules["stages.evaluation"], "evaluate_student", run_on)
    experiment.run("--limit", "4")
    (past,) = [record for record in read_provenance(Path("runs/small-limit-4")).stages if record.stage == "evaluate"]
    assert past.written == 2 * 4 * 7
    plans = {plan["name"]: plan for plan in json.loads(experiment("status", "run.yaml", "--json").stdout)}
    other = past.start_seconds + past.likelihood_seconds  # a millisecond on a busy machine
    expected = pytest.approx(other + (past.seconds - other) / 7)
    assert plans["evaluate"]["cost"]["seconds"]["value"] == expected
