"""What the folders of runs say, finished or not, of this version or an earlier one."""

import json
from pathlib import Path

import pytest

from data.errors import ConfigError, DamagedCacheError
from pipeline.results.scores import compare, evaluation_folders
from pipeline.views.run_figures import read_figures
from stages.student.summary import LAYER_WEIGHTS
from tests.pipeline.conftest import Experiment
from tests.pipeline.run_folders import write_run


def test_scores_are_those_of_compare(tmp_path: Path):
    write_run(tmp_path / "dss", objective="dss", right=0.1)
    write_run(tmp_path / "molsaki", right=0.4)
    figures = read_figures(["dss", "molsaki"], tmp_path)
    assert list(figures.scores) == compare(evaluation_folders(["dss", "molsaki"], tmp_path))
    turned = read_figures(["dss", "molsaki"], tmp_path, base="molsaki")
    assert {score.base for score in turned.scores if score.base} == {"molsaki"}


def test_accuracies_by_seed_have_the_mean_that_is_compared(tmp_path: Path):
    write_run(tmp_path / "run", seeds=(0, 3, 5))
    figures = read_figures(["run"], tmp_path)
    for score in figures.scores:
        by_seed = figures.runs[0].accuracies[score.dataset, score.prompt]
        assert list(by_seed) == [0, 3, 5]
        assert sum(by_seed.values()) / 3 == pytest.approx(score.accuracy.mean)


def test_losses_are_those_that_were_logged_the_total_first(tmp_path: Path):
    write_run(tmp_path / "run", objective="mmi", entries=10)
    training = read_figures(["run"], tmp_path).runs[0].training
    assert training is not None
    assert list(training.losses) == ["loss", "L_pre", "L_exp", "L_mi"]
    assert training.losses["L_pre"].steps == tuple(range(10, 101, 10))
    assert training.losses["L_pre"].students == 3
    first = json.loads((tmp_path / "run" / "student" / "seed-0" / "training.json").read_text())["log"][0]
    assert training.losses["L_pre"].low[0] == first["L_pre"]  # seed 0 has the lowest of the made-up losses


def test_the_more_curves_the_fewer_points_each(tmp_path: Path):
    write_run(tmp_path / "one", entries=400, seeds=(0,), layers=(2, 2))
    write_run(tmp_path / "two", entries=400, seeds=(0,), layers=(2, 600))
    alone = read_figures(["one"], tmp_path).runs[0].training
    beside = read_figures(["one", "two"], tmp_path).runs[0].training
    assert alone is not None and beside is not None
    assert len(alone.losses["loss"].steps) == 160
    assert len(beside.losses["loss"].steps) < 60


def test_layers_are_spread_over_records_of_all_seeds_and_the_teacher_counts_once(tmp_path: Path):
    write_run(tmp_path / "run", layers=(3, 2))
    run = read_figures(["run"], tmp_path).runs[0]
    assert run.teacher is not None and run.student is not None
    assert (len(run.teacher.spread), run.teacher.records) == (3, 36)
    assert (len(run.student.spread), run.student.records) == (2, 3 * 36)
    assert sum(one.mean for one in run.teacher.spread) == pytest.approx(1, abs=1e-6)
    assert len(run.student.over_training) == 2


def test_dev_accuracy_of_early_stopping_is_a_curve_of_its_own(tmp_path: Path):
    write_run(tmp_path / "run", seeds=(0,), entries=4)
    path = tmp_path / "run" / "student" / "seed-0" / "training.json"
    summary = json.loads(path.read_text())
    summary["log"].insert(2, {"eval_accuracy": 0.5, "eval_predict": 0.4, "epoch": 1.0, "step": 20})
    path.write_text(json.dumps(summary))
    training = read_figures(["run"], tmp_path).runs[0].training
    assert training is not None and training.dev is not None
    assert (training.dev.steps, training.dev.mean) == ((20,), (0.5,))
    assert not [name for name in training.losses if name.startswith("eval")]


def test_a_matrix_stands_for_all_its_points_evaluated_or_not(tmp_path: Path):
    write_run(tmp_path / "study" / "objective=dss", objective="dss")
    write_run(tmp_path / "study" / "objective=molsaki", evaluated=False)
    (tmp_path / "study" / "matrix.json").write_text(json.dumps({"objective=dss": {}, "objective=molsaki": {}}))
    figures = read_figures(["study"], tmp_path)
    assert [run.name for run in figures.runs] == ["study/objective=dss", "study/objective=molsaki"]
    assert {score.run for score in figures.scores} == {"study/objective=dss"}
    assert any("evaluated" in line for line in figures.runs[1].missing)


def test_a_run_that_has_only_begun_says_what_is_missing(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: run\n")
    run = read_figures(["run"], tmp_path).runs[0]
    said = "; ".join(run.missing)
    assert "trained" in said and "evaluated" in said and "time and memory" in said
    assert run.training is None and run.teacher is None and not run.stages


def test_students_that_are_still_to_be_trained_are_named(tmp_path: Path):
    write_run(tmp_path / "run", seeds=(0, 1, 2, 3))
    for seed in (1, 2, 3):
        (tmp_path / "run" / "student" / f"seed-{seed}" / "training.json").unlink()
    assert "not trained yet: seed 1 to 3" in read_figures(["run"], tmp_path).runs[0].missing


def test_an_earlier_version_s_students_have_no_weights_by_record_and_that_is_said(tmp_path: Path):
    write_run(tmp_path / "run", by_record=False)
    run = read_figures(["run"], tmp_path).runs[0]
    assert run.teacher is None
    assert run.student is not None and len(run.student.over_training) == 2 and not run.student.spread
    assert any(LAYER_WEIGHTS in line for line in run.missing)


def test_an_earlier_version_s_students_do_not_say_what_they_were_made_from_and_that_is_said(tmp_path: Path):
    write_run(tmp_path / "run", described=False)
    run = read_figures(["run"], tmp_path).runs[0]
    assert "training.json of an earlier version: the revisions of teacher and student are not known" in run.missing
    assert "teacher's revision" not in run.facts and run.facts["fingerprint of students"] == "c" * 64
    write_run(tmp_path / "new")
    assert not any("earlier version" in line for line in read_figures(["new"], tmp_path).runs[0].missing)


def test_a_run_without_attention_lacks_nothing_by_having_no_layer_weights(tmp_path: Path):
    write_run(tmp_path / "run", objective="dss")
    run = read_figures(["run"], tmp_path).runs[0]
    assert run.student is None
    assert not any("layer" in line for line in run.missing)


def test_facts_name_models_revisions_fingerprints_and_data(tmp_path: Path):
    write_run(tmp_path / "run")
    facts = read_figures(["run"], tmp_path).runs[0].facts
    assert facts["teacher"] == "made/teacher"
    assert facts["teacher's revision"] == "7eacher"
    assert facts["fingerprint of rationales"] == "a" * 64
    assert facts["fingerprint of attention"] == "b" * 64
    assert facts["training data"] == "synthetic, split train, limit 40, seed 5"
    assert facts["seeds"] == "0 to 2"
    assert facts["worked on"] == "2026-11-25 10:00 to 13:30 UTC"


@pytest.mark.parametrize("name", ["training.json", LAYER_WEIGHTS])
def test_a_damaged_file_is_named(tmp_path: Path, name: str):
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "student" / "seed-1" / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DamagedCacheError, match=f"seed-1/{name}"):
        read_figures(["run"], tmp_path)


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="holds no run"):
        read_figures(["other"], tmp_path)
    with pytest.raises(ConfigError, match="neither a folder nor a run"):
        read_figures(["nothing"], tmp_path)


def test_dropped_questions_are_this_run_s_as_status_counts_them(experiment: Experiment):
    """The store holds rationales of 20 questions, of which this run asks for the first ten, two of them wrong."""
    rows = [json.loads(line) for line in Path("rationales.jsonl").read_text().splitlines()]
    rows[2] |= {"rationale": "It is seven.", "answer": "7"}
    rows[4] |= {"rationale": "A guess."} | {"answer": "0"}
    Path("rationales.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment.run("--set", "data.train.0.limit=20", "--set", "name=all")
    experiment.run()
    status = json.loads(experiment("status", "run.yaml", "--json").stdout)
    counted = {plan["name"]: plan["dropped"] for plan in status}
    (run,) = read_figures(["small"], Path("runs")).runs
    assert run.dropped is not None and not run.dropped.whole_spaces
    assert run.dropped.questions == 10
    assert run.dropped.reasons.get("rationales", {}) == counted["rationales"] != {}
    assert run.dropped.kept == 10 - sum(counted["rationales"].values())


def test_without_its_store_a_run_says_that_drop_reasons_are_not_known(experiment: Experiment):
    experiment.run()
    Path("store").rename("elsewhere")
    (run,) = read_figures(["small"], Path("runs")).runs
    assert run.dropped is None
    assert any("store" in line for line in run.missing)
    Path("elsewhere").rename("store")
    Path("train.jsonl").unlink()
    (run,) = read_figures(["small"], Path("runs")).runs
    assert any("train.jsonl" in line for line in run.missing)
