"""The model card of a student: what it was made from, how to ask it, and what it scored."""

import json
import tomllib
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from pipeline.results.card import TEMPLATE, card_text
from tests.pipeline.conftest import Experiment


def card(experiment: Experiment, run: str = "small", seed: int = 0) -> ModelCard:
    return ModelCard.load(experiment.folder / "runs" / run / "student" / f"seed-{seed}" / "README.md")


def test_a_card_says_what_the_student_was_made_from(experiment: Experiment):
    experiment.run("--only", "rationales")
    experiment.run("--only", "attention")
    experiment.run("--only", "train")
    text = card(experiment, seed=1).text
    assert "A student of `teacher`" in text and "objective `molsaki` on 10 rationales in 3 steps" in text
    assert "| training data | svamp (train) |" in text
    spaces = {path.parent.name: path.name.rpartition("-")[2] for path in (experiment.folder / "store").glob("*/*")}
    for kind in ("rationales", "attention"):
        assert f"fingerprint `{spaces[kind]}" in text, kind
    assert "- `predict: QUESTION\\n` gives the bare answer." in text
    assert "| seed | 1 |" in text
    assert "Not measured yet." in text
    assert str(experiment.folder) not in text and str(Path.home()) not in text


def test_the_template_is_installed_with_the_package():
    project = tomllib.loads((TEMPLATE.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert TEMPLATE.is_file() and TEMPLATE.name in project["tool"]["setuptools"]["package-data"]["pipeline.results"]


def test_the_json_beside_a_student_says_all_that_its_card_says_and_nothing_of_this_machine(experiment: Experiment):
    experiment.run()
    student = experiment.folder / "runs" / "small" / "student" / "seed-1"
    text = (student / "training.json").read_text()
    said = json.loads(text)
    assert (said["run"], said["seed"], said["teacher"]["model"], said["student"]["model"]) == (
        "small",
        1,
        "teacher",
        "student",
    )
    assert [source["name"] for source in said["data"]] == ["svamp"] and said["training"]["batch_size"] == 16
    assert said["scores"][0] == {
        "dataset": "svamp", "prompt": "predict", "accuracy": 1.0, "questions": 4,
        "log_probability": -1.0, "log_probability_questions": 4,
    }  # fmt: skip
    assert str(experiment.folder) not in text and str(Path.home()) not in text
    assert not (student / "molsaki.yaml").exists()
    before = (student / "README.md").read_bytes()
    assert card_text(said).encode() == before


def test_evaluating_says_what_an_earlier_version_did_not(experiment: Experiment):
    experiment.run("--only", "rationales")
    experiment.run("--only", "attention")
    experiment.run("--only", "train")
    path = experiment.folder / "runs" / "small" / "student" / "seed-0" / "training.json"
    whole = json.loads(path.read_text())
    earlier = ("fingerprint", "objective", "seed", "records", "steps")
    path.write_text(json.dumps({name: whole[name] for name in earlier} | {"log": [{"loss": 1.0, "step": 3}]}))
    assert experiment("evaluate", "run.yaml").exit_code == 0
    said = json.loads(path.read_text())
    assert {name: said[name] for name in whole} == whole and said["log"] == [{"loss": 1.0, "step": 3}]
    assert "| svamp | predict | 100.0% | 4 |" in card(experiment).text


def test_after_evaluation_the_scores_stand_in_text_and_metadata(experiment: Experiment):
    experiment.run()
    found = card(experiment)
    assert "| svamp | predict | 100.0% | 4 |" in found.text
    (result,) = found.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("svamp", "accuracy", 1.0)
    assert found.data.library_name == "transformers" and found.data.datasets == ["svamp"]


def test_a_student_of_the_first_layers_says_so(experiment: Experiment):
    for stage in ("rationales", "attention", "train"):
        experiment.run("--only", stage, "--set", "student.layers=2")
    student = experiment.folder / "runs" / "small" / "student" / "seed-0"
    assert json.loads((student / "training.json").read_text())["student"]["layers"] == 2
    assert "| `student`, pretrained weights, the first 2 layers |" in card(experiment).text


def test_log_probabilities_stand_beside_the_accuracies_where_they_were_measured(experiment: Experiment):
    experiment.run("--set", "evaluation.likelihood=false", "--set", "evaluation.prompts=[predict, explain]")
    text = card(experiment).text
    assert "| data set | prompt | accuracy | questions |\n|---|---|---|---|\n| svamp | predict | 100.0% | 4 |\n" in text
    assert "log-probability" not in text
    experiment.run("--set", "evaluation.prompts=[predict, explain]")
    table = """\
| data set | prompt | accuracy | questions | log-probability |
|---|---|---|---|---|
| svamp | predict | 100.0% | 4 | -1.000 |
| svamp | explain | 100.0% | 4 |  |

## How it was made"""
    assert table in card(experiment).text


def test_answers_to_dev_questions_are_no_scores(experiment: Experiment):
    experiment.run("--only", "rationales")
    experiment.run("--only", "attention")
    experiment.run("--only", "train")
    assert experiment("evaluate", "run.yaml", "--split", "dev").exit_code == 0
    assert "Not measured yet." in card(experiment).text


@pytest.mark.parametrize(("objective", "asked"), [("answer-only", "predict"), ("fine-tune-cot", "explain")])
def test_only_prompts_that_were_taught_are_named(experiment: Experiment, objective: str, asked: str):
    experiment.run("--set", f"objective.name={objective}", "--set", "evaluation.prompts=[predict, explain]")
    text = card(experiment).text
    other = {"predict": "explain", "explain": "predict"}[asked]
    assert f"`{asked}: QUESTION" in text and f"{other}: QUESTION" not in text
    assert text.count(f'"{asked}: QUESTION\\n"') == 2, "by transformers, and by vLLM"
    assert "cache fingerprint" not in text


def test_a_card_names_the_least_version_of_transformers_where_there_is_one(experiment: Experiment):
    experiment.run()
    student = experiment.folder / "runs" / "small" / "student" / "seed-0"
    said = json.loads((student / "training.json").read_text())
    assert "transformers and vLLM load it as it is" in card_text(said)
    assert "transformers from 5.0 on and vLLM load it" in card_text({**said, "transformers": "5.0"})
