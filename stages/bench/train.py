"""What a training step of `molsaki` costs beside one of `dss`, and beside eager attention in a pass of its own.

In: the shape of a random student, and how long its made-up texts are. Out: seconds of each method's step by rounds, or
the peak memory of one of them. `trl` is TRL's SFTTrainer on the same texts, each task's a row of its own, its loss on
completions alone. All methods take the same steps on the same batch: forward passes, backward pass,
clipping and AdamW, as transformers' Trainer takes them. Before the clock starts, L_att and its gradients by `molsaki`
are compared with those of eager attention.

Shapes: B batch, T tokens, L layers, P targets of a record, S reasoning steps, K critical words.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from cache.soft_labels.block import SoftLabelBlock
from data.errors import ConfigError, MismatchError
from stages.attention.stepwise import IMPLEMENTATION, Recording, attention_implementation, checkpointing_contexts
from stages.attention.tokens import Pooling
from stages.bench.attention import SVAMP, MethodsJob, Text, Times, check_text, made_up_records
from stages.bench.measure import (
    Memory,
    Rounds,
    Work,
    fastest,
    floating_point_operations,
    matmul_peak,
    measure_memory,
    nothing,
    rounds_of,
    take_turns,
    warmed_up,
)
from stages.head import IGNORED
from stages.mixture import Target
from stages.runtime.device import unless_out_of_memory
from stages.settings import Dtype, ObjectiveSettings, SoftLabelTerm, TermSettings, TrainingSettings
from stages.student.model import DistillationModel
from stages.student.objective import objective_of
from stages.student.objectives.molsaki import Molsaki
from stages.student.records.soft_labels import SoftTargets
from stages.student.step import TASKS, TrainingStep
from stages.student.texts import TrainingCollator, TrainingRecord, TrainingText, target_ends
from stages.toy.random_llama import SEED, random_llama, setting_of

Method: TypeAlias = Literal["dss", "molsaki", "soft-labels", "output_attentions", "trl"]
METHODS: tuple[Method, ...] = ("dss", "molsaki", "soft-labels", "output_attentions")
EVERY_METHOD: tuple[Method, ...] = (*METHODS, "trl")
COMPARED_WITH: Mapping[Method, Method] = {"molsaki": "dss", "soft-labels": "dss", "output_attentions": "dss"}
COMPARED_WITH_TRL: Mapping[Method, Method] = dict.fromkeys(METHODS, "trl")
MOST_ROUNDS: Mapping[Method, int] = {"output_attentions": 5}
"""Rounds that the method with T × T matrices takes part in, at most."""
PREDICT_SHARE = 0.6
"""Length of a `predict` text beside its `explain` text: on SVAMP the question with its answer is about so much of
question and rationale."""
ANSWER_TOKENS = 4
SOFT_LABELS = SoftLabelTerm()
KEPT = 64
"""Likeliest tokens of each target token."""
TOLERANCE: Mapping[Dtype, float] = {"float32": 1e-3, "bfloat16": 0.2, "float16": 0.2}
"""How far L_att and its gradients may be from those of eager attention, relative to their size: between the two stand
only the order of sums and, with half precision, its rounding."""


@dataclass(frozen=True, kw_only=True)
class TrainJob(MethodsJob):
    """Everything that one measuring process needs to know."""

    length: int
    words: int
    steps: int
    records: int
    vocabulary: int
    methods: tuple[Method, ...]
    gradient_checkpointing: bool
    svamp: bool = False
    """Whether records are as those of SVAMP with rationales, the shortest to the longest, instead."""
    peers: str | None = None
    """Folder that TRL lies in."""

    @property
    def texts(self) -> tuple[Text, ...]:
        """How large the `explain` texts are."""
        if not self.svamp:
            return (Text(tokens=self.length, steps=self.steps, words=self.words),) * self.records
        return tuple(SVAMP[number * len(SVAMP) // self.records] for number in range(self.records))

    @property
    def positions(self) -> int:
        """Tokens of the longest text."""
        return max(text.tokens for text in self.texts)


class OutputAttentions(Molsaki):
    """The same losses with the student's attention from a separate pass with `output_attentions=True`."""

    name = "output-attentions"

    def losses(self, step: TrainingStep) -> dict[str, torch.Tensor]:
        """Return what `Molsaki.losses` does, to rounding."""
        return super().losses(_EagerStep(step.student, step.aligner, step.batch))


class _EagerStep(TrainingStep):
    """Records in a pass of its own, after the one made inside."""

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """All layers' T × T matrices, averaged over heads and pooled, and the value states that the router needs."""
        body = self.student.base_model
        recording = Recording(pooling=Pooling(steps_BST=self.batch["steps_BST"], words_BTK=self.batch["words_BTK"]))
        yield recording
        with _value_states(body, recording.values_BTC), attention_implementation(self.student, "eager"):
            answer = body(input_ids=self.batch["explain_ids"], use_cache=False, output_attentions=True)
        for layer, matrix_BHTT in enumerate(answer.attentions):
            mean_BTT = matrix_BHTT.float().mean(dim=1)
            recording.attention_BSK[layer] = recording.pooling.steps_BST @ mean_BTT @ recording.pooling.words_BTK


@contextmanager
def _value_states(body: PreTrainedModel, found: dict[int, torch.Tensor]) -> Iterator[None]:
    def remember(layer: int, _module: nn.Module, _: object, output: torch.Tensor) -> None:
        found[layer] = output

    with ExitStack() as hooks:
        for number, layer in enumerate(body.layers):
            hooks.enter_context(layer.self_attn.v_proj.register_forward_hook(partial(remember, number)))
        yield


class _Student:
    """A random student on one batch, and a step of it by each method."""

    def __init__(self, job: TrainJob) -> None:
        if job.threads:
            torch.set_num_threads(job.threads)
        self.job = job
        self.device = torch.device(job.device)
        # Weights in float32, as in training: mixed precision casts on the way.
        self.model = random_llama(
            job.shape, positions=job.positions, vocabulary=job.vocabulary, device=self.device, dtype="float32"
        ).train()
        if job.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": checkpointing_contexts})
        records = _records(job)
        labels = _soft_targets(records, job.vocabulary) if "soft-labels" in job.methods else None
        self.batch = {name: tensor.to(self.device) for name, tensor in _batch(records, labels).items()}
        self.rows = [record.text(task) for record in records for task in TASKS]
        self.steps = {method: self._prepared(method) for method in job.methods}

    def _prepared(self, method: Method) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = self._peer() if method == "trl" else self._distilling(method)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def _peer(self) -> nn.Module:
        from stages.bench.peers import SftModel  # TRL is there where it is asked for alone

        assert self.job.peers is not None, "TRL is compared with where it was installed"
        # TRL changes the model's forward pass; where memory is measured, nobody else needs the weights.
        student = self.model if self.job.methods == ("trl",) else copy.deepcopy(self.model)
        return SftModel(student, self.rows, self.job.peers, self.job.dtype).to(self.device)

    def _distilling(self, method: Method) -> nn.Module:
        settings = ObjectiveSettings(name="dss" if method in ("dss", "soft-labels") else "molsaki")
        if method == "soft-labels":
            settings = replace(settings, terms=TermSettings(soft_labels=SOFT_LABELS))
        objective = OutputAttentions(settings) if method == "output_attentions" else objective_of(settings)
        return DistillationModel(
            self.model, objective, learning_rate=TrainingSettings().learning_rate, teacher_layers=self.job.shape.layers
        ).to(self.device)

    def set_kernel(self, method: Method) -> None:
        """Let attention be computed as the method wants it."""
        self.model.set_attn_implementation("sdpa" if method == "output_attentions" else IMPLEMENTATION)

    def losses(self, method: Method) -> dict[str, torch.Tensor]:
        """Forward passes of one step."""
        model, _ = self.steps[method]
        half = self.job.dtype != "float32"
        with torch.autocast(self.device.type, dtype=getattr(torch, self.job.dtype), enabled=half):
            losses: dict[str, torch.Tensor] = model(**self.batch)
        return losses

    def step(self, method: Method, count: int = 1) -> None:
        """So many steps of training."""
        model, optimizer = self.steps[method]
        for _ in range(count):
            self.losses(method)["loss"].backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def check_job(job: TrainJob) -> None:
    """Raise `ConfigError` for texts too short for what they have to hold."""
    for text in job.texts:
        check_text(text)
        if _predict_tokens(text) <= ANSWER_TOKENS:
            raise ConfigError(f"--length {text.tokens}: too short for a question and an answer")


def measure_times(job: TrainJob, *, after_each: Work = nothing) -> Times:
    """Seconds of a step of each method, in turns, after one step of each to warm up.

    The difference is that of L_att and its gradients to eager attention's, relative to their size; `MismatchError`
    where it is more than rounding explains.
    """
    student = _Student(job)
    difference = _difference(student) if {"molsaki", "output_attentions"} <= set(job.methods) else None
    works = {method: partial(student.step, method) for method in job.methods}
    fitting = warmed_up(works, before_each=student.set_kernel, after_each=after_each)
    rounds = take_turns(
        {method: works[method] for method in fitting},
        rounds_of=rounds_of(fitting, job.repeats, MOST_ROUNDS),
        device=student.device,
        before_each=student.set_kernel,
        after_each=after_each,
    )
    differences = {} if difference is None else {"molsaki": difference}
    return Times(
        rounds=rounds,
        differences=differences,
        setting=setting_of(student.model),
        shares_of_peak=_shares_of_peak(student, rounds),
    )


def _shares_of_peak(student: _Student, rounds: Mapping[Method, Rounds]) -> dict[Method, float]:
    peak = matmul_peak(student.device, getattr(torch, student.job.dtype))
    shares: dict[Method, float] = {}
    for method, of_method in rounds.items():
        student.set_kernel(method)
        shares[method] = floating_point_operations(partial(student.step, method)) / fastest(of_method) / peak
    return shares


def measure_peak(job: TrainJob) -> Memory | None:
    """Memory of steps of the job's only method, the optimizer's included; None where it does not suffice."""
    (method,) = job.methods

    def measured() -> Memory:
        student = _Student(job)
        student.set_kernel(method)
        return measure_memory(partial(student.step, method, 2), student.device)

    return unless_out_of_memory(measured)


def _difference(student: _Student) -> float | None:
    """Relative difference of L_att's gradients between `molsaki` and eager attention; None where memory ends."""
    ours = unless_out_of_memory(partial(_gradient, student, "molsaki"))
    eager = unless_out_of_memory(partial(_gradient, student, "output_attentions"))
    if ours is None or eager is None:
        return None
    difference = float((ours - eager).norm() / eager.norm())
    if not difference <= TOLERANCE[student.job.dtype]:  # so that NaN fails too
        raise MismatchError(
            f"bench train: L_att and its gradients by molsaki differ by {difference:.1%} from eager attention's, "
            f"at most {TOLERANCE[student.job.dtype]:.1%} was expected; one of the two is wrong"
        )
    return difference


def _gradient(student: _Student, method: Method) -> torch.Tensor:
    """L_att and its gradient with respect to the student's query and key weights, as one vector."""
    student.set_kernel(method)
    model, _ = student.steps[method]
    loss = student.losses(method)["L_att"]
    loss.backward()  # type: ignore[no-untyped-call]
    weights = [w for name, w in student.model.named_parameters() if name.endswith(("q_proj.weight", "k_proj.weight"))]
    vector = torch.cat([loss.detach().reshape(1), *(w.grad.flatten() for w in weights if w.grad is not None)])
    model.zero_grad()
    return vector


def _predict_tokens(text: Text) -> int:
    return round(PREDICT_SHARE * text.tokens)


def _records(job: TrainJob) -> list[TrainingRecord]:
    source = np.random.default_rng(SEED)

    def written_behind(ids: np.ndarray, question: int) -> TrainingText:
        return TrainingText(ids=ids, labels=np.where(np.arange(len(ids)) < question, IGNORED, ids))

    records = []
    for number, (one, text) in enumerate(zip(made_up_records(job.texts, job.vocabulary), job.texts, strict=True)):
        answered = _predict_tokens(text)
        records.append(
            TrainingRecord(
                key=str(number),
                name=f"made up {number}",
                predict=written_behind(one.ids[:answered], answered - ANSWER_TOKENS),
                explain=written_behind(one.ids, answered - ANSWER_TOKENS),
                located=one,
                target=Target(
                    attention=source.uniform(0, 4, (1, text.steps, text.words)).astype(np.float32),
                    layer_weights=np.full(job.shape.layers, 1 / job.shape.layers, dtype=np.float32),
                ),
                rationale_from=0,
                answer_from=len(one.text),
            )
        )
    return records


def _soft_targets(records: Sequence[TrainingRecord], vocabulary: int) -> SoftTargets:
    """Likeliest tokens drawn at random."""
    source = np.random.default_rng(SEED)
    kept = min(KEPT, vocabulary)

    def block(record: TrainingRecord) -> SoftLabelBlock:
        ends = target_ends(record)
        tokens = np.array([source.choice(vocabulary, kept, replace=False) for _ in ends])
        logits = -np.sort(source.exponential(2.0, tokens.shape), axis=1)
        logits -= logits[:, :1]
        norms = [np.log(np.exp(logits / temperature).sum(axis=1) * 1.02) for temperature in (1, 2)]
        return SoftLabelBlock(
            key=record.key,
            ends=ends,
            log_probability=np.full(len(ends), -1.0, np.float32),
            tokens=tokens.astype(np.uint32),
            logits=logits.astype(np.float16),
            log_norms=np.stack(norms, axis=1).astype(np.float32),
        )

    return SoftTargets(blocks={record.key: block(record) for record in records}, settings=SOFT_LABELS)


def _batch(records: Sequence[TrainingRecord], labels: SoftTargets | None = None) -> dict[str, torch.Tensor]:
    batch = TrainingCollator(pad=0, soft_labels=labels)(list(enumerate(records)))
    batch.pop("record")
    return batch
