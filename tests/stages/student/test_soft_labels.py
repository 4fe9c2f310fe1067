"""Training from a real store of soft labels: what it leads to, what goes on where it stopped, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cache.keys import record_key
from cache.soft_labels.reader import SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Space
from data.errors import ConfigError, Interrupted, MissingRecordsError
from stages.attention.select import Example
from stages.models.identity import identify_model
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import (
    ObjectiveSettings,
    SoftLabelSettings,
    SoftLabelTerm,
    StudentSettings,
    TeacherSettings,
    TermSettings,
    TrainingSettings,
)
from stages.soft_labels.spec import soft_label_slug, soft_label_spec
from stages.soft_labels.write import write_soft_labels
from stages.student.train import train_student
from tests.fakes import tiny_model_folder
from tests.stages.student.test_kept_records import learned_tokenizer
from tests.stages.student.test_train import EXAMPLES as UNKEYED
from tests.stages.student.test_train import Notes, TermAfter

EXAMPLES = [replace(one, key=record_key(one.marked)) for one in UNKEYED]

TOP = SoftLabelSettings(layout="top", k=64)
HIDDEN = SoftLabelSettings(layout="hidden")
SAMPLED = SoftLabelSettings(layout="sampled")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("student"), "llama")


@pytest.fixture(scope="module")
def teacher(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tokenizer, and surer of what it says."""
    torch.manual_seed(7)
    path = tiny_model_folder(tmp_path_factory.mktemp("teacher"), "llama")
    model = AutoModelForCausalLM.from_pretrained(path)
    model.lm_head.weight.data = torch.randn_like(model.lm_head.weight)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def stored(teacher: Path, tmp_path_factory: pytest.TempPathFactory):
    """A store of each layout, made when it is asked for."""
    store, model = tmp_path_factory.mktemp("store"), TeacherSettings(model=str(teacher), dtype="float32", device="cpu")
    identity = identify_model(str(teacher), None)

    def of(settings: SoftLabelSettings) -> SoftLabelStore:
        spec = soft_label_spec(identity, model, settings)
        space = Space.open_or_create(store, "soft-labels", soft_label_slug(identity, settings), spec)
        with StopSignal() as stop:
            write_soft_labels(
                [one.marked for one in EXAMPLES], SoftLabelWriter(space), set(SoftLabelStore(space)), model, settings,
                identity=identity, progress=SilentProgress(), stop=stop,
            )  # fmt: skip
        return SoftLabelStore(space)

    return of


def with_soft_labels(**term) -> ObjectiveSettings:
    return ObjectiveSettings(name="fine-tune-cot", terms=TermSettings(soft_labels=SoftLabelTerm(**term)))


def train(folder, out, store, objective, *, progress=None, student=None, **settings) -> dict:
    training = TrainingSettings(
        **{"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "checkpoint_steps": 2, "device": "cpu", **settings}
    )
    with StopSignal() as stop:
        train_student(
            EXAMPLES, student or StudentSettings(model=str(folder)), objective, training, attention=None,
            soft_labels=store, seed=3, out=out, fingerprint="same", progress=progress or SilentProgress(), stop=stop,
        )  # fmt: skip
    return json.loads((out / "training.json").read_text())


@pytest.mark.parametrize(
    ("settings", "term"),
    [
        (TOP, {"weight": 1.0}),
        (HIDDEN, {"weight": 1.0, "temperature": 2.0}),
        (SAMPLED, {"weight": 1.0}),
        (TOP, {"weight": 1.0, "divergence": "jensen-shannon", "mixture": 0.3}),
        (TOP, {"weight": 1.0, "divergence": "reverse-kl", "temperature": 2.0}),
        (TOP, {"weight": 1.0, "match": "text"}),
    ],
)
def test_a_student_comes_nearer_to_what_the_teacher_says(folder, stored, tmp_path, settings, term):
    summary = train(
        folder, tmp_path, stored(settings), with_soft_labels(**term), epochs=12, learning_rate=0.01, log_steps=2
    )
    losses = [entry["L_soft"] for entry in summary["log"] if "L_soft" in entry]
    assert losses[-1] < 0.9 * losses[0], losses
    assert summary["tasks"] == ["explain"]


@pytest.mark.parametrize("settings", [TOP, HIDDEN])
def test_training_goes_on_where_a_signal_stopped_it(folder, stored, tmp_path, settings):
    store, objective = stored(settings), with_soft_labels(temperature=2.0)
    whole = train(folder, tmp_path / "whole", store, objective, epochs=3)
    with pytest.raises(Interrupted):
        train(folder, tmp_path / "halves", store, objective, epochs=3, progress=TermAfter(3))
    halves = train(folder, tmp_path / "halves", store, objective, epochs=3)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "halves"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [entry.get("L_soft") for entry in whole["log"]] == [entry.get("L_soft") for entry in halves["log"]]


def test_accumulated_batches_and_loader_workers_are_the_same_training(folder, stored, tmp_path):
    store, objective = stored(TOP), with_soft_labels()
    train(folder, tmp_path / "one", store, objective)
    train(folder, tmp_path / "two", store, objective, batch_size=2, gradient_accumulation=2)
    train(folder, tmp_path / "workers", store, objective, loader_workers=1)
    one, two, workers = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "workers"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)
        assert torch.equal(workers[name], one[name])


def test_a_student_of_another_vocabulary_learns_from_pieces_of_text_alone(folder, stored, tmp_path):
    other = tmp_path / "other"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), learned_tokenizer()
    model.save_pretrained(other)
    tokenizer.save_pretrained(other)
    with pytest.raises(ConfigError, match=r"makes tokens up to number \d+, but the model has embeddings of 259"):
        train(other, tmp_path / "large", None, ObjectiveSettings(name="fine-tune-cot"))
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(other)
    with pytest.raises(ConfigError, match=r"is not the teacher's .*`match: text` compares pieces of text"):
        train(other, tmp_path / "tokens", stored(TOP), with_soft_labels())
    summary = train(other, tmp_path / "text", stored(TOP), with_soft_labels(match="text"), log_steps=1)
    assert all(entry["L_soft"] > 0 for entry in summary["log"] if "L_soft" in entry)


def test_what_the_stored_tokens_do_not_hold_is_warned_of_with_the_layout_that_does(folder, stored, tmp_path):
    notes = Notes()
    train(folder, tmp_path / "few", stored(replace(TOP, k=1)), with_soft_labels(), progress=notes, epochs=1)
    (warning,) = [line for line in notes.said if line.startswith("warning")]
    assert "the 1 likeliest tokens hold" in warning and "soft_labels.layout hidden tells all of it" in warning
    for settings, term in ((replace(TOP, k=259), {}), (HIDDEN, {}), (replace(TOP, k=1), {"match": "text"})):
        notes = Notes()
        name = f"{settings.layout}-{settings.k}"
        train(folder, tmp_path / name, stored(settings), with_soft_labels(**term), progress=notes, epochs=1)
        assert not [line for line in notes.said if "likeliest" in line]


def test_soft_labels_that_are_not_there_are_asked_for_by_their_command(folder, stored, tmp_path, monkeypatch):
    with pytest.raises(MissingRecordsError, match="molsaki soft-labels CONFIG"):
        train(folder, tmp_path, None, with_soft_labels())
    store = stored(TOP)
    one = Example(rationale=EXAMPLES[0].rationale, marked=EXAMPLES[0].marked, key="0" * 64)
    monkeypatch.setattr("tests.stages.student.test_soft_labels.EXAMPLES", [one, *EXAMPLES[1:]])
    with pytest.raises(MissingRecordsError, match="soft labels of 1 of 12 records are missing; `molsaki soft-labels"):
        train(folder, tmp_path, store, with_soft_labels())
