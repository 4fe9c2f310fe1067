"""The head of a causal model on those tokens alone that it is judged at.

In: a student, token ids, and for each token the one that has to follow, `IGNORED` where none does. Out: the mean
cross-entropy over the N tokens that count, and their logits where somebody wants them. Most of a text is prompt and
padding, and a vocabulary is wide: the head sees no other tokens, and where the logits of even these would fill memory,
they are computed in pieces, and again in the backward pass instead of being kept.

Shapes: B batch, T tokens, N tokens that count, C width, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel

IGNORED = -100
"""Label of tokens that no loss is computed on, as in transformers."""
MOST_LOGITS = 2**26
"""Logits computed at a time: 256 MiB in float32."""
ToLogits = Callable[[torch.Tensor], torch.Tensor]
SCALES: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "logit_scale": torch.mul,  # Cohere
    "logits_scaling": torch.div,  # Granite
    "lm_head_multiplier": torch.mul,  # Falcon H1
    "final_logit_softcapping": lambda logits, cap: cap * torch.tanh(logits / cap),  # Gemma
}
"""What families do to logits behind the head, by the key of their configuration."""


def next_tokens(labels_BT: torch.Tensor) -> torch.Tensor:
    """The label of the token behind each, `IGNORED` at the end, as causal models are trained."""
    return nn.functional.pad(labels_BT[:, 1:], (0, 1), value=IGNORED)


def target_loss(
    student: PreTrainedModel, ids_BT: torch.Tensor, next_BT: torch.Tensor, *, in_pieces: bool = False
) -> torch.Tensor:
    """Mean cross-entropy in nats, float32.

    With `in_pieces` no more than `MOST_LOGITS` logits are there at a time, if the student is one that `has_plain_head`.
    """
    wanted_N = next_BT[next_BT != IGNORED]
    rows = max(1, MOST_LOGITS // student.config.get_text_config().vocab_size)
    if in_pieces and len(wanted_N) > rows:
        return _in_pieces(_to_logits(student), _hidden(student, ids_BT, next_BT), wanted_N, rows)
    return nn.functional.cross_entropy(target_logits(student, ids_BT, next_BT).float(), wanted_N)


def target_logits(student: PreTrainedModel, ids_BT: torch.Tensor, next_BT: torch.Tensor) -> torch.Tensor:
    """The logits (N, V) at the tokens that count, texts in order."""
    counts_BT = next_BT != IGNORED
    with _before_head(student, lambda hidden_BTC: hidden_BTC[counts_BT][None]):
        logits: torch.Tensor = student(input_ids=ids_BT, use_cache=False).logits
    return logits.flatten(0, 1)


@torch.no_grad()
def has_plain_head(student: PreTrainedModel) -> bool:
    """Whether what the student does to hidden states is its head and what is known here of its family.

    One token is tried; on a CPU no random number is drawn for it.
    """
    seen: list[torch.Tensor] = []

    def remember(hidden_BTC: torch.Tensor) -> torch.Tensor:
        seen.append(hidden_BTC)
        return hidden_BTC

    with torch.random.fork_rng(devices=[]), _before_head(student, remember):
        logits = student(input_ids=torch.zeros(1, 1, dtype=torch.long, device=student.device), use_cache=False).logits
    return len(seen) == 1 and torch.allclose(_to_logits(student)(seen[0]), logits, atol=1e-5, rtol=1e-4)


def _hidden(student: PreTrainedModel, ids_BT: torch.Tensor, next_BT: torch.Tensor) -> torch.Tensor:
    """What the head would see of the tokens that count (N, C); it sees the first of them."""
    counts_BT = next_BT != IGNORED
    seen: list[torch.Tensor] = []

    def first(hidden_BTC: torch.Tensor) -> torch.Tensor:
        seen.append(hidden_BTC[counts_BT])
        return seen[0][None, :1].detach()

    with _before_head(student, first):
        student(input_ids=ids_BT, use_cache=False)
    return seen[0]


def _in_pieces(to_logits: ToLogits, hidden_NC: torch.Tensor, wanted_N: torch.Tensor, rows: int) -> torch.Tensor:
    def summed(hidden: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(to_logits(hidden).float(), wanted, reduction="sum")

    sums = [
        checkpoint(summed, hidden, wanted, use_reentrant=False)
        for hidden, wanted in zip(torch.split(hidden_NC, rows), torch.split(wanted_N, rows), strict=True)
    ]
    return torch.stack(sums).sum() / len(wanted_N)


def _to_logits(student: PreTrainedModel) -> ToLogits:
    head, config = _head(student), student.config.get_text_config()
    scales = [(scale, value) for name, scale in SCALES.items() if (value := _number(config, name)) is not None]

    def to_logits(hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = head(hidden)
        for scale, value in scales:
            logits = scale(logits, value)
        return logits

    return to_logits


def _number(config: PreTrainedConfig, name: str) -> float | None:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) else None


@contextmanager
def _before_head(student: PreTrainedModel, change: ToLogits) -> Iterator[None]:
    """Let the head see what `change` makes of the hidden states (B, T, C)."""
    hook = _head(student).register_forward_pre_hook(lambda _, seen: (change(seen[0]), *seen[1:]))
    try:
        yield
    finally:
        hook.remove()


def _head(student: PreTrainedModel) -> nn.Module:
    head = student.get_output_embeddings()
    assert isinstance(head, nn.Module), "a causal model has a head"
    return head
