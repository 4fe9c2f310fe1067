"""What a student reads and writes: a record as token ids and labels for both tasks, and batches of such records."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from data.prompts import answer_sentence, explain_prompt, predict_prompt, predict_target
from stages.attention.packing import group_of
from stages.attention.select import Example
from stages.attention.tokens import Located, encode, encode_all, located, pooling
from stages.head import IGNORED
from stages.mixture import Target, pad_blocks
from stages.settings import Task
from stages.soft_labels import pieces
from stages.student.records.soft_labels import SoftTargets


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
    rationale_from: int
    """Where, in the characters of the `explain` text, the rationale begins."""
    answer_from: int
    """Where the sentence begins that states the answer."""

    def text(self, task: Task) -> TrainingText:
        """What a task learns from."""
        return self.predict if task == "predict" else self.explain

    @property
    def length(self) -> int:
        """Tokens of the longer text."""
        return max(len(self.predict.ids), len(self.explain.ids))


def training_record(tokenizer: PreTrainedTokenizerBase, example: Example, target: Target | None) -> TrainingRecord:
    """Tokenize an example for both tasks; each target ends with the tokenizer's end token."""
    (record,) = training_records(tokenizer, [example], [target])
    return record


def training_records(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], targets: Sequence[Target | None]
) -> list[TrainingRecord]:
    """The same of several examples, tokenized together."""
    questions = [example.marked.question for example in examples]
    answers = [predict_target(example.rationale.question) for example in examples]
    prompts = [predict_prompt(question) for question in questions]
    predict = encode_all(tokenizer, [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    prefixes = [explain_prefix(question) for question in questions]
    explain = encode_all(
        tokenizer, [prefix + example.marked.text for prefix, example in zip(prefixes, examples, strict=True)]
    )
    records = []
    for number, (example, question) in enumerate(zip(examples, questions, strict=True)):
        where = located(example.marked, *explain[number], prefix=prefixes[number])
        written_from = len(explain_prompt(question))
        records.append(
            TrainingRecord(
                key=example.key,
                name=name_of(example),
                predict=_training_text(tokenizer, *predict[number], written_from=len(prompts[number])),
                explain=_training_text(tokenizer, where.ids, where.spans, written_from=written_from),
                located=where,
                target=targets[number],
                rationale_from=written_from,
                answer_from=answer_from(example),
            )
        )
    return records


def name_of(example: Example) -> str:
    """What people are told of an example."""
    asking = example.rationale.question
    return f"{asking.dataset} {asking.id} (key {example.key[:16]})"


def answer_from(example: Example) -> int:
    """Where the sentence that states the answer begins in what a student reads and writes in `explain`."""
    rationale = example.rationale
    end = len(explain_prefix(example.marked.question)) + len(example.marked.text)
    sentence = answer_sentence(rationale.question, rationale.answer)
    return end - len(sentence) if example.marked.text.endswith(sentence) else end


def explain_prefix(question: str) -> str:
    """What the prompt for a rationale has in front of the question, which is part of the marked text."""
    prompt = explain_prompt(question)
    return prompt[: prompt.index(question)]


def target_text(tokenizer: PreTrainedTokenizerBase, prompt: str, target: str) -> TrainingText:
    """What a student learns that writes `target`, and an end token, behind `prompt`."""
    return _training_text(tokenizer, *encode(tokenizer, prompt + target), written_from=len(prompt))


def _training_text(
    tokenizer: PreTrainedTokenizerBase, ids: np.ndarray, spans: np.ndarray, *, written_from: int
) -> TrainingText:
    """Label the tokens that reach beyond the prompt, and an end token behind them."""
    written = np.flatnonzero(spans[:, 1] > written_from)
    end = [] if tokenizer.eos_token_id is None or ids[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id]
    labels = np.full(len(ids), IGNORED, dtype=np.int64)
    labels[written] = ids[written]
    return TrainingText(ids=np.append(ids, end).astype(np.int64), labels=np.append(labels, end).astype(np.int64))


def target_ends(record: TrainingRecord) -> np.ndarray:
    """Where the tokens end that `explain` has to write (N,), in characters of the rationale; an end token: its end."""
    located = record.located
    found = pieces.target_ends(located.spans, record.rationale_from, len(located.text) - record.rationale_from)
    return found[: int((record.explain.labels != IGNORED).sum())]  # the last is of an end token, which not all have


def _answer_labels(record: TrainingRecord) -> np.ndarray:
    """The labels (T,) of the tokens that reach into the sentence with the answer, and of the end token."""
    labels, ends = record.explain.labels, record.located.spans[:, 1]
    stated = np.append(ends > record.answer_from, np.ones(len(labels) - len(ends), dtype=bool))
    return np.where(stated, labels, IGNORED)


@dataclass(frozen=True, kw_only=True)
class TrainingCollator:
    """Stacks training records into one batch, right-padded: causal attention never looks at what lies behind."""

    pad: int
    tasks: Sequence[Task] = ("predict", "explain")
    soft_labels: SoftTargets | None = None
    """Soft labels to learn `explain` from."""
    parts: bool = False
    """Whether the labels of `explain` also come in two parts: those of the rationale and those of its answer."""

    def __call__(self, records: Sequence[tuple[int, TrainingRecord]]) -> dict[str, torch.Tensor]:
        """Return ids and labels (B, T) of the tasks and, with targets, what Eq. 3 to 6 need.

        `tokens` (N,) of a task are the numbers, b · T + t, of those that are no padding. Each record comes with its
        number, which the batch holds as `record` (B,).
        """
        numbers, content = zip(*records, strict=True)
        batch = {"record": torch.tensor(numbers)}
        for task in self.tasks:
            batch[f"{task}_ids"] = self._stack([one.text(task).ids for one in content], self.pad)
            batch[f"{task}_labels"] = self._stack([one.text(task).labels for one in content], IGNORED)
            batch[f"{task}_tokens"] = group_of([len(one.text(task).ids) for one in content]).tokens_N
        if self.parts:
            answers = [_answer_labels(one) for one in content]
            batch["answer_labels"] = self._stack(answers, IGNORED)
            batch["rationale_labels"] = batch["explain_labels"].masked_fill(batch["answer_labels"] != IGNORED, IGNORED)
        if self.soft_labels is not None:
            batch |= self.soft_labels.of([(one.key, target_ends(one)) for one in content])
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
        target_BPSK, step_mask, word_mask = pad_blocks([target.attention for target in targets])
        return {
            "steps_BST": pool.steps_BST,
            "words_BTK": pool.words_BTK,
            "target_BPSK": target_BPSK,
            "token_mask": torch.arange(length)[None] < tokens[:, None],
            "step_mask": step_mask,
            "word_mask": word_mask,
        }
