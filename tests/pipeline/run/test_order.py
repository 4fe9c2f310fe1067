"""What a run does, what it finds and skips, and what it asks the teacher for."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from cache.writer import AttentionWriter
from pipeline.config.load import load_config
from pipeline.config.matrix import load_matrix
from pipeline.run.points import Run, look
from pipeline.run.provenance import executions, read_provenance
from pipeline.run.teacher import AttentionStage
from stages.runtime.progress import SilentProgress
from tests.pipeline.conftest import Experiment

RUN = Path("runs/small")


def test_first_run_does_every_stage(experiment: Experiment) -> None:
    result = experiment.run()
    assert len(experiment.scripted.attention) == 10
    assert experiment.scripted.trained == [0, 1]
    assert experiment.scripted.evaluated == ["seed-0", "seed-1"]
    assert "svamp" in result.stdout and "100.0" in result.stdout
    assert sorted(path.name for path in RUN.iterdir()) == [
        "config.yaml", "evaluation", "log.jsonl", "provenance", "provenance.json", "report.html", "student",
    ]  # fmt: skip


def test_second_run_computes_nothing_and_says_so(experiment: Experiment) -> None:
    experiment.run()
    done = vars(experiment.scripted).copy()
    result = experiment.run()
    assert vars(experiment.scripted) == done
    assert result.stderr.splitlines() == [
        "rationales: 10 of 10 questions there, nothing to do",
        "attention: 10 of 10 records there, nothing to do",
        "train: 2 of 2 students there, nothing to do; 10 records each",
        "evaluate: 2 of 2 students there, nothing to do; 4 questions each",
        "runs/small/report.html shows the run on one page",
    ]


def test_other_student_value_runs_stage_two_only_and_keeps_the_old_results(experiment: Experiment) -> None:
    experiment.run()
    old = (RUN / "student" / "seed-1" / "training.json").read_text()
    experiment.scripted.attention.clear()
    result = experiment.run("--set", "training.epochs=7")
    assert experiment.scripted.attention == []
    assert experiment.scripted.trained == [0, 1, 0, 1]
    assert "moved to runs/small/earlier/" in result.stderr
    (earlier,) = (RUN / "earlier").iterdir()
    assert (earlier / "student" / "seed-1" / "training.json").read_text() == old
    assert (earlier / "evaluation" / "seed-0.parquet").exists()
    assert (RUN / "student" / "seed-1" / "training.json").read_text() != old


def test_more_questions_send_only_those_to_the_teacher(experiment: Experiment) -> None:
    experiment.run()
    first = set(experiment.scripted.attention)
    experiment.scripted.attention.clear()
    experiment.run("--set", "data.train.0.limit=15")
    assert len(experiment.scripted.attention) == 5
    assert first.isdisjoint(experiment.scripted.attention)
    assert experiment.scripted.examples == 15


def test_second_experiment_with_another_student_finds_everything_of_stage_one(experiment: Experiment) -> None:
    experiment.run()
    experiment.scripted.attention.clear()
    result = experiment.run("--set", "name=second", "--set", "student.model=./other")
    assert experiment.scripted.attention == []
    assert "rationales: 10 of 10 questions there, nothing to do" in result.stderr
    assert Path("runs/second/student/seed-1").is_dir() and not (RUN / "earlier").exists()


def test_dss_records_no_attention(experiment: Experiment) -> None:
    result = experiment.run("--set", "objective.name=dss")
    assert experiment.scripted.attention == [] and experiment.scripted.trained == [0, 1]
    assert "attention" not in result.stderr and not Path("store/attention").exists()


def test_dss_does_not_train_again_for_a_setting_of_the_attention_loss(experiment: Experiment) -> None:
    experiment.run("--set", "objective.name=dss")
    experiment.run("--set", "objective.name=dss", "--set", "objective.beta=3")
    assert experiment.scripted.trained == [0, 1]


def test_another_seed_is_added_to_those_that_are_there(experiment: Experiment) -> None:
    experiment.run()
    experiment.run("--set", "training.seeds=[0, 1, 2]")
    assert experiment.scripted.trained == [0, 1, 2]
    assert experiment.scripted.evaluated == ["seed-0", "seed-1", "seed-2"]


def test_where_and_how_often_to_save_does_not_change_a_student(experiment: Experiment) -> None:
    experiment.run()
    experiment.run("--set", "training.device=cpu", "--set", "training.checkpoint_steps=5")
    assert experiment.scripted.trained == [0, 1]


def test_other_evaluation_settings_evaluate_again_and_train_nothing(experiment: Experiment) -> None:
    experiment.run()
    experiment.run("--set", "evaluation.prompts=[predict, explain]")
    assert experiment.scripted.trained == [0, 1] and len(experiment.scripted.evaluated) == 4
    assert set(pd.read_parquet(RUN / "evaluation" / "seed-0.parquet").prompt) == {"predict", "explain"}
    (earlier,) = (RUN / "earlier").iterdir()
    assert not (earlier / "student").exists()


def test_other_test_questions_evaluate_again(experiment: Experiment) -> None:
    experiment.run()
    experiment.write_questions("test.jsonl", range(51, 54))
    experiment.run()
    assert experiment.scripted.trained == [0, 1] and len(experiment.scripted.evaluated) == 4


def test_dry_run_and_status_create_nothing(experiment: Experiment) -> None:
    for command in (("run", "run.yaml", "--dry-run"), ("status", "run.yaml"), ("train", "run.yaml", "--dry-run")):
        result = experiment(*command)
        assert result.exit_code == 0, result.output
    assert not Path("store").exists() and not Path("runs").exists()


def test_status_counts_what_is_there_and_what_is_missing(experiment: Experiment) -> None:
    experiment.run("--only", "rationales")
    result = experiment("status", "run.yaml", "--json")
    plans = {plan["name"]: plan for plan in json.loads(result.stdout)}
    assert {name: (plan["done"], plan["to_do"]) for name, plan in plans.items()} == {
        "rationales": (10, 0), "attention": (0, 10), "train": (0, 2), "evaluate": (0, 2),
    }  # fmt: skip
    assert plans["train"]["waits_for"] == "attention"


def test_dropped_records_are_counted_with_their_reasons(experiment: Experiment) -> None:
    lines = Path("rationales.jsonl").read_text().splitlines()
    wrong = json.dumps({"id": "q-1", "rationale": "No idea, perhaps 99.", "answer": "99"})
    Path("rationales.jsonl").write_text("\n".join([wrong, *lines[1:9]]) + "\n")
    experiment.run("--only", "rationales")
    (plan,) = (p for p in json.loads(experiment("status", "run.yaml", "--json").stdout) if p["name"] == "rationales")
    assert (plan["done"], sum(plan["dropped"].values()), len(plan["dropped"])) == (10, 2, 2)


def test_interrupted_stage_ends_with_75_and_the_next_run_goes_on(experiment: Experiment) -> None:
    experiment.scripted.stop_after_pieces = 2
    result = experiment("run", "run.yaml", "--set", "attention.piece=4")
    assert result.exit_code == 75 and "error: stopped by SIGTERM" in result.stderr
    assert len(experiment.scripted.attention) == 8 and experiment.scripted.trained == []
    experiment.scripted.stop_after_pieces = None
    experiment.run()
    assert len(experiment.scripted.attention) == 10
    outcomes = [(record.stage, record.outcome, record.units) for record in read_provenance(RUN).stages]
    assert outcomes[1:3] == [("attention", "stopped", 8), ("attention", "done", 2)]


def test_train_before_attention_names_the_command_that_helps(experiment: Experiment) -> None:
    experiment.run("--only", "rationales")
    result = experiment("train", "run.yaml")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: teacher attention of 10 records is missing; make it with: molsaki attention CONFIG\n"
    )


@pytest.mark.parametrize("objective", ["molsaki", "dss"])
def test_where_no_rationale_was_kept_training_says_why(experiment: Experiment, objective: str) -> None:
    row = {"rationale": "Ann counts her figs and has 999.", "answer": "999"}
    rows = [{"id": f"q-{number}", **row} for number in range(1, 21)]
    Path("rationales.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    result = experiment("run", "run.yaml", "--set", f"objective.name={objective}")
    assert result.exit_code == 1
    assert "error: no rationale was kept of 10 questions (wrong answer 10); try " in result.stderr
    assert experiment.scripted.trained == []


def test_where_the_teacher_could_read_no_record_training_says_why(experiment: Experiment) -> None:
    experiment("rationales", "run.yaml")
    attention = look(Run(matrix=load_matrix(Path("run.yaml")), folder=RUN))[0].open("attention")
    assert isinstance(attention, AttentionStage)
    space = attention._open_or_create(SilentProgress())
    dropped = {example.key: "longer than max_length" for example in attention.selection.examples}
    AttentionWriter(space).append([], dropped=dropped)
    result = experiment("train", "run.yaml")
    assert result.exit_code == 1 and experiment.scripted.trained == []
    assert "error: no record is left to train on (longer than max_length 10); attention.max_length" in result.stderr


def test_evaluate_before_train_names_the_command_that_helps(experiment: Experiment) -> None:
    experiment.run("--only", "rationales")
    result = experiment("evaluate", "run.yaml")
    assert result.exit_code == 1 and "molsaki" in result.stderr and "CONFIG" in result.stderr


def test_one_seed_can_be_trained_and_evaluated_alone(experiment: Experiment) -> None:
    experiment.run("--only", "rationales")
    experiment.run("--only", "attention")
    assert experiment("train", "run.yaml", "--seed", "1").exit_code == 0
    assert experiment.scripted.trained == [1]
    assert experiment("evaluate", "run.yaml", "--seed", "1").exit_code == 0
    assert experiment.scripted.evaluated == ["seed-1"]
    assert experiment("train", "run.yaml", "--seed", "9").exit_code == 2


def test_dev_questions_are_measured_beside_the_test_questions(experiment: Experiment) -> None:
    experiment.run()
    result = experiment("evaluate", "run.yaml", "--split", "dev", "--json")
    (score,) = json.loads(result.stdout)["scores"]
    assert score["accuracy"]["questions"] == 2
    assert (RUN / "evaluation-dev" / "seed-0.parquet").exists()


def test_questions_in_both_training_and_test_are_pointed_out(experiment: Experiment) -> None:
    experiment.write_questions("test.jsonl", range(9, 13))
    assert "warning: 2 of 4 test questions are training questions too" in experiment.run().stderr


def test_compare_pairs_seeds_and_questions(experiment: Experiment) -> None:
    experiment.run()
    experiment.run("--set", "name=dss", "--set", "objective.name=dss")
    scores = json.loads(experiment("compare", "dss", "small", "--json").stdout)
    assert [(score["run"], score["accuracy"]["mean"]) for score in scores] == [("dss", 0.5), ("small", 1.0)]
    assert scores[0]["difference"] is None and scores[1]["difference"]["mean"] == 0.5
    assert "+50.0" in experiment("compare", "runs/dss", "runs/small").stdout
    printed = experiment("compare", "dss", "small", "--markdown").stdout
    assert printed.startswith("| run | prompt |") and "+50.0" in printed and printed.endswith("\n")


def test_compare_without_predictions_names_the_command_that_helps(experiment: Experiment) -> None:
    experiment.run("--only", "rationales")
    result = experiment("compare", "small")
    assert result.exit_code == 1 and "molsaki evaluate" in result.stderr
    assert experiment("compare", "nowhere").exit_code == 2


def test_cache_commands_show_the_spaces(experiment: Experiment) -> None:
    experiment.run()
    spaces = json.loads(experiment("cache", "ls", "--store", "store", "--json").stdout)
    assert [(space["kind"], space["records"]) for space in spaces] == [("rationales", 10), ("attention", 10)]
    shown = experiment("cache", "show", "attention/teacher", "--store", "store")
    assert shown.exit_code == 0 and spaces[1]["fingerprint"] in shown.stdout
    assert experiment("cache", "show", "nothing", "--store", "store").exit_code == 2


def test_provenance_holds_versions_commands_and_fingerprints(experiment: Experiment) -> None:
    experiment.run()
    provenance = read_provenance(RUN)
    assert [record.stage for record in provenance.stages] == ["rationales", "attention", "train", "evaluate"]
    last = provenance.stages[-1]
    assert "numpy" in last.environment.libraries and last.command and len(last.fingerprints["evaluation-test"]) == 64
    assert executions(RUN.parent, "evaluate", last.pace) == [last]


def test_provenance_holds_what_was_measured(experiment: Experiment) -> None:
    experiment.run()
    (space,) = Path("store/attention").iterdir()
    stored = sum(path.stat().st_size for path in space.rglob("*") if path.is_file())
    attention = read_provenance(RUN).stages[1]
    assert stored <= attention.bytes_grown <= stored + 10_000  # the log lies in the run's folder and grows meanwhile
    assert attention.peak_bytes > 10_000_000 and attention.peak_gpu_bytes == 0
    assert attention.cpu_seconds > 0


def test_failed_stage_records_what_it_had_committed(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment.run("--only", "rationales")
    append, calls = AttentionWriter.append, []

    def append_twice(self: AttentionWriter, *arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("the third piece fails")
        return append(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(AttentionWriter, "append", append_twice)
    result = experiment("attention", "run.yaml", "--set", "attention.piece=3")
    assert result.exit_code == 1 and "the third piece fails" in result.stderr
    failed = read_provenance(RUN).stages[-1]
    assert (failed.outcome, failed.units) == ("failed", 6)


def test_saved_configuration_alone_repeats_the_run(experiment: Experiment) -> None:
    experiment.run("--set", "training.epochs=2")
    result = experiment("run", str(RUN / "config.yaml"))
    assert result.exit_code == 0 and experiment.scripted.trained == [0, 1]


def test_configuration_saved_by_several_at_once_is_whole(experiment: Experiment) -> None:
    """Threads share a process id, as processes of two machines may."""
    run = Run(matrix=load_matrix(Path("run.yaml")), folder=RUN)
    with ThreadPoolExecutor(8) as pool:
        for saving in [pool.submit(run.save) for _ in range(64)]:
            saving.result()
    assert [path.name for path in RUN.iterdir()] == ["config.yaml"]
    assert load_config(RUN / "config.yaml") == run.matrix.base


def test_run_for_machines_prints_json_only(experiment: Experiment) -> None:
    printed = json.loads(experiment.run("--json", "--quiet").stdout)
    assert [plan["to_do"] for plan in printed["stages"]] == [0] * 4
    assert printed["scores"][0]["accuracy"]["mean"] == 1.0


def wrong(experiment: Experiment, *arguments: str) -> str:
    result = experiment("run", "run.yaml", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--set", "training.epoch=1"), "did you mean training.epochs?"),
        (("--set", "data.train.0.path=none.jsonl"), "none.jsonl"),
        (("--set", "data.test.0.path=none.jsonl"), "none.jsonl"),
        (("--set", "rationales.path=none.jsonl"), "none.jsonl"),
        (("--set", "teacher.model=./nowhere"), "teacher.model: "),
        (("--set", "student.model=./nowhere"), "student.model: "),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_made(
    experiment: Experiment, arguments: tuple[str, ...], expected: str
) -> None:
    line = wrong(experiment, *arguments)
    assert line.count("\n") == 1 and line.startswith("error: ") and expected in line
    assert not Path("store").exists() and not Path("runs").exists()


def test_broken_line_of_a_data_file_is_named(experiment: Experiment) -> None:
    with Path("test.jsonl").open("a") as file:
        file.write('{"ID": "q-99", "Body": \n')
    line = wrong(experiment)
    assert line.startswith("error: test.jsonl:5: ") and line.count("\n") == 1


def test_no_critical_word_in_any_record_names_the_setting(experiment: Experiment) -> None:
    lines = wrong(experiment, "--set", "attention.critical=regex", "--set", "attention.pattern=zebra").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and "'zebra' finds no critical word in any of 10 records" in errors[0]
    assert "attention.critical" in errors[0]


def test_same_question_in_two_sources_is_refused(experiment: Experiment) -> None:
    source = "{name: svamp, path: test.jsonl}"
    assert "stands in an earlier source too" in wrong(experiment, "--set", f"data.test=[{source}, {source}]")
