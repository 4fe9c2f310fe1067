"""Two processes train one student together: real commands, real gradients over gloo, on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from cache.student_attention import read_student_attention
from pipeline.run.provenance import read_provenance
from tests.fakes import tiny_model_folder
from tests.forks import Molsaki

RECORDS = 22
"""No multiple of the batch size: the last batch of an epoch has records for some of the processes only."""
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
MOLSAKI = (sys.executable, "-P", "-m", "pipeline")
Process: TypeAlias = "Molsaki | subprocess.Popen[str]"

pytestmark = pytest.mark.slow


def start(folder: Path, *command: str, **variables: str) -> Process:
    environment = {name: value for name, value in os.environ.items() if name not in TORCHRUN}
    own = {**environment, "OMP_NUM_THREADS": "1", **variables}
    if command[: len(MOLSAKI)] == MOLSAKI:
        return Molsaki(command[len(MOLSAKI) :], cwd=folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return subprocess.Popen(command, cwd=folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def succeed(process: Process) -> str:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    return error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions, rationales of different lengths, a teacher whose attention is in the store, and a student."""
    folder = tmp_path_factory.mktemp("together")
    tiny_model_folder(folder / "teacher", "qwen2")
    tiny_model_folder(folder / "student", "llama", hidden=16, heads=2, kv_heads=1, seed=1)
    numbers = range(1, RECORDS + 1)
    rows = {
        "questions": [
            {"id": str(n), "question": f"Ann has {n} figs and finds 2.", "answer": str(n + 2)} for n in numbers
        ],
        "rationales": [
            {"id": str(n), "rationale": f"{n} + 2 = {n + 2}. " * (1 + n % 4), "answer": str(n + 2)} for n in numbers
        ],
    }
    for name, content in rows.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)), encoding="utf-8")
    configuration = {
        "name": "alone",
        "store": "store",
        "data": {"train": [{"name": "jsonl", "path": "questions.jsonl"}]},
        "teacher": {"model": "./teacher", "dtype": "float32", "device": "cpu"},
        "rationales": {"engine": "file", "path": "rationales.jsonl"},
        "student": {"model": "./student"},
        "training": {"epochs": 3, "batch_size": 4, "learning_rate": 1.0e-3, "device": "cpu", "checkpoint_steps": 500},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    succeed(start(folder, *MOLSAKI, "run", "run.yaml"))
    return folder


def student(folder: Path, run: str) -> Path:
    return folder / "runs" / run / "student" / "seed-0"


def assert_same_training(folder: Path, run: str, *, tolerance: float = 1e-5) -> None:
    """Same weights and logged losses as of the one process, up to rounding, and the same fingerprint."""
    ours, theirs = (load_file(student(folder, name) / "model.safetensors") for name in (run, "alone"))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=tolerance)
    one, other = (json.loads((student(folder, name) / "training.json").read_text()) for name in (run, "alone"))
    assert one["fingerprint"] == other["fingerprint"]
    assert "L_att" in other["log"][0]
    for mine, yours in zip(one["log"], other["log"], strict=True):
        for part in {"loss", "L_pre", "L_exp", "L_att", "layer_weights"} & yours.keys():
            assert mine[part] == pytest.approx(yours[part], rel=1e-3, abs=1e-5), part


def assert_one_wrote(folder: Path, run: str, outcomes: list[str]) -> None:
    own = folder / "runs" / run
    assert [entry.outcome for entry in read_provenance(own).stages if entry.stage == "train"] == outcomes
    assert [path.name for path in own.glob("log*.jsonl")] == ["log.jsonl"]
    assert not (student(folder, run) / "checkpoints").exists()


def test_two_processes_that_molsaki_starts_train_as_one(folder: Path) -> None:
    """The router is among what is trained: its gradients are averaged too, or the layer weights would differ."""
    own = ("--set", "name=together", "--set", "training.processes=2")
    succeed(start(folder, *MOLSAKI, "run", "run.yaml", *own))
    assert_same_training(folder, "together")
    ours, theirs = (read_student_attention(student(folder, run)) for run in ("together", "alone"))
    assert [(one.key, one.when) for one in ours] == [(one.key, one.when) for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.attention, other.attention, rtol=2e-3, atol=1e-5)
    assert_one_wrote(folder, "together", ["done"])


def test_two_processes_that_torchrun_starts_train_micro_batches_as_one(folder: Path) -> None:
    name, accumulate = "torchrun", ("training.batch_size=2", "training.gradient_accumulation=2")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python")
    own = [part for value in (f"name={name}", *accumulate) for part in ("--set", value)]
    succeed(start(folder, *torchrun, *MOLSAKI, "train", "run.yaml", *own))
    ours, theirs = (load_file(student(folder, run) / "model.safetensors") for run in (name, "alone"))
    for key, expected in theirs.items():
        torch.testing.assert_close(ours[key], expected, rtol=0, atol=1e-5)
    assert_one_wrote(folder, name, ["done"])


def test_a_signal_ends_all_of_them_after_a_checkpoint_and_the_same_command_goes_on(folder: Path) -> None:
    def command(name: str) -> tuple[str, ...]:
        own = (f"name={name}", "training.processes=2", "training.epochs=40", "training.checkpoint_steps=20")
        return (*MOLSAKI, "train", "run.yaml", *(part for value in own for part in ("--set", value)))

    process = start(folder, *command("stopped"))
    checkpoints = student(folder, "stopped") / "checkpoints"
    deadline = time.monotonic() + 240
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 75, out + error
    assert "run the same command to go on" in error
    succeed(start(folder, *command("stopped")))
    succeed(start(folder, *command("undisturbed")))
    ours, theirs = (load_file(student(folder, run) / "model.safetensors") for run in ("stopped", "undisturbed"))
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-6)
    assert_one_wrote(folder, "stopped", ["stopped", "done"])


def test_what_stops_one_process_is_said_once(folder: Path) -> None:
    own = ("--set", "name=small", "--set", "training.processes=2", "--set", "student.max_length=5")
    process = start(folder, *MOLSAKI, "train", "run.yaml", *own)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 2
    assert error.count("error: student.max_length 5") == 1, error
