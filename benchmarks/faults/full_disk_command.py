"""`molsaki rationales` on a full disk: a folder enters, counts of what was refused or lost leave.

The rationales come from a file and need more room than the small disk has; no teacher is needed.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.faults.full_disk import FullDisk
from benchmarks.faults.run_folder import write_lines, write_run_folder
from benchmarks.faults.small_disk import make_larger, run_on_small_disk, wrong_refusal
from cache.rationales import RationaleStore
from cache.spaces import Space

RATIONALES = "{engine: file, path: rationales.jsonl, piece: 20, second_phase: false}"
QUESTIONS = 400


def write_experiment(folder: Path, store: Path) -> None:
    """Write a configuration whose rationales come from a file and need more room than the small disk has."""
    chance = np.random.default_rng(0)
    problem = {"Body": "Ann has 3 figs and finds 2.", "Question": "How many figs?", "Answer": 5}
    write_run_folder(folder, store, RATIONALES, [{"ID": f"q-{n}", **problem} for n in range(QUESTIONS)])
    write_lines(
        folder / "rationales.jsonl",
        [
            {"id": f"q-{n}", "rationale": f"3 and 2 make 5. {chance.bytes(2500).hex()}.", "answer": "5"}
            for n in range(QUESTIONS)
        ],
    )


def fill_disk_by_command(folder: Path) -> FullDisk:
    """Run `fill_small_disk_by_command` where `<folder>/disk` is a small disk."""
    return run_on_small_disk(FullDisk, ["--fill-by-command", str(folder)], folder / "disk")


def fill_small_disk_by_command(folder: Path) -> FullDisk:
    """`molsaki rationales` with its store on the small disk, and with its run folder there."""
    full, disk = FullDisk(), folder / "disk"
    write_experiment(folder / "work", disk / "store")
    _expect_refusal(folder, disk, ["--runs", str(disk / "runs")], full)
    (space,) = (Space.open(path) for path in (disk / "store" / "rationales").iterdir())
    before = RationaleStore(space).attempts()
    full.commits_before = len(space.commits())
    if not before:
        full.problems.append("nothing was committed before the disk was full: nothing is shown")
    make_larger(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free))
    _expect_refusal(folder, disk, ["--runs", str(disk / "runs")], full)
    ballast.unlink()
    after = _molsaki(folder, ["--runs", str(disk / "runs")])
    if after.returncode:
        full.problems.append(f"does not go on after space was made: {after.stderr.strip()}")
    attempts = RationaleStore(space).attempts()
    full.lost += len(before.keys() - attempts.keys()) + QUESTIONS - len(attempts)
    full.wrong += sum(attempts.get(name) != attempt for name, attempt in before.items())
    return full


def _molsaki(folder: Path, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pipeline", "rationales", "run.yaml", "--quiet", *options]
    return subprocess.run(command, cwd=folder / "work", capture_output=True, text=True, check=False)  # noqa: S603


def _expect_refusal(folder: Path, disk: Path, options: Sequence[str], full: FullDisk) -> None:
    full.tries += 1
    ended = _molsaki(folder, options)
    if problem := wrong_refusal(disk, ended.returncode, ended.stderr):
        full.problems.append(problem)
    else:
        full.refused += 1
