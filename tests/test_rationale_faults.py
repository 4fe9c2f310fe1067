"""What the rationale stage survives; `make faults` does the same with 2,000 questions and 20 kills."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from benchmarks.faults.stage import ask_the_same, fill_disk_by_stage, kill_stage
from benchmarks.faults.teacher import answer
from cache.rationales import Attempt, AttemptName, RationaleStore
from cache.spaces import Space, is_space
from tests.fakes import tiny_model_folder


@pytest.mark.slow
def test_a_stage_that_is_killed_again_and_again_ends_with_the_store_of_one_that_was_left_alone(tmp_path: Path) -> None:
    kills = kill_stage(tmp_path, questions=200, kills=5, seed=1)
    assert kills.problems == [] and kills.kills == 5 and kills.in_the_middle >= 3, kills
    assert (kills.lost, kills.wrong, kills.stored_twice) == (0, 0, 0)
    assert 0 < kills.asked_twice <= kills.allowed_twice()


@pytest.mark.slow
def test_two_jobs_that_ask_the_same_at_once_end_well(tmp_path: Path) -> None:
    trial = ask_the_same(tmp_path, questions=150)
    assert (trial.problems, trial.lost, trial.wrong) == ([], 0, 0)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_stage_goes_on_after_space_was_made(tmp_path: Path) -> None:
    trial = fill_disk_by_stage(tmp_path, questions=300)
    if trial.skipped:
        pytest.skip(trial.skipped)
    assert (trial.problems, trial.refused, trial.lost, trial.wrong) == ([], 2, 0, 0)
    assert trial.stored_before > 0


def test_the_made_up_teacher_gives_every_kind_of_answer_and_each_prompt_always_the_same() -> None:
    prompts = [f"Q: Ann has {n} figs and finds 2. How many figs?\nA:" for n in range(200)]
    answers = [answer(prompt) for prompt in prompts]
    assert answers == [answer(prompt) for prompt in prompts]
    right = sum(f"The answer is {n + 2}." in each.text for n, each in enumerate(answers))
    assert 100 < right < 180
    assert {each.finish_reason for each in answers} == {"stop", "length"} and "" in {each.text for each in answers}


QUESTIONS = 400


def start(folder: Path, *settings: str) -> subprocess.Popen[str]:
    """Start `molsaki rationales` with these values set."""
    overrides = [word for setting in settings for word in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline", "rationales", "run.yaml", "--quiet", *overrides],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def attempts_in(store: Path) -> dict[AttemptName, Attempt]:
    """What is committed in the one space of a store, if there is one."""
    folder = store / "rationales"
    spaces = [Space.open(path) for path in (folder.iterdir() if folder.is_dir() else ()) if is_space(path)]
    return RationaleStore(spaces[0]).attempts() if spaces else {}


def vllm_processes(stage: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes in which a stage's vLLM computes."""
    below = psutil.Process(stage.pid).children(recursive=True)
    return [each for each in below if each.is_running() and each.name().startswith("VLLM::Engine")]


def write_run(folder: Path) -> None:
    """A tiny teacher, questions, and a configuration that asks it about them."""
    tiny_model_folder(folder / "teacher", "llama", hidden=128)
    rows = [
        {"id": str(n), "question": f"Ann has {n} figs and finds 2.", "answer": str(n + 2)} for n in range(QUESTIONS)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    configuration = {
        "name": "faults",
        "data": {"train": [{"name": "jsonl", "path": "questions.jsonl"}]},
        "teacher": {"model": "./teacher", "dtype": "float32", "device": "cpu"},
        "rationales": {"shots": 1, "piece": 20, "max_tokens": 48, "second_phase": False},
        "student": {"model": "./teacher"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(configuration))


def wait_for_first(stage: subprocess.Popen[str], store: Path) -> None:
    """Return when the stage has committed something; it has to be at work until then."""
    while not attempts_in(store):
        assert stage.poll() is None, stage.communicate()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.vllm
def test_a_stage_whose_vllm_is_killed_in_the_middle_ends_with_the_store_of_another_engine(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    write_run(tmp_path)
    with start(tmp_path, "store=killed", "rationales.engine=vllm") as stage:
        wait_for_first(stage, tmp_path / "killed")
        before = len(attempts_in(tmp_path / "killed"))
        (process,) = vllm_processes(stage)
        process.kill()
        _, said = stage.communicate()
    assert stage.returncode == 0, said
    assert 0 < before < QUESTIONS, "it was killed too late to show anything"
    with start(tmp_path, "store=alone", "rationales.engine=transformers") as stage:
        _, said = stage.communicate()
    assert stage.returncode == 0, said
    found, expected = attempts_in(tmp_path / "killed"), attempts_in(tmp_path / "alone")
    assert found.keys() == expected.keys() and len(found) == QUESTIONS
    # Two engines may choose differently between tokens that are equally good in float32, and then go on differently.
    assert sum(found[name] != expected[name] for name in found) <= QUESTIONS // 100


@pytest.mark.slow
@pytest.mark.vllm
def test_a_stage_that_is_killed_leaves_no_vllm_behind(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    write_run(tmp_path)
    with start(tmp_path, "store=killed", "rationales.engine=vllm") as stage:
        wait_for_first(stage, tmp_path / "killed")
        below = psutil.Process(stage.pid).children(recursive=True)
        assert vllm_processes(stage)
        stage.kill()
        stage.communicate()
    assert psutil.wait_procs(below, timeout=60)[1] == []
