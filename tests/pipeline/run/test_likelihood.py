"""When log-probabilities are measured, and that answers which are there are never asked for again because of them."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cache.fingerprints import fingerprint
from pipeline.config.matrix import load_matrix
from pipeline.results.predictions import FINGERPRINT, stored_fingerprint
from pipeline.run.inputs import Inputs, Split
from pipeline.run.points import Run, look
from pipeline.run.provenance import read_provenance
from pipeline.run.students import EvaluateStage
from stages.rationales.references import References
from tests.pipeline.conftest import Experiment

RUN = Path("runs/small")
WITHOUT = ("--set", "evaluation.likelihood=false")
BOTH = ("--set", "evaluation.prompts=[predict, explain]")


def measured(seed: int = 0, folder: Path = RUN) -> pd.DataFrame:
    return pd.read_parquet(folder / "evaluation" / "likelihood" / f"seed-{seed}.parquet")


def answers(experiment: Experiment) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((RUN / "evaluation").glob("*.parquet"))}


def evaluate_plan(experiment: Experiment, *arguments: str) -> dict[str, Any]:
    plans = json.loads(experiment("status", "run.yaml", "--json", *arguments).stdout)
    (plan,) = (plan for plan in plans if plan["name"] == "evaluate")
    return plan


def stage(*overrides: str) -> EvaluateStage:
    found = look(Run(matrix=load_matrix(Path("run.yaml"), overrides), folder=RUN))[0].open("evaluate")
    assert isinstance(found, EvaluateStage)
    return found


def test_they_are_measured_by_default_and_lie_beside_the_answers(experiment: Experiment) -> None:
    experiment.run()
    assert experiment.scripted.measured == ["seed-0", "seed-1"]
    frame = measured(1)
    assert list(frame.columns) == [
        "seed", "dataset", "question_id", "prompt", "target", "log_probability", "tokens", "bytes",
    ]  # fmt: skip
    assert frame.iloc[0].to_list() == [1, "svamp", "q-41", "predict", "43", -2.0, 2, 2]
    assert len(frame) == 4
    assert list(pd.read_parquet(RUN / "evaluation" / "seed-1.parquet").columns) == [
        "seed", "dataset", "question_id", "prompt", "output", "parsed", "gold", "correct",
    ]  # fmt: skip


def test_a_run_evaluated_before_gets_them_added_and_is_not_asked_again(experiment: Experiment) -> None:
    experiment.run(*WITHOUT)
    before = answers(experiment)
    assert experiment.scripted.measured == [] and not (RUN / "evaluation" / "likelihood").exists()
    plan = evaluate_plan(experiment)
    assert (plan["done"], plan["to_do"]) == (0, 2)
    assert plan["detail"] == "4 questions each; 2 have answered and lack log-probabilities only"
    experiment.run()
    assert experiment.scripted.measured == experiment.scripted.evaluated == ["seed-0", "seed-1"]
    assert answers(experiment) == before and not (RUN / "earlier").exists()
    assert evaluate_plan(experiment)["to_do"] == 0
    experiment.run()
    assert len(experiment.scripted.measured) == 2


def test_they_are_kept_and_shown_where_they_are_asked_for_no_longer(experiment: Experiment) -> None:
    experiment.run()
    result = experiment.run(*WITHOUT)
    assert len(experiment.scripted.measured) == 2 and not (RUN / "earlier").exists()
    assert "log-probability" in result.stdout


def test_what_was_measured_of_other_questions_is_set_aside_with_the_answers(experiment: Experiment) -> None:
    experiment.run()
    experiment.write_questions("test.jsonl", range(51, 54))
    result = experiment.run(*WITHOUT)
    (earlier,) = (RUN / "earlier").iterdir()
    assert (earlier / "evaluation" / "likelihood" / "seed-1.parquet").exists()
    assert not list((RUN / "evaluation" / "likelihood").glob("*"))
    assert "log-probability" not in result.stdout


def test_with_another_student_they_are_measured_anew(experiment: Experiment) -> None:
    experiment.run()
    experiment.run("--set", "training.epochs=7")
    (earlier,) = (RUN / "earlier").iterdir()
    assert (earlier / "evaluation" / "likelihood" / "seed-0.parquet").exists()
    assert len(experiment.scripted.measured) == 4


def test_the_plan_says_how_many_questions_have_a_reference(experiment: Experiment) -> None:
    """Before anything is paid for: a file of other questions gives none, and nothing else would say so."""
    experiment.write_rationales([*range(1, 21), 42, 44])
    assert evaluate_plan(experiment, *BOTH)["detail"] == "4 questions each, 2 with a reference rationale"
    Path("own.jsonl").write_text(json.dumps({"id": "other-41", "rationale": "41 and 2 make 43.", "answer": "43"}))
    own = ("--set", "evaluation.references={path: own.jsonl}")
    assert evaluate_plan(experiment, *BOTH, *own)["detail"] == "4 questions each, 0 with a reference rationale"
    assert evaluate_plan(experiment, *own)["detail"] == "4 questions each"
    assert evaluate_plan(experiment, *BOTH, *WITHOUT)["detail"] == "4 questions each"


def test_other_references_are_measured_anew_and_nothing_is_generated(experiment: Experiment) -> None:
    experiment.write_rationales([*range(1, 21), 42])
    experiment.run(*BOTH)
    assert set(measured().query("prompt == 'explain'").question_id) == {"q-42"}
    own = {"id": "q-41", "rationale": "41 and 2 make 43.", "answer": "43"}
    Path("own.jsonl").write_text(json.dumps(own))
    before = answers(experiment)
    experiment.run(*BOTH, "--set", "evaluation.references={path: own.jsonl}")
    assert len(experiment.scripted.evaluated) == 2 and len(experiment.scripted.measured) == 4
    assert answers(experiment) == before
    explained = measured().query("prompt == 'explain'")
    assert explained.target.to_list() == ["41 and 2 make 43. The answer is 43."]
    (earlier,) = (RUN / "earlier").iterdir()
    assert sorted(path.name for path in earlier.rglob("*.parquet")) == ["seed-0.parquet", "seed-1.parquet"]


def test_without_references_answers_alone_are_measured_and_nothing_breaks(experiment: Experiment) -> None:
    experiment.run(*BOTH)
    assert set(measured().prompt) == {"predict"}
    rows = json.loads(experiment("compare", "small", "--json").stdout)
    assert [(row["prompt"], row["likelihood"] is None) for row in rows] == [("predict", False), ("explain", True)]
    assert evaluate_plan(experiment, *BOTH)["to_do"] == 0


def test_rationales_of_training_questions_are_no_references(experiment: Experiment) -> None:
    experiment.write_questions("test.jsonl", range(10, 14))  # of which the run learns from one, and the file has all
    experiment.run(*BOTH)
    assert set(measured().query("prompt == 'explain'").question_id) == {"q-11", "q-12", "q-13"}


def test_a_file_for_training_that_tells_no_test_question_apart_is_said_and_stops_nothing(
    experiment: Experiment,
) -> None:
    experiment.write_rationales([*range(1, 21), 42, 42])
    result = experiment.run(*BOTH)
    assert "no reference rationales: rationales.jsonl:22: a second rationale for question 'q-42'" in result.stderr
    assert set(measured().prompt) == {"predict"}


def test_a_file_of_references_that_is_not_there_is_said_before_anything_is_made(experiment: Experiment) -> None:
    result = experiment("run", "run.yaml", "--set", "evaluation.references={path: none.jsonl}")
    assert result.exit_code == 2 and "evaluation.references.path: there is no file none.jsonl" in result.stderr
    assert not Path("store").exists() and not Path("runs").exists()


def test_a_prompt_that_is_not_taught_is_not_measured(experiment: Experiment) -> None:
    experiment.write_rationales([*range(1, 21), 42])
    experiment.run(*BOTH, "--set", "objective.name=fine-tune-cot")
    assert set(measured().prompt) == {"explain"}


def test_answers_stay_known_by_what_they_were_known_by_before(experiment: Experiment) -> None:
    experiment.run()
    found = stage()
    questions = [asdict(question) for question in found._inputs.labelled("test")]
    settings = {"engine": "transformers", "prompts": ("predict",), "max_new_tokens": 256, "engine_arguments": {}}
    student = json.loads((RUN / "student" / "seed-0" / "training.json").read_text())["fingerprint"]
    expected = fingerprint({"student": student, "evaluation": settings, "questions": questions})
    assert found.fingerprint == expected == stored_fingerprint(RUN / "evaluation" / "seed-0.parquet")
    assert stage("evaluation.likelihood=false").fingerprint == expected


def test_adding_them_and_measuring_none_are_paces_of_their_own(experiment: Experiment) -> None:
    experiment.run(*WITHOUT)
    experiment.run()
    experiment.run("--set", "name=whole")
    _, _, _, without, added = read_provenance(RUN).stages
    whole = read_provenance(Path("runs/whole")).stages[-1]
    assert len({without.pace, added.pace, whole.pace}) == 3
    assert (without.units, added.units, whole.units) == (2, 2, 2)


def test_a_run_that_was_stopped_between_both_goes_on_with_the_second(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(sys.modules["stages.likelihood"], "student_likelihoods", fails)
    assert experiment("run", "run.yaml").exit_code == 1
    assert sorted(path.name for path in (RUN / "evaluation").iterdir()) == ["seed-0.parquet", "seed-1.parquet"]
    monkeypatch.setattr(
        sys.modules["stages.likelihood"], "student_likelihoods", experiment.scripted.student_likelihoods
    )
    experiment.run()
    assert experiment.scripted.evaluated == ["seed-0", "seed-1"] == experiment.scripted.measured


def test_dev_questions_are_measured_beside_those_of_the_test(experiment: Experiment) -> None:
    experiment.run()
    assert experiment("evaluate", "run.yaml", "--split", "dev").exit_code == 0
    assert len(pd.read_parquet(RUN / "evaluation-dev" / "likelihood" / "seed-0.parquet")) == 2


def test_compare_prints_them_below_accuracies_with_the_paired_difference(experiment: Experiment) -> None:
    experiment.run()
    experiment.run("--set", "name=dss", "--set", "objective.name=dss")
    lines = experiment("compare", "dss", "small").stdout.splitlines()
    below = lines[lines.index("") + 1 :]
    assert below[0].split() == ["run", "prompt", "log-probability", "difference", "95%", "interval"]
    assert below[2].split() == ["dss", "predict", "-2.000", "±", "0.000"]
    assert below[3].split() == [
        "small", "predict", "-1.000", "±", "0.000", "+1.000", "+1.000", "to", "+1.000",
    ]  # fmt: skip
    said = " ".join(below[4:])
    assert "log-probability per token, in nats, of the gold answer (predict); higher, that is, closer to 0" in said
    score = json.loads(experiment("compare", "dss", "small", "--json").stdout)[1]
    assert score["likelihood"]["per_token"] == {"mean": -1.0, "deviation": 0.0, "seeds": 2, "questions": 4}
    assert score["likelihood"]["difference"]["mean"] == 1.0 and score["likelihood"]["unit"] == "token"


def test_references_are_not_read_where_their_files_are_as_they_were(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What students were measured by is read and judged again only where something changed that it follows from."""
    experiment.write_rationales([*range(1, 21), 42])
    experiment.run(*BOTH)
    asked: list[str] = []

    def read(inputs: Inputs, split: Split) -> References:
        asked.append(split)
        return find(inputs, split)

    find = Inputs.references
    monkeypatch.setattr(Inputs, "references", read)
    assert evaluate_plan(experiment, *BOTH)["to_do"] == 0
    assert asked == []
    experiment.write_rationales([*range(1, 21), 42, 44])
    assert evaluate_plan(experiment, *BOTH)["to_do"] == 2
    assert set(asked) == {"test"}
    experiment.write_rationales([*range(1, 21), 42])
    asked.clear()
    assert evaluate_plan(experiment, *BOTH)["to_do"] == 0
    assert asked == []


def test_a_file_of_references_with_other_bytes_and_the_same_texts_is_no_reason_to_measure(
    experiment: Experiment,
) -> None:
    own = {"id": "q-41", "rationale": "41 and 2 make 43.", "answer": "43"}
    named = ("--set", "evaluation.references={path: own.jsonl}")
    Path("own.jsonl").write_text(json.dumps(own))
    experiment.run(*BOTH, *named)
    Path("own.jsonl").write_text(json.dumps(own, indent=None) + "\n\n")
    assert evaluate_plan(experiment, *BOTH, *named)["to_do"] == 0


def test_log_probabilities_of_an_earlier_version_are_known_by_the_texts_alone(experiment: Experiment) -> None:
    experiment.run(*BOTH)
    for seed in (0, 1):
        path = RUN / "evaluation" / "likelihood" / f"seed-{seed}.parquet"
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({FINGERPRINT: table.schema.metadata[FINGERPRINT]}), path)
    assert evaluate_plan(experiment, *BOTH)["to_do"] == 0


def test_another_rule_of_what_is_kept_judges_references_again(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment.write_rationales([*range(1, 21), 42])
    experiment.run(*BOTH)
    monkeypatch.setattr("pipeline.run.inputs.code_version", lambda *_: "another version")
    none = References(texts=(None,) * 4)
    monkeypatch.setattr(Inputs, "references", lambda *_: none)
    assert evaluate_plan(experiment, *BOTH)["to_do"] == 2
