"""Trackers of experiments: what `training.report_to` names follows the losses of a student while it is trained.

In: names, and a folder of the run. Out: transformers' own callbacks, each writing below that folder. The numbers are
those of training.json: every loss, each layer's weight, the learning rate, the accuracy on the dev questions.

Nothing leaves the machine by itself: wandb works offline unless `WANDB_MODE` says otherwise, and keys are read from its
own environment variables, never from a configuration, which is saved with the run.
"""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from data.errors import ConfigError
from stages.runtime.packages import not_installed
from stages.settings import TrackerName


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Raise `ConfigError` where the package of a tracker is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(not_installed(name, "training.report_to"))


def tracker_callbacks(names: Sequence[TrackerName], folder: Path, run_name: str) -> list[TrainerCallback]:
    """Open each tracker once; what it writes goes below `folder`."""
    require_trackers(names)
    return [_OPENED[name](folder, run_name) for name in dict.fromkeys(names)]


def close_trackers(names: Sequence[TrackerName]) -> None:
    """End what would otherwise go on into the next student of this process."""
    if "wandb" in names:
        import wandb

        wandb.finish()


def _tensorboard(folder: Path, run_name: str) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter

    return TensorBoardCallback(SummaryWriter(str(folder / "tensorboard" / run_name)))


def _wandb(folder: Path, run_name: str) -> TrainerCallback:
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_PROJECT", "molsaki")
    os.environ.setdefault("WANDB_DIR", str(folder.absolute()))
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ["WANDB_NAME"] = run_name
    return WandbCallback()


_OPENED = {"tensorboard": _tensorboard, "wandb": _wandb}
