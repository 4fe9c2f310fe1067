"""The job scripts of docs/slurm.md, run as they stand there: which commands they give, and what is dealt out to whom.

SLURM, torchrun and molsaki are stand-ins. Signals, limits and requeueing are tried in a real SLURM: tests/slurm.
"""

import os
import re
import shlex
import shutil
import stat
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from pipeline.config.load import load_config
from stages.runtime.shard import Shard
from tests.test_documents import ROOT, blocks, parse

SLURM = ROOT / "docs" / "slurm.md"
SCRIPTS = blocks(SLURM, "bash")

MOLSAKI = 'echo "$*" >> {folder}/called'
# Tasks one after another, with the highest exit code of all, as srun has it.
SRUN = """
[ "$1" = --kill-on-bad-exit=0 ] && shift
highest=0
for task in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_PROCID=$task "$@"
    code=$?
    [ $code -gt $highest ] && highest=$code
done
exit $highest
"""
SCONTROL = 'echo "$*" >> {folder}/scontrol.called'
# Prints the number of the job, and remembers what it was asked for.
SBATCH = """
echo "$*" >> {folder}/sbatch.called
expr 100 + $(wc -l < {folder}/sbatch.called)
"""
TORCHRUN = """
[ "$1 $2 $3" = "--standalone --no-python --nproc-per-node" ] || exit 9
world=$4; shift 4
for rank in $(seq 0 $((world - 1))); do "$@" || exit 1; done
"""


class Cluster:
    """A folder with stand-ins for the commands that the scripts call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "activate").write_text("")
        commands = {"molsaki": MOLSAKI, "srun": SRUN, "scontrol": SCONTROL, "sbatch": SBATCH, "torchrun": TORCHRUN}
        for name, script in commands.items():
            path = folder / name
            path.write_text(f"#!/bin/bash\n{script.replace('{folder}', shlex.quote(str(folder)))}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(self, script: str, *arguments: str, **variables: str) -> int:
        """Run a script as its job would, and return its exit code."""
        environment = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_JOB_ID": "7",
            **variables,
        }
        (self.folder / "job").write_text(script)
        command = ["bash", "job", *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, timeout=60, check=False).returncode

    def calls(self, name: str = "called") -> list[str]:
        """What a stand-in was called with, a line each."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def script_with(*words: str) -> str:
    """The one script of the document that has all of these words."""
    (script,) = (script for script in SCRIPTS if all(word in script for word in words))
    return script


ATTENTION = script_with("#SBATCH", "SLURM_PROCID")
WHOLE_RUN = script_with("#SBATCH", "molsaki run examples/svamp.yaml")
JOB = script_with("#SBATCH", "SLURM_ARRAY_TASK_ID")
SUBMIT = script_with("sbatch --parsable", "examples/svamp.yaml")
SUBMIT_MATRIX = script_with("sbatch --parsable", "examples/study.yaml")
LOOP = script_with("CUDA_VISIBLE_DEVICES")
WITH_TORCHRUN = script_with("torchrun")


def shards_of(calls: list[str]) -> Counter[str]:
    """The shards in command lines, each of which molsaki would take."""
    contexts = [parse(tuple(shlex.split(call))) for call in calls]
    assert all(isinstance(context.params["shard"], Shard) for context in contexts)
    return Counter(str(context.params["shard"]) for context in contexts)


def once_each(count: int) -> Counter[str]:
    return Counter(f"{index}/{count}" for index in range(1, count + 1))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_bash(script: str) -> None:
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("code", [0, 2])
def test_the_job_of_a_whole_run_that_ends_by_itself_is_not_requeued(cluster: Cluster, code: int) -> None:
    (cluster.folder / "molsaki").write_text(f"#!/bin/bash\nsleep 0.1\nexit {code}\n")
    assert cluster.run(WHOLE_RUN) == code
    assert cluster.calls("scontrol.called") == []


def test_tasks_of_one_job_do_every_shard_once(cluster: Cluster) -> None:
    (tasks,) = re.findall(r"^#SBATCH --ntasks=(\d+)$", ATTENTION, re.MULTILINE)
    assert cluster.run(ATTENTION, SLURM_NTASKS=tasks) == 0
    assert shards_of(cluster.calls()) == once_each(int(tasks))
    assert cluster.calls("scontrol.called") == []


def test_the_loop_does_every_shard_once_and_then_says_what_is_there(cluster: Cluster) -> None:
    assert cluster.run(LOOP) == 0
    *shards, status = cluster.calls()
    assert shards_of(shards) == once_each(4)
    assert status == "status examples/svamp.yaml"


def test_torchrun_is_given_a_command_that_molsaki_takes(cluster: Cluster) -> None:
    assert cluster.run(WITH_TORCHRUN) == 0
    assert len(cluster.calls()) == 4
    assert {parse(tuple(call.split())).params["shard"] for call in cluster.calls()} == {None}


@pytest.fixture
def submitted(cluster: Cluster) -> list[list[str]]:
    """The words after `sbatch` of every job that `submit.sh` queues."""
    assert cluster.run(SUBMIT) == 0
    return [shlex.split(call) for call in cluster.calls("sbatch.called")]


def test_every_job_waits_for_the_one_before(submitted: list[list[str]]) -> None:
    assert [words[words.index("job.sbatch") + 1] for words in submitted] == [
        "rationales", "attention", "train", "evaluate",
    ]  # fmt: skip
    waits = [[word for word in words if word.startswith("--dependency")] for words in submitted]
    assert waits == [[], *([f"--dependency=afterok:{number}"] for number in (101, 102, 103))]


def tasks_of(words: list[str]) -> list[int]:
    """The numbers of the tasks that `--array=first-last` asks for."""
    (array,) = (word for word in words if word.startswith("--array="))
    first, last = map(int, array.removeprefix("--array=").split("-"))
    return list(range(first, last + 1))


def run_task(cluster: Cluster, words: list[str], task: int, count: int, **variables: str) -> int:
    """Run `job.sbatch` as one task of an array."""
    arguments = words[words.index("job.sbatch") + 1 :]
    array = {"SLURM_ARRAY_JOB_ID": "123", "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(count)}
    return cluster.run(JOB, *arguments, **array, **variables)


@pytest.mark.parametrize(("number", "stage"), [(0, "rationales"), (1, "attention")])
def test_the_arrays_of_stage_one_do_every_shard_once(
    cluster: Cluster, submitted: list[list[str]], number: int, stage: str
) -> None:
    array = submitted[number]
    tasks = tasks_of(array)
    assert [run_task(cluster, array, task, len(tasks)) for task in tasks] == [0] * len(tasks)
    assert shards_of(cluster.calls()) == once_each(len(tasks))
    assert {parse(tuple(shlex.split(call))).info_name for call in cluster.calls()} == {stage}


def test_the_array_of_the_training_does_every_seed_of_the_configuration(
    cluster: Cluster, submitted: list[list[str]]
) -> None:
    train = submitted[2]
    assert [run_task(cluster, train, task, len(tasks_of(train))) for task in tasks_of(train)] == [0, 0, 0]
    contexts = [parse(tuple(shlex.split(call))) for call in cluster.calls()]
    config = load_config(ROOT / "examples" / "svamp.yaml", contexts[0].params["overrides"])
    assert [context.params["seeds"] for context in contexts] == [(seed,) for seed in config.training.seeds]
    assert config.store == Path("/shared/molsaki")


def test_the_arrays_of_a_matrix_do_every_shard_of_records_and_of_students_once(cluster: Cluster) -> None:
    assert cluster.run(SUBMIT_MATRIX) == 0
    rationales, attention, students, table = [shlex.split(call) for call in cluster.calls("sbatch.called")]
    for words in (attention, students):
        tasks = tasks_of(words)
        assert [run_task(cluster, words, task, len(tasks)) for task in tasks] == [0] * len(tasks)
    called = cluster.calls()
    assert shards_of([call for call in called if call.startswith("attention")]) == once_each(4)
    assert shards_of([call for call in called if call.startswith("run")]) == once_each(8)
    assert [words[words.index("job.sbatch") + 1] for words in (rationales, table)] == ["rationales", "run"]


@pytest.mark.parametrize("number", [0, 3])
def test_a_stage_without_array_is_one_command(cluster: Cluster, submitted: list[list[str]], number: int) -> None:
    arguments = submitted[number][submitted[number].index("job.sbatch") + 1 :]
    assert cluster.run(JOB, *arguments) == 0
    assert cluster.calls() == [shlex.join(arguments)]
    assert parse(tuple(arguments)).info_name == arguments[0]


def test_a_job_that_failed_is_not_requeued(cluster: Cluster) -> None:
    (cluster.folder / "molsaki").write_text("#!/bin/bash\nexit 65\n")
    assert cluster.run(JOB, "evaluate", "examples/svamp.yaml") == 65
    assert cluster.calls("scontrol.called") == []
