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
        self.tokenizers: list[str] = []
        self.examples = 0
        self.stop_after_pieces: int | None = None

    def load_tokenizer(self, model: str, revision: str | None, *, trust_remote_code: bool = False) -> None:
        self.tokenizers.append(Path(model).name)

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

    stages_run_here(monkeypatch)
    monkeypatch.setattr("stages.models.tokenizer.load_tokenizer", scripted.load_tokenizer)
    return Experiment(tmp_path, scripted)


def stages_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command of a stage run in this process, which does not end with its parent."""

    def run_here(_: ForwardingStop, command: Sequence[str]) -> int:
        result = CliRunner().invoke(molsaki, command[4:])
        click.echo(result.stderr, err=True, nl=False)
        return result.exit_code

    monkeypatch.setattr(ForwardingStop, "run", run_here)
    monkeypatch.setattr("pipeline.cli.run.stop_with_parent", lambda: None)


TINY = """\
name: tiny
store: store
data:
  train: [{name: jsonl, path: train.jsonl}]
  dev: [{name: jsonl, path: dev.jsonl}]
  test: [{name: jsonl, path: test.jsonl}]
teacher: {model: ./teacher, dtype: float32, device: cpu}
rationales: {engine: file, path: rationales.jsonl}
student: {model: ./student}
objective: {name: mentor-kd}
training: {seeds: [0], epochs: 1, batch_size: 4, log_steps: 1, device: cpu}
evaluation: {prompts: [explain], max_new_tokens: 4}
"""


class Tiny:
    """An experiment whose models are real and tiny, and the command line in its folder, `tiny.yaml` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tiny.yaml").write_text(TINY)
        for name, numbers in (("train", range(1, 9)), ("dev", range(31, 33)), ("test", range(41, 44))):
            self.write(
                f"{name}.jsonl", [{"id": f"q-{n}", "question": self.question(n), "answer": n + 2} for n in numbers]
            )
        self.write_rationales("rationales.jsonl", {n: f"{n} and 2 make {n + 2}." for n in range(1, 9)})

    @staticmethod
    def question(number: int) -> str:
        return f"Ann has {number} figs and finds 2. How many figs?"

    def write(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write_rationales(self, name: str, texts: Mapping[int, str]) -> None:
        self.write(name, [{"id": f"q-{n}", "rationale": text, "answer": str(n + 2)} for n, text in texts.items()])

    def __call__(self, command: str, *arguments: str, name: str = "tiny") -> Result:
        """Run `molsaki COMMAND tiny.yaml` with these arguments, as a run of this name."""
        return CliRunner().invoke(molsaki, [command, "tiny.yaml", "--set", f"name={name}", *arguments])

    def run(self, *arguments: str, name: str = "tiny") -> Result:
        """The same of `run`, and insist on success."""
        result = self("run", *arguments, name=name)
        assert result.exit_code == 0, result.output
        return result

    def refused(self, *overrides: str, command: str = "status") -> str:
        """What is said where a configuration is refused, in one line or more and without a traceback."""
        result = self(command, *(part for override in overrides for part in ("--set", override)))
        assert result.exit_code == 2 and "traceback" not in result.stderr, (result.exit_code, result.output)
        return result.stderr

    def trained(self, name: str = "tiny") -> dict[str, Any]:
        """What `training.json` says of the student of seed 0."""
        return dict(json.loads(Path(f"runs/{name}/student/seed-0/training.json").read_text()))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `teacher` and `student` of one tokenizer, and `words`, a student of another."""
    from stages.toy.teacher import ModelShape, word_tokenizer, write_untrained
    from tests.fakes import tiny_model_folder

    folder = tmp_path_factory.mktemp("tiny")
    tiny_model_folder(folder / "teacher", "llama", seed=1)
    tiny_model_folder(folder / "student", "llama", layers=1, seed=2)
    asked = [
        Question(
            dataset="own",
            id=f"q-{n}",
            text=Tiny.question(n),
            answer=str(n + 2),
            answer_kind="number",
            reference=f"{n} and 2 make {n + 2}.",
        )
        for n in range(50)
    ]
    write_untrained(folder / "words", word_tokenizer(asked), ModelShape(layers=1, width=32, heads=2, feed_forward=32))
    return folder


@pytest.fixture
def tiny(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """An experiment with real models in the current directory; `run` starts its stages in this process."""
    monkeypatch.chdir(tmp_path)
    stages_run_here(monkeypatch)
    for model in tiny_models.iterdir():
        (tmp_path / model.name).symlink_to(model)
    return Tiny(tmp_path)


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
