"""What became faster: this checkout beside an earlier revision, the same work in turns, seconds and memory as ratios.

    python -m benchmarks.before f771f36 step --data DATA

In: a revision, and a case, which is what is measured. Out: for each round seconds and peak memory of either side, then
the medians of the ratios. The revision is checked out beside this one; both run the same configuration by `python -m
pipeline` with the packages that are installed, each in a folder of its own, and every second round begins with the
other. Where a case reads the seconds that a run says of itself, starting the processes is not in them.

- `step`: training of a student, as `training.json` says it: SmolLM2 cut to six layers on SVAMP with PaLM's rationales
  (`--vocabulary` gives it another vocabulary, and random weights);
- `evaluate`: the answers of `--students` students of the demo's shape;
- `whole`: `molsaki run` from nothing, all stages; nearly all is starting with `--records 8 --questions 4 --layers 1`;
- `imports`: of such a run the seconds that its processes spend on imports alone, as Python counts them;
- `status`, `nothing`: `molsaki status`, and `molsaki run` where all is done, each a whole process.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
MIB = 2**20
IMPORT = re.compile(r"^import time: +([0-9]+) \|", re.MULTILINE)
"""What Python says of a module, without those that it imports, in microseconds."""
STAGES = ("rationales", "attention", "train", "evaluate")
CONFIGURATION = """\
name: measured
store: {place}/store
data:
  train: [{{name: svamp, path: {data}/svamp/chilled_train.jsonl, limit: {records}}}]
  test: [{{name: svamp, path: {data}/svamp/chilled_test.jsonl, limit: {questions}}}]
teacher: {{model: {place}/teacher, dtype: float32}}
rationales:
  engine: file
  path: {place}/rationales.jsonl
student: {{model: {place}/student}}
objective: {{name: {objective}}}
training: {{seeds: {seeds}, epochs: 1, batch_size: 8, device: cpu}}
evaluation: {{engine: {engine}, prompts: [predict], max_new_tokens: {new_tokens}}}
"""


@dataclass(frozen=True, kw_only=True)
class Used:
    """Seconds by the clock and of processors, start included in the latter, and peak memory in bytes."""

    seconds: float
    cpu_seconds: float
    bytes: int

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.cpu_seconds:.2f} s of processors, {self.bytes / MIB:,.0f} MiB"


@dataclass(frozen=True)
class Side:
    """A checkout, and the folder that it works in."""

    checkout: Path
    place: Path

    def run(self, *arguments: str) -> "Used":
        """What one command takes, which has to end well."""
        environment = {**os.environ, "PYTHONPATH": str(self.checkout)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as where somebody has installed it
        started = time.monotonic()
        log = self.place / "output.log"
        with log.open("wb") as output:
            command = [sys.executable, "-P", "-m", "pipeline", *arguments]
            process = subprocess.Popen(command, env=environment, cwd=self.place, stdout=output, stderr=output)  # noqa: S603
            _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"{' '.join(arguments)} in {self.checkout}:\n{log.read_text(errors='replace')[-3000:]}")
        return Used(seconds=seconds, cpu_seconds=used.ru_utime + used.ru_stime, bytes=used.ru_maxrss * 1024)

    @property
    def results(self) -> Path:
        """The run's folder."""
        return self.place / "runs" / "measured"


def step(side: Side) -> Used:
    """Train the student anew: seconds of the training itself."""
    shutil.rmtree(side.results / "student", ignore_errors=True)
    used = side.run("train", "run.yaml", "--quiet")
    log: list[Mapping[str, Any]] = json.loads((side.results / "student/seed-0/training.json").read_text())["log"]
    return replace(used, seconds=next(float(entry["train_runtime"]) for entry in log if "train_runtime" in entry))


def evaluate(side: Side) -> Used:
    """Let all students answer anew."""
    shutil.rmtree(side.results / "evaluation", ignore_errors=True)
    return side.run("evaluate", "run.yaml", "--quiet")


def whole(side: Side) -> Used:
    """Run all stages; processors' seconds are those of all processes."""
    for made in ("store", "runs"):
        shutil.rmtree(side.place / made, ignore_errors=True)
    return side.run("run", "run.yaml", "--quiet")


def imports(side: Side) -> Used:
    """Run all stages: seconds of their imports."""
    os.environ["PYTHONPROFILEIMPORTTIME"] = "1"
    used = whole(side)
    del os.environ["PYTHONPROFILEIMPORTTIME"]
    lines = IMPORT.findall((side.place / "output.log").read_text(errors="replace"))
    return replace(used, seconds=sum(map(int, lines)) / 1e6)


def status(side: Side) -> Used:
    """Look at a run of which all is done."""
    return side.run("status", "run.yaml")


def nothing(side: Side) -> Used:
    """Run what has nothing left to do."""
    return side.run("run", "run.yaml", "--quiet")


CASES: Mapping[str, tuple[tuple[str, ...], Callable[[Side], Used]]] = {
    "step": (STAGES[:2], step),
    "evaluate": (STAGES[:3], evaluate),
    "whole": ((), whole),
    "imports": ((), imports),
    "status": (STAGES, status),
    "nothing": (STAGES, nothing),
}
"""For each case the commands that make what it starts from, and what is measured."""


def main() -> None:
    """Read the options, prepare both sides, and measure in turns."""
    parser = argparse.ArgumentParser(description="This checkout beside an earlier revision.")
    parser.add_argument("revision")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds svamp/ and palm_rationales/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objective", default="dss")
    parser.add_argument("--records", type=int, default=128)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--students", type=int, default=1)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, help="of the student, which then begins at random")
    parser.add_argument("--engine", default="transformers", help="that students answer by")
    options = parser.parse_args()
    before, measured = CASES[options.case]
    with tempfile.TemporaryDirectory() as scratch:
        earlier = Path(scratch) / "checkout"
        git("worktree", "add", "--quiet", "--detach", str(earlier), options.revision)
        try:
            sides = [Side(REPOSITORY, Path(scratch) / "now"), Side(earlier, Path(scratch) / "before")]
            for side in sides:
                prepare(side, options)
                for command in before:
                    side.run(command, "run.yaml", "--quiet")
            found = in_turns(sides, measured, options.rounds)
        finally:
            git("worktree", "remove", "--force", str(earlier))
    print(f"{options.case}: {told(found)}")


def git(*arguments: str) -> None:
    """Run git in this repository."""
    subprocess.run(["git", *arguments], cwd=REPOSITORY, check=True)  # noqa: S603, S607  our own arguments


def prepare(side: Side, options: argparse.Namespace) -> None:
    """Write the models and the configuration."""
    side.place.mkdir()
    write_models(side.place, options.layers, options.vocabulary)
    palm = (options.data / "palm_rationales" / "svamp_palm_joined.jsonl").read_text(encoding="utf-8").splitlines()
    with (side.place / "rationales.jsonl").open("w", encoding="utf-8") as file:  # by names that revisions always knew
        for one in map(json.loads, palm):
            renamed = {"id": one["ID"], "rationale": one["palm_rationale"], "answer": one["palm_value"]}
            file.write(json.dumps(renamed) + "\n")
    (side.place / "run.yaml").write_text(
        CONFIGURATION.format(
            place=side.place,
            data=options.data.resolve(),
            records=options.records,
            questions=options.questions,
            objective=options.objective,
            seeds=list(range(options.students)),
            engine=options.engine,
            new_tokens=64 if options.case == "evaluate" else 16,
        )
    )


def write_models(place: Path, layers: int, vocabulary: int | None) -> None:
    """The real model cut to its first layers as teacher and student; neither side's code is asked to do it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from tests.real.model import is_there, real_model

    if not is_there(real_model()):
        sys.exit("the real model is not there; make it with: make real-model")
    config = AutoConfig.from_pretrained(real_model())
    config.num_hidden_layers = layers
    teacher = AutoModelForCausalLM.from_pretrained(real_model(), config=config, dtype="float32")
    student = teacher
    if vocabulary is not None:
        config.vocab_size = vocabulary
        student = AutoModelForCausalLM.from_config(config)
    tokenizer = AutoTokenizer.from_pretrained(real_model())
    for name, model in (("teacher", teacher), ("student", student)):
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)


def in_turns(sides: list[Side], measured: Callable[[Side], Used], rounds: int) -> list[tuple[Used, Used]]:
    """What each round found of either side, this checkout's first."""
    found = []
    for number in range(rounds):
        order = sides if number % 2 == 0 else sides[::-1]
        of = {side.checkout: measured(side) for side in order}
        now, earlier = (of[side.checkout] for side in sides)
        found.append((now, earlier))
        print(f"round {number + 1}: {now}; before {earlier}", flush=True)
    return found


def told(found: list[tuple[Used, Used]]) -> str:
    """The medians of the ratios round by round."""
    seconds = [now.seconds / earlier.seconds for now, earlier in found]
    processors = [now.cpu_seconds / earlier.cpu_seconds for now, earlier in found]
    memory = [now.bytes / earlier.bytes for now, earlier in found]
    spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
    shares = (
        f"of the time {statistics.median(seconds):.3f} ({spread}), of processors' {statistics.median(processors):.3f}"
    )
    return f"{shares}, of the memory {statistics.median(memory):.3f}, medians of {len(found)} rounds"


if __name__ == "__main__":
    main()
