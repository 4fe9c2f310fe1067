"""The same training by other means: micro-batches, interruptions, memory saved, number formats. And what stops it."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from data.errors import ConfigError, Interrupted, ModelError
from stages.attention.select import Example
from stages.runtime.processes import Processes
from stages.runtime.progress import Progress, SilentProgress, StopSignal
from stages.settings import ObjectiveSettings, StudentSettings, TrainingSettings
from stages.student.global_batches import ONLY_TAKES_PART, Shares
from stages.student.train import train_student
from stages.student.trainer import last_checkpoint
from tests.fakes import tiny_model_folder
from tests.stages.student.test_train import EXAMPLES, TermAfter, in_a_store, weights
from tests.stages.student.test_train import attention as attention  # a fixture
from tests.stages.student.test_train import folder as folder  # a fixture

TRAINING = TrainingSettings(epochs=2, batch_size=8, learning_rate=1e-3, checkpoint_steps=2, device="cpu")
TIMES = re.compile("train_(runtime|samples_per_second|steps_per_second)")
OBJECTIVES = ["answer-only", "fine-tune-cot", "dss", "mmi", "molsaki"]
Train = Callable[..., Path]


@pytest.fixture
def train(folder, attention, tmp_path) -> Train:
    """Trains one student into a folder of this name."""

    def run(
        name: str,
        training: TrainingSettings = TRAINING,
        *,
        objective: str = "molsaki",
        model: Path = folder,
        progress: Progress | None = None,
        attention: Mapping[str, np.ndarray] = attention,
        examples: Sequence[Example] = EXAMPLES,
    ) -> Path:
        with StopSignal() as stop:
            train_student(
                examples,
                StudentSettings(model=str(model)),
                ObjectiveSettings(name=objective),
                training,
                attention=attention if objective == "molsaki" else None,
                seed=3,
                out=tmp_path / name,
                fingerprint="same",
                progress=progress or SilentProgress(),
                stop=stop,
            )
        return tmp_path / name

    return run


def log_of(student: Path) -> list[dict[str, object]]:
    entries = json.loads((student / "training.json").read_text())["log"]
    return [{name: value for name, value in entry.items() if not TIMES.fullmatch(name)} for entry in entries]


def assert_same_weights(one: Path, other: Path, tolerance: float = 0.0) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_micro_batches_give_the_training_of_whole_batches(train, objective):
    """Target tokens differ from record to record, and the last batch of an epoch is smaller than the others."""
    whole = train("whole", replace(TRAINING, batch_size=8), objective=objective)
    cut = train("cut", replace(TRAINING, batch_size=4, gradient_accumulation=2), objective=objective)
    uneven = train("uneven", replace(TRAINING, batch_size=5, gradient_accumulation=3), objective=objective)
    fifteen = train("fifteen", replace(TRAINING, batch_size=15), objective=objective)
    for micro, batch in ((cut, whole), (uneven, fifteen)):
        assert_same_weights(micro, batch, tolerance=1e-5)
        for ours, expected in zip(log_of(micro), log_of(batch), strict=True):
            assert ours.keys() == expected.keys()
            for name, value in expected.items():
                if name == "gradient_ratio":  # of the first micro-batch alone
                    continue
                assert ours[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.fixture(scope="module")
def folder_with_dropout(tmp_path_factory) -> Path:
    folder = tiny_model_folder(tmp_path_factory.mktemp("dropout"), "llama", hidden=16, heads=2, kv_heads=1)
    config = AutoConfig.from_pretrained(folder)
    config.attention_dropout = 0.2
    config.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("stopped_after", "checkpoint_steps"), [(3, 500), (2, 2)])
def test_an_interrupted_training_ends_at_the_same_bits(
    train, folder_with_dropout, objective, stopped_after, checkpoint_steps
):
    """With dropout, gradient checkpointing and accumulation; in the middle of an epoch and at its end.

    The losses of the third step are not logged yet when it is stopped there.
    """
    training = replace(
        TRAINING,
        batch_size=3,
        gradient_accumulation=2,
        gradient_checkpointing=True,
        checkpoint_steps=checkpoint_steps,
        log_steps=2,
    )
    plain = {"objective": objective, "model": folder_with_dropout}
    undisturbed = train("undisturbed", training, **plain)
    with pytest.raises(Interrupted):
        train("stopped", training, **plain, progress=TermAfter(stopped_after))
    stopped = train("stopped", training, **plain)
    assert_same_weights(stopped, undisturbed)
    assert log_of(stopped) == log_of(undisturbed)
    assert [entry["step"] for entry in log_of(stopped) if "loss" in entry] == [2, 4]


def test_batches_from_workers_that_share_the_memory_map_give_the_same_training(
    train, folder_with_dropout, attention, tmp_path
):
    """Interrupted in the middle of an epoch as well, when the workers have batches ready that nobody takes."""
    examples, store = in_a_store(attention, tmp_path)
    training = replace(TRAINING, batch_size=4)
    plain = {"model": folder_with_dropout, "attention": store, "examples": examples}
    alone = train("alone", training, **plain)
    with_workers = replace(training, loader_workers=2)
    assert_same_weights(train("workers", with_workers, **plain), alone)
    with pytest.raises(Interrupted):
        train("stopped", with_workers, **plain, progress=TermAfter(3))
    stopped = train("stopped", with_workers, **plain)
    assert_same_weights(stopped, alone)
    assert log_of(stopped) == log_of(alone)
    assert list((tmp_path / "targets").iterdir())


def test_dropout_is_at_work_in_that_test(train, folder_with_dropout):
    with pytest.raises(AssertionError, match="not close"):
        assert_same_weights(train("with", model=folder_with_dropout), train("without"), tolerance=1e-6)


def test_gradient_checkpointing_changes_no_bit_that_matters(train):
    plain = train("plain")
    assert_same_weights(train("again", replace(TRAINING, gradient_checkpointing=True)), plain, tolerance=1e-6)


def test_a_checkpoint_that_was_being_written_is_passed_over(train, tmp_path):
    with pytest.raises(Interrupted):
        train("stopped", progress=TermAfter(3))
    checkpoints = tmp_path / "stopped" / "checkpoints"
    whole = last_checkpoint(checkpoints)
    assert whole is not None and whole.name == "checkpoint-3"
    for name, state in (("checkpoint-7", None), ("checkpoint-12", '{"global_st')):
        (checkpoints / name).mkdir()
        (checkpoints / name / "model.safetensors").write_bytes(b"half")
        if state is not None:
            (checkpoints / name / "trainer_state.json").write_text(state)
    assert last_checkpoint(checkpoints) == whole
    assert_same_weights(train("stopped"), train("undisturbed"))


def test_bfloat16_trains_close_to_float32_and_keeps_float32_weights(train):
    mixed = train("mixed", replace(TRAINING, dtype="bfloat16"))
    assert_same_weights(mixed, train("full"), tolerance=2e-3)
    assert {one.dtype for one in weights(mixed).values()} == {torch.float32}


def test_float16_is_refused_on_a_cpu(train):
    with pytest.raises(ConfigError, match=r"training\.dtype: float16.*GPU only.*use bfloat16"):
        train("half", replace(TRAINING, dtype="float16"))


def test_a_loss_that_is_no_number_stops_training_and_names_the_records(train, attention):
    spoiled = {key: block.copy() for key, block in attention.items()}
    bad = EXAMPLES[5]
    spoiled[bad.key][:] = np.nan
    with pytest.raises(ModelError, match=r"not finite at step \d+ \(.*L_att nan.*\)") as caught:
        train("spoiled", replace(TRAINING, batch_size=3), attention=spoiled)
    question = bad.rationale.question
    assert f"{question.dataset} {question.id}" in str(caught.value)
    named = [one for one in EXAMPLES if one.rationale.question.id in str(caught.value)]
    assert len(named) == 3, "those of the batch and no others"


@pytest.mark.parametrize(("records", "batch_size", "processes"), [(12, 4, 2), (13, 5, 3), (3, 4, 4), (9, 4, 3)])
def test_shares_of_all_processes_are_the_batches_of_one(records, batch_size, processes):
    def epoch(processes: int, process: int, number: int) -> list[list[int]]:
        shares = Shares(records, batch_size, Processes(index=process, count=processes), seed=1)
        shares.set_epoch(number)
        return list(shares)

    for number in (0, 1):
        alone = epoch(1, 0, number)
        assert sorted(chain.from_iterable(alone)) == list(range(records))
        together = [epoch(processes, process, number) for process in range(processes)]
        for at, batch in enumerate(alone):
            shared = chain.from_iterable(one[at] for one in together)
            assert [one for one in shared if one != ONLY_TAKES_PART] == batch
            assert all(one[at] for one in together), "each takes part in each step"
    assert epoch(1, 0, 0) != epoch(1, 0, 1)
