"""transformers' Trainer as students need it.

In: a `DistillationModel`, its records and the Trainer's arguments. Out: a trained model. What differs from the Trainer:
every part of the loss stands in the log; a loss that is no number stops it; batches are shared out over processes and
micro-batches so that each record and target token counts alike (`global_batches`); a checkpoint holds what is trained
(router and adapter included), and is taken up again to bit-equal weights and logged losses.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data.errors import ModelError
from stages.runtime.processes import Processes
from stages.runtime.progress import Progress, StopSignal
from stages.student.global_batches import NumberedRecords, ShareLoader, Shares, counts
from stages.student.objective import Objective
from stages.student.step import gradient_norms
from stages.student.terms.attention import GRADIENT_RATIO, ROUTER_ENTROPY

WEIGHTS = "model.safetensors"
STATE = "trainer_state.json"
UNLOGGED = "unlogged-{}.pt"
ACCURACY = "eval_accuracy"
COLLAPSED = 0.2
"""A mixture with less of the entropy of even weights is almost a single layer: of 6 less than 1.5 count then."""
NEGLIGIBLE = 1e-3
RATIO_STEPS = 50
"""From one look at gradients to the next, in optimizer steps. A look is two backward passes of one micro-batch."""
OF_TRAINING = frozenset({"loss", "train_loss"})
"""Either stands in a log of training, as opposed to one of an evaluation."""


class StudentTrainer(Trainer):
    """A Trainer of a `DistillationModel`.

    `only_trainable` leaves weights that do not learn out of checkpoints; `measure` says which share of the dev
    questions the student answers right, by prompt.
    """

    def __init__(
        self,
        *,
        processes: Processes,
        batch_size: int,
        only_trainable: bool,
        measure: Callable[[], Mapping[str, float]] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._measure = measure
        self._processes = processes
        self._batch_size = batch_size
        self._only_trainable = only_trainable
        self._parts: dict[str, torch.Tensor] = {}
        self._steps_before = 0
        self._norms: list[torch.Tensor] = []
        self._looked_at: int | None = None

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Load this process's share of every batch."""
        records = self.train_dataset
        assert isinstance(records, NumberedRecords)
        shares = Shares(len(records), self._batch_size, self._processes, seed=self.args.seed)
        # Workers that outlived an epoch would draw fewer random numbers than none do, and dropout would be another.
        return ShareLoader(
            records,
            batch_sampler=shares,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Fetch the micro-batches of one optimizer step and say how much each counts in it."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if len(batches) * self._processes.count > 1:
            counted = [counts(batch) for batch in batches]
            names = list(counted[0])
            totals = self._processes.total([sum(one[name] for one in counted) for name in names])
            for batch, one in zip(batches, counted, strict=True):
                for name, total in zip(names, totals, strict=True):
                    batch[name] = torch.tensor(one[name] * len(batches) * self._processes.count / total)
        return batches, None

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the objective's loss, which the Trainer divides by the micro-batches of the step."""
        numbers = inputs.pop("record")
        outputs = model(**inputs)
        self._require_finite(outputs, numbers)
        if self._is_due_for_norms(outputs):
            self._norms.append(self._gradient_norms(outputs))
        for name, part in outputs.items():
            if name != "loss":
                share = part.detach().float() / self.current_gradient_accumulation_steps
                self._parts[name] = self._parts[name] + share if name in self._parts else share
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _require_finite(self, outputs: Mapping[str, torch.Tensor], numbers: torch.Tensor) -> None:
        """Raise `ModelError` where the loss is not a number: the student would be nothing but that from here on."""
        if torch.isfinite(outputs["loss"]):
            return
        parts = ", ".join(f"{name} {part.item()}" for name, part in outputs.items() if part.dim() == 0)
        records = "; ".join(self.train_dataset[number][1].name for number in numbers.tolist())
        raise ModelError(
            f"the loss is not finite at step {self.state.global_step + 1} ({parts}); the batch holds {records}; a "
            "smaller training.learning_rate or training.dtype float32 may help"
        )

    def _is_due_for_norms(self, outputs: Mapping[str, torch.Tensor]) -> bool:
        """Whether gradients are looked at in this micro-batch, the first one of its step: in all processes or in none.

        Not under FSDP, which gathers weights and spreads gradients by hooks on the one backward pass that it expects.
        """
        step, objective = self.state.global_step, self.model.objective
        due = step % RATIO_STEPS == 0 and self._looked_at != step and {"L_att", "L_exp"} <= outputs.keys()
        self._looked_at = step
        return due and objective.weight("attention") > 0 and objective.share("explain") > 0 and not self.is_fsdp_enabled

    def _gradient_norms(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Norms of the gradients of the weighed L_att and L_exp over the student's weights, (2,); else zeros.

        Both are scaled alike where float16 has to be kept from rounding small gradients away.
        """
        objective, scaler = self.model.objective, self.accelerator.scaler
        scale = 1.0 if scaler is None else scaler.get_scale()
        weights = [one for one in self.model.student.parameters() if one.requires_grad]
        of_attention = objective.weight("attention") * outputs["L_att"] * scale
        of_explaining = objective.share("explain") * outputs["L_exp"] * scale
        try:
            return torch.stack(gradient_norms(of_attention, of_explaining, weights)).to(self.args.device) / scale
        except torch.OutOfMemoryError:  # it takes the gradients of all weights beside all activations
            return torch.zeros(2, device=self.args.device)

    def _gradient_ratio(self) -> dict[str, float]:
        """What the norms since the last log say, over all processes and looks; nothing where they say nothing."""
        if not self._norms:
            return {}
        of_attention, of_explaining = self.accelerator.reduce(torch.stack(self._norms).sum(dim=0), "mean").tolist()
        self._norms = []
        known = math.isfinite(of_attention) and math.isfinite(of_explaining) and of_explaining > 0
        return {GRADIENT_RATIO: of_attention / of_explaining} if known else {}

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Add the means of the loss's parts since the last log; reporters get the entries of a list one by one."""
        if not logs.keys() & OF_TRAINING:
            super().log(logs, start_time)
            return
        steps = max(self.state.global_step - self._steps_before, 1)
        means = {name: self.accelerator.reduce(part, "mean").cpu() / steps for name, part in self._parts.items()}
        self._parts, self._steps_before = {}, self.state.global_step
        listed = {name: mean.tolist() for name, mean in means.items()} | self._gradient_ratio()
        super().log({**logs, **_scalars(listed)}, start_time)
        last = self.state.log_history[-1]
        self.state.log_history[-1] = {
            **{name: value for name, value in last.items() if "/" not in name},
            **listed,
        }

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the student on the dev questions; the mean over prompts is what the best is chosen by."""
        assert self._measure is not None, "without early stopping nothing asks for this"
        accuracies = self._measure()
        mean = sum(accuracies.values()) / len(accuracies)
        found = {ACCURACY: mean, **{f"eval_{prompt}": value for prompt, value in accuracies.items()}}
        self.log(dict(found))
        best = max(looks(self.state), key=lambda entry: float(entry[ACCURACY]))  # the first of equals
        self.state.best_metric, self.state.best_global_step = best[ACCURACY], int(best["step"])
        self.callback_handler.on_evaluate(self.args, self.state, self.control, found)  # it changes `control` itself
        return found

    def gathered_student(self) -> dict[str, torch.Tensor] | None:
        """The student's weights from all processes that FSDP has spread them over; None where they are in one place."""
        if not self.is_fsdp_enabled:
            return None
        state: Mapping[str, torch.Tensor] = self.accelerator.get_state_dict(self.model)
        return {name.removeprefix("student."): one for name, one in state.items() if name.startswith("student.")}

    def take_best(self, checkpoints: Path) -> None:
        """Go back to the weights of the best look."""
        best = checkpoints / f"checkpoint-{self.state.best_global_step}"
        assert _is_complete(best), "a checkpoint is written at every look, and the best one is kept"
        self._load_from_checkpoint(str(best))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if state_dict is not None:  # gathered from all processes
            safetensors.torch.save_file(_without_copies(state_dict), str(folder / WEIGHTS))
        elif self._only_trainable:
            trained = {name: one.detach() for name, one in self.model.named_parameters() if one.requires_grad}
            safetensors.torch.save_file(trained, str(folder / WEIGHTS))
        else:
            safetensors.torch.save_model(self.model, str(folder / WEIGHTS))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        weights = str(Path(resume_from_checkpoint) / WEIGHTS)
        if self._only_trainable:
            _load_trainable(self.model, weights)
        else:
            safetensors.torch.load_model(self.model, weights)

    def _save_rng_state(self, output_dir: str) -> None:
        """Save what this process alone knows; the Trainer then marks the checkpoint as complete by its state."""
        super()._save_rng_state(output_dir)
        unlogged = {
            "parts": {name: part.cpu() for name, part in self._parts.items()},
            "steps_before": self._steps_before,
            "norms": [norms.cpu() for norms in self._norms],
            "loss": self._tr_loss.cpu(),
            "loss_before": self._total_loss_scalar,
            "logged_at": self._globalstep_last_logged,
        }
        torch.save(unlogged, Path(output_dir) / UNLOGGED.format(self._processes.index))
        self._processes.wait()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is None:
            return
        saved = sorted(Path(checkpoint).glob(UNLOGGED.format("*")))
        # After a stop there may be more processes than before: any one's losses tell their mean as well as they can.
        mine = saved[self._processes.index % len(saved)]
        unlogged = torch.load(mine, map_location="cpu", weights_only=True)
        self._parts = {name: part.to(self.args.device) for name, part in unlogged["parts"].items()}
        self._steps_before = unlogged["steps_before"]
        self._norms = [norms.to(self.args.device) for norms in unlogged.get("norms", [])]
        self._tr_loss += unlogged["loss"].to(self.args.device)
        self._total_loss_scalar, self._initial_global_step = unlogged["loss_before"], 0
        self._globalstep_last_logged = unlogged["logged_at"]


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a folder; one that was being written when its process was killed is none."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((path for path in found if _is_complete(path)), None)


def _is_complete(checkpoint: Path) -> bool:
    """Whether its last file is there and whole: the Trainer's state."""
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return True


def _load_trainable(model: torch.nn.Module, weights: str) -> None:
    trained = safetensors.torch.load_file(weights)
    expected = {name for name, one in model.named_parameters() if one.requires_grad}
    assert set(trained) == expected, "a checkpoint's fingerprint says that the same weights learn"
    model.load_state_dict(trained, strict=False)


def _without_copies(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tied weights have several names and one memory, which safetensors refuses to write twice."""
    seen: dict[int, str] = {}
    return {name: one.contiguous() for name, one in state.items() if seen.setdefault(one.data_ptr(), name) == name}


def _scalars(parts: Mapping[str, Any]) -> dict[str, float]:
    """`{layer_weights: [a, b]}` as `{layer_weights/1: a, layer_weights/2: b}`; layers are counted from 1."""
    entries: dict[str, float] = {}
    for name, value in parts.items():
        if isinstance(value, list):
            entries |= {f"{name}/{number}": entry for number, entry in enumerate(value, start=1)}
        else:
            entries[name] = value
    return entries


def looks(state: TrainerState) -> list[dict[str, Any]]:
    """What the dev questions have said so far; it stands in the log, so that a checkpoint knows it."""
    return [entry for entry in state.log_history if ACCURACY in entry]


class BalanceWarnings(TrainerCallback):
    """Says once where a mixture of layers has become a single one, and once where L_att counts for next to nothing."""

    def __init__(self, objective: Objective, student: str, say: Callable[[str], None]) -> None:
        self._objective, self._student, self._say = objective, student, say
        self._silent: set[str] = set()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Look at the means since the last log."""
        logged = logs or {}
        objective, beta = self._objective, self._objective.weight("attention")
        if (entropy := logged.get(ROUTER_ENTROPY, 1.0)) < COLLAPSED:
            self._warn(
                ROUTER_ENTROPY,
                f"after {state.global_step} steps the student's mixture of layers is almost a single one (its entropy "
                f"is {entropy:.2f} of that of even weights), which alone learns where to look; {_remedy(objective)} "
                "keeps more of them",
            )
        if beta and logged.get("L_att") == 0.0:
            self._warn(
                "L_att",
                f"after {state.global_step} steps the attention loss is 0, as it is where no text has two critical "
                "words; attention.critical says which words are",
            )
        if (ratio := logged.get(GRADIENT_RATIO, 1.0)) < NEGLIGIBLE:
            self._warn(
                "L_att",
                f"after {state.global_step} steps the gradient of the attention loss is {ratio:.1g} of that of the "
                f"rationale loss; an {objective.key('attention', 'weight')} above {beta:g} gives it weight",
            )
        of_explaining = objective.share("explain") * logged.get("L_exp", 0.0)
        if beta and beta * logged.get("L_att", math.inf) < NEGLIGIBLE * of_explaining:
            self._warn(
                "L_att",
                f"after {state.global_step} steps the attention loss counts for less than a thousandth of the "
                f"rationale loss; an {objective.key('attention', 'weight')} above {beta:g} gives it weight",
            )

    def _warn(self, about: str, message: str) -> None:
        if about not in self._silent:
            self._silent.add(about)
            self._say(f"warning: {self._student}: {message}")


def _remedy(objective: Objective) -> str:
    """What to change against a mixture of one layer."""
    settings = objective.attention
    assert settings is not None, "layers are mixed"
    higher = f"an {objective.key('attention', 'tau_student')} above {settings.tau_student:g}"
    if settings.router == "paper":
        return f"{objective.key('attention', 'router')}: mean, or {higher},"
    rate = objective.key("attention", "router_learning_rate")
    return f"an {rate} below {settings.router_learning_rate:g}, or {higher},"


class EarlyStopping(TrainerCallback):
    """Looks at the dev questions at the end of epochs and ends training where they get no better.

    As transformers' EarlyStoppingCallback counts: a look no better than the best before it is one of `patience`.
    Every look comes with a checkpoint, which is written after it: nothing that is taken up again has missed one.
    """

    def __init__(self, patience: int, every_epochs: int) -> None:
        self._patience, self._every = patience, every_epochs

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End training after `patience` looks without a better accuracy, also where it was interrupted there."""
        since_best = [entry for entry in looks(state) if entry["step"] > (state.best_global_step or 0)]
        if len(since_best) >= self._patience:
            control.should_training_stop = True

    on_evaluate = on_train_begin

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the checkpoint of an epoch's last step to the end of the epoch."""
        if self._is_due(state):
            control.should_save = False

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a look and a checkpoint."""
        if self._is_due(state):
            control.should_evaluate = control.should_save = True

    def _is_due(self, state: TrainerState) -> bool:
        assert state.epoch is not None
        ends_epoch = abs(state.epoch - round(state.epoch)) < 1e-9 and round(state.epoch) % self._every == 0
        return bool(ends_epoch or state.global_step >= state.max_steps)


class ProgressAndStop(TrainerCallback):
    """Tells how far training is, and turns a stop signal that any process received into a checkpoint of all."""

    def __init__(self, progress: Progress, stop: StopSignal, processes: Processes, task: str) -> None:
        self._progress, self._stop, self._processes, self._task = progress, stop, processes, task
        self.stopped = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin a bar."""
        self._progress.start(self._task, state.max_steps, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Advance it, and look whether to stop."""
        self._progress.advance()
        if self._processes.any(self._stop.received is not None) and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
