"""What the rationale stage survives: kills of its process at any moment, a second job at its side, a full disk.

In: nothing but options. Out: counts, and exit code 1 as soon as an attempt is lost, wrong, or asked too often.
The stage is the real one, `molsaki rationales` in a process of its own. Only its engine is made up: a teacher that is
slow, and says to each prompt what follows from the prompt alone, so that a finished store can be compared with that of
a run that nobody disturbed. It notes each prompt that it answers. The tests run the same functions with smaller
numbers, and kill the process of a real vLLM (tests/test_rationale_faults.py).

- **kills**: SIGKILL at random moments, while the stage starts or in the middle of its work, and the same command again.
  In the end every attempt has to be there, equal to that of the undisturbed run, and stored once. For each kill in the
  middle at most one piece is asked again.
- **same**: two jobs that ask the same questions at once; both end well, and each attempt is served once.
- **full disk**: the store on a small tmpfs of our own, which fills up in the middle; one line says so, and the same
  command goes on after space was made.

    python -m benchmarks.rationale_faults --questions 2000 --kills 20
    python -m benchmarks.rationale_faults --questions 200 --kills 5 --json
"""

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

from benchmarks.faults import LARGER_DISK, on_small_disk, remount
from cache.rationales import Attempt, AttemptName, RationaleStore
from cache.spaces import Space, is_space
from stages.engines import Answers, Decoding, Engine, EngineSetup, Generation

PIECE = 50
ROUND = 10
"""Answers that the made-up teacher gives at a time."""
ROUND_SECONDS = 0.02
PATIENCE = 120.0
"""Seconds after which a stage that answers nothing counts as hanging."""
AT_THE_START = 5
"""Every so many kills one comes before the first answer."""
START_SECONDS = 2.0
LONG = 2500
"""Bytes of noise in an answer, of which some hundred fill a small disk."""
CONFIGURATION = """\
name: made-up
store: {store}
data: {{train: [{{name: svamp, path: train.jsonl}}]}}
teacher: {{model: ./teacher}}
rationales: {{engine: transformers, shots: 1, piece: {piece}}}
student: {{model: ./teacher}}
"""
QUESTION = re.compile(r"Ann has (\d+) figs and finds (\d+)")
Attempts = dict[AttemptName, Attempt]


# The stage, with a teacher that is made up -------------------------------------------------------------------------


class MadeUpTeacher(Engine):
    """Says to a prompt what follows from it, in rounds that take a while, and notes each answered prompt in a file."""

    def __init__(self, log: Path, padding: int, jobs: int) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._padding = padding
        _wait_for_others(log.with_name("begun"), jobs)

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer in rounds, the last prompt of each first, as no order is promised."""
        for start in range(0, len(prompts), ROUND):
            places = range(start, min(start + ROUND, len(prompts)))
            time.sleep(ROUND_SECONDS)
            for place in reversed(places):
                os.write(self._log, f"{hashlib.sha256(prompts[place].encode()).hexdigest()}\n".encode())
                yield place, answer(prompts[place], self._padding)

    def close(self) -> None:
        """Nothing is held but the file, which may be written to the end."""


def _wait_for_others(begun: Path, jobs: int) -> None:
    """Go on when so many teachers have come here, whose stages have all looked at the store by then."""
    with begun.open("a") as file:
        file.write(f"{os.getpid()}\n")
    deadline = time.monotonic() + PATIENCE
    while len(set(begun.read_text().split())) < jobs:
        if time.monotonic() > deadline:
            raise TimeoutError(f"of {jobs} jobs not all have begun within {PATIENCE:.0f} s")
        time.sleep(0.005)


def answer(prompt: str, padding: int = 0) -> Generation:
    """Mostly right, and by the prompt's hash wrong, without an answer, empty or cut off; so also with the answer shown.

    `padding` are bytes of noise, which no compression makes smaller than they are.
    """
    digest = hashlib.sha256(prompt.encode()).digest()
    has, finds = map(int, QUESTION.findall(prompt)[-1])
    noise = hashlib.shake_256(prompt.encode()).hexdigest(padding)
    thought = f" Ann has {has} figs. {has} and {finds} make {has + finds}. {noise}"
    match digest[0] % 10:
        case 0:
            return Generation(text=f"{thought} The answer is {has}.", finish_reason="stop")
        case 1:
            return Generation(text=" I cannot tell.", finish_reason="stop")
        case 2 if digest[1] % 2:
            return Generation(text="", finish_reason="stop")
        case 2:
            return Generation(text=thought, finish_reason="length")
    return Generation(text=f"{thought} The answer is {has + finds}.", finish_reason="stop")


def be_stage(log: Path, padding: int, jobs: int) -> None:
    """Be `molsaki rationales`, with the made-up teacher where it looks for the engine of transformers."""
    module = ModuleType("stages.engines_transformers")

    def open_teacher(_setup: EngineSetup) -> MadeUpTeacher:
        return MadeUpTeacher(log, padding, jobs)

    module.TransformersEngine = open_teacher  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    sys.argv = ["molsaki", "rationales", "run.yaml", "--quiet"]
    from pipeline.cli import main as molsaki

    molsaki()


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Questions and a configuration in a folder, a store, and what the teacher has noted."""

    folder: Path
    store: Path
    padding: int = 0

    @classmethod
    def write(cls, folder: Path, questions: int, *, store: Path | None = None, padding: int = 0) -> "Experiment":
        """Write everything that the stage reads."""
        (folder / "teacher").mkdir(parents=True)
        for name, content in (("config.json", "{}"), ("model.safetensors", "made up"), ("tokenizer.json", "{}")):
            (folder / "teacher" / name).write_text(content)
        rows = [
            {
                "ID": f"q-{n}",
                "Body": f"Ann has {n} figs and finds {n % 7}.",
                "Question": "How many figs?",
                "Answer": n + n % 7,
            }
            for n in range(questions)
        ]
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        store = folder / "store" if store is None else store
        (folder / "run.yaml").write_text(CONFIGURATION.format(store=store, piece=PIECE))
        return cls(folder=folder, store=store, padding=padding)

    def start(self, jobs: int = 1) -> subprocess.Popen[str]:
        """Start the stage, which begins to ask when so many jobs have been started."""
        options = ["--stage", str(self.folder / "asked"), "--padding", str(self.padding), "--jobs", str(jobs)]
        command = [sys.executable, "-P", str(Path(__file__).resolve()), *options]
        return subprocess.Popen(  # noqa: S603
            command,
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, problems: list[str]) -> None:
        """Run the stage to its end."""
        stage = self.start()
        _, said = stage.communicate()
        if stage.returncode:
            problems.append(f"the stage ended with {stage.returncode}: {said.strip()}")

    def asked(self) -> Counter[str]:
        """How often each prompt was answered, by its hash."""
        log = self.folder / "asked"
        return Counter(log.read_text().split() if log.exists() else [])

    def answered(self) -> int:
        """Answers that were given so far."""
        log = self.folder / "asked"
        return log.stat().st_size // 65 if log.exists() else 0

    def attempts(self) -> tuple[Attempts, int]:
        """All attempts by key and phase, and how many are stored, those included that are stored twice."""
        folder = self.store / "rationales"
        spaces = [Space.open(path) for path in folder.iterdir() if is_space(path)] if folder.exists() else []
        if not spaces:  # killed before there was one
            return {}, 0
        (space,) = spaces
        return RationaleStore(space).attempts(), sum(commit.counts["records"] for commit in space.commits())


# Kills ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Kills:
    """What became of a stage that was killed again and again."""

    questions: int
    attempts: int = 0
    kills: int = 0
    in_the_middle: int = 0
    asked_twice: int = 0
    stored_twice: int = 0
    lost: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def bad(self) -> bool:
        """Whether anything was lost, wrong, or done in vain more than it has to be."""
        return bool(
            self.lost or self.wrong or self.stored_twice or self.problems or self.asked_twice > self.allowed_twice()
        )

    def allowed_twice(self) -> int:
        """Prompts that may have been answered in vain."""
        return PIECE * self.in_the_middle


def kill_stage(folder: Path, questions: int, kills: int, seed: int) -> Kills:
    """Kill the stage `kills` times, let it finish, and compare its store with that of an undisturbed run."""
    result, chance = Kills(questions=questions), random.Random(seed)
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


def _kill_once(experiment: Experiment, chance: random.Random, answers: int, result: Kills) -> bool:
    """Start the stage and kill it after so many more answers, or before the first; False where it has ended before."""
    before = experiment.answered()
    with experiment.start() as stage:
        deadline = time.monotonic() + PATIENCE
        while answers and experiment.answered() < before + answers and stage.poll() is None:
            if time.monotonic() > deadline:
                stage.kill()
                raise TimeoutError(f"the stage has not given {answers} answers within {PATIENCE:.0f} s")
            time.sleep(0.002)
        time.sleep(chance.random() * (ROUND_SECONDS if answers else START_SECONDS))
        running = stage.poll() is None
        stage.kill()
    result.kills += running
    result.in_the_middle += running and experiment.answered() > before
    return running


def _compare(experiment: Experiment, expected: Attempts, result: Kills) -> None:
    attempts, stored = experiment.attempts()
    result.asked_twice = sum(count - 1 for count in experiment.asked().values())
    result.stored_twice = stored - len(attempts)
    result.lost = len(expected.keys() - attempts.keys())
    result.wrong = sum(expected.get(name) != attempt for name, attempt in attempts.items())


# Two jobs, and a full disk ----------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Trial:
    """One thing that was tried; `skipped` says why it could not be."""

    skipped: str = ""
    attempts: int = 0
    asked_twice: int = 0
    refused: int = 0
    stored_before: int = 0
    lost: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

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


def environment() -> dict[str, str]:
    """Where this script runs as a file, Python has to find the one beside it that it imports from."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}


def fill_disk(folder: Path, questions: int) -> Trial:
    """Run `fill_small_disk` where `<folder>/disk` is a small disk."""
    (disk := folder / "disk").mkdir(parents=True)
    arguments = ["--on-small-disk", str(folder), "--questions", str(questions)]
    command, reason = on_small_disk(arguments, disk, script=Path(__file__))
    if not command:
        return Trial(skipped=reason)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return Trial(problems=[f"ended with {done.returncode}: {done.stderr.strip()}"])
    return Trial(**json.loads(done.stdout.splitlines()[-1]))


def fill_small_disk(folder: Path, questions: int) -> Trial:
    """Answers so long that the store outgrows the disk; with more room the same command goes on."""
    trial, disk = Trial(), folder / "disk"
    expected = undisturbed(folder / "undisturbed", questions, trial.problems, LONG)
    experiment = Experiment.write(folder / "work", questions, store=disk / "store", padding=LONG)
    for _ in range(2):  # the second time the disk is full from the beginning
        stage = experiment.start()
        _, said = stage.communicate()
        if stage.returncode != 1 or len(said.splitlines()) != 1 or str(disk) not in said or "go on" not in said:
            trial.problems.append(
                f"expected one line that names {disk} and exit code 1, found {stage.returncode}: {said}"
            )
        trial.refused += stage.returncode == 1
    before, _ = experiment.attempts()
    trial.stored_before = len(before)
    if not before:
        trial.problems.append("nothing was committed before the disk was full: nothing is shown")
    remount(disk, LARGER_DISK)
    experiment.finish(trial.problems)
    attempts, _ = experiment.attempts()
    trial.compare(attempts, expected)
    return trial


# Command line -----------------------------------------------------------------------------------------------------

Result = Kills | Trial


def main() -> None:
    """Read the options, do it and print counts; or be the stage, or the process that works on a small disk."""
    options = _options()
    if options.stage:
        be_stage(options.stage, options.padding, options.jobs)
        return
    if options.on_small_disk:
        print(json.dumps(asdict(fill_small_disk(options.on_small_disk, options.questions))))
        return
    results: list[tuple[str, Result, float]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        for name, trial in (
            ("kills", lambda: kill_stage(folder / "kills", options.questions, options.kills, options.seed)),
            ("same", lambda: ask_the_same(folder / "same", min(options.questions, 500))),
            ("full disk", lambda: fill_disk(folder / "full", min(options.questions, 500))),
        ):
            before = time.monotonic()
            results.append((name, trial(), time.monotonic() - before))
    _print(results, as_json=options.json)
    sys.exit(int(any(result.bad() for _, result, _ in results)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=2000, help="questions of a run")
    parser.add_argument("--kills", type=int, default=20, help="kills during that run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--stage", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--padding", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--on-small-disk", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def describe_result(result: Result) -> str:
    """One line of counts."""
    if isinstance(result, Trial) and result.skipped:
        return f"skipped: {result.skipped}"
    counts = {name: count for name, count in asdict(result).items() if isinstance(count, int)}
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())


def _print(results: Sequence[tuple[str, Result, float]], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"case": name, "seconds": round(seconds, 1), "bad": result.bad(), **asdict(result)}
            for name, result, seconds in results
        ]
        print(json.dumps(rows, indent=1))
        return
    table = Table("case", "counts", "seconds", "", show_lines=True)
    for name, result, seconds in results:
        table.add_row(name, describe_result(result), f"{seconds:.0f}", "BAD" if result.bad() else "ok")
    Console().print(table)
    for name, result, _ in results:
        for problem in result.problems:
            print(f"{name}: {problem}")


if __name__ == "__main__":
    main()
