"""One training step of the student: the two tasks, and where the student looks (Eq. 3 and 5 to 7, arXiv 2604.15701).

In: a batch in which each record stands once for each task, as prompt + answer (predict) and as prompt + rationale
(explain). Out: the losses of an objective. The student's stepwise attention comes from the same forward pass as the
explanation loss, and so do, packed, the losses of both tasks.

Shapes: B batch, T tokens, N target tokens, V vocabulary, L layers, P targets of a record, S reasoning steps, K critical
words.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.attention.packing import Group, Packing, packed_attention
from stages.attention.stepwise import Recording, recording_attention
from stages.attention.tokens import Pooling
from stages.head import IGNORED, AtTargets, at_targets, next_tokens
from stages.losses import attention_loss
from stages.mixture import share_of_even
from stages.settings import Rows, SoftLabelTerm, Task
from stages.soft_labels.divergences import with_cross_entropy
from stages.soft_labels.head import TeacherHead
from stages.soft_labels.pieces import piece_loss
from stages.student.records.soft_labels import COUNTED, divergence_of, teacher_rows

TASKS: tuple[Task, ...] = ("predict", "explain")
PARTS = ("rationale", "answer")
"""What `explain` is made of."""
SEEN: Task = "explain"
"""The task in whose text the student's attention is looked at."""


@dataclass(frozen=True, kw_only=True)
class TaskOutput:
    """What the student says to one task: `loss`, the mean cross-entropy over the batch's target tokens, and the logits.

    `logits_BNV` are those for a record's N target tokens, in order; `is_target_BN` is false behind the last of them.
    """

    loss: torch.Tensor
    logits_BNV: torch.Tensor
    is_target_BN: torch.Tensor


class TrainingStep:
    """What an objective may ask of the student about one batch.

    All tasks are answered from one forward pass over packed texts where `packs` says that the student keeps them apart
    (`can_pack`), and each from a pass of its own otherwise.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        aligner: nn.Module | None,
        batch: Mapping[str, torch.Tensor],
        *,
        plain_head: bool = False,
        packs: bool = False,
        teacher_head: TeacherHead | None = None,
    ) -> None:
        """`plain_head` says that `has_plain_head` is true of the student; `teacher_head` belongs to hidden states."""
        self.student = student
        self.aligner = aligner
        self.batch = batch
        self.plain_head = plain_head
        self.packs = packs
        self.teacher_head = teacher_head
        self._answers: dict[Task, AtTargets] = {}
        self._outputs: dict[Task, TaskOutput] = {}
        self._cross_entropies: dict[Task, torch.Tensor] = {}
        self._recording: Recording | None = None

    def answer(self, tasks: Sequence[Task]) -> None:
        """Make the forward passes of these tasks, in order."""
        for task in tasks:
            self._answer(task)

    def cross_entropy(self, task: Task) -> torch.Tensor:
        """Mean cross-entropy over the batch's target tokens of a task."""
        if task in self._outputs:
            return self._outputs[task].loss
        if task not in self._cross_entropies:
            self._cross_entropies[task] = self._answer(task).loss() * self._share(task)
        return self._cross_entropies[task]

    def soft_label_loss(self, settings: SoftLabelTerm) -> torch.Tensor:
        """L_soft: the mean divergence from the teacher's rows over target tokens of `explain`, or over pieces of text.

        The cross-entropy of `explain` is computed with it, from the same logits.
        """
        answer, counted = self._answer(SEEN), self.batch[COUNTED]
        if settings.match == "text":
            losses_N = answer.cross_entropies()
            found = piece_loss(losses_N.neg(), self.batch["soft_piece"], self.batch["soft_wanted"])
        else:
            divergence = divergence_of(settings)

            def measure(logits: torch.Tensor, some: slice) -> torch.Tensor:
                rows = teacher_rows(self.batch, some, settings, self.teacher_head)
                return torch.stack(with_cross_entropy(logits, answer.wanted_N[some], rows, divergence), dim=1)

            losses_N, found = answer.by_token(measure).unbind(dim=1)
        self._cross_entropies[SEEN] = losses_N.mean() * self._share(SEEN)
        return torch.where(counted, found, 0).sum() / counted.sum().clamp(min=1) * self._share("soft")

    def parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy over the tokens of rationales, and over those of the sentences that state their answers.

        Together they are the target tokens of `explain`, and the batch has to tell them apart
        (`TrainingCollator.parts`).
        """
        wanted_BT, losses_N = self._following(SEEN), self._answer(SEEN).cross_entropies()
        counts = [next_tokens(self.batch[f"{part}_labels"])[wanted_BT != IGNORED] != IGNORED for part in PARTS]
        rationale, answer = (losses_N[counted].sum() / counted.sum().clamp(min=1) for counted in counts)
        return rationale * self._share("rationale"), answer * self._share("answer")

    def output(self, task: Task) -> TaskOutput:
        """The same as `cross_entropy`, and what the student would write in the place of each."""
        if task not in self._outputs:
            self._outputs[task] = self._output(task)
        return self._outputs[task]

    def _output(self, task: Task) -> TaskOutput:
        logits_NV, wanted_N = self._answer(task).logits(), self._answer(task).wanted_N
        loss = nn.functional.cross_entropy(logits_NV.float(), wanted_N) * self._share(task)
        written = (self._following(task) != IGNORED).sum(dim=1)
        logits_BNV = nn.utils.rnn.pad_sequence(list(torch.split(logits_NV, written.tolist())), batch_first=True)
        is_target_BN = torch.arange(logits_BNV.shape[1], device=written.device) < written[:, None]
        return TaskOutput(loss=loss, logits_BNV=logits_BNV, is_target_BN=is_target_BN)

    def _answer(self, task: Task) -> AtTargets:
        if task not in self._answers:
            tasks = [each for each in TASKS if f"{each}_ids" in self.batch] if self.packs else [task]
            with self._recorded(tasks):
                self._answers |= self._packed(tasks) if self.packs else self._padded(task)
        return self._answers[task]

    def _padded(self, task: Task) -> dict[Task, AtTargets]:
        inputs = {"input_ids": self.batch[f"{task}_ids"]}
        return {task: at_targets(self.student, inputs, [self._following(task)], plain_head=self.plain_head)[0]}

    def _packed(self, tasks: Sequence[Task]) -> dict[Task, AtTargets]:
        ids = [self.batch[f"{task}_ids"] for task in tasks]
        groups = [
            Group(shape=(len(padded), padded.shape[1]), tokens_N=self.batch[f"{task}_tokens"])
            for task, padded in zip(tasks, ids, strict=True)
        ]
        packing = Packing(groups=tuple(groups), recorded=tasks.index(SEEN) if SEEN in tasks else None)
        following = [packing.of_tokens(number, self._following(task)) for number, task in enumerate(tasks)]
        with packed_attention(packing):
            answers = at_targets(self.student, packing.row(ids), following, plain_head=self.plain_head)
        return dict(zip(tasks, answers, strict=True))

    def _following(self, task: Task) -> torch.Tensor:
        return next_tokens(self.batch[f"{task}_labels"])

    def _share(self, of: str) -> torch.Tensor | float:
        """How much a mean over this batch counts among those of one optimizer step; see `global_batches`."""
        return self.batch.get(f"{of}_share", 1.0)

    def mean_over_records(self, values_B: torch.Tensor) -> torch.Tensor:
        """Mean over the batch's first dimension, weighed where the step has more batches than this one."""
        return values_B.mean(dim=0) * self._share("record")

    @contextmanager
    def _recorded(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Keep where the student looks in the pass made inside, if it is one that an aligner waits for."""
        if self.aligner is None or SEEN not in tasks:
            yield
            return
        with self.recording() as recording:
            yield
        self._recording = recording

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Record where the student looks during the one forward pass made inside (Eq. 3)."""
        assert self.aligner is not None, "nothing would use what is recorded"
        pool = Pooling(steps_BST=self.batch["steps_BST"], words_BTK=self.batch["words_BTK"])
        keep_values = bool(self.aligner.needs_values)
        with recording_attention(self.student, pool, keep_values=keep_values) as recording:
            yield recording

    def attention_loss(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """L_att (Eq. 6, the mean over a record's P targets), and the student's layers in it.

        Of these the mean share (L,), and the mean over records of how even the shares are (`share_of_even`). The
        student's attention is that of the pass of `explain`.
        """
        assert self.aligner is not None, "no layers were chosen"
        self._answer(SEEN)
        recording = self._recording
        assert recording is not None, "the pass was recorded"
        target_BPSK = self.batch["target_BPSK"]
        # Mixed precision is for the student; weights and loss are small and stay in float32.
        with torch.autocast(target_BPSK.device.type, enabled=False):
            student_BPSK, weights_BL = self.aligner(recording, self.batch["token_mask"])
            # The mean over P targets of means over S steps is the mean over P · S steps.
            step_mask = self.batch["step_mask"].repeat(1, target_BPSK.shape[1])
            loss = attention_loss(
                target_BPSK.flatten(1, 2), student_BPSK.flatten(1, 2), step_mask, self.batch["word_mask"], rows=rows
            )
        evenness = self.mean_over_records(share_of_even(weights_BL.detach()))
        return loss * self._share("record"), self.mean_over_records(weights_BL), evenness


def gradient_norms(
    first: torch.Tensor, second: torch.Tensor, weights: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """‖∂first/∂w‖ and ‖∂second/∂w‖ over those of `weights` that both losses reach; 0 where there are none.

    The graph stays as it is, and no gradient is kept: what is trained does not change by it.
    """
    if not (first.requires_grad and second.requires_grad):
        return first.new_zeros(()), first.new_zeros(())
    of_first = torch.autograd.grad(first, list(weights), retain_graph=True, allow_unused=True)
    reached = [weight for weight, gradient in zip(weights, of_first, strict=True) if gradient is not None]
    if not reached:
        return first.new_zeros(()), first.new_zeros(())
    of_second = torch.autograd.grad(second, reached, retain_graph=True, allow_unused=True)
    by_both = [gradient is not None for gradient in of_second]
    kept = [gradient for gradient in of_first if gradient is not None]
    return _norm(kept, by_both), _norm(of_second, by_both)


def _norm(gradients: Sequence[torch.Tensor | None], counted: Sequence[bool]) -> torch.Tensor:
    squares = [
        gradient.detach().float().square().sum()
        for gradient, counts in zip(gradients, counted, strict=True)
        if counts and gradient is not None
    ]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
