"""The job scripts of docs/slurm.md in a real SLURM, with real stages of tiny models: `make slurm-test`.

Undisturbed, at their limit, cancelled, requeued, killed, signalled at the worst moments, and as a chain. Whatever
happens, in the end the students are those of the undisturbed run, bit by bit.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from data.sets.synthetic import synthetic_questions
from tests.fakes import tiny_model_folder
from tests.slurm.cluster import Slurm, missing, until
from tests.test_slurm_document import ATTENTION, JOB, ROOT, SUBMIT, WHOLE_RUN

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),
    pytest.mark.skipif("MOLSAKI_SLURM" not in os.environ, reason="starts a SLURM of its own: `make slurm-test`"),
]
NODE = re.compile(r"^#SBATCH --(gres|gpus-per-task|cpus-per-task|mem|mem-per-cpu)=.*\n", re.MULTILINE)
SEEDS = (0, 1, 2)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if lacking := missing():
        pytest.fail(lacking)
    with Slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_left(slurm: Slurm) -> Iterator[None]:
    """The job of a test that fails does not run beside the next one."""
    yield
    slurm.command("scancel", "--user=root")
    until("no job is left", lambda: slurm.command("squeue", "--noheader") == "", 120)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and rationales, for folders to link to."""
    folder = tmp_path_factory.mktemp("prepared")
    tiny_model_folder(folder / "model", "llama")
    questions = synthetic_questions(60, seed=5, split="train")
    rows = [{"id": one.id, "rationale": one.reference, "answer": one.answer} for one in questions]
    (folder / "rationales.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    return working_folder(prepared, tmp_path)


def working_folder(prepared: Path, folder: Path) -> Path:
    """A folder to submit from: the document's scripts without what this node lacks, and a configuration."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "examples").mkdir()
    (folder / "molsaki").write_text(f'#!/bin/bash\nexec {sys.executable} -P -m pipeline "$@"\n')
    (folder / "molsaki").chmod(0o755)
    (folder / ".venv" / "bin" / "activate").write_text(f"export PATH={folder}:$PATH PYTHONPATH={ROOT}\n")
    configuration = {
        "name": "svamp",
        "data": {
            "train": [{"name": "synthetic", "split": "train", "seed": 5, "limit": 60}],
            "test": [{"name": "synthetic", "split": "test", "seed": 6, "limit": 6}],
        },
        "teacher": {"model": str(prepared / "model"), "dtype": "float32"},
        "rationales": {"engine": "file", "path": str(prepared / "rationales.jsonl")},
        "student": {"model": str(prepared / "model")},
        "training": {"seeds": list(SEEDS), "epochs": 24, "batch_size": 8, "device": "cpu"},
        "evaluation": {"engine": "transformers", "max_new_tokens": 4},
    }
    (folder / "examples" / "svamp.yaml").write_text(yaml.safe_dump(configuration))
    scripts = {"svamp.sbatch": WHOLE_RUN, "attention.sbatch": ATTENTION, "job.sbatch": JOB, "submit.sh": SUBMIT}
    for name, script in scripts.items():
        (folder / name).write_text(NODE.sub("", script).replace("/shared/", f"{folder}/shared/"))
    return folder


def weights(folder: Path) -> list[bytes]:
    return [(folder / f"runs/svamp/student/seed-{seed}/model.safetensors").read_bytes() for seed in SEEDS]


def said(folder: Path) -> str:
    """What the jobs of a folder wrote, for messages of failed tests."""
    return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(folder.glob("*.log")))


def processes(folder: Path, *words: str) -> list[psutil.Process]:
    """Those of molsaki that run in `folder` with all of these words in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and {"pipeline", *words} <= set(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it has ended meanwhile
            continue
    return found


def trains(folder: Path) -> bool:
    """Whether a student is being trained and not finished."""
    students = folder / "runs" / "svamp" / "student"
    return any(students.glob("seed-*/checkpoints")) and bool(processes(folder, "train"))


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """A job that nothing happens to: how long it runs, and its students."""

    seconds: int
    students: list[bytes]


@pytest.fixture(scope="session")
def undisturbed_job(slurm: Slurm, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = working_folder(prepared, tmp_path_factory.mktemp("undisturbed"))
    job = slurm.submit(folder, "svamp.sbatch")
    assert slurm.finish(job) == 0, said(folder)
    hours, minutes, seconds = map(int, slurm.job(job)["RunTime"].split(":"))
    return Undisturbed(seconds=3600 * hours + 60 * minutes + seconds, students=weights(folder))


@pytest.fixture
def undisturbed(undisturbed_job: Undisturbed) -> list[bytes]:
    return undisturbed_job.students


def test_a_job_that_nothing_happens_to_runs_once(undisturbed: list[bytes]) -> None:
    assert len(set(undisturbed)) == len(SEEDS)


def test_a_job_whose_time_is_over_is_requeued_until_it_is_done(
    slurm: Slurm, folder: Path, undisturbed_job: Undisturbed
) -> None:
    """Signalled before it can be done, however slow the machine; up to 30 s early, for SLURM looks so often."""
    limit = 120
    lead = limit - min(max(undisturbed_job.seconds // 2, 40), limit - 10)
    job = slurm.submit(folder, "svamp.sbatch", options=["--time=00:02:00", f"--signal=B:USR1@{lead}"])
    restarts = slurm.finish(job, 600)
    assert restarts >= 1, said(folder)
    assert weights(folder) == undisturbed_job.students


def test_a_cancelled_job_stays_cancelled_and_the_next_one_goes_on(
    slurm: Slurm, folder: Path, undisturbed: list[bytes]
) -> None:
    job = slurm.submit(folder, "svamp.sbatch")
    until("a student is trained", lambda: trains(folder), 120)
    slurm.command("scancel", job)
    until("the job has ended", lambda: not processes(folder), 60)
    time.sleep(5)  # for a `scontrol requeue` that must not come
    assert slurm.job(job)["JobState"] == "CANCELLED", said(folder)
    assert "stopped by" in said(folder)
    slurm.finish(slurm.submit(folder, "svamp.sbatch"))
    assert weights(folder) == undisturbed


def test_stop_and_go_on_later(slurm: Slurm, folder: Path, undisturbed: list[bytes]) -> None:
    job = slurm.submit(folder, "svamp.sbatch")
    until("a student is trained", lambda: trains(folder), 120)
    slurm.command("scancel", "--batch", "--signal=USR1", job)
    until("the job waits", lambda: slurm.job(job)["JobState"] == "PENDING", 60)
    assert slurm.job(job)["Reason"] in ("BeginTime", "None"), said(folder)
    assert slurm.finish(job) == 1
    assert weights(folder) == undisturbed


def test_a_job_that_slurm_requeues_itself_goes_on(slurm: Slurm, folder: Path, undisturbed: list[bytes]) -> None:
    job = slurm.submit(folder, "svamp.sbatch")
    until("a student is trained", lambda: trains(folder), 120)
    slurm.command("scontrol", "requeue", job)
    assert slurm.finish(job) == 1, said(folder)
    assert weights(folder) == undisturbed


@pytest.mark.parametrize("after", [0.0, 0.05, 0.3, 1.0, 2.5])
def test_a_signal_while_the_command_is_loaded_requeues_the_job(slurm: Slurm, folder: Path, after: float) -> None:
    job = slurm.submit(folder, "svamp.sbatch")
    until("it runs", lambda: bool(processes(folder)), 60)
    time.sleep(after)
    slurm.command("scancel", "--batch", "--signal=USR1", job)
    until("the job waits", lambda: slurm.job(job)["JobState"] == "PENDING", 60)
    assert slurm.job(job)["Restarts"] == "1", said(folder)
    slurm.command("scancel", job)


def test_a_killed_task_hides_no_other_that_was_stopped(slurm: Slurm, folder: Path) -> None:
    """srun ends with the highest code of its tasks: 137 of the one that was killed, 75 of the other."""
    options = ["--ntasks=2", "--overcommit"]
    slurm.finish(slurm.submit(folder, "job.sbatch", "rationales", *arguments(folder)))
    job = slurm.submit(folder, "attention.sbatch", options=options)
    until("both tasks run", lambda: len(processes(folder, "attention")) == 2, 60)
    first, _ = processes(folder, "attention")
    first.kill()
    slurm.command("scancel", "--batch", "--signal=USR1", job)
    until("the job waits", lambda: slurm.job(job)["JobState"] == "PENDING", 60)
    assert slurm.finish(job) == 1, said(folder)


def arguments(folder: Path) -> list[str]:
    return ["examples/svamp.yaml", "--set", f"store={folder}/shared/molsaki"]


def test_an_array_of_which_one_task_was_killed_is_submitted_once_more(slurm: Slurm, folder: Path) -> None:
    slurm.finish(slurm.submit(folder, "job.sbatch", "rationales", *arguments(folder)))
    array = ["--array=1-2", "--job-name=attention", "--output=%x-%A_%a.log"]
    job = slurm.submit(folder, "job.sbatch", "attention", *arguments(folder), options=array)
    until("a task runs", lambda: bool(processes(folder, "--shard", "1/2")), 60)
    os.kill(processes(folder, "--shard", "1/2")[0].pid, signal.SIGKILL)
    until("both have ended", lambda: set(slurm.states(job)) <= {"COMPLETED", "FAILED"}, 120)
    assert sorted(slurm.states(job)) == ["COMPLETED", "FAILED"], said(folder)
    again = slurm.submit(folder, "job.sbatch", "attention", *arguments(folder), options=array)
    until("both have ended well", lambda: set(slurm.states(again)) == {"COMPLETED"}, 120)
    assert {path.name for path in folder.glob("attention-*.log")} == {
        f"attention-{number}_{task}.log" for number in (job, again) for task in (1, 2)
    }


def test_a_chain_of_jobs_does_everything_once(slurm: Slurm, folder: Path, undisturbed: list[bytes]) -> None:
    last = slurm.command("bash", "submit.sh", folder=folder).split()[-1]
    slurm.finish(last, 600)
    assert weights(folder) == undisturbed
    assert (folder / "runs" / "svamp" / "evaluation" / "summary.json").exists()


def test_a_chain_survives_that_one_of_its_tasks_is_stopped(
    slurm: Slurm, folder: Path, undisturbed: list[bytes]
) -> None:
    last = slurm.command("bash", "submit.sh", folder=folder).split()[-1]
    until("a student is trained", lambda: trains(folder), 300)
    words = processes(folder, "train")[0].cmdline()
    seed = words[words.index("--seed") + 1]
    array = next(path.name for path in folder.glob("train-*.log")).removeprefix("train-").partition("_")[0]
    slurm.command("scancel", "--batch", "--signal=USR1", f"{array}_{seed}")
    until("the task waits", lambda: slurm.job(f"{array}_{seed}")["JobState"] == "PENDING", 60)
    assert slurm.job(last)["JobState"] == "PENDING"
    slurm.finish(f"{array}_{seed}")
    slurm.finish(last, 600)
    assert weights(folder) == undisturbed
