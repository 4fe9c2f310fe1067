"""`molsaki bench cache`: what it prints, and that nothing of it stays on disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypeAlias

import pytest
from click.testing import CliRunner, Result

from data.errors import DamagedCacheError
from pipeline.cli.main import molsaki
from stages.bench import cache as stage
from stages.bench.cache import METHODS

SMALL = ("--records", "20", "--layers", "2", "--repeats", "2", "--reads", "5", "--index-records", "30")
FIELDS = {
    "case", "method", "records", "seconds", "seconds_by_round", "records_per_second", "compared_with", "time_ratio",
    "bytes", "allocated_bytes", "files", "bytes_ratio", "allocated_ratio", "files_ratio", "baseline_bytes",
    "peak_bytes", "peak_bytes_by_process", "cold", "values", "sums", "layers", "teacher", "seed", "torch", "numpy",
    "zarr",
}  # fmt: skip


Tasks: TypeAlias = list[tuple[object, ...]]


@pytest.fixture(autouse=True)
def few_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "PATTERNS", 4)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(molsaki, ["bench", "cache", *SMALL, *arguments])


def rows(result: Result) -> dict[tuple[str, str], dict[str, object]]:
    assert result.exit_code == 0, result.output
    return {(row["case"], row["method"]): row for row in json.loads(result.stdout)}


def test_json_has_a_row_for_each_case_and_method_with_all_fields(tasks: Tasks, tmp_path: Path):
    found = rows(run("--json", "--out", str(tmp_path)))
    cases = ("write", "open", "first epoch", "random reads", "epoch")
    assert list(found) == [*((case, method) for case in cases for method in METHODS), ("open index", "store")]
    assert all(row.keys() == FIELDS and row["seconds"] > 0 for row in found.values())
    assert [(name, *methods) for name, _, *methods in tasks] == [
        ("measure_writing",),
        ("measure_cold", "store"),
        *[("measure_cold", method) for method in ("memory-map", "torch-save", "torch-save-float16") for _ in range(2)],
        *[("measure_reading",), ("write_index",), ("open_index",), ("open_index",)],
    ]
    assert list(tmp_path.iterdir()) == []


def test_ratios_are_against_one_float32_file_a_record(tasks: Tasks):
    found = rows(run("--json"))
    store, files = found["write", "store"], found["write", "torch-save"]
    assert (store["files"], files["files"]) == (23, 20)
    assert store["files_ratio"] == 23 / 20
    assert store["bytes_ratio"] == store["bytes"] / files["bytes"]
    assert store["allocated_ratio"] == store["allocated_bytes"] / files["allocated_bytes"]
    assert (files["bytes_ratio"], files["time_ratio"], files["compared_with"]) == (None, None, None)
    epoch, reference = found["epoch", "memory-map"], found["epoch", "torch-save"]
    ratios = [a / b for a, b in zip(epoch["seconds_by_round"], reference["seconds_by_round"], strict=True)]
    assert epoch["time_ratio"] == pytest.approx(sum(ratios) / 2)
    assert epoch["compared_with"] == "torch-save"
    assert found["epoch", "store"]["seconds_by_round"][1] is None
    index = found["open index", "store"]
    assert (index["records"], index["time_ratio"]) == (30, None)
    assert 0 < index["baseline_bytes"] <= index["peak_bytes"]


def test_the_table_says_what_was_measured_on(tasks: Tasks):
    result = run("--index-records", "0")
    assert result.exit_code == 0, result.output
    assert "open index" not in result.stdout.replace("first epoch and open index", "")
    lines = result.stdout.splitlines()
    assert sum(line.strip().startswith("epoch") for line in lines) == len(METHODS)
    assert "20 records" in lines[-1] and "2 layers of a random model, seed 0" in lines[-1]
    assert not [task for task in tasks if "index" in str(task[0])]


def test_nothing_stays_after_an_error(tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def damaged(job: stage.CacheJob) -> stage.ReadTimes:
        assert list(tmp_path.rglob("spec.json"))
        raise DamagedCacheError("damaged")

    damaged.__module__, damaged.__name__ = stage.__name__, "measure_reading"
    monkeypatch.setattr(stage, "measure_reading", damaged)
    result = run("--out", str(tmp_path))
    assert result.exit_code == 65 and "damaged" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_nothing_stays_after_a_signal(
    number: signal.Signals, tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]

    def signalled(job: stage.CacheJob) -> stage.ReadTimes:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal had no effect")

    signalled.__module__, signalled.__name__ = stage.__name__, "measure_reading"
    monkeypatch.setattr(stage, "measure_reading", signalled)
    result = run("--out", str(tmp_path))
    assert result.exit_code == 75 and f"stopped by {number.name}" in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--out", "nowhere"), "--out nowhere: no such folder"),
        (("--teacher", "nowhere"), "--layers: a --teacher has its own"),
        (("--records", "0"), "--records"),
    ],
)
def test_wrong_usage_is_one_clear_line_before_anything_is_measured(arguments: tuple[str, ...], line: str, tasks: Tasks):
    result = run(*arguments)
    assert result.exit_code == 2
    assert line in result.stderr
    assert tasks == []


@pytest.mark.slow
def test_sigterm_ends_the_command_and_its_processes_and_removes_the_folder(tmp_path: Path):
    command = [sys.executable, "-P", "-m", "pipeline", "bench", "cache", "--records", "5000", "--out", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.iterdir()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "stopped by SIGTERM" in said
    assert list(tmp_path.iterdir()) == []
