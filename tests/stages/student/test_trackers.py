"""Trackers follow a training: each loss and each layer weight as a scalar of its own."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

import stages.student.trackers
from data.errors import ConfigError
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import ObjectiveSettings, StudentSettings
from stages.student.trackers import require_trackers
from stages.student.train import train_student
from tests.stages.student.test_train import EXAMPLES
from tests.stages.student.test_train import attention as attention  # a fixture
from tests.stages.student.test_train import folder as folder  # a fixture
from tests.stages.student.test_training_repeats import TRAINING


class Writer:
    """Stands in for tensorboard's SummaryWriter."""

    def __init__(self) -> None:
        self.scalars: dict[str, list[tuple[int, float]]] = {}
        self.closed = False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.setdefault(name, []).append((step, value))

    def add_text(self, *_: object) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def train(folder: Path, attention, out: Path, logs: Path) -> dict[str, object]:
    with StopSignal() as stop:
        train_student(
            EXAMPLES,
            StudentSettings(model=str(folder)),
            ObjectiveSettings(),
            replace(TRAINING, report_to=("tensorboard",), log_steps=1),
            attention=attention,
            seed=3,
            out=out,
            fingerprint="same",
            progress=SilentProgress(),
            stop=stop,
            logs=logs,
        )
    return json.loads((out / "training.json").read_text())


def test_every_loss_and_layer_weight_is_a_scalar(folder, attention, tmp_path, monkeypatch):
    writer = Writer()

    def tensorboard(folder: Path, run_name: str) -> object:
        from transformers.integrations import TensorBoardCallback

        callback = TensorBoardCallback.__new__(TensorBoardCallback)  # its __init__ wants the package
        callback.tb_writer, callback.logging_dir, callback._SummaryWriter = writer, str(folder / run_name), None
        return callback

    monkeypatch.setattr(stages.student.trackers, "require_trackers", lambda names: None)
    monkeypatch.setattr("stages.student.train.require_trackers", lambda names: None)
    monkeypatch.setitem(stages.student.trackers._OPENED, "tensorboard", tensorboard)
    summary = train(folder, attention, tmp_path / "out", tmp_path / "logs")
    logged = [entry for entry in summary["log"] if "loss" in entry]
    assert len(logged) == 4
    for name in ("loss", "L_pre", "L_exp", "L_att", "learning_rate"):
        assert writer.scalars[f"train/{name}"][:4] == [(entry["step"], entry[name]) for entry in logged]
    for layer in (1, 2):
        found = writer.scalars[f"train/layer_weights/{layer}"][:4]
        assert found == [(entry["step"], entry["layer_weights"][layer - 1]) for entry in logged]
    assert writer.closed


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_itself_reads_what_was_followed(folder, attention, tmp_path):
    train(folder, attention, tmp_path / "out", tmp_path / "logs")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "logs" / "tensorboard" / "seed-3"))
    events.Reload()
    assert {"train/L_att", "train/layer_weights/1", "train/layer_weights/2"} <= set(events.Tags()["scalars"])


def test_a_package_that_is_missing_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"training\.report_to: wandb is not installed.*pip install wandb"):
        require_trackers(("wandb",))
