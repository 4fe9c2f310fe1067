"""Stepwise attention (Eq. 2 after arXiv 2604.15701): how much each reasoning step looks at each critical word.

In: a causal language model of transformers, token ids, and which tokens form steps and words. Out: for every layer one
matrix steps × words, from an ordinary forward pass with fused attention kernels. Why: `output_attentions=True` builds
H × T × T numbers a layer; here nothing larger than T × K a head exists.

How: attention is linear in its values. Run with the words' indicator columns in place of the values, the fused kernel
returns, per head and token, the attention that each word gets; it is exact and differentiable. The kernel runs a second
time per head size of words. See docs/decisions for the alternatives.

Shapes: B batch, T tokens, L layers, H heads, D head size, S reasoning steps, K critical words.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from data.errors import ModelError
from data.records import Marked
from stages.tokens import Pooling, length_batches, locate, padded_ids, pooling

IMPLEMENTATION = "molsaki_pooled"
# Arguments that change the attention weights and that scaled-dot-product attention would silently leave out.
UNSUPPORTED_ARGUMENTS = {"softcap": "soft-capping of attention scores", "s_aux": "attention sinks"}


@dataclass
class Recording:
    """What one forward pass leaves behind, a tensor per layer index."""

    pooling: Pooling
    keep_values: bool = False
    attention_BSK: dict[int, torch.Tensor] = field(default_factory=dict)
    values_BTC: dict[int, torch.Tensor] = field(default_factory=dict)
    """Value states with the key-value heads side by side, C = key-value heads × head size."""

    def stacked(self) -> torch.Tensor:
        """Stepwise attention of all layers, (B, L, S, K)."""
        return torch.stack([self.attention_BSK[layer] for layer in sorted(self.attention_BSK)], dim=1)

    def values(self) -> torch.Tensor:
        """Value states of all layers, (B, L, T, C)."""
        return torch.stack([self.values_BTC[layer] for layer in sorted(self.values_BTC)], dim=1)


_active: ContextVar[Recording | None] = ContextVar("molsaki_recording", default=None)


@contextmanager
def recording_attention(model: PreTrainedModel, pool: Pooling, *, keep_values: bool = False) -> Iterator[Recording]:
    """Record stepwise attention during the one forward pass made inside this context.

    Raises `ModelError` where a layer's attention does not come through transformers' attention interface, or where it
    uses what the fused kernels leave out: a wrong number is never returned.
    """
    before = model.config._attn_implementation
    if before != IMPLEMENTATION:
        model.set_attn_implementation(IMPLEMENTATION)
    recording = Recording(pooling=pool, keep_values=keep_values)
    token = _active.set(recording)
    try:
        yield recording
    finally:
        _active.reset(token)
        if before != IMPLEMENTATION:
            model.set_attn_implementation(before)
    _require_all_layers(model, recording)


def _require_all_layers(model: PreTrainedModel, recording: Recording) -> None:
    expected = model.config.get_text_config().num_hidden_layers
    if len(recording.attention_BSK) != expected:
        raise ModelError(
            f"model type {model.config.model_type}: attention of {len(recording.attention_BSK)} of {expected} layers "
            "came through transformers' attention interface; this architecture computes attention on its own and "
            "cannot be used"
        )


def _pooled_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **arguments: Any,  # whatever the model hands to its attention function
) -> tuple[torch.Tensor, None]:
    """Fused attention as usual; inside `recording_attention` also the attention that each word gets from each step."""
    recording = _active.get()
    if recording is not None:
        _refuse_unsupported(module, arguments)
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        recording.attention_BSK[layer] = _attention_to_words(
            module, query, key, attention_mask, recording.pooling, **{**arguments, "dropout": 0.0}
        )
        if recording.keep_values:
            recording.values_BTC[layer] = value.transpose(1, 2).flatten(2)
    output_BTHD, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **arguments)
    return output_BTHD, None


def _attention_to_words(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pool: Pooling,
    **arguments: Any,
) -> torch.Tensor:
    """`A[s, k] = Σ_{i in step s} Σ_{j in word k} I[i, j]` with I the mean over heads (Eq. 2): (B, S, K) in float32."""
    size = key.shape[-1]
    pooled = []
    for first in range(0, max(pool.words_BTK.shape[-1], 1), size):
        words = pool.words_BTK[..., first : first + size].to(key)
        # Padded to the head size: the fused kernels want values as wide as keys.
        columns = torch.nn.functional.pad(words, (0, size - words.shape[-1]))
        values = columns[:, None].expand(-1, key.shape[1], -1, -1)
        received_BTHK, _ = sdpa_attention_forward(module, query, key, values, attention_mask, **arguments)
        mean_BTK = received_BTHK[..., : words.shape[-1]].float().mean(dim=2)
        with torch.autocast(key.device.type, enabled=False):  # sums over many tokens want float32
            pooled.append(pool.steps_BST @ mean_BTK)
    return torch.cat(pooled, dim=-1)


def _refuse_unsupported(module: torch.nn.Module, arguments: dict[str, Any]) -> None:
    for name, meaning in UNSUPPORTED_ARGUMENTS.items():
        if arguments.get(name) is not None:
            raise ModelError(f"{type(module).__name__}: {meaning} is not supported, its attention would come out wrong")


AttentionInterface.register(IMPLEMENTATION, _pooled_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


@torch.inference_mode()
def stepwise_attention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Marked],
    *,
    batch_tokens: int = 16384,
) -> list[np.ndarray]:
    """Stepwise attention of each record (Eq. 2): one (L, S, K) float32 array a record, in the order of `records`.

    The model reads plain question + rationale with the special tokens that its tokenizer adds by itself. Batches hold
    records of like length, `batch_tokens` tokens with padding, right-padded.
    """
    located = [locate(tokenizer, marked) for marked in records]
    blocks: dict[int, np.ndarray] = {}
    for batch in length_batches([len(one.ids) for one in located], batch_tokens):
        ids = padded_ids([located[i] for i in batch], pad=0)
        pool = pooling([located[i] for i in batch], ids.shape[1])
        attention_BLSK = _forward(model, ids, pool)
        for row, i in enumerate(batch):
            s, k = located[i].steps, len(located[i].tokens_of_word)
            blocks[i] = attention_BLSK[row, :, :s, :k]
    return [blocks[i] for i in range(len(records))]


def _forward(model: PreTrainedModel, ids_BT: torch.Tensor, pool: Pooling) -> np.ndarray:
    """One pass through the model's body, without language-model head and key-value cache: (B, L, S, K) on the host."""
    body = model.base_model
    with recording_attention(body, pool.to(model.device)) as recording:
        body(input_ids=ids_BT.to(model.device), use_cache=False)
    return recording.stacked().cpu().numpy()
