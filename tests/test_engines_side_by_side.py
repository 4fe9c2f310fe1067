"""One store, two engines: what vLLM here has asked Ray does not ask again, and the other way round. Real commands.

Ray is one that the stage starts for itself, on this machine and without a GPU.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import yaml

from cache.rationales import Attempt, AttemptName, RationaleStore
from cache.spaces import Space, is_space
from tests.fakes import tiny_model_folder

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]
QUESTIONS = 300
OURS = ("rationales", "starting ray")
GUESSING = "{speculative_config: {method: ngram, num_speculative_tokens: 3, prompt_lookup_max: 3}}"
"""vLLM guesses tokens ahead, by what the prompt says, and a store is continued all the same."""
RAYS_OWN = "Set ray log level from environment variable"
"""The only words of Ray's C++ that reach the terminal."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teacher, questions and a configuration whose engine and store are still to be named."""
    folder = tmp_path_factory.mktemp("engines")
    tiny_model_folder(folder / "teacher", "llama", hidden=128)
    rows = [
        {"id": str(n), "question": f"Ann has {n} figs and finds 2.", "answer": str(n + 2)} for n in range(QUESTIONS)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    configuration = {
        "name": "engines",
        "data": {"train": [{"name": "jsonl", "path": "questions.jsonl"}]},
        "teacher": {"model": "./teacher", "dtype": "float32", "device": "cpu"},
        "rationales": {"shots": 1, "piece": 8, "max_tokens": 48, "second_phase": False, "ray_batch": 8},
        "student": {"model": "./teacher"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(configuration))
    return folder


def start(folder: Path, engine: str, store: str, *options: str, temporary: str | None = None) -> subprocess.Popen[str]:
    keys = ("--set", f"rationales.engine={engine}", "--set", f"store={store}")
    command = ["rationales", "run.yaml", "--runs", f"runs-{store}", *keys, *options]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    if temporary is not None:
        environment["TMPDIR"] = temporary
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def succeed(folder: Path, engine: str, store: str, *options: str, temporary: str | None = None) -> tuple[str, str]:
    """Run a command to its end, and return what it wrote to stdout and to stderr."""
    with start(folder, engine, store, *options, temporary=temporary) as stage:
        said = stage.communicate()
    assert stage.returncode == 0, said
    return said


def space_in(store: Path) -> Space | None:
    """The one space of rationales in a store, if it is there."""
    folder = store / "rationales"
    spaces = [Space.open(path) for path in (folder.iterdir() if folder.is_dir() else ()) if is_space(path)]
    return spaces[0] if spaces else None


def asked(store: Path) -> Counter[str]:
    """How many attempts each engine has committed."""
    space, counts = space_in(store), Counter[str]()
    for commit in space.commits() if space else ():
        counts[str(commit.note["engine"])] += commit.counts["records"]
    return counts


def attempts(store: Path) -> dict[AttemptName, Attempt]:
    space = space_in(store)
    assert space is not None
    return RationaleStore(space).attempts()


def end(folder: Path, store: str, number: signal.Signals) -> tuple[int, list[psutil.Process]]:
    """Begin with Ray, end the stage by a signal when it has committed something more; its exit code, and what it had
    started, which has to end with it."""
    before = asked(folder / store).total()
    with start(folder, "ray", store) as stage:
        while asked(folder / store).total() == before:
            assert stage.poll() is None, stage.communicate()
            time.sleep(0.02)
        processes = psutil.Process(stage.pid).children(recursive=True)
        assert len(processes) > 5, "Ray has more processes than that"
        stage.send_signal(number)
        stage.communicate()
    return stage.returncode, processes


def logged_last(folder: Path, store: str) -> list[str]:
    """What the last command with this store has written to the run's log."""
    log = folder / f"runs-{store}" / "engines" / "log.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    messages = [entry["message"] for entry in entries]
    begun = max(place for place, message in enumerate(messages) if message.startswith("command: "))
    return messages[begun:]


def test_what_vllm_has_begun_ray_finishes_and_the_other_way_round(folder: Path) -> None:
    """Each in a store of its own, and both at once: most of it is starting, which takes a core."""
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(vllm_then_ray, folder), pool.submit(ray_then_vllm, folder)]:
            done.result()
    first, second = attempts(folder / "first"), attempts(folder / "second")
    # Batches differ, and with them which of two tokens that are equally good in float32 is chosen.
    assert first.keys() == second.keys() and sum(first[name] != second[name] for name in first) <= QUESTIONS // 100


def vllm_then_ray(folder: Path) -> None:
    with TemporaryDirectory() as temporary:
        succeed(folder, "vllm", "first", "--shard", "1/2", temporary=temporary)
        begun = asked(folder / "first")["vllm"]
        assert 0 < begun < QUESTIONS
        out, said = succeed(folder, "ray", "first", temporary=temporary)
        assert not [path for path in Path(temporary).iterdir() if path.is_socket() or path.match("pymp-*")]
    assert (
        out == "" and [line for line in said.splitlines() if not line.startswith(OURS) and RAYS_OWN not in line] == []
    )
    assert asked(folder / "first") == {"vllm": begun, "ray": QUESTIONS - begun}
    # A library that takes the root logger for its own would have ended the log with the engine's start.
    assert any(line.startswith(f"rationales done: {QUESTIONS - begun} units") for line in logged_last(folder, "first"))


def ray_then_vllm(folder: Path) -> None:
    code, asked_to_end = end(folder, "second", signal.SIGTERM)
    assert code == 75 and psutil.wait_procs(asked_to_end, timeout=300)[1] == []
    code, left = end(folder, "second", signal.SIGKILL)
    assert code == -signal.SIGKILL
    begun = asked(folder / "second")["ray"]
    assert 0 < begun < QUESTIONS, "it was ended too late to show anything"
    succeed(folder, "vllm", "second", "--set", f"rationales.engine_arguments={GUESSING}")
    assert asked(folder / "second") == {"ray": begun, "vllm": QUESTIONS - begun}
    (plan,) = json.loads(succeed(folder, "ray", "second", "--dry-run", "--json")[0])
    assert (plan["done"], plan["to_do"]) == (QUESTIONS, 0)
    # Ray's agents, if their cluster was killed, look for it for a minute before they end as well.
    assert psutil.wait_procs(left, timeout=300)[1] == []
