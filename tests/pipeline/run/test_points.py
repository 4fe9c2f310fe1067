"""A matrix is done once for all its points, shared out without gaps or doubles, and not stopped by one bad point."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data.errors import DamagedCacheError
from pipeline.config.matrix import load_matrix
from pipeline.results.scores import points_of
from pipeline.run.points import Run
from pipeline.run.processes import ForwardingStop
from stages.runtime.shard import Shard
from tests.pipeline.conftest import CONFIG, Experiment

STUDY = Path("runs/small")
DSS, MOLSAKI, UNIFORM = "objective=dss", "objective=molsaki,alignment=mixture", "objective=molsaki,alignment=uniform"
MATRIX = """\
matrix:
  - {objective.name: [dss]}
  - {objective.name: [molsaki], objective.alignment: [mixture, uniform]}
"""


@pytest.fixture
def study(experiment: Experiment) -> Experiment:
    """The experiment with a matrix of three points and two seeds."""
    (experiment.folder / "run.yaml").write_text(CONFIG + MATRIX)
    return experiment


def trained_points(study: Experiment) -> Counter[tuple[str, int]]:
    """How often the student of each point and seed was trained in this session, told from the points' folders."""
    marks = STUDY.glob("*/student/seed-*/training.json")
    return Counter((mark.parents[2].name, int(mark.parent.name.removeprefix("seed-"))) for mark in marks)


def test_stage_one_is_done_once_and_every_point_is_an_ordinary_run(study: Experiment) -> None:
    study.run()
    assert len(study.scripted.attention) == 10
    assert study.scripted.trained == [0, 1] * 3 and study.scripted.evaluated == ["seed-0", "seed-1"] * 3
    assert {path.name for path in STUDY.iterdir()} == {
        DSS, MOLSAKI, UNIFORM, "config.yaml", "log.jsonl", "matrix.json", "results.md", "summary.json",
    }  # fmt: skip
    for point in (DSS, MOLSAKI, UNIFORM):
        again = study("run", str(STUDY / point / "config.yaml"), "--runs", str(STUDY))
        assert again.exit_code == 0 and "train: 2 of 2 students there, nothing to do" in again.stderr
    assert len(study.scripted.trained) == 6


def test_finished_points_are_skipped_and_a_new_value_adds_only_its_own(study: Experiment) -> None:
    study.run()
    study.run()
    assert len(study.scripted.trained) == len(study.scripted.evaluated) == 6
    wider = (CONFIG + MATRIX).replace("[mixture, uniform]", "[last, mixture, uniform]")
    (study.folder / "run.yaml").write_text(wider)
    study.run()
    assert len(study.scripted.trained) == len(study.scripted.evaluated) == 8
    assert not (STUDY / MOLSAKI / "earlier").exists()
    assert points_of(STUDY)[1] == "objective=molsaki,alignment=last"


def test_the_end_is_one_table_that_is_written_too(study: Experiment) -> None:
    result = study.run()
    written = json.loads((STUDY / "summary.json").read_text())
    assert [(score["run"], score["accuracy"]["mean"]) for score in written] == [
        (DSS, 0.5), (MOLSAKI, 1.0), (UNIFORM, 1.0),
    ]  # fmt: skip
    assert written[1]["difference"]["mean"] == 0.5 and written[1]["base"] == DSS
    text = (STUDY / "results.md").read_text()
    assert "| molsaki, uniform | predict | 100.0 ± 0.0 | +50.0 |" in text
    assert "molsaki, uniform" in result.stdout and "difference to dss" in result.stdout


def test_a_run_for_machines_prints_json_only(study: Experiment) -> None:
    found = json.loads(study.run("--json").stdout)
    assert found["unfinished"] == [] and [score["run"] for score in found["scores"]] == [DSS, MOLSAKI, UNIFORM]


def test_config_show_prints_a_file_that_is_the_same_matrix(study: Experiment) -> None:
    Path("shown.yaml").write_text(study("config", "show", "run.yaml").stdout)
    assert load_matrix(Path("shown.yaml")) == load_matrix(Path("run.yaml"))
    assert json.loads(study("config", "show", "run.yaml", "--json").stdout)["matrix"][0] == {"objective.name": ["dss"]}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_every_student_belongs_to_exactly_one_shard_and_shards_are_even(study: Experiment, count: int) -> None:
    matrix = load_matrix(Path("run.yaml"), ["training.seeds=[0, 1, 2, 3]"])
    units: Counter[tuple[int, int]] = Counter()
    sizes = []
    for index in range(1, count + 1):
        shares = Run(matrix=matrix, folder=STUDY, shard=Shard(index=index, count=count)).shares()
        units.update((number, seed) for number, seeds in enumerate(shares) for seed in seeds)
        sizes.append(sum(map(len, shares)))
    assert units == Counter({(point, seed): 1 for point in range(3) for seed in range(4)})
    assert max(sizes) - min(sizes) <= 1


def test_shards_train_each_student_once_and_the_last_one_shows_the_table(study: Experiment) -> None:
    for stage in ("rationales", "attention"):
        assert study(stage, "run.yaml").exit_code == 0
    first = study.run("--shard", "1/2")
    assert study.scripted.trained == [0, 0, 0] and not first.stdout
    assert "3 points wait for other shards" in first.stderr and not (STUDY / "results.md").exists()
    second = study.run("--shard", "2/2")
    assert study.scripted.trained == [0, 0, 0, 1, 1, 1] and "molsaki, uniform" in second.stdout
    assert len(study.scripted.evaluated) == 6
    assert json.loads((STUDY / DSS / "evaluation/summary.json").read_text())[0]["accuracy"]["seeds"] == 2


def test_more_shards_than_students_leave_some_without_work(study: Experiment) -> None:
    for stage in ("rationales", "attention"):
        study(stage, "run.yaml")
    result = study.run("--shard", "7/7")
    assert study.scripted.trained == [] and "nothing for shard 7/7" in result.stderr


def test_a_shard_needs_stage_one_and_says_which_command_makes_it(study: Experiment) -> None:
    result = study("run", "run.yaml", "--shard", "1/2")
    assert result.exit_code == 1 and "molsaki rationales CONFIG" in result.stderr
    assert not study.scripted.attention and not study.scripted.trained


def test_train_and_evaluate_take_the_matrix_and_a_shard_by_themselves(study: Experiment) -> None:
    study.run("--only", "rationales")
    study.run("--only", "attention")
    assert study("train", "run.yaml", "--shard", "2/3").exit_code == 0
    assert trained_points(study) == {(DSS, 1): 1, (UNIFORM, 0): 1}
    assert study("train", "run.yaml", "--seed", "0").exit_code == 0
    assert study("train", "run.yaml").exit_code == 0
    result = study("evaluate", "run.yaml", "--split", "dev", "--json")
    assert result.exit_code == 0, result.output
    assert [score["run"] for score in json.loads(result.stdout)] == [DSS, MOLSAKI, UNIFORM]


def test_shares_of_the_records_stay_what_shard_of_attention_means(study: Experiment) -> None:
    study.run("--only", "rationales")
    counts = []
    for index in (1, 2):
        assert study("attention", "run.yaml", "--shard", f"{index}/2").exit_code == 0
        counts.append(len(study.scripted.attention))
    assert 0 < counts[0] < counts[1] == 10


def test_shards_share_out_the_students_of_a_run_without_matrix_as_well(experiment: Experiment) -> None:
    early = experiment("run", "run.yaml", "--shard", "1/2")
    assert early.exit_code == 1 and "needs stage one complete" in early.stderr
    assert experiment("rationales", "run.yaml").exit_code == experiment("attention", "run.yaml").exit_code == 0
    experiment.run("--shard", "2/2")
    assert experiment.scripted.trained == [1] and experiment.scripted.evaluated == ["seed-1"]
    experiment.run("--shard", "1/2")
    assert experiment.scripted.trained == [1, 0] and experiment.scripted.evaluated == ["seed-1", "seed-0"]
    assert "nothing for shard 3/3" in experiment.run("--shard", "3/3").stderr


def test_a_failing_point_does_not_stop_the_others_and_is_reported_at_the_end(
    study: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = study.scripted.train_student

    def train_student(*arguments: Any, out: Path, **others: Any) -> None:
        if MOLSAKI in str(out):
            raise DamagedCacheError("a part is broken")
        good(*arguments, out=out, **others)

    monkeypatch.setattr(sys.modules["stages.student.train"], "train_student", train_student)
    result = study("run", "run.yaml")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:] == [
        "error: 1 of 3 points failed; the same command tries them again",
        f"  {MOLSAKI}: train: a part is broken",
    ]
    assert study.scripted.trained == [0, 1] * 2 and study.scripted.evaluated == ["seed-0", "seed-1"] * 2
    assert "molsaki" in result.stdout and f"Not finished: {MOLSAKI}" in (STUDY / "results.md").read_text()
    assert "a part is broken" in (STUDY / MOLSAKI / "log.jsonl").read_text()
    monkeypatch.setattr(sys.modules["stages.student.train"], "train_student", good)
    study.run()
    assert len(study.scripted.trained) == 6


def test_points_whose_stage_one_fails_do_not_stop_the_others(study: Experiment) -> None:
    nothing = "matrix=[{attention.critical: [numbers]}, {attention.critical: [regex], attention.pattern: ['zebra']}]"
    result = study("run", "run.yaml", "--set", nothing)
    assert result.exit_code == 1, result.output
    assert "1 of 2 points failed" in result.stderr and "'zebra' finds no critical word" in result.stderr
    assert study.scripted.trained == [0, 1] and len(study.scripted.evaluated) == 2
    assert "Not finished: attention.critical=regex" in (STUDY / "results.md").read_text()


def test_points_whose_teacher_stage_fails_do_not_stop_the_others(
    study: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = study.scripted.write_attention

    def write_attention(*arguments: Any, **others: Any) -> None:
        if others["settings"].steps == "lines":
            raise DamagedCacheError("no way")
        good(*arguments, **others)

    monkeypatch.setattr(sys.modules["stages.attention.write"], "write_attention", write_attention)
    result = study("run", "run.yaml", "--set", "matrix={attention.steps: [lines, periods]}")
    assert result.exit_code == 1 and "attention ended with exit code 65 and has said why above" in result.stderr
    assert study.scripted.trained == [0, 1] and trained_points(study) == {
        ("attention.steps=periods", 0): 1, ("attention.steps=periods", 1): 1,
    }  # fmt: skip


def test_a_point_that_brings_its_process_down_is_left_out_of_the_next(
    study: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here = ForwardingStop.run
    killed = []

    def run_or_die(self: ForwardingStop, command: list[str]) -> int:
        if "train" in command and not killed:
            killed.append(command)
            Path(command[command.index("--failures") + 1]).write_text(json.dumps({"failed": {}, "at": DSS}))
            return -9
        return run_here(self, command)

    monkeypatch.setattr(ForwardingStop, "run", run_or_die)
    result = study("run", "run.yaml")
    assert result.exit_code == 1 and f"  {DSS}: train: its process was ended by SIGKILL" in result.stderr
    assert set(trained_points(study)) == {(point, seed) for point in (MOLSAKI, UNIFORM) for seed in (0, 1)}


def test_a_signal_stops_all_points_and_the_same_command_goes_on(
    study: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = study.scripted.train_student

    def train_student(*arguments: Any, stop: Any, **others: Any) -> None:
        good(*arguments, **others)
        if len(study.scripted.trained) == 3:
            stop._remember(15, None)

    monkeypatch.setattr(sys.modules["stages.student.train"], "train_student", train_student)
    result = study("run", "run.yaml")
    assert result.exit_code == 75 and len(study.scripted.trained) == 3 and not study.scripted.evaluated
    study.run()
    assert len(study.scripted.trained) == 6


def test_dry_run_and_status_count_each_piece_once_and_create_nothing(study: Experiment) -> None:
    for command in (("run", "run.yaml", "--dry-run"), ("train", "run.yaml", "--dry-run"), ("status", "run.yaml")):
        result = study(*command)
        assert result.exit_code == 0, result.output
        assert UNIFORM in result.stdout
    found = json.loads(study("status", "run.yaml", "--json").stdout)
    assert {plan["name"]: (plan["done"], plan["to_do"]) for plan in found["stages"]} == {
        "rationales": (0, 10), "attention": (0, 0), "train": (0, 6), "evaluate": (0, 6),
    }  # fmt: skip
    assert [point["point"] for point in found["points"]] == [DSS, MOLSAKI, UNIFORM]
    assert not Path("store").exists() and not Path("runs").exists()


def test_a_dry_run_loads_each_tokenizer_that_stages_read_by_once(study: Experiment) -> None:
    for arguments, loaded in (
        (("run", "run.yaml", "--dry-run"), ["student", "teacher"]),
        (("run", "run.yaml", "--dry-run", "--only", "rationales"), []),
        (("attention", "run.yaml", "--dry-run"), ["teacher"]),
        (("train", "run.yaml", "--dry-run"), ["student"]),
        (("status", "run.yaml"), []),
    ):
        assert study(*arguments).exit_code == 0
        assert sorted(study.scripted.tokenizers) == loaded, arguments
        study.scripted.tokenizers.clear()


def test_dry_run_of_a_shard_counts_its_share(study: Experiment) -> None:
    found = json.loads(study("run", "run.yaml", "--dry-run", "--shard", "1/4", "--json").stdout)
    assert {plan["name"]: plan["to_do"] for plan in found["stages"]}["train"] == 2


def test_points_that_differ_in_stage_one_share_what_they_agree_on(study: Experiment) -> None:
    study.run("--set", "matrix={attention.steps: [periods, lines], objective.beta: [1, 3]}")
    assert len(study.scripted.attention) == 20 and len(study.scripted.trained) == 8
    assert len(list(Path("store/rationales").iterdir())) == 1


def test_compare_takes_a_matrix_for_its_points_and_another_base(study: Experiment) -> None:
    study.run()
    study.run("--set", "matrix=null", "--set", "name=second")
    scores = json.loads(study("compare", "small", "second", "--base", "second", "--json").stdout)
    assert [score["run"] for score in scores] == [f"small/{DSS}", f"small/{MOLSAKI}", f"small/{UNIFORM}", "second"]
    assert scores[0]["difference"]["mean"] == -0.5 and scores[3]["difference"] is None
    table = study("compare", "small", "--base", "molsaki, uniform").stdout
    assert "difference to molsaki, uniform" in table and "-50.0" in table
    refused = study("compare", "small", "--base", "mmi")
    assert refused.exit_code == 2 and "expected one of dss, molsaki, mixture" in refused.stderr


def test_compare_says_which_points_have_no_scores_yet(study: Experiment) -> None:
    study.run("--only", "rationales")
    study.run("--only", "attention")
    assert study("compare", "small").exit_code == 1
    study("train", "run.yaml", "--shard", "1/6")
    study("evaluate", "run.yaml", "--shard", "1/6")
    result = study("compare", "small")
    assert result.exit_code == 0 and f"not evaluated yet: {MOLSAKI}, {UNIFORM}" in result.stderr
