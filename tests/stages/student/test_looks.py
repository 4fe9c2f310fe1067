"""Where a student looks before and after training: the right numbers, and a training that does not notice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from cache.student_attention import STUDENT_ATTENTION, StudentLook, read_student_attention
from data.errors import Interrupted, ModelError
from data.prompts import explain_prompt
from stages.attention.batches import TokenBudget
from stages.attention.stepwise import attention_of
from stages.attention.tokens import locate
from stages.settings import ObjectiveSettings, StudentSettings
from stages.student import looks as student_attention
from stages.student.looks import looked_at, student_looks
from stages.student.summary import LAYER_WEIGHTS
from tests.fakes import tiny_tokenizer
from tests.stages.student.test_layer_weights import records
from tests.stages.student.test_step import model_of, student
from tests.stages.student.test_train import EXAMPLES, TermAfter, attention, folder, train, weights

__all__ = ["attention", "folder", "records", "student"]


def looks_of(out: Path, when: str) -> dict[str, StudentLook]:
    return {look.key: look for look in read_student_attention(out) if look.when == when}


def recomputed(model: Path) -> dict[str, np.ndarray]:
    """The same by the teacher's path, from a plain checkpoint and texts that begin with the student's prompt."""
    tokenizer, loaded = tiny_tokenizer(), AutoModelForCausalLM.from_pretrained(model).eval()
    prefixes = [explain_prompt(one.marked.question).partition(one.marked.question)[0] for one in EXAMPLES]
    located = [locate(tokenizer, one.marked, prefix=prefix) for one, prefix in zip(EXAMPLES, prefixes, strict=True)]
    blocks = attention_of(loaded, located, TokenBudget(4096))
    return {one.key: block for one, block in zip(EXAMPLES, blocks, strict=True)}


@pytest.mark.parametrize("objective", ["molsaki", "dss", "answer-only"])
def test_before_is_the_model_that_training_began_with_and_after_the_checkpoint(folder, attention, tmp_path, objective):
    needed = attention if objective == "molsaki" else None
    train(folder, tmp_path, needed, objective=ObjectiveSettings(name=objective))
    for when, model in (("before", folder), ("after", tmp_path)):
        found, expected = looks_of(tmp_path, when), recomputed(model)
        assert found.keys() == expected.keys()
        for key, look in found.items():
            np.testing.assert_allclose(look.attention, expected[key], rtol=1e-3, atol=1e-6)
    one = next(iter(found))
    assert not np.allclose(found[one].attention, looks_of(tmp_path, "before")[one].attention, atol=1e-4)


def test_layer_weights_are_those_of_the_loss(folder, attention, tmp_path):
    train(folder, tmp_path, attention)
    kept = pd.read_parquet(tmp_path / LAYER_WEIGHTS).set_index("key")["student"]
    for key, look in looks_of(tmp_path, "after").items():
        np.testing.assert_allclose(look.layer_weights, kept[key], atol=1e-6)
    for look in looks_of(tmp_path, "before").values():
        np.testing.assert_allclose(look.layer_weights, 0.5)  # the router begins at zero: even weights
    train(folder, tmp_path / "dss", None, objective=ObjectiveSettings(name="dss"))
    assert {one.layer_weights for one in read_student_attention(tmp_path / "dss")} == {None}


def test_every_run_looks_at_the_same_few_records(records, monkeypatch):
    by_key = sorted(records, key=lambda one: one.key)
    assert looked_at(records) == looked_at(records[::-1]) == by_key
    monkeypatch.setattr(student_attention, "LOOKED_AT", 1)
    assert looked_at(records) == by_key[:1]


def test_looks_do_not_depend_on_the_batch(student, records):
    model = model_of(student, ObjectiveSettings(), teacher_layers=3)
    torch.nn.init.normal_(model.aligner.router.score.weight, std=0.05)
    together, alone = (student_looks(model, records, "after", size) for size in (16, 1))
    for one, other in zip(together, alone, strict=True):
        assert one.key == other.key
        np.testing.assert_allclose(one.attention, other.attention, rtol=2e-3, atol=1e-6)
        np.testing.assert_allclose(one.layer_weights, other.layer_weights, atol=1e-6)


def test_looking_leaves_modes_random_numbers_and_gradients_as_they_were(student, records):
    model = model_of(student, ObjectiveSettings(), teacher_layers=3).train()
    model.student.lm_head.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    student_looks(model, records, "before", 2)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())


def test_training_ends_at_the_same_bits_whether_or_not_anybody_looks(folder, attention, tmp_path, monkeypatch):
    train(folder, tmp_path / "looked", attention)
    monkeypatch.setattr("stages.student.train._looks_before", lambda *_: [])
    train(folder, tmp_path / "not", attention)
    assert not (tmp_path / "not" / STUDENT_ATTENTION).exists()
    looked, unseen = weights(tmp_path / "looked"), weights(tmp_path / "not")
    assert all(torch.equal(looked[name], unseen[name]) for name in unseen)


def test_before_is_before_in_a_training_that_was_interrupted_too(folder, attention, tmp_path):
    train(folder, tmp_path / "undisturbed", attention)
    with pytest.raises(Interrupted):
        train(folder, tmp_path / "stopped", attention, progress=TermAfter(3))
    train(folder, tmp_path / "stopped", attention)
    files = [(tmp_path / name / STUDENT_ATTENTION).read_bytes() for name in ("stopped", "undisturbed")]
    assert files[0] == files[1]


@pytest.mark.parametrize("initialise", ["pretrained", "random"])
def test_an_adapter_and_fresh_weights_are_looked_at_as_they_begin(folder, attention, tmp_path, initialise):
    peft = {"peft_type": "LORA", "r": 2, "target_modules": "all-linear"} if initialise == "pretrained" else {}
    chosen = StudentSettings(model=str(folder), initialise=initialise, peft=peft)
    train(folder, tmp_path, attention, student=chosen)
    before, began, after, ended = (
        looks_of(tmp_path, "before"), recomputed(folder), looks_of(tmp_path, "after"), recomputed(tmp_path)
    )  # fmt: skip
    for key, look in after.items():
        np.testing.assert_allclose(look.attention, ended[key], rtol=2e-3, atol=1e-5)
        same = np.allclose(before[key].attention, began[key], rtol=1e-3, atol=1e-6)
        assert same is (initialise == "pretrained")


def test_a_student_that_cannot_be_looked_at_is_trained_without(folder, tmp_path, monkeypatch):
    class Notes(TermAfter):
        said: list[str] = []  # noqa: RUF012

        def note(self, message: str) -> None:
            self.said.append(message)

    def refuse(*_: object, **__: object) -> None:
        raise ModelError("model type strange: it computes attention on its own")

    monkeypatch.setattr(student_attention, "recording_attention", refuse)
    notes = Notes(-1)
    train(folder, tmp_path, None, objective=ObjectiveSettings(name="dss"), progress=notes)
    assert notes.said == ["where the student looks is not kept: model type strange: it computes attention on its own"]
    assert not (tmp_path / STUDENT_ATTENTION).exists()
    assert (tmp_path / "training.json").exists()


def test_the_choice_is_made_of_what_fits_the_student(folder, attention, tmp_path):
    lengths = sorted(len(one.marked.text) for one in EXAMPLES)
    short = replace(StudentSettings(model=str(folder)), max_length=lengths[len(lengths) // 2] + 40)
    train(folder, tmp_path, attention, student=short)
    assert 0 < len(looks_of(tmp_path, "after")) < len(EXAMPLES)
