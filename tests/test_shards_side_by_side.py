"""Several `molsaki attention` processes on one store at once: real commands, a real model, if a tiny one."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from cache import open_attention
from cache.reader import AttentionStore
from cache.spaces import Space
from pipeline.run.provenance import read_provenance
from stages.runtime.shard import Shard
from tests.fakes import tiny_model_folder
from tests.forks import Molsaki

RECORDS = 40
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def start(folder: Path, *arguments: str, **variables: str) -> Molsaki:
    """Start `molsaki` with these arguments and environment variables."""
    environment = {name: value for name, value in os.environ.items() if name not in TORCHRUN}
    return Molsaki(
        arguments, cwd=folder, env={**environment, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def succeed(*processes: Molsaki) -> list[str]:
    """What each process printed to stdout and stderr, all of them having ended well."""
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return ["".join(output) for output in outputs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teacher, questions, rationales and configuration; the rationales are in the store."""
    folder = tmp_path_factory.mktemp("shards")
    tiny_model_folder(folder / "teacher", "qwen2")
    numbers = range(1, RECORDS + 1)
    questions = [{"id": str(n), "question": f"Ann has {n} figs and finds 2.", "answer": str(n + 2)} for n in numbers]
    rationales = [
        {"id": str(n), "rationale": f"{n} + 2 = {n + 2}. " * (1 + n % 3), "answer": str(n + 2)} for n in numbers
    ]
    for name, rows in (("questions", questions), ("rationales", rationales)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    configuration = {
        "name": "shards",
        "store": "store",
        "data": {"train": [{"name": "jsonl", "path": "questions.jsonl"}]},
        "teacher": {"model": "./teacher", "dtype": "float32", "device": "cpu"},
        "rationales": {"engine": "file", "path": "rationales.jsonl"},
        "attention": {"piece": 4},
        "student": {"model": "./teacher"},
    }
    (folder / "shards.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    succeed(start(folder, "rationales", "shards.yaml"))
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> AttentionStore:
    """What a single process computes."""
    own = run_of_its_own("alone", longest=2001)
    succeed(start(folder, "attention", "shards.yaml", *own))
    return open_attention(space_of(folder, "alone"))


def run_of_its_own(name: str, *, longest: int) -> tuple[str, ...]:
    """Another run on the same rationales; a maximum length that no record reaches sets its space apart."""
    return ("--set", f"name={name}", "--set", f"attention.max_length={longest}")


def space_of(folder: Path, run: str) -> Path:
    """The space that the attention of a run went to."""
    last = read_provenance(folder / "runs" / run).stages[-1]
    (space,) = (folder / "store" / "attention").glob(f"*-{last.fingerprints['attention'][:16]}")
    return space


def assert_same(found: AttentionStore, expected: AttentionStore) -> None:
    assert found.keys() == expected.keys() and len(found) == RECORDS
    for key in expected:
        # Batches of other records pad differently; what is left is float16's last digit.
        np.testing.assert_allclose(found[key], expected[key], rtol=2e-3, atol=1e-6)
        assert found.marked(key) == expected.marked(key)


@pytest.mark.slow
def test_processes_side_by_side_fill_one_space(folder: Path, alone: AttentionStore) -> None:
    """Three shards, and a fourth process that torchrun's variables tell to do the second shard as well."""
    outputs = succeed(
        start(folder, "attention", "shards.yaml", "--shard", "1/3"),
        start(folder, "attention", "shards.yaml", "--shard", "2/3"),
        start(folder, "attention", "shards.yaml", "--shard", "3/3"),
        start(folder, "attention", "shards.yaml", RANK="1", WORLD_SIZE="3", LOCAL_RANK="1"),
    )
    assert_same(open_attention(space_of(folder, "shards")), alone)
    (status,) = succeed(start(folder, "status", "shards.yaml", "--json"))
    attention = next(plan for plan in json.loads(status) if plan["name"] == "attention")
    assert (attention["done"], attention["to_do"], attention["waits_for"]) == (RECORDS, 0, None)
    worked = [output for output in outputs if "there, done" in output]  # the fourth may find all of it done
    entries = [entry for entry in read_provenance(folder / "runs" / "shards").stages if entry.stage == "attention"]
    assert len(entries) == len(worked) >= 3
    assert {entry.shard for entry in entries} == {"1/3", "2/3", "3/3"}
    assert {entry.outcome for entry in entries} == {"done"}


@pytest.mark.slow
def test_a_killed_shard_goes_on_where_it_was(folder: Path, alone: AttentionStore) -> None:
    own = (*run_of_its_own("killed", longest=2002), "--set", "attention.piece=1")
    before = set((folder / "store").glob("attention/*/commits/*.json"))
    killed = start(folder, "attention", "shards.yaml", *own, "--shard", "1/2")
    deadline = time.monotonic() + 120
    while len(set((folder / "store").glob("attention/*/commits/*.json")) - before) < 3:
        assert time.monotonic() < deadline and killed.poll() is None, "nothing was committed"
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL

    succeed(start(folder, "attention", "shards.yaml", *own, "--shard", "2/2"))
    space = space_of(folder, "killed")
    first = Shard(index=1, count=2)
    survived = [first.owns(key) for key in open_attention(space)].count(True)
    assert 3 <= survived < [first.owns(key) for key in alone].count(True), "it was killed too late to show anything"
    (said,) = succeed(start(folder, "attention", "shards.yaml", *own, "--shard", "1/2"))
    assert "attention, shard 1/2: " in said and "there, done" in said
    assert_same(open_attention(space), alone)
    assert sum(commit.counts["records"] for commit in Space.open(space).commits()) == RECORDS, (
        "something was done twice"
    )
