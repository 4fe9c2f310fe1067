"""What a training step of `molsaki` costs beside one of `dss`, and beside eager attention in a pass of its own.

In: the shape of a random student, and how long its made-up texts are. Out: seconds of each method's step by rounds, or
the peak memory of one of them. All methods take the same steps on the same batch: forward passes, backward pass,
clipping and AdamW, as transformers' Trainer takes them. Before the clock starts, L_att and its gradients by `molsaki`
are compared with those of eager attention.

Shapes: B batch, T tokens, L layers, P targets of a record, S reasoning steps, K critical words.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from data.errors import ConfigError, MismatchError
from stages.attention.stepwise import IMPLEMENTATION, Recording, attention_implementation, checkpointing_contexts
from stages.attention.tokens import Pooling
from stages.bench.attention import MethodsJob, Text, Times, check_text, made_up_records
from stages.bench.measure import Memory, Work, measure_memory, nothing, rounds_of, take_turns, warmed_up
from stages.head import IGNORED
from stages.mixture import Target
from stages.runtime.device import unless_out_of_memory
from stages.settings import Dtype, ObjectiveSettings, TrainingSettings
from stages.student.model import DistillationModel
from stages.student.objective import objective_of
from stages.student.objectives.molsaki import Molsaki
from stages.student.step import TrainingStep
from stages.student.texts import TrainingCollator, TrainingRecord, TrainingText
from stages.toy.random_llama import SEED, random_llama, setting_of

Method: TypeAlias = Literal["dss", "molsaki", "output_attentions"]
METHODS: tuple[Method, ...] = ("dss", "molsaki", "output_attentions")
COMPARED_WITH: Mapping[Method, Method] = {"molsaki": "dss", "output_attentions": "dss"}
MOST_ROUNDS: Mapping[Method, int] = {"output_attentions": 5}
"""Rounds that the method with T × T matrices takes part in, at most."""
PREDICT_SHARE = 0.6
"""Length of a `predict` text beside its `explain` text: on SVAMP the question with its answer is about so much of
question and rationale."""
ANSWER_TOKENS = 4
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

    @property
    def text(self) -> Text:
        """How large an `explain` text is."""
        return Text(tokens=self.length, steps=self.steps, words=self.words)


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
            job.shape, positions=job.length, vocabulary=job.vocabulary, device=self.device, dtype="float32"
        ).train()
        if job.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": checkpointing_contexts})
        self.batch = {name: tensor.to(self.device) for name, tensor in _batch(job).items()}
        self.batch.pop("record")
        self.steps = {method: self._prepared(method) for method in job.methods}

    def _prepared(self, method: Method) -> tuple[DistillationModel, torch.optim.Optimizer]:
        settings = ObjectiveSettings(name="dss" if method == "dss" else "molsaki")
        objective = OutputAttentions(settings) if method == "output_attentions" else objective_of(settings)
        model = DistillationModel(
            self.model, objective, learning_rate=TrainingSettings().learning_rate, teacher_layers=self.job.shape.layers
        ).to(self.device)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def set_kernel(self, method: Method) -> None:
        """Let attention be computed as the method wants it."""
        self.model.set_attn_implementation(IMPLEMENTATION if method == "molsaki" else "sdpa")

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
    check_text(job.text)
    if _predict_tokens(job) <= ANSWER_TOKENS:
        raise ConfigError(f"--length {job.length}: too short for a question and an answer")


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
    return Times(rounds=rounds, differences=differences, setting=setting_of(student.model))


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


def _predict_tokens(job: TrainJob) -> int:
    return round(PREDICT_SHARE * job.length)


def _batch(job: TrainJob) -> dict[str, torch.Tensor]:
    source = np.random.default_rng(SEED)
    located = made_up_records([job.text] * job.records, job.vocabulary)
    question = _predict_tokens(job) - ANSWER_TOKENS

    def text(ids: np.ndarray) -> TrainingText:
        return TrainingText(ids=ids, labels=np.where(np.arange(len(ids)) < question, IGNORED, ids))

    records = [
        TrainingRecord(
            key=str(number),
            name=f"made up {number}",
            predict=text(one.ids[: _predict_tokens(job)]),
            explain=text(one.ids),
            located=one,
            target=Target(
                attention=source.uniform(0, 4, (1, job.steps, job.words)).astype(np.float32),
                layer_weights=np.full(job.shape.layers, 1 / job.shape.layers, dtype=np.float32),
            ),
        )
        for number, one in enumerate(located)
    ]
    return TrainingCollator(pad=0)(list(enumerate(records)))
