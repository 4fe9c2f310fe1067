"""The teacher's pass over rationales: texts enter, for each record the rows of its soft labels leave.

In: a causal model with its head, its tokenizer, marked records. Out: a `SoftLabelBlock` a record, for the cache. A row
stands for each *target token*, which is one that reaches beyond the prompt, and one more for the end token behind them:
these are the tokens that a student learns to write, so that with one tokenizer rows and labels match one to one.

The head is computed at target rows alone, in float32 where it is a plain matrix in memory, and in blocks of rows.

Shapes: B batch, T tokens, N rows, C width, V vocabulary, K tokens kept, D draws.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cache.soft_labels.block import SoftLabelBlock
from cache.soft_labels.layout import SoftLabelLayout
from data.errors import ModelError
from data.prompts import explain_prompt
from data.records import Marked
from stages.attention.batches import TokenBudget, compute_in_batches
from stages.attention.tokens import encode_all
from stages.head import IGNORED, at_targets
from stages.models.modes import evaluating
from stages.soft_labels.head import TeacherHead, head_of
from stages.soft_labels.pieces import target_ends
from stages.soft_labels.rows import (
    Sampled,
    in_blocks,
    likeliest,
    log_probability,
    sampled,
    uniforms,
    without_empty_columns,
)

Context = Literal["student", "plain"]
"""What the teacher reads in front of a rationale: what a student does, or the question as in its attention's pass."""
PAD = 0
"""Token behind shorter texts of a batch; under causal attention no other token looks at it."""


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What is kept of each row: the `k` likeliest tokens, `draws` by `seed`, or the hidden state as `hidden`."""

    layout: SoftLabelLayout
    k: int = 64
    draws: int = 64
    seed: int = 0
    hidden: Literal["float16", "float32"] = "float16"


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherText:
    """One record as the teacher reads it: `ids` (T,), and of each row the place of the token before it, `places` (N,).

    `wanted` (N,) is the token that stands in a row's place, `ends` (N,) where it ends in characters of the rationale;
    the last row is the end token's.
    """

    key: str
    ids: np.ndarray
    places: np.ndarray
    wanted: np.ndarray
    ends: np.ndarray

    def following(self, length: int) -> np.ndarray:
        """The wanted token behind each, `IGNORED` where there is none, (T,) and on to `length`."""
        following = np.full(length, IGNORED, dtype=np.int64)
        following[self.places] = self.wanted
        return following


def teacher_texts(
    tokenizer: PreTrainedTokenizerBase, records: Mapping[str, Marked], *, context: Context, begin: int | None = None
) -> list[TeacherText]:
    """Tokenize records, by key, in the context given; `begin` stands in front of `plain` ones, if there is one.

    `student` is the prompt of the task `explain` and the rationale, with the tokens that the tokenizer adds by itself.
    Raises `ModelError` for a tokenizer without end token or character offsets.
    """
    assert begin is None or context == "plain", "a student's text has the tokens of its tokenizer alone"
    if tokenizer.eos_token_id is None:
        raise ModelError(f"tokenizer {tokenizer.name_or_path}: it has no end token, and soft labels have a row for it")
    prompts = [prompt_of(marked, context) for marked in records.values()]
    texts = [prompt + marked.rationale for prompt, marked in zip(prompts, records.values(), strict=True)]
    encoded = encode_all(tokenizer, texts)
    return [
        teacher_text(key, marked, *_behind(begin, ids, spans), len(prompt), end=tokenizer.eos_token_id)
        for (key, marked), prompt, (ids, spans) in zip(records.items(), prompts, encoded, strict=True)
    ]


def prompt_of(marked: Marked, context: Context) -> str:
    """What stands in front of a rationale."""
    return explain_prompt(marked.question) if context == "student" else marked.text[: marked.rationale_start]


def _behind(begin: int | None, ids: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (ids, spans) if begin is None else (np.insert(ids, 0, begin), np.insert(spans, 0, 0, axis=0))


def teacher_text(key: str, marked: Marked, ids: np.ndarray, spans: np.ndarray, start: int, *, end: int) -> TeacherText:
    """A record whose text has these tokens (T,) at these characters (T, 2); its rationale begins at `start`."""
    # Nothing is read in front of the first token, and so nothing expected there.
    targets = np.flatnonzero(spans[1:, 1] > start) + 1
    return TeacherText(
        key=key,
        ids=ids,
        places=np.append(targets - 1, len(ids) - 1),
        wanted=np.append(ids[targets], end),
        ends=target_ends(spans[1:], start, len(marked.rationale)),
    )


class TeacherPass:
    """A teacher that is asked for soft labels; what its head is, is found out once."""

    def __init__(self, model: PreTrainedModel, keeping: Keeping) -> None:
        """Raises `ModelError` where hidden states are to be kept and no plain head makes logits of them."""
        self.model, self.keeping = model, keeping
        self.head: TeacherHead | None = None
        with evaluating(model):
            try:
                self.head = head_of(model)
            except ModelError:
                if keeping.layout == "hidden":
                    raise

    def blocks(self, texts: Sequence[TeacherText], budget: TokenBudget) -> list[SoftLabelBlock]:
        """What is kept of each text, in batches under `budget`."""

        def compute(chosen: list[int]) -> list[SoftLabelBlock]:
            return list(self._batch([texts[number] for number in chosen]))

        with evaluating(self.model):
            return compute_in_batches([len(text.ids) for text in texts], budget, compute)

    @torch.inference_mode()
    def _batch(self, texts: Sequence[TeacherText]) -> Iterator[SoftLabelBlock]:
        ids = [torch.from_numpy(text.ids) for text in texts]
        ids_BT = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD)
        # On the CPU, for the head may lie on another device than the embeddings.
        following_BT = torch.from_numpy(np.stack([text.following(ids_BT.shape[1]) for text in texts]))
        inputs = {"input_ids": ids_BT.to(_input_device(self.model))}
        (at,) = at_targets(self.model, inputs, [following_BT], plain_head=self.head is not None)
        yield from self._blocks(texts, at.said, at.wanted_N)

    @torch.inference_mode()
    def blocks_of(self, texts: Sequence[TeacherText], hidden_BTC: torch.Tensor) -> list[SoftLabelBlock]:
        """The same from the last hidden states of a pass over these very texts; there has to be a plain head."""
        assert self.head is not None, "hidden states are of use with a head"
        said = [hidden_BTC[row, torch.from_numpy(text.places)] for row, text in enumerate(texts)]
        wanted_N = torch.from_numpy(np.concatenate([text.wanted for text in texts]))
        return list(self._blocks(texts, torch.cat(said), wanted_N.to(hidden_BTC.device)))

    def _blocks(
        self, texts: Sequence[TeacherText], said: torch.Tensor, wanted_N: torch.Tensor
    ) -> Iterator[SoftLabelBlock]:
        arrays = self._kept(texts, said, wanted_N)
        borders = np.cumsum([len(text.places) for text in texts])[:-1]
        for text, own in zip(texts, zip(*(np.split(array, borders) for array in arrays), strict=True), strict=True):
            yield self._block(text, *own)

    def _kept(self, texts: Sequence[TeacherText], said: torch.Tensor, wanted_N: torch.Tensor) -> tuple[np.ndarray, ...]:
        """Log-probabilities, and the arrays of the layout, of all rows; `said` is (N, C), or (N, V) without a head."""
        keeping, head = self.keeping, self.head
        numbers_ND = self._numbers(texts) if keeping.layout == "sampled" else None

        def keep(rows: slice) -> tuple[np.ndarray, ...]:
            logits_nV = said[rows] if head is None else head.logits(said[rows])
            own = (log_probability(logits_nV, wanted_N[rows]),)
            if keeping.layout == "top":
                return (*own, *likeliest(logits_nV, keeping.k))
            return own if numbers_ND is None else (*own, *sampled(logits_nV, numbers_ND[rows]))

        found = in_blocks(len(wanted_N), said.shape[1] if head is None else head.vocabulary, keep)
        return (*found, _stored(said, keeping.hidden)) if keeping.layout == "hidden" else found

    def _numbers(self, texts: Sequence[TeacherText]) -> np.ndarray:
        """The random numbers of each row, (N, D)."""
        draws, seed = self.keeping.draws, self.keeping.seed
        return np.concatenate([uniforms(text.key, seed, len(text.places), draws) for text in texts])

    def _block(self, text: TeacherText, own: np.ndarray, *arrays: np.ndarray) -> SoftLabelBlock:
        """Copied, for a batch's array would be kept by the smallest part of it."""
        names = {"top": ("tokens", "logits", "log_norms"), "sampled": ("tokens", "counts"), "hidden": ("hidden",)}
        if self.keeping.layout == "sampled":
            arrays = without_empty_columns(Sampled(*arrays))
        fields = dict(zip(names[self.keeping.layout], (array.copy() for array in arrays), strict=True))
        return SoftLabelBlock(key=text.key, ends=text.ends, log_probability=own.copy(), **fields)


def _stored(hidden_NC: torch.Tensor, dtype: Literal["float16", "float32"]) -> np.ndarray:
    """Hidden states in the type that they are stored in; `ModelError` for what it has no numbers for."""
    stored_NC = hidden_NC.to(getattr(torch, dtype))
    if not bool(stored_NC.isfinite().all()):
        raise ModelError(
            f"the teacher's hidden states have values that {dtype} has no numbers for; the largest that is finite is "
            f"{float(hidden_NC.nan_to_num(posinf=0, neginf=0).abs().max()):.3g}"
        )
    return stored_NC.cpu().numpy()


def _input_device(model: PreTrainedModel) -> torch.device:
    """Where the embeddings are; those that wait on a disk are brought where needed by accelerate."""
    device: torch.device = model.get_input_embeddings().weight.device
    return torch.device("cpu") if device.type == "meta" else device
