"""What the rationale stage survives: numbers of questions and kills enter, counts of what was lost or wrong leave.

The stage is killed and started again, runs twice at once, and runs on a full disk; each time its store is compared with
that of a run that nobody disturbs.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.experiment import PIECE, Attempts, Experiment
from benchmarks.faults.processes import wait_until
from benchmarks.faults.results import Result
from benchmarks.faults.small_disk import make_larger, run_on_small_disk, wrong_refusal
from benchmarks.faults.teacher import ROUND_SECONDS

AT_THE_START = 5
"""Every so many kills one comes while the stage starts, with its first answers at the latest."""
START_SECONDS = 2.0
LONG = 2500
"""Bytes of noise in an answer, of which some hundred fill a small disk."""


@dataclass(kw_only=True)
class StageKills(Result):
    """What became of a stage that was killed again and again."""

    questions: int = 0
    attempts: int = 0
    kills: int = 0
    in_the_middle: int = 0
    asked_twice: int = 0
    stored_twice: int = 0
    lost: int = 0
    wrong: int = 0

    def bad(self) -> bool:
        """Whether anything was lost, wrong, or done in vain more than it has to be."""
        return bool(
            self.lost or self.wrong or self.stored_twice or self.problems or self.asked_twice > self.allowed_twice()
        )

    def allowed_twice(self) -> int:
        """Prompts that may have been answered in vain."""
        return PIECE * self.in_the_middle


def kill_stage(
    folder: Path, questions: int, kills: int, seed: int, done: Callable[[], None] = lambda: None
) -> StageKills:
    """Kill the stage `kills` times, let it finish, and compare its store with that of an undisturbed run."""
    result, chance = StageKills(questions=questions), random.Random(seed)
    expected = undisturbed(folder / "undisturbed", questions, result.problems)
    result.attempts = len(expected)
    disturbed = Experiment.write(folder / "disturbed", questions)
    while result.kills < kills:
        there = len(disturbed.attempts()[0])
        # On average so much that the kills are spread over all of the work.
        most = 2 * (len(expected) - there) // (kills - result.kills + 1)
        at_the_start = result.kills % AT_THE_START == AT_THE_START - 1
        if not _kill_once(disturbed, chance, 0 if at_the_start else chance.randint(1, max(most, 1)), result):
            result.problems.append(f"the stage has ended before it was killed {kills} times")
            break
        done()
    disturbed.finish(result.problems)
    _compare(disturbed, expected, result)
    return result


def undisturbed(folder: Path, questions: int, problems: list[str], padding: int = 0) -> Attempts:
    """The attempts of a run that nobody disturbs."""
    experiment = Experiment.write(folder, questions, padding=padding)
    experiment.finish(problems)
    attempts, stored = experiment.attempts()
    asked = experiment.asked()
    if set(asked.values()) != {1} or len(asked) != stored or stored != len(attempts) or len(attempts) <= questions:
        problems.append(f"undisturbed: {len(asked):,} prompts, {stored:,} attempts stored, {len(attempts):,} different")
    return attempts


def _kill_once(experiment: Experiment, chance: random.Random, answers: int, result: StageKills) -> bool:
    """Start the stage and kill it after so many more answers, with 0 by the first; False where it has ended before."""
    before = experiment.answered()
    with experiment.start() as stage:
        try:
            if answers:
                wait_until(
                    lambda: experiment.answered() >= before + answers or stage.poll() is not None,
                    f"{answers} answers of the stage",
                )
                time.sleep(chance.random() * ROUND_SECONDS)
            else:
                moment = time.monotonic() + chance.random() * START_SECONDS
                wait_until(lambda: time.monotonic() > moment or experiment.answered() > before, "the first answer")
            running = stage.poll() is None
        finally:
            stage.kill()
    result.kills += running
    result.in_the_middle += running and experiment.answered() > before
    return running


def _compare(experiment: Experiment, expected: Attempts, result: StageKills) -> None:
    attempts, stored = experiment.attempts()
    result.asked_twice = sum(count - 1 for count in experiment.asked().values())
    result.stored_twice = stored - len(attempts)
    result.lost = len(expected.keys() - attempts.keys())
    result.wrong = sum(expected.get(name) != attempt for name, attempt in attempts.items())


@dataclass(kw_only=True)
class Trial(Result):
    """One thing that was tried."""

    attempts: int = 0
    asked_twice: int = 0
    refused: int = 0
    stored_before: int = 0
    lost: int = 0
    wrong: int = 0

    def bad(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.lost or self.wrong or self.problems)

    def compare(self, found: Attempts, expected: Attempts) -> None:
        """Count what of `expected` is missing and what was found that is not as there."""
        self.attempts = len(expected)
        self.lost += len(expected.keys() - found.keys())
        self.wrong += sum(expected.get(name) != attempt for name, attempt in found.items())


def ask_the_same(folder: Path, questions: int) -> Trial:
    """Two jobs that begin together ask the same questions of the same store."""
    trial = Trial()
    expected = undisturbed(folder / "undisturbed", questions, trial.problems)
    experiment = Experiment.write(folder / "both", questions)
    with experiment.start(jobs=2) as first, experiment.start(jobs=2) as second:
        for job in (first, second):
            _, said = job.communicate()
            if job.returncode:
                trial.problems.append(f"a job ended with {job.returncode}: {said.strip()}")
    attempts, _ = experiment.attempts()
    trial.asked_twice = sum(count - 1 for count in experiment.asked().values())
    if trial.asked_twice < questions:  # neither has found anything of the other's when it began
        trial.problems.append(f"only {trial.asked_twice:,} prompts were asked by both of them")
    trial.compare(attempts, expected)
    return trial


def fill_disk_by_stage(folder: Path, questions: int) -> Trial:
    """Run `fill_small_disk_by_stage` where `<folder>/disk` is a small disk."""
    return run_on_small_disk(Trial, ["--fill-by-stage", str(folder), "--questions", str(questions)], folder / "disk")


def fill_small_disk_by_stage(folder: Path, questions: int) -> Trial:
    """Answers so long that the store outgrows the disk; with more room the same command goes on."""
    trial, disk = Trial(), folder / "disk"
    expected = undisturbed(folder / "undisturbed", questions, trial.problems, LONG)
    experiment = Experiment.write(folder / "work", questions, store=disk / "store", padding=LONG)
    for _ in range(2):  # the second time the disk is full from the beginning
        stage = experiment.start()
        _, said = stage.communicate()
        if problem := wrong_refusal(disk, stage.returncode, said):
            trial.problems.append(problem)
        trial.refused += stage.returncode == 1
    before, _ = experiment.attempts()
    trial.stored_before = len(before)
    if not before:
        trial.problems.append("nothing was committed before the disk was full: nothing is shown")
    make_larger(disk)
    experiment.finish(trial.problems)
    attempts, _ = experiment.attempts()
    trial.compare(attempts, expected)
    return trial
