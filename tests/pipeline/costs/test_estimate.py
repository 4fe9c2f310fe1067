"""What is said about costs before a run and after some of it, and where each figure comes from."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.records import Likelihood
from pipeline.costs import estimate
from tests.pipeline.conftest import Experiment

SHAPE = {"num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 500, "num_attention_heads": 4}


def status(experiment: Experiment, *arguments: str) -> dict[str, Any]:
    result = experiment("status", "run.yaml", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return {plan["name"]: plan for plan in json.loads(result.stdout)}


def give_shape(experiment: Experiment) -> None:
    for name in ("teacher", "student"):
        (experiment.folder / name / "config.json").write_text(json.dumps(SHAPE))


def test_every_stage_with_something_to_do_has_costs_and_a_finished_one_none(experiment: Experiment) -> None:
    experiment.run("--only", "rationales")
    plans = status(experiment)
    assert plans["rationales"]["cost"] is None
    assert all(plans[name]["cost"] is not None for name in ("attention", "train", "evaluate"))
    assert plans["attention"]["cost"]["seconds"] == {"value": None, "source": "unknown", "how": ""}


def test_models_of_unknown_shape_leave_figures_unknown(experiment: Experiment) -> None:
    assert status(experiment)["train"]["cost"]["bytes"]["source"] == "unknown"
    assert "unknown" in experiment("status", "run.yaml").stdout


def test_rough_figures_follow_from_the_files_and_are_marked_as_such(experiment: Experiment) -> None:
    give_shape(experiment)
    train = status(experiment)["train"]["cost"]
    weights = 500 * 64 * 2 + 2 * (4 * 64 * 64 + 3 * 64 * 256)
    assert train["bytes_meanwhile"]["value"] == 3 * 4 * weights
    assert train["bytes"]["value"] == 2 * (4 * weights + 2)  # two students; the tokenizer's file is {}
    assert train["bytes"]["source"] == train["peak_bytes"]["source"] == "rough"
    assert "~" in experiment("status", "run.yaml").stdout


def test_a_student_of_fewer_layers_takes_less(experiment: Experiment) -> None:
    give_shape(experiment)
    plans = status(experiment, "--set", "student.layers=1")
    weights = 500 * 64 * 2 + 4 * 64 * 64 + 3 * 64 * 256
    assert plans["train"]["cost"]["bytes_meanwhile"]["value"] == 3 * 4 * weights
    assert plans["evaluate"]["cost"]["peak_bytes"]["value"] == 4 * weights + estimate.LIBRARIES


def test_bytes_of_attention_are_those_of_its_cells_at_the_ratio_of_stored_parts(experiment: Experiment) -> None:
    give_shape(experiment)
    experiment.run("--only", "rationales")
    rough = status(experiment)["attention"]["cost"]
    assert rough["units"] == 10 and rough["bytes"]["source"] == "rough"
    experiment.run("--only", "attention")
    more = ("--set", "data.train.0.limit=20")
    experiment.run("--only", "rationales", *more)
    stored = status(experiment, *more)["attention"]["cost"]
    assert stored["units"] == 10 and stored["bytes"]["source"] == "files"
    (space,) = (experiment.folder / "store" / "attention").iterdir()
    before = sum(path.stat().st_size for path in space.rglob("*") if path.is_file())
    experiment.run("--only", "attention", *more)
    grown = sum(path.stat().st_size for path in space.rglob("*") if path.is_file()) - before
    assert stored["bytes"]["value"] == pytest.approx(grown, rel=0.1)


def test_records_of_questions_not_asked_yet_are_expected_as_those_asked_gave(experiment: Experiment) -> None:
    assert status(experiment)["attention"]["cost"]["units"] == 10
    experiment.run("--only", "rationales")
    cost = status(experiment, "--set", "data.train.0.limit=15")["attention"]["cost"]
    assert cost["units"] == 15
    assert cost["assumptions"] == ["100% of 5 questions give a record, as of the 10 asked so far"]


def test_earlier_executions_of_the_same_space_say_what_the_rest_takes(experiment: Experiment) -> None:
    experiment.run("--only", "rationales")
    experiment.scripted.stop_after_pieces = 1
    assert experiment("attention", "run.yaml", "--set", "attention.piece=4").exit_code == 75
    seconds = status(experiment)["attention"]["cost"]["seconds"]
    assert seconds["source"] == "past" and seconds["value"] > 0
    assert seconds["how"] == "1 earlier execution of 4 records"
    other = status(experiment, "--set", "attention.steps=lines")["attention"]["cost"]
    assert other["seconds"]["source"] == "unknown"


SHORT = ("--set", "training.batch_size=2", "--set", "training.epochs=3")


def after_four_questions(experiment: Experiment, stage: str, **measured: float) -> None:
    """Four of ten questions are done, and this stage is said to have taken what is `measured`."""
    give_shape(experiment)
    experiment.run("--limit", "4", *SHORT)
    path = Path("runs/small-limit-4/provenance.json")
    provenance = json.loads(path.read_text())
    for record in provenance["stages"]:
        if record["stage"] == stage:
            record.update(measured)
    path.write_text(json.dumps(provenance))


def test_loading_and_closing_come_once_and_questions_take_their_time_each(experiment: Experiment) -> None:
    after_four_questions(experiment, "rationales", seconds=14, start_seconds=3, end_seconds=1)
    cost = status(experiment, *SHORT)["rationales"]["cost"]
    assert cost["units"] == 6 and cost["seconds"]["value"] == 3 + 1 + 6 * (14 - 3 - 1) / 4


def test_students_take_their_steps_and_each_its_loading_and_saving(experiment: Experiment) -> None:
    """Ten records in batches of two, three times: 15 steps of four seconds; of two students each has 25 s beside."""
    after_four_questions(experiment, "train", seconds=100, start_seconds=10, counted=10, counted_seconds=40)
    assert status(experiment, *SHORT)["train"]["cost"]["seconds"]["value"] == 10 + 2 * 25 + 2 * 15 * 4


def test_answers_take_time_by_their_characters_and_log_probabilities_by_students(experiment: Experiment) -> None:
    """Two students have written 80 characters in 60 s and were measured for 15 s each; two more write eight."""
    past = {"seconds": 100, "start_seconds": 10, "written": 80, "likelihood_seconds": 30}
    after_four_questions(experiment, "evaluate", **past)
    assert status(experiment, *SHORT)["evaluate"]["cost"]["seconds"]["value"] == 10 + 60 * 8 / 80 + 2 * 15


def test_bytes_of_log_probabilities_are_those_of_their_files(
    experiment: Experiment, benchmark_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SVAMP's test questions, of which PaLM has explained most."""
    random = np.random.default_rng(0)

    def measured(*arguments: Any, **options: Any) -> list[Likelihood]:
        found = experiment.scripted.student_likelihoods(*arguments, **options)
        return [replace(one, log_probability=random.normal(-5, 2)) for one in found]

    give_shape(experiment)
    monkeypatch.setattr(sys.modules["stages.likelihood"], "student_likelihoods", measured)
    palm = json.dumps(str(benchmark_data / "palm_rationales" / "svamp_palm_joined.jsonl"))
    fields = "{id: ID, rationale: palm_rationale, answer: palm_value}"
    asked = [f"data.test=[{{name: svamp, path: {json.dumps(str(benchmark_data / 'svamp' / 'chilled_test.jsonl'))}}}]"]
    asked += [f"evaluation.references={{path: {palm}, fields: {fields}}}", "evaluation.prompts=[predict, explain]"]
    arguments = [part for each in asked for part in ("--set", each)]
    costs = [
        status(experiment, *arguments, "--set", f"evaluation.likelihood={likelihood}")["evaluate"]["cost"]
        for likelihood in ("true", "false")
    ]
    experiment.run(*arguments)
    files = Path("runs/small/evaluation/likelihood").glob("*.parquet")
    written = sum(path.stat().st_size for path in files)
    assert costs[0]["bytes"]["value"] - costs[1]["bytes"]["value"] == pytest.approx(written, rel=0.1)


def test_bytes_of_students_grow_with_steps_but_for_where_they_looked(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside weights 3,000 bytes after ten steps, so 9,000 after thirty; of cells at most five records are kept.

    A record has four steps and six critical words ("Ann has 1 figs and finds 2. How many figs?", "1 and 2 make 3. The
    answer is 3."), in two layers, in float16, before and after training.
    """
    monkeypatch.setattr(estimate, "LOOKED_AT", 5)
    weights = 500 * 64 * 2 + 2 * (4 * 64 * 64 + 3 * 64 * 256)
    files, looks = 2 * (4 * weights + 2), 4 * 6 * 2 * 2 * 2
    after_four_questions(experiment, "train", counted=10, counted_seconds=40, bytes_grown=files + 3000)
    looks_now = 2 * looks * 10 / 3
    expected = files + 3 * (3000 - looks_now) + 2 * looks * 5
    assert status(experiment, *SHORT)["train"]["cost"]["bytes"]["value"] == pytest.approx(expected)


def test_table_of_costs_fits_into_80_columns(experiment: Experiment) -> None:
    give_shape(experiment)
    printed = experiment("status", "run.yaml").stdout
    assert max(map(len, printed.splitlines())) <= 80
