"""`molsaki run --jobs`: the students of one process, made by several, one of which may be killed. Real commands."""

import json
import signal
import subprocess
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from data.sets.synthetic import synthetic_questions
from tests.fakes import tiny_model_folder
from tests.forks import Molsaki

pytestmark = pytest.mark.slow
POINTS = ("objective=dss", "objective=molsaki")
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, rationales and a matrix of two points."""
    folder = tmp_path_factory.mktemp("jobs")
    tiny_model_folder(folder / "model", "llama")
    rows = [
        {"id": one.id, "rationale": one.reference, "answer": one.answer}
        for one in synthetic_questions(24, seed=5, split="train")
    ]
    (folder / "rationales.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    configuration = {
        "name": "alone",
        "store": "./store",
        "data": {
            "train": [{"name": "synthetic", "split": "train", "seed": 5, "limit": 24}],
            "test": [{"name": "synthetic", "split": "test", "seed": 6, "limit": 6}],
        },
        "teacher": {"model": "./model", "dtype": "float32"},
        "rationales": {"engine": "file", "path": "rationales.jsonl"},
        "student": {"model": "./model"},
        "training": {"seeds": list(SEEDS), "epochs": 2, "batch_size": 8, "checkpoint_steps": 1, "device": "cpu"},
        "evaluation": {"max_new_tokens": 4},
        "matrix": {"objective.name": ["dss", "molsaki"]},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(configuration))
    return folder


def start(folder: Path, *options: str) -> Molsaki:
    arguments = ["run", "run.yaml", *options]
    return Molsaki(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def answers(folder: Path, name: str) -> list[list[str]]:
    files = [
        folder / "runs" / name / point / "evaluation" / f"seed-{seed}.parquet" for point in POINTS for seed in SEEDS
    ]
    return [pq.read_table(file)["output"].to_pylist() for file in files]


def weights(folder: Path, name: str) -> list[bytes]:
    students = [folder / "runs" / name / point / "student" / f"seed-{seed}" for point in POINTS for seed in SEEDS]
    return [(student / "model.safetensors").read_bytes() for student in students]


def test_students_of_several_processes_are_those_of_one_also_after_one_was_killed(folder: Path):
    alone = start(folder)
    said = alone.communicate()
    assert alone.returncode == 0, said

    first = start(folder, "--set", "name=beside", "--jobs", "2")
    child_that_trains(folder, first).kill()
    said = first.communicate()
    assert first.returncode == 1, said
    (failed,) = [line for line in said[1].splitlines() if "was ended by SIGKILL" in line and "go on" in line]
    assert failed.startswith("error: objective="), said[1]
    second = start(folder, "--set", "name=beside", "--jobs", "2")
    said = second.communicate()
    assert second.returncode == 0, said

    assert weights(folder, "beside") == weights(folder, "alone")
    assert answers(folder, "beside") == answers(folder, "alone")
    one, other = (json.loads((folder / "runs" / name / "summary.json").read_text()) for name in ("alone", "beside"))
    assert one == other
    for point in POINTS:
        summary = json.loads((folder / "runs/beside" / point / "evaluation" / "summary.json").read_text())
        assert {score["accuracy"]["seeds"] for score in summary} == {len(SEEDS)}


def child_that_trains(folder: Path, run: Molsaki) -> psutil.Process:
    """The first of the processes that share out the students, once it has begun with one of them."""
    while True:
        assert run.poll() is None, run.communicate()
        for process in psutil.process_iter():
            for said in opened(process, folder):
                failures = said.with_name("failures-1.json")
                if process.pid != run.pid and failures.exists() and json.loads(failures.read_text())["at"]:
                    return process


def opened(process: psutil.Process, folder: Path) -> list[Path]:
    """Files that the first of several processes says things into, as far as a process of this test has them open."""
    try:
        if process.cwd() != str(folder):
            return []
        return [Path(file.path) for file in process.open_files() if file.path.endswith("/said-1")]
    except psutil.Error:  # it has ended, or is somebody else's
        return []


def test_a_signal_ends_all_processes_and_the_same_command_goes_on(folder: Path):
    run = start(folder, "--set", "name=stopped", "--jobs", "2")
    child = child_that_trains(folder, run)
    run.send_signal(signal.SIGTERM)
    said = run.communicate()
    assert run.returncode == 75, said
    assert not child.is_running()
    again = start(folder, "--set", "name=stopped", "--jobs", "2")
    said = again.communicate()
    assert again.returncode == 0, said
    assert weights(folder, "stopped") == weights(folder, "alone")


def test_a_student_of_several_processes_leaves_no_room_for_another(folder: Path):
    run = start(folder, "--jobs", "2", "--set", "training.processes=2", "--set", "name=refused")
    said = run.communicate()[1]
    assert (run.returncode, said.count("\n")) == (2, 1)
    assert "--jobs 2: not together with training.processes 2" in said
    assert not (folder / "runs" / "refused").exists()
