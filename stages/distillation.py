"""One training step of the student: the two tasks and the attention loss (Eq. 3 and 5 to 7 after arXiv 2604.15701).

In: a batch in which each record stands twice, as prompt + answer (predict) and as prompt + rationale (explain). Out:
the losses. The student's stepwise attention comes from the same forward pass as the explanation loss.

Shapes: B batch, T tokens, L layers, S reasoning steps, K critical words, C = key-value heads × head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from data.prompts import explain_prompt, predict_prompt, predict_target
from stages.attention import IMPLEMENTATION, recording_attention
from stages.examples import Example
from stages.losses import attention_loss
from stages.mixture import LayerRouter, mix_layers
from stages.settings import ObjectiveSettings
from stages.targets import Target
from stages.tokens import Located, Pooling, encode, locate, pooling

IGNORED = -100
"""Label of tokens that no loss is computed on, as in transformers."""


@dataclass(frozen=True, kw_only=True)
class TrainingText:
    """Token ids (T,) and labels (T,), `IGNORED` outside the part that the student has to write."""

    ids: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """A record as both tasks see it; `target` is None for an objective without attention."""

    predict: TrainingText
    explain: TrainingText
    located: Located
    target: Target | None

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
    return TrainingRecord(
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

    def __call__(self, records: Sequence[TrainingRecord]) -> dict[str, torch.Tensor]:
        """Return ids and labels (B, T) of both tasks and, with targets, what Eq. 3 to 6 need."""
        batch = {
            "predict_ids": self._stack([one.predict.ids for one in records], self.pad),
            "predict_labels": self._stack([one.predict.labels for one in records], IGNORED),
            "explain_ids": self._stack([one.explain.ids for one in records], self.pad),
            "explain_labels": self._stack([one.explain.labels for one in records], IGNORED),
        }
        targets = [one.target for one in records if one.target is not None]
        if targets:
            batch |= self._attention([one.located for one in records], targets, batch["explain_ids"].shape[1])
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
        target = torch.zeros(len(located), pool.steps_BST.shape[1], pool.words_BTK.shape[2])
        for row, one in enumerate(targets):
            target[row, : one.attention.shape[0], : one.attention.shape[1]] = torch.from_numpy(one.attention)
        return {
            "steps_BST": pool.steps_BST,
            "words_BTK": pool.words_BTK,
            "target_BSK": target,
            "token_mask": torch.arange(length)[None] < tokens[:, None],
            "step_mask": torch.arange(target.shape[1])[None] < steps[:, None],
            "word_mask": torch.arange(target.shape[2])[None] < words[:, None],
        }


class DistillationModel(nn.Module):
    """The student with what only training needs around it: the layer router and the losses.

        L = α L_pre + (1 − α) L_exp + β L_att                                                     Eq. 7

    L_pre and L_exp are the mean cross-entropy over the batch's target tokens; L_att is there only with targets in the
    batch. The teacher's targets are constants.
    """

    def __init__(self, student: PreTrainedModel, objective: ObjectiveSettings) -> None:
        super().__init__()
        self.student = student
        self.objective = objective
        self.router: LayerRouter | None = None
        if objective.name == "molsaki":
            student.set_attn_implementation(IMPLEMENTATION)
            config = student.config.get_text_config()
            self.router = LayerRouter(config.num_hidden_layers, value_width(config), objective.tau_student)

    def forward(
        self,
        predict_ids: torch.Tensor,
        predict_labels: torch.Tensor,
        explain_ids: torch.Tensor,
        explain_labels: torch.Tensor,
        **attention: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return `loss` and its parts `L_pre`, `L_exp`, `L_att`, and the mean `layer_weights` (L,) of the student."""
        l_pre = self._cross_entropy(predict_ids, predict_labels)
        if self.router is None:
            l_exp = self._cross_entropy(explain_ids, explain_labels)
            return {"loss": self._two_tasks(l_pre, l_exp), "L_pre": l_pre, "L_exp": l_exp}
        pool = Pooling(steps_BST=attention["steps_BST"], words_BTK=attention["words_BTK"])
        with recording_attention(self.student, pool, keep_values=True) as recording:
            l_exp = self._cross_entropy(explain_ids, explain_labels)
        # Mixed precision is for the student; weights and loss are small and stay in float32.
        with torch.autocast(explain_ids.device.type, enabled=False):
            weights = self.router(recording.values(), attention["token_mask"])
            mixed = mix_layers(recording.stacked(), weights)
            l_att = attention_loss(attention["target_BSK"], mixed, attention["step_mask"], attention["word_mask"])
        loss = self._two_tasks(l_pre, l_exp) + self.objective.beta * l_att
        parts = {"L_pre": l_pre, "L_exp": l_exp, "L_att": l_att, "layer_weights": weights.mean(dim=0)}
        return {"loss": loss, **parts}

    def _two_tasks(self, l_pre: torch.Tensor, l_exp: torch.Tensor) -> torch.Tensor:
        return self.objective.alpha * l_pre + (1 - self.objective.alpha) * l_exp

    def _cross_entropy(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.student(input_ids=ids, labels=labels, use_cache=False).loss
        return loss


def value_width(config: PreTrainedConfig) -> int:
    """Width C of a layer's value states: key-value heads × head size."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int((getattr(config, "num_key_value_heads", None) or heads) * size)
