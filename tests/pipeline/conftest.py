"""A small experiment on disk whose models are never loaded: scripted stages stand in for those that need torch."""

import json
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cache.keys import record_key
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import Interrupted, MolsakiError
from data.records import Likelihood, Marked, Prediction, Question
from pipeline.bench import compare
from pipeline.cli.main import molsaki
from pipeline.console.exits import StageProcessError, complain
from pipeline.run.processes import ForwardingStop
from stages.attention.select import Example
from stages.runtime.progress import StopSignal
from stages.settings import AttentionSettings, EvaluationSettings, ObjectiveSettings, Task
from stages.student.summary import Origin

CONFIG = """\
name: small
store: store
data:
  train:
    - {name: svamp, path: train.jsonl, limit: 10}
  dev:
    - {name: svamp, path: dev.jsonl}
  test:
    - {name: svamp, path: test.jsonl}
teacher: {model: ./teacher}
rationales: {engine: file, path: rationales.jsonl}
student: {model: ./student}
training: {seeds: [0, 1]}
evaluation: {prompts: [predict]}
"""


class Scripted:
    """Stands in for the stages that need torch; remembers what they were asked for."""

    def __init__(self) -> None:
        self.attention: list[str] = []
        self.trained: list[int] = []
        self.evaluated: list[str] = []
        self.measured: list[str] = []
        self.examples = 0
        self.stop_after_pieces: int | None = None

    def write_attention(
        self,
        records: Sequence[Marked],
        writer: AttentionWriter,
        known: Container[str],
        teacher: object,
        settings: AttentionSettings,
        *,
        stop: StopSignal,
        **_: object,
    ) -> None:
        wanted = [marked for marked in records if record_key(marked) not in known]
        for piece, start in enumerate(range(0, len(wanted), settings.piece), start=1):
            blocks = [_block(marked) for marked in wanted[start : start + settings.piece]]
            writer.append(blocks)
            self.attention += [block.key for block in blocks]
            if piece == self.stop_after_pieces:
                stop._remember(15, None)
            stop.check("the attention computed so far")

    def train_student(
        self,
        examples: Sequence[Example],
        student: object,
        objective: ObjectiveSettings,
        training: object,
        *,
        attention: Mapping[str, np.ndarray] | None,
        seed: int,
        out: Path,
        fingerprint: str,
        origin: Origin,
        **_: object,
    ) -> None:
        assert (attention is None) == (objective.name != "molsaki")
        assert attention is None or all(example.key in attention for example in examples)
        self.trained.append(seed)
        self.examples = len(examples)
        training_json = {
            "fingerprint": fingerprint,
            "objective": {"name": objective.name},
            "seed": seed,
            "records": len(examples),
            "steps": 3,
            **origin.described(),
        }
        (out / "training.json").write_text(json.dumps(training_json))

    def evaluate_student(
        self, checkpoint: Path, questions: Sequence[Question], settings: EvaluationSettings, **_: object
    ) -> list[Prediction]:
        self.evaluated.append(checkpoint.name)
        dss = json.loads((checkpoint / "training.json").read_text())["objective"]["name"] == "dss"
        return [
            Prediction(
                question_id=question.id,
                dataset=question.dataset,
                prompt=prompt,
                output="",
                parsed=None,
                gold=question.answer or "",
                correct=number % 2 == 0 or not dss,
            )
            for prompt in settings.prompts
            for number, question in enumerate(questions)
        ]

    def student_likelihoods(
        self,
        checkpoint: Path,
        questions: Sequence[Question],
        references: Sequence[str | None],
        prompts: Sequence[Task],
        **_: object,
    ) -> list[Likelihood]:
        """Of each token -1, of a student of `dss` -2; an answer has two tokens, a rationale one a word."""
        self.measured.append(checkpoint.name)
        dss = json.loads((checkpoint / "training.json").read_text())["objective"]["name"] == "dss"
        texts = {"predict": [question.answer for question in questions], "explain": references}
        return [
            Likelihood(
                question_id=question.id,
                dataset=question.dataset,
                prompt=prompt,
                target=text,
                log_probability=-(1.0 + dss) * (tokens := len(text.split()) + 1),
                tokens=tokens,
            )
            for prompt in prompts
            for question, text in zip(questions, texts[prompt], strict=True)
            if text is not None
        ]


def _block(marked: Marked) -> AttentionBlock:
    steps, words = len(marked.step_spans), len(marked.critical_spans)
    return AttentionBlock(
        key=record_key(marked),
        marked=marked,
        attention=np.ones((2, steps, words), dtype=np.float32),
        step_tokens=np.ones(steps, dtype=np.int32),
    )


class Experiment:
    """The files of one experiment, and the command line in its folder."""

    def __init__(self, folder: Path, scripted: Scripted) -> None:
        self.folder = folder
        self.scripted = scripted
        (folder / "run.yaml").write_text(CONFIG)
        self.write_questions("train.jsonl", range(1, 21))
        self.write_questions("dev.jsonl", range(31, 33))
        self.write_questions("test.jsonl", range(41, 45))
        self.write_rationales(range(1, 21))
        for name in ("teacher", "student", "other"):
            self.write_model(name)

    def write_questions(self, name: str, numbers: Sequence[int]) -> None:
        rows = [
            {"ID": f"q-{n}", "Body": f"Ann has {n} figs and finds 2.", "Question": "How many figs?", "Answer": n + 2}
            for n in numbers
        ]
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write_rationales(self, numbers: Sequence[int]) -> None:
        rows = [{"id": f"q-{n}", "rationale": f"{n} and 2 make {n + 2}.", "answer": str(n + 2)} for n in numbers]
        (self.folder / "rationales.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write_model(self, name: str) -> None:
        (self.folder / name).mkdir()
        (self.folder / name / "config.json").write_text(json.dumps({"model": name}))
        (self.folder / name / "model.safetensors").write_bytes(name.encode())
        (self.folder / name / "tokenizer.json").write_text("{}")

    def __call__(self, *arguments: str) -> Result:
        """Run `molsaki` with these arguments."""
        return CliRunner().invoke(molsaki, arguments)

    def run(self, *arguments: str) -> Result:
        """Run `molsaki run run.yaml` with these arguments, and insist on success."""
        result = self("run", "run.yaml", *arguments)
        assert result.exit_code == 0, result.output
        return result


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """An experiment in the current directory; `run` starts its stages in this process."""
    monkeypatch.chdir(tmp_path)
    scripted = Scripted()
    for name, function in (
        ("attention.write", scripted.write_attention),
        ("student.train", scripted.train_student),
        ("evaluation", scripted.evaluate_student),
        ("likelihood", scripted.student_likelihoods),
    ):
        module = ModuleType(f"stages.{name}")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, f"stages.{name}", module)

    def run_here(self: ForwardingStop, command: Sequence[str]) -> int:
        arguments = [argument for argument in command[4:] if argument != "--supervised"]
        result = CliRunner().invoke(molsaki, arguments)
        click.echo(result.stderr, err=True, nl=False)
        return result.exit_code

    monkeypatch.setattr(ForwardingStop, "run", run_here)
    return Experiment(tmp_path, scripted)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Measure in this process, without seconds of imports for each task; which there were with what is remembered."""
    done: list[tuple[object, ...]] = []

    def run_here(task: Callable[..., Any], *arguments: object, advance: Callable[[], object]) -> object:
        done.append((task.__name__, *arguments))
        lines: list[str] = []
        try:
            compare.do_task(*compare.written_out(task, arguments), lines.append)
        except Interrupted:
            raise
        except MolsakiError as error:
            complain(str(error))
            raise StageProcessError(error.exit_code) from error
        for _ in lines[:-1]:
            advance()
        return compare.read_result(task, json.loads(lines[-1]))

    monkeypatch.setattr(compare, "run_process", run_here)
    return done
