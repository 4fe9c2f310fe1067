"""What is said about costs before a run and after some of it, and where each figure comes from."""

import json
from typing import Any

import pytest

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


def test_table_of_costs_fits_into_80_columns(experiment: Experiment) -> None:
    give_shape(experiment)
    printed = experiment("status", "run.yaml").stdout
    assert max(map(len, printed.splitlines())) <= 80
