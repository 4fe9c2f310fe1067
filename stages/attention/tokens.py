"""From character spans to token sets: the same steps and words in any tokenizer's coordinates.

In: a text with step spans and critical spans in characters, and a tokenizer with character offsets. Out: token ids, the
step of each token, the tokens of each word. Character spans are the coordinates that teacher and student share; this is
the only place where they become tokens.

Shapes: T tokens, S reasoning steps, K critical words, B batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from data.errors import ModelError
from data.records import Marked, Span

NO_STEP = -1
CHUNK = 1024
"""Texts tokenized together where only their lengths are wanted."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """One text in tokens: `ids` (T,), `step_of_token` (T,) with -1 for none, and for each word the tokens it covers."""

    ids: np.ndarray
    step_of_token: np.ndarray
    tokens_of_word: tuple[np.ndarray, ...]
    steps: int
    text: str
    spans: np.ndarray
    """Characters of `text` that each token covers (T, 2), half-open; empty for special tokens."""

    def step_tokens(self) -> np.ndarray:
        """Number of tokens in each step (S,)."""
        return np.bincount(self.step_of_token[self.step_of_token >= 0], minlength=self.steps)

    def words_of_token(self) -> np.ndarray:
        """To how many words each token belongs (T,)."""
        tokens = np.concatenate([np.empty(0, np.int64), *self.tokens_of_word])
        return np.bincount(tokens, minlength=len(self.ids))

    def is_special(self) -> np.ndarray:
        """Which tokens cover no character (T,): those that the tokenizer adds by itself. No word has any of them."""
        special: np.ndarray = (self.spans[:, 0] >= self.spans[:, 1]) & (self.words_of_token() == 0)
        return special


def require_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ModelError` unless the tokenizer tells which characters a token covers."""
    if not tokenizer.is_fast:
        name = tokenizer.name_or_path or type(tokenizer).__name__
        raise ModelError(
            f"tokenizer {name}: it gives no character offsets, without which steps and words cannot be found in its "
            "tokens; use a model that comes with a tokenizer.json (a tokenizer of the tokenizers library)"
        )


def locate(
    tokenizer: PreTrainedTokenizerBase, marked: Marked, *, prefix: str = "", begin: int | None = None
) -> Located:
    """Tokenize prefix + text, behind the token `begin` if there is one, and find the marked steps and words in it.

    A token belongs to the one step in which its first visible character lies, and to each word that it overlaps.
    Special tokens and the prefix belong to no step and to no word. Text that looks like a special token is text.
    """
    ids, spans = encode(tokenizer, prefix + marked.text)
    if begin is not None:
        ids, spans = np.insert(ids, 0, begin), np.insert(spans, 0, 0, axis=0)
    return located(marked, ids, spans, prefix=prefix)


def located(marked: Marked, ids: np.ndarray, spans: np.ndarray, *, prefix: str = "") -> Located:
    """Find the marked steps and words in prefix + text, whose tokens are `ids` (T,) at `spans` (T, 2)."""
    text = prefix + marked.text
    starts = _first_visible(text, spans)
    first, last = (spans - len(prefix)).T
    return Located(
        ids=ids,
        step_of_token=_steps_of(starts - len(prefix), marked.step_spans),
        tokens_of_word=tuple(np.flatnonzero((first < end) & (last > start)) for start, end in marked.critical_spans),
        steps=len(marked.step_spans),
        text=text,
        spans=spans,
    )


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (T,) and the characters that each token covers (T, 2), special tokens of the tokenizer's own included.

    Raises `ModelError` for a tokenizer without character offsets.
    """
    require_offsets(tokenizer)
    encoded = tokenizer(
        text, return_offsets_mapping=True, return_special_tokens_mask=True, split_special_tokens=True, verbose=False
    )
    return _encoded(encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"])


def encode_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """What `encode` makes of each text, of all of them at once: on several cores where the tokenizer can do that."""
    if not texts:
        return []
    require_offsets(tokenizer)
    encoded = tokenizer(
        list(texts),
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        split_special_tokens=True,
        verbose=False,
    )
    columns = (encoded[name] for name in ("input_ids", "offset_mapping", "special_tokens_mask"))
    return [_encoded(*each) for each in zip(*columns, strict=True)]


def _encoded(ids: Sequence[int], offsets: Sequence[Span], special: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    spans = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    spans[np.asarray(special, dtype=bool)] = 0
    return np.asarray(ids, dtype=np.int64), spans


def token_counts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Number of tokens of each text as `encode` makes them, without keeping them."""
    require_offsets(tokenizer)
    counts: list[int] = []
    for first in range(0, len(texts), CHUNK):
        encoded = tokenizer(list(texts[first : first + CHUNK]), split_special_tokens=True, verbose=False)
        counts += map(len, encoded["input_ids"])
    return counts


def _first_visible(text: str, spans: np.ndarray) -> np.ndarray:
    """Where the first character that is no white space lies in each span (T,); -1 for none."""
    visible = np.flatnonzero(~np.fromiter(map(str.isspace, text), dtype=bool, count=len(text)))
    nowhere = np.iinfo(np.int64).max
    first = np.append(visible, nowhere)[np.searchsorted(visible, spans[:, 0])]
    return np.where(first < spans[:, 1], first, -1)


def _steps_of(starts: np.ndarray, steps: Sequence[Span]) -> np.ndarray:
    step_of_token = np.full(len(starts), NO_STEP, dtype=np.int64)
    for step, (start, end) in enumerate(steps):
        step_of_token[(starts >= start) & (starts < end)] = step
    return step_of_token


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """The sums of Eq. 2 as two indicator tensors: `steps_BST` and `words_BTK`, 1 where the token belongs, else 0."""

    steps_BST: torch.Tensor
    words_BTK: torch.Tensor
    columns_BC: torch.Tensor | None = None
    """Tokens that words consist of, where they are known already: counting them on a GPU would wait for it."""
    first_row: int = 0
    """No step has a token in front of this one."""
    sinks: bool = False
    """Whether what learned sinks receive, which are no tokens, is wanted as one more column behind the words."""

    def to(self, device: torch.device) -> "Pooling":
        """The same on another device."""
        return replace(
            self,
            steps_BST=self.steps_BST.to(device, non_blocking=True),
            words_BTK=self.words_BTK.to(device, non_blocking=True),
            columns_BC=None if self.columns_BC is None else self.columns_BC.to(device, non_blocking=True),
        )

    def columns(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens that words consist of, (B, C) int64, and which word each belongs to, (B, C, K) float32.

        C is the batch's largest number of such tokens; texts with fewer are filled up with tokens of no word.
        """
        tokens_BC = self.columns_BC if self.columns_BC is not None else _word_tokens(self.words_BTK)
        return tokens_BC, torch.take_along_dim(self.words_BTK, tokens_BC[:, :, None], dim=1)


def pooling(located: Sequence[Located], length: int, *, receivers: bool = False) -> Pooling:
    """Stack the token sets of a batch, right-padded to `length` tokens and to the batch's largest S and K (float32).

    With `receivers` three columns more stand behind the K words: what counts for several words, for each but one of
    them; the special tokens as one; and learned sinks (see `cache.step_totals`).
    """
    most_words = max((len(one.tokens_of_word) for one in located), default=0)
    steps = torch.zeros(len(located), max((one.steps for one in located), default=0), length)
    words = torch.zeros(len(located), length, most_words + 2 * receivers)
    for b, one in enumerate(located):
        tokens = np.flatnonzero(one.step_of_token >= 0)
        steps[b, one.step_of_token[tokens], tokens] = 1.0
        for k, covered in enumerate(one.tokens_of_word):
            words[b, covered, k] = 1.0
        if receivers:
            words[b, : len(one.ids), most_words] = torch.from_numpy(np.maximum(one.words_of_token() - 1, 0))
            words[b, : len(one.ids), most_words + 1] = torch.from_numpy(one.is_special())
    first_row = min((int(np.argmax(one.step_of_token >= 0)) for one in located), default=0)
    columns = _word_tokens(words)
    return Pooling(steps_BST=steps, words_BTK=words, columns_BC=columns, first_row=first_row, sinks=receivers)


def _word_tokens(words_BTK: torch.Tensor) -> torch.Tensor:
    """Tokens of any word first, in order, as far as the text with the most of them needs (B, C)."""
    covered_BT = words_BTK.any(dim=2)
    most = int(covered_BT.sum(dim=1).max()) if covered_BT.numel() else 0
    return torch.argsort(~covered_BT, dim=1, stable=True)[:, :most]


def padded_ids(located: Sequence[Located], pad: int) -> torch.Tensor:
    """Token ids (B, T), right-padded: under causal attention no real token ever looks at the padding."""
    ids = torch.full((len(located), max(len(one.ids) for one in located)), pad, dtype=torch.long)
    for b, one in enumerate(located):
        ids[b, : len(one.ids)] = torch.from_numpy(one.ids)
    return ids
