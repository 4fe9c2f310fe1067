"""One training step of the student: the two tasks, and where the student looks (Eq. 3 and 5 to 7, arXiv 2604.15701).

In: a batch in which each record stands once for each task, as prompt + answer (predict) and as prompt + rationale
(explain). Out: the losses of an objective. The student's stepwise attention comes from the same forward pass as the
explanation loss.

Shapes: B batch, T tokens, V vocabulary, L layers, P targets of a record, S reasoning steps, K critical words.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import CausalLMOutput

from data.prompts import explain_prompt, predict_prompt, predict_target
from stages.attention.select import Example
from stages.attention.stepwise import IMPLEMENTATION, Recording, recording_attention
from stages.attention.tokens import Located, Pooling, encode, locate, pooling
from stages.losses import attention_loss
from stages.student.objective import Objective, Task
from stages.student.targets import Target

IGNORED = -100
"""Label of tokens that no loss is computed on, as in transformers."""


@dataclass(frozen=True, kw_only=True)
class TrainingText:
    """Token ids (T,) and labels (T,), `IGNORED` outside the part that the student has to write."""

    ids: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """A record as both tasks see it; `target` is None for an objective without attention.

    `name` tells people which record it is, `key` what it is called in the store.
    """

    key: str
    name: str
    predict: TrainingText
    explain: TrainingText
    located: Located
    target: Target | None

    def text(self, task: Task) -> TrainingText:
        """What a task learns from."""
        return self.predict if task == "predict" else self.explain

    @property
    def length(self) -> int:
        """Tokens of the longer text."""
        return max(len(self.predict.ids), len(self.explain.ids))


def training_record(tokenizer: PreTrainedTokenizerBase, example: Example, target: Target | None) -> TrainingRecord:
    """Tokenize an example for both tasks; each target ends with the tokenizer's end token."""
    question = example.marked.question
    asked = predict_prompt(question)
    answer = asked + predict_target(example.rationale.question)
    prompt = explain_prompt(question)
    located = locate(tokenizer, example.marked, prefix=prompt[: prompt.index(question)])
    asking = example.rationale.question
    return TrainingRecord(
        key=example.key,
        name=f"{asking.dataset} {asking.id} (key {example.key[:16]})",
        predict=_training_text(tokenizer, *encode(tokenizer, answer), written_from=len(asked)),
        explain=_training_text(tokenizer, located.ids, located.spans, written_from=len(prompt)),
        located=located,
        target=target,
    )


def _training_text(
    tokenizer: PreTrainedTokenizerBase, ids: np.ndarray, spans: np.ndarray, *, written_from: int
) -> TrainingText:
    """Label the tokens that reach beyond the prompt, and an end token behind them."""
    written = np.flatnonzero(spans[:, 1] > written_from)
    end = [] if tokenizer.eos_token_id is None or ids[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id]
    labels = np.full(len(ids), IGNORED, dtype=np.int64)
    labels[written] = ids[written]
    return TrainingText(ids=np.append(ids, end).astype(np.int64), labels=np.append(labels, end).astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class TrainingCollator:
    """Stacks training records into one batch, right-padded: causal attention never looks at what lies behind."""

    pad: int
    tasks: Sequence[Task] = ("predict", "explain")

    def __call__(self, records: Sequence[tuple[int, TrainingRecord]]) -> dict[str, torch.Tensor]:
        """Return ids and labels (B, T) of the tasks and, with targets, what Eq. 3 to 6 need.

        Each record comes with its number, which the batch holds as `record` (B,).
        """
        numbers, content = zip(*records, strict=True)
        batch = {"record": torch.tensor(numbers)}
        for task in self.tasks:
            batch[f"{task}_ids"] = self._stack([one.text(task).ids for one in content], self.pad)
            batch[f"{task}_labels"] = self._stack([one.text(task).labels for one in content], IGNORED)
        targets = [one.target for one in content if one.target is not None]
        if targets:
            batch |= self._attention([one.located for one in content], targets, batch["explain_ids"].shape[1])
        return batch

    @staticmethod
    def _stack(rows: Sequence[np.ndarray], fill: int) -> torch.Tensor:
        return nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True, padding_value=fill)

    @staticmethod
    def _attention(located: Sequence[Located], targets: Sequence[Target], length: int) -> dict[str, torch.Tensor]:
        pool = pooling(located, length)
        tokens = torch.tensor([len(one.ids) for one in located])
        steps = torch.tensor([one.steps for one in located])
        words = torch.tensor([len(one.tokens_of_word) for one in located])
        matrices = len(targets[0].attention)
        target = torch.zeros(len(located), matrices, pool.steps_BST.shape[1], pool.words_BTK.shape[2])
        for row, one in enumerate(targets):
            _, s, k = one.attention.shape
            target[row, :, :s, :k] = torch.from_numpy(one.attention)
        return {
            "steps_BST": pool.steps_BST,
            "words_BTK": pool.words_BTK,
            "target_BPSK": target,
            "token_mask": torch.arange(length)[None] < tokens[:, None],
            "step_mask": torch.arange(target.shape[2])[None] < steps[:, None],
            "word_mask": torch.arange(target.shape[3])[None] < words[:, None],
        }


@dataclass(frozen=True, kw_only=True)
class TaskOutput:
    """What the student says to one task: `loss`, the mean cross-entropy over the batch's target tokens, and the logits.

    `logits_BTV` at a token are for the next one; `is_target_BT` is true where that next one has to be written.
    """

    loss: torch.Tensor
    logits_BTV: torch.Tensor
    is_target_BT: torch.Tensor


class TrainingStep:
    """What an objective may ask of the student about one batch. Each question is a forward pass."""

    def __init__(self, student: PreTrainedModel, helper: nn.Module | None, batch: Mapping[str, torch.Tensor]) -> None:
        self.student = student
        self.helper = helper
        self.batch = batch

    def cross_entropy(self, task: Task) -> torch.Tensor:
        """Mean cross-entropy over the batch's target tokens of a task."""
        loss: torch.Tensor = self._answer(task).loss
        return loss

    def output(self, task: Task) -> TaskOutput:
        """The same, and what the student would write at each token."""
        answer = self._answer(task)
        assert answer.logits is not None
        is_target_BT = self.batch[f"{task}_labels"][:, 1:] != IGNORED
        return TaskOutput(loss=answer.loss, logits_BTV=answer.logits[:, :-1], is_target_BT=is_target_BT)

    def _answer(self, task: Task) -> CausalLMOutput:
        ids, labels = self.batch[f"{task}_ids"], self.batch[f"{task}_labels"]
        answer: CausalLMOutput = self.student(input_ids=ids, labels=labels, use_cache=False)
        assert answer.loss is not None
        answer.loss = answer.loss * self._share(task)
        return answer

    def _share(self, of: str) -> torch.Tensor | float:
        """How much a mean over this batch counts among those of one optimizer step; see `global_batches`."""
        return self.batch.get(f"{of}_share", 1.0)

    def mean_over_records(self, values_B: torch.Tensor) -> torch.Tensor:
        """Mean over the batch's first dimension, weighed where the step has more batches than this one."""
        return values_B.mean(dim=0) * self._share("record")

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Record where the student looks during the one forward pass made inside (Eq. 3)."""
        assert self.helper is not None, "nothing would use what is recorded"
        pool = Pooling(steps_BST=self.batch["steps_BST"], words_BTK=self.batch["words_BTK"])
        keep_values = bool(self.helper.needs_values)
        with recording_attention(self.student, pool, keep_values=keep_values) as recording:
            yield recording

    def attention_loss(self, recording: Recording) -> tuple[torch.Tensor, torch.Tensor]:
        """L_att (Eq. 6, the mean over a record's P targets), and the mean share (L,) of the student's layers in it."""
        assert self.helper is not None, "no layers were chosen"
        target_BPSK = self.batch["target_BPSK"]
        # Mixed precision is for the student; weights and loss are small and stay in float32.
        with torch.autocast(target_BPSK.device.type, enabled=False):
            student_BPSK, weights_BL = self.helper(recording, self.batch["token_mask"])
            # The mean over P targets of means over S steps is the mean over P · S steps.
            step_mask = self.batch["step_mask"].repeat(1, target_BPSK.shape[1])
            loss = attention_loss(
                target_BPSK.flatten(1, 2), student_BPSK.flatten(1, 2), step_mask, self.batch["word_mask"]
            )
        return loss * self._share("record"), self.mean_over_records(weights_BL)


class DistillationModel(nn.Module):
    """The student with what only training needs around it: the objective and its helper, such as the layer router."""

    accepts_loss_kwargs = False
    """Every loss is a weighed mean over its batch: the Trainer divides by the accumulation steps."""

    def __init__(self, student: PreTrainedModel, objective: Objective, *, teacher_layers: int = 0) -> None:
        """An objective with attention needs `teacher_layers`; raises `ConfigError` for layers that do not fit."""
        super().__init__()
        self.student = student
        self._no_split_modules = getattr(student, "_no_split_modules", None)  # what FSDP shards one by one
        self.objective = objective
        self.helper = objective.helper(student, teacher_layers)
        if objective.needs_attention:
            student.set_attn_implementation(IMPLEMENTATION)

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `loss` and what the objective says of the batch beside it, as `TrainingCollator` stacked it."""
        return self.objective.losses(TrainingStep(self.student, self.helper, batch))
