"""Early stopping on the dev questions: what is kept, when it ends, and that an interruption changes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.errors import Interrupted
from stages.evaluation import evaluate_student
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import (
    EarlyStoppingSettings,
    EvaluationSettings,
    ObjectiveSettings,
    StudentSettings,
    TrainingSettings,
)
from stages.student.dev import DevQuestions
from stages.student.train import train_student
from tests.stages.student.test_train import EXAMPLES, QUESTIONS, TermAfter, weights
from tests.stages.student.test_train import folder as folder  # a fixture

DEV = DevQuestions(questions=QUESTIONS[:3], prompts=("predict", "explain"), max_new_tokens=8, batch_size=2)
STEPS = 3
"""Optimizer steps of an epoch."""


def train(folder: Path, out: Path, training: TrainingSettings, progress: SilentProgress | None = None) -> Path:
    with StopSignal() as stop:
        train_student(
            EXAMPLES,
            StudentSettings(model=str(folder)),
            ObjectiveSettings(name="dss"),
            training,
            attention=None,
            seed=3,
            out=out,
            fingerprint="same",
            progress=progress or SilentProgress(),
            stop=stop,
            dev=DEV,
        )
    return out


def settings(epochs: float, patience: int = 2, every_epochs: int = 1) -> TrainingSettings:
    return TrainingSettings(
        epochs=epochs,
        batch_size=4,
        learning_rate=1e-3,
        scheduler="constant",
        device="cpu",
        early_stopping=EarlyStoppingSettings(patience=patience, every_epochs=every_epochs),
    )


def script(monkeypatch: pytest.MonkeyPatch, *accuracies: float) -> list[float]:
    """Let the looks find these accuracies, one after the other; what is left over is returned."""
    left = list(accuracies)

    def look(*_: object) -> dict[str, float]:
        now = left.pop(0)
        return {"predict": now, "explain": 0.0}

    monkeypatch.setattr("stages.student.train.dev_accuracy", look)
    return left


def summary(out: Path) -> dict[str, object]:
    return json.loads((out / "training.json").read_text())


def test_it_ends_after_its_patience_and_keeps_the_best(folder, tmp_path, monkeypatch):
    left = script(monkeypatch, 0.2, 0.6, 0.6, 0.4, 1.0)
    out = train(folder, tmp_path / "out", settings(20))
    assert left == [1.0], "it looked no further"
    found = summary(out)
    assert (found["best_step"], found["steps"]) == (2 * STEPS, 4 * STEPS)
    seen = [entry for entry in found["log"] if "eval_accuracy" in entry]
    assert [entry["eval_accuracy"] for entry in seen] == [0.1, 0.3, 0.3, 0.2]
    assert [entry["step"] for entry in seen] == [STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS]
    assert seen[1]["eval_predict"] == 0.6 and seen[1]["eval_explain"] == 0.0
    plain = train(folder, tmp_path / "plain", replace(settings(2), early_stopping=None))
    best, two_epochs = weights(out), weights(plain)
    assert all(torch.equal(best[name], two_epochs[name]) for name in two_epochs)
    assert not (out / "checkpoints").exists()


def test_it_looks_every_so_many_epochs_and_at_the_end(folder, tmp_path, monkeypatch):
    script(monkeypatch, 0.1, 0.2, 0.3)
    found = summary(train(folder, tmp_path, settings(5, every_epochs=2)))
    assert [entry["step"] for entry in found["log"] if "eval_accuracy" in entry] == [2 * STEPS, 4 * STEPS, 5 * STEPS]
    assert found["best_step"] == found["steps"] == 5 * STEPS


@pytest.mark.parametrize("stopped_after", [7, 2 * STEPS, 3 * STEPS])
def test_an_interruption_forgets_neither_the_count_nor_the_best(folder, tmp_path, monkeypatch, stopped_after):
    """In the middle of an epoch, and in its last step, when the look is still to come."""
    script(monkeypatch, 0.2, 0.6, 0.6, 0.4)
    undisturbed = train(folder, tmp_path / "undisturbed", settings(20))
    left = script(monkeypatch, 0.2, 0.6, 0.6, 0.4)
    with pytest.raises(Interrupted):
        train(folder, tmp_path / "stopped", settings(20), TermAfter(stopped_after))
    stopped = train(folder, tmp_path / "stopped", settings(20))
    assert left == []
    assert summary(stopped)["best_step"] == summary(undisturbed)["best_step"] == 2 * STEPS
    ours, theirs = weights(stopped), weights(undisturbed)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_accuracy_is_that_of_the_evaluation(folder, tmp_path):
    """Overfitted records answer right, also in the middle of training; the evaluation of what comes out agrees."""
    training = replace(settings(60, patience=60, every_epochs=20), learning_rate=1e-2, batch_size=2)
    known = DevQuestions(
        questions=[one.rationale.question for one in EXAMPLES[:3]],
        prompts=("predict", "explain"),
        max_new_tokens=120,
        batch_size=2,
    )
    with StopSignal() as stop:
        train_student(
            EXAMPLES[:2],
            StudentSettings(model=str(folder)),
            ObjectiveSettings(name="dss"),
            training,
            attention=None,
            seed=0,
            out=tmp_path,
            fingerprint="",
            progress=SilentProgress(),
            stop=stop,
            dev=known,
        )
        predictions = evaluate_student(
            tmp_path,
            known.questions,
            EvaluationSettings(max_new_tokens=120),
            dtype="float32",
            device="cpu",
            progress=SilentProgress(),
            stop=stop,
        )
    found = summary(tmp_path)
    seen = [entry for entry in found["log"] if "eval_accuracy" in entry]
    best = next(entry for entry in seen if entry["step"] == found["best_step"])
    for prompt in ("predict", "explain"):
        right = [one.correct for one in predictions if one.prompt == prompt]
        assert best[f"eval_{prompt}"] == pytest.approx(sum(right) / 3)
    assert best["eval_accuracy"] >= 2 / 3
    said = json.loads((tmp_path / "generation_config.json").read_text())
    end = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert said.keys() == {"eos_token_id", "transformers_version"} and said["eos_token_id"] == [end]
