"""Stage two: train a student from the cache alone; the teacher is never in memory.

In: examples (rationales with their marked texts), the teacher's cached stepwise attention, settings and a seed. Out: a
plain checkpoint folder that transformers and vLLM load, with `training.json` (what it was trained from, losses and
layer weights over time) written last, so that its presence means the student is complete.
"""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainingArguments,
    set_seed,
)

from cache.soft_labels.reader import SoftLabelStore
from cache.student_attention import StudentLook, write_student_attention
from data.errors import ConfigError, MissingRecordsError, ModelError
from stages.attention.select import Example
from stages.attention.selected import keys_of
from stages.attention.stepwise import attention_layers, checkpointing_contexts
from stages.mixture import Target
from stages.models.cut import load_first_layers, random_first_layers
from stages.models.identity import ModelIdentity, identify_model
from stages.models.load import known_positions, load_causal_lm
from stages.models.older_readers import least_version
from stages.models.save import save_checkpoint
from stages.models.tokenizer import load_tokenizer
from stages.runtime.device import torch_device
from stages.runtime.processes import Processes, join_processes
from stages.runtime.progress import Progress, StopSignal, interrupted
from stages.runtime.sockets import socket_folder
from stages.settings import ObjectiveSettings, StudentSettings, TrainingSettings
from stages.student.adapters import add_adapter, save_adapted
from stages.student.dev import DevQuestions, dev_accuracy
from stages.student.global_batches import NumberedRecords
from stages.student.looks import looked_at, student_layer_weights, student_looks, write_layer_weights
from stages.student.model import DistillationModel
from stages.student.objective import Objective, objective_of
from stages.student.records.kept import largest_id, longest_of, read_records, take_records
from stages.student.records.stored_soft_labels import soft_targets, teacher_head
from stages.student.summary import CHECKPOINTS, Origin, write_summary
from stages.student.targets import TeacherTargets
from stages.student.texts import TrainingCollator, TrainingRecord
from stages.student.trackers import close_trackers, require_trackers, tracker_callbacks
from stages.student.trainer import (
    BalanceWarnings,
    EarlyStopping,
    ProgressAndStop,
    StudentTrainer,
    last_checkpoint,
    looks,
)

GPU_LOADER_WORKERS = 2


def train_student(
    examples: Sequence[Example],
    student: StudentSettings,
    settings: ObjectiveSettings,
    training: TrainingSettings,
    *,
    attention: Mapping[str, np.ndarray] | None,
    soft_labels: SoftLabelStore | None = None,
    seed: int,
    out: Path,
    fingerprint: str,
    progress: Progress,
    stop: StopSignal,
    dev: DevQuestions | None = None,
    logs: Path | None = None,
    origin: Origin | None = None,
) -> None:
    """Train one student and save it to `out`, in this process or together with others.

    `attention` maps an example's key to its (L, S, K) block (of a store, the targets are kept in a memory map beside
    it); objectives without attention take None. `soft_labels` are the store's, for objectives that learn from them,
    which are decoded once, into a memory map beside it. A checkpoint of an interrupted run with the same fingerprint is
    continued. Raises `MissingRecordsError` before the first step where a record's attention is missing, `Interrupted`
    after saving a checkpoint when a signal asks to stop. `dev` is what early stopping measures on, `logs` the folder
    that trackers write to, and `origin` what is to be told of the student beside what is known here.
    """
    require_trackers(training.report_to)
    socket_folder()  # before loaders of batches are started
    processes = join_processes(training.device, batch_size=training.batch_size)
    _require_precision(training)
    set_seed(seed)
    identity = identify_model(student.model, student.revision, weights=student.initialise == "pretrained")
    tokenizer = load_tokenizer(identity.path, identity.hub_revision)
    objective = objective_of(settings)
    loaded = _load_student(identity, student)
    processes.check(stop, "what was saved before")
    layers = attention_layers(loaded)
    adapted = add_adapter(loaded, student.peft, progress.note) if student.peft else None
    if training.gradient_checkpointing:
        loaded.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": checkpointing_contexts})
    teacher = TeacherTargets(attention or {})
    targets = _targets(examples, objective, teacher, layers, progress)
    records = _training_records(tokenizer, identity.tokenizer, examples, student, targets, progress)
    _require_embeddings(loaded, records, student)
    _require_positions(loaded, records, student)
    labels = soft_targets(objective, soft_labels, identity, records, progress)
    model = DistillationModel(
        loaded,
        objective,
        learning_rate=training.learning_rate,
        teacher_layers=teacher.layers,
        teacher_head=teacher_head(soft_labels),
    )
    collator = TrainingCollator(
        pad=_pad_token(tokenizer, loaded), tasks=objective.tasks, soft_labels=labels, parts=objective.needs_parts
    )
    checkpoints = _checkpoints(out, fingerprint, processes)
    watching = ProgressAndStop(progress, stop, processes, f"training seed {seed}")
    stopping = training.early_stopping
    early = [] if stopping is None else [EarlyStopping(stopping.patience, stopping.every_epochs)]
    warnings = [BalanceWarnings(objective, f"seed {seed}", progress.note)] if processes.is_main else []
    trackers = tracker_callbacks(training.report_to, logs or out, f"seed-{seed}") if processes.is_main else []
    trainer = StudentTrainer(
        model=model,
        args=_arguments(training, seed, checkpoints),
        train_dataset=NumberedRecords(records),
        data_collator=collator,
        callbacks=[watching, *early, *trackers, *warnings],
        processes=processes,
        batch_size=training.batch_size,
        only_trainable=adapted is not None,
        measure=None if dev is None else partial(dev_accuracy, loaded, tokenizer, dev, training, processes),
    )
    if trainer.is_fsdp_enabled:
        _require_whole(student, training)
    trainer.remove_callback(PrinterCallback)  # its dictionaries on stdout; the log keeps all of them
    processes.check(stop, "what was saved before")
    before = _looks_before(model, records, training, trainer, progress) if processes.is_main else []
    if not processes.is_main:
        set_seed(seed + processes.index)  # for dropout: the weights are the main process's
    resumed = last_checkpoint(checkpoints)
    processes.check(stop, "what was saved before")
    trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    close_trackers(training.report_to)
    saved = f"checkpoint {trainer.state.global_step} in {checkpoints}"
    stop.check(saved)
    if watching.stopped:
        raise interrupted("a signal to another process", saved)
    if early:
        trainer.take_best(checkpoints)
    whole = trainer.gathered_student()
    if processes.is_main:
        if model.aligner is not None and whole is None:  # spread over processes it would take all of them
            weights = student_layer_weights(model, records, collator, training.batch_size)
            write_layer_weights(out, records, weights)
        if before:
            after = student_looks(model, looked_at(records), "after", training.batch_size)
            write_student_attention(out, [*before, *after])
        texts = [record.explain.ids for record in looked_at(records)]
        _save_student(model.student, adapted, whole, tokenizer, texts, out)
        trained = _trained(trainer, objective, seed=seed, records=len(records), fingerprint=fingerprint)
        if least := least_version(model.student.config.to_dict()):
            trained["transformers"] = least
        write_summary(out, trained if origin is None else {**trained, **origin.described()})
        shutil.rmtree(checkpoints)
    processes.wait()


def _looks_before(
    model: DistillationModel,
    records: Sequence[TrainingRecord],
    training: TrainingSettings,
    trainer: StudentTrainer,
    progress: Progress,
) -> list[StudentLook]:
    """Where the student looks as it is loaded, also where a checkpoint is continued: that is read only afterwards."""
    if trainer.is_fsdp_enabled:
        progress.note("where the student looks is not kept: under FSDP no process has the whole student")
        return []
    try:
        return student_looks(model, looked_at(records), "before", training.batch_size)
    except ModelError as error:  # of concern to those objectives alone that need attention; they fail in the first step
        progress.note(f"where the student looks is not kept: {error}")
        return []


def _require_whole(student: StudentSettings, training: TrainingSettings) -> None:
    """Raise `ConfigError` for what needs all weights at once, which FSDP spreads over the processes."""
    for name, asked in (("student.peft", student.peft), ("training.early_stopping", training.early_stopping)):
        if asked:
            raise ConfigError(
                f"{name}: not together with FSDP, where no process has the whole student; leave it out, or let "
                "training.processes or torchrun start the processes, each of which then holds all of it"
            )


def _require_precision(training: TrainingSettings) -> None:
    if training.dtype == "float16" and torch_device(training.device).type == "cpu":
        raise ConfigError(
            "training.dtype: float16 is trained in on a GPU only, for small gradients become zero without the scaling "
            "that torch has there; use bfloat16 or float32"
        )


def _training_records(
    tokenizer: PreTrainedTokenizerBase,
    tokenizer_hash: str,
    examples: Sequence[Example],
    student: StudentSettings,
    targets: Mapping[str, Target],
    progress: Progress,
) -> Sequence[TrainingRecord]:
    """The same records for every objective: both texts have to fit, whichever of them is learned from."""
    records = read_records(tokenizer, tokenizer_hash, examples, targets, progress)
    fitting = take_records(records, np.flatnonzero(longest_of(records) <= student.max_length))
    if len(fitting) < len(records):
        progress.note(
            f"{len(records) - len(fitting)} of {len(records)} texts are longer than {student.max_length} tokens"
        )
    if not fitting:
        raise ConfigError(
            f"student.max_length {student.max_length}: none of {len(records)} training texts is that short"
        )
    return fitting


def _require_embeddings(model: PreTrainedModel, records: Sequence[TrainingRecord], student: StudentSettings) -> None:
    """Raise `ConfigError` for a token that the student has no embedding of; torch would fail in the midst of a step."""
    known = model.get_input_embeddings().weight.shape[0]
    if (largest := largest_id(records)) >= known:
        raise ConfigError(
            f"student.model: the tokenizer of {student.model} makes tokens up to number {largest:,}, but the model has "
            f"embeddings of {known:,} (from 0) alone; is it the tokenizer of another model?"
        )


def _require_positions(model: PreTrainedModel, records: Sequence[TrainingRecord], student: StudentSettings) -> None:
    """Raise `ConfigError` for a text longer than the positions that the student knows."""
    positions = known_positions(model)
    if too_long := int((longest_of(records) > positions).sum()):
        raise ConfigError(
            f"student.max_length: expected at most {positions}, the positions that {student.model} knows, found "
            f"{student.max_length}, and {too_long} of {len(records)} texts are longer"
        )


def _targets(
    examples: Sequence[Example],
    objective: Objective,
    teacher: TeacherTargets,
    student_layers: int,
    progress: Progress,
) -> Mapping[str, Target]:
    if not objective.needs_attention:
        return {}
    keys = keys_of(examples)
    if missing := teacher.missing(keys):
        raise MissingRecordsError(
            f"teacher attention of {missing} of {len(keys)} records is missing; `molsaki attention CONFIG` fills it"
        )
    return teacher.get(keys, objective.target_rule(teacher.layers, student_layers), progress)


def _load_student(identity: ModelIdentity, student: StudentSettings) -> PreTrainedModel:
    """Load or freshly initialise the student in float32: mixed precision casts on the way, not the weights."""
    if student.layers is not None:
        load = load_first_layers if student.initialise == "pretrained" else random_first_layers
        return load(identity.path, identity.hub_revision, student.layers)
    if student.initialise == "pretrained":
        return load_causal_lm(identity.path, identity.hub_revision, "float32")
    config = AutoConfig.from_pretrained(identity.path, revision=identity.hub_revision)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


def _checkpoints(out: Path, fingerprint: str, processes: Processes) -> Path:
    """Folder of this run's checkpoints; those of a run with other settings are useless and go."""
    folder = out / CHECKPOINTS
    mark = folder / "fingerprint"
    if processes.is_main:
        if folder.exists() and (not mark.exists() or mark.read_text() != fingerprint):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(fingerprint)
    processes.wait()
    return folder


def _arguments(training: TrainingSettings, seed: int, folder: Path) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=training.epochs,
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        bf16=training.dtype == "bfloat16",
        fp16=training.dtype == "float16",
        use_cpu=torch_device(training.device).type == "cpu",
        logging_steps=training.log_steps,
        save_steps=training.checkpoint_steps,
        save_total_limit=1 if training.early_stopping is None else 2,  # the best and the newest
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=_loader_workers(training),
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    # With several GPUs in sight the Trainer would split batches over threads (DataParallel), which see no recording.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _loader_workers(training: TrainingSettings) -> int:
    """On a CPU, putting batches together is work for the cores that train anyway."""
    if training.loader_workers is not None:
        return training.loader_workers
    return 0 if torch_device(training.device).type == "cpu" else GPU_LOADER_WORKERS


def _pad_token(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """Any token will do: padding stands behind the text, carries no label and is never looked at.

    Not so one that the model has no embedding of: transformers numbers a pad token that tokenizer.json lacks.
    """
    known: int = model.get_input_embeddings().weight.shape[0]
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(found) if found is not None and found < known else 0


def _save_student(
    student: PreTrainedModel,
    adapted: PeftModel | None,
    whole: dict[str, torch.Tensor] | None,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[np.ndarray],
    out: Path,
) -> None:
    merged = student if adapted is None else save_adapted(adapted, out, texts)
    save_checkpoint(merged, tokenizer, out, whole)


def _trained(
    trainer: StudentTrainer, objective: Objective, *, seed: int, records: int, fingerprint: str
) -> dict[str, Any]:
    """How the training went."""
    return {
        "fingerprint": fingerprint,
        "objective": objective.described(),
        "tasks": [*objective.tasks],
        "seed": seed,
        "records": records,
        "steps": trainer.state.global_step,
        **({"best_step": trainer.state.best_global_step} if looks(trainer.state) else {}),
        "log": trainer.state.log_history,
    }
