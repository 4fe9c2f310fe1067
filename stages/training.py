"""Stage two: train a student from the cache alone; the teacher is never in memory.

In: examples (rationales with their marked texts), the teacher's cached stepwise attention, settings and a seed. Out: a
plain checkpoint folder that transformers and vLLM load, with `training.json` (losses over time, layer weights, what it
was trained from) written last, so that its presence means the student is complete.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from cache.durable import replace_file
from cache.reader import AttentionStore
from data.errors import ConfigError, MissingRecordsError, ModelError
from stages.attention import attention_layers, checkpointing_contexts
from stages.distillation import DistillationModel, TrainingCollator, TrainingRecord, training_record
from stages.engines import load_tokenizer
from stages.examples import Example
from stages.loading import load_causal_lm, torch_device
from stages.models import ModelIdentity, identify_model
from stages.objective import Objective, objective_of
from stages.progress import Progress, StopSignal
from stages.settings import ObjectiveSettings, StudentSettings, TrainingSettings
from stages.targets import Target, stored_targets

WEIGHTS = "model.safetensors"
CHECKPOINTS = "checkpoints"
SUMMARY = "training.json"
LOGGED_STEPS = 10


def train_student(
    examples: Sequence[Example],
    student: StudentSettings,
    settings: ObjectiveSettings,
    training: TrainingSettings,
    *,
    attention: Mapping[str, np.ndarray] | None,
    seed: int,
    out: Path,
    fingerprint: str,
    progress: Progress,
    stop: StopSignal,
) -> None:
    """Train one student and save it to `out`.

    `attention` maps an example's key to its (L, S, K) block (of a store, the targets are kept in a memory map beside
    it); objectives without attention take None. A checkpoint of an interrupted run with the same fingerprint is
    continued. Raises `MissingRecordsError` before the first step where a record's attention is missing, `Interrupted`
    after saving a checkpoint when a signal asks to stop.
    """
    set_seed(seed)
    identity = identify_model(student.model, student.revision, weights=student.initialise == "pretrained")
    tokenizer = load_tokenizer(identity.path, identity.hub_revision)
    objective = objective_of(settings)
    loaded = _load_student(identity, student, training)
    targets = _targets(examples, objective, attention, attention_layers(loaded), progress)
    records = _training_records(tokenizer, examples, student, targets, progress)
    model = DistillationModel(loaded, objective, teacher_layers=_layers(attention))
    checkpoints = _checkpoints(out, fingerprint)
    trainer = StudentTrainer(
        model=model,
        args=_arguments(training, seed, checkpoints),
        train_dataset=list(enumerate(records)),
        data_collator=TrainingCollator(pad=_pad_token(tokenizer), tasks=objective.tasks),
        callbacks=[_ProgressAndStop(progress, stop, f"training seed {seed}")],
    )
    trainer.remove_callback(PrinterCallback)  # its dictionaries on stdout; the log keeps all of them
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(checkpoints)))
    stop.check(f"checkpoint {trainer.state.global_step} in {checkpoints}")
    _save_student(model.student, tokenizer, out)
    _write_summary(out, trainer, objective, seed=seed, records=len(records), fingerprint=fingerprint)
    shutil.rmtree(checkpoints)


def _training_records(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    student: StudentSettings,
    targets: Mapping[str, Target],
    progress: Progress,
) -> list[TrainingRecord]:
    """The same records for every objective: both texts have to fit, whichever of them is learned from."""
    records = [training_record(tokenizer, example, targets.get(example.key)) for example in examples]
    fitting = [record for record in records if record.length <= student.max_length]
    if len(fitting) < len(records):
        progress.note(
            f"{len(records) - len(fitting)} of {len(records)} texts are longer than {student.max_length} tokens"
        )
    if not fitting:
        raise ConfigError(
            f"student.max_length {student.max_length}: none of {len(records)} training texts is that short"
        )
    return fitting


def _targets(
    examples: Sequence[Example],
    objective: Objective,
    attention: Mapping[str, np.ndarray] | None,
    student_layers: int,
    progress: Progress,
) -> dict[str, Target]:
    if not objective.needs_attention:
        return {}
    known = attention if attention is not None else {}
    missing = sum(example.key not in known for example in examples)
    if missing:
        raise MissingRecordsError(
            f"teacher attention of {missing} of {len(examples)} records is missing; `molsaki attention CONFIG` fills it"
        )
    rule = objective.target_rule(_layers(known), student_layers)
    if isinstance(known, AttentionStore):
        stored = stored_targets(known, rule, progress)
        return {example.key: stored[example.key] for example in examples}
    combined = rule.combine([known[example.key] for example in examples])
    return {example.key: target for example, target in zip(examples, combined, strict=True)}


def _layers(attention: Mapping[str, np.ndarray] | None) -> int:
    """Layers of the teacher whose attention it is; 0 where there is none."""
    return len(next(iter(attention.values()))) if attention else 0


def _load_student(identity: ModelIdentity, student: StudentSettings, training: TrainingSettings) -> PreTrainedModel:
    """Load or freshly initialise the student in float32: mixed precision casts on the way, not the weights."""
    if student.initialise == "pretrained":
        model = load_causal_lm(identity.path, identity.hub_revision, "float32")
    else:
        config = AutoConfig.from_pretrained(identity.path, revision=identity.hub_revision)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": checkpointing_contexts})
    return model


def _checkpoints(out: Path, fingerprint: str) -> Path:
    """Folder of this run's checkpoints; those of a run with other settings are useless and go."""
    folder = out / CHECKPOINTS
    mark = folder / "fingerprint"
    if folder.exists() and (not mark.exists() or mark.read_text() != fingerprint):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(fingerprint)
    return folder


def _arguments(training: TrainingSettings, seed: int, folder: Path) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        bf16=training.dtype == "bfloat16",
        fp16=training.dtype == "float16",
        use_cpu=torch_device(training.device).type == "cpu",
        logging_steps=LOGGED_STEPS,
        save_steps=training.checkpoint_steps,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    # With several GPUs in sight the Trainer would split batches over threads (DataParallel), which see no recording.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Any token will do: padding stands behind the text, carries no label and is never looked at."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


class StudentTrainer(Trainer):
    """transformers' Trainer with every part of the loss in its log, and checkpoints that hold the router too."""

    def __init__(self, **arguments: Any) -> None:  # the Trainer's own
        super().__init__(**arguments)
        self._parts: dict[str, list[torch.Tensor]] = {}

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Sum the losses; each is a mean over its batch, which the Trainer divides by the accumulation steps."""
        numbers = inputs.pop("record")
        outputs = model(**inputs)
        self._require_finite(outputs, numbers)
        for name, part in outputs.items():
            if name != "loss":
                self._parts.setdefault(name, []).append(part.detach())
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

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Add the means of the loss's parts since the last log."""
        means = {name: torch.stack(parts).float().mean(dim=0).tolist() for name, parts in self._parts.items()}
        self._parts = {}
        super().log({**logs, **means}, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_model(self.model, str(folder / WEIGHTS))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        safetensors.torch.load_model(model or self.model, str(Path(resume_from_checkpoint) / WEIGHTS))


class _ProgressAndStop(TrainerCallback):
    """Tells how far training is, and turns a stop signal into a checkpoint."""

    def __init__(self, progress: Progress, stop: StopSignal, task: str) -> None:
        self._progress, self._stop, self._task = progress, stop, task

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._progress.start(self._task, state.max_steps)
        self._progress.advance(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._progress.advance()
        if self._stop.received is not None and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True


def _save_student(student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    student.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _write_summary(
    out: Path, trainer: Trainer, objective: Objective, *, seed: int, records: int, fingerprint: str
) -> None:
    summary = {
        "fingerprint": fingerprint,
        "objective": objective.described(),
        "seed": seed,
        "records": records,
        "steps": trainer.state.global_step,
        "log": trainer.state.log_history,
    }
    replace_file(out / SUMMARY, json.dumps(summary, indent=1).encode())
