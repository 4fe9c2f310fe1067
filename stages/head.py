"""The head of a causal model on those tokens alone that it is judged at.

In: a student, what it reads, and for each token the one that has to follow, `IGNORED` where none does. Out:
`AtTargets`, which tell the mean cross-entropy over the N tokens that count, and their logits where somebody wants them.
Most of a text is prompt and padding, and a vocabulary is wide: the head sees no other tokens, and where the logits of
even these would fill memory, they are computed in pieces, and again in the backward pass instead of being kept.

Shapes: B batch, T tokens, N tokens that count, C width, V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel

IGNORED = -100
"""Label of tokens that no loss is computed on, as in transformers."""
MOST_LOGITS = 2**26
"""Logits computed at a time: 256 MiB in float32."""
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


class Head:
    """What makes logits (N, V) of hidden states (N, C), as far as it is known here: see `has_plain_head`."""

    def __init__(self, student: PreTrainedModel) -> None:
        config = student.config.get_text_config()
        self.vocabulary = int(config.vocab_size)
        self.module = _head(student)
        self.scales = {name: value for name in SCALES if (value := _number(config, name)) is not None}
        """What the family does behind it: names of `SCALES`, in their order, with their numbers."""

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits, also of (B, T, C)."""
        return scaled(self.module(hidden), self.scales)


def scaled(logits: torch.Tensor, scales: Mapping[str, float]) -> torch.Tensor:
    """What a family makes of the logits of its head; `scales` are those of a `Head`."""
    for name, value in scales.items():
        logits = SCALES[name](logits, value)
    return logits


@dataclass(frozen=True, kw_only=True, eq=False)
class AtTargets:
    """What a student says at the N tokens that count of some texts, in order, and what it should say."""

    wanted_N: torch.Tensor
    said: torch.Tensor
    """(N, C), what `head` sees; without one it is the logits (N, V)."""
    head: Head | None

    def logits(self) -> torch.Tensor:
        """The logits (N, V)."""
        return self.said if self.head is None else self.head(self.said)

    def loss(self) -> torch.Tensor:
        """Mean cross-entropy in nats, float32; with a head no more than `MOST_LOGITS` logits are made at a time."""
        if self.head is not None and len(self.wanted_N) > (rows := max(1, MOST_LOGITS // self.head.vocabulary)):
            return _in_pieces(self.head, self.said, self.wanted_N, rows)
        return nn.functional.cross_entropy(self.logits().float(), self.wanted_N)

    def by_token(self, measure: Callable[[torch.Tensor, slice], torch.Tensor]) -> torch.Tensor:
        """What `measure` says of the logits (n, V), in float32, of the tokens that a slice of all N takes: (N, …).

        With a head no more than `MOST_LOGITS` logits are made at a time, and again in the backward pass.
        """
        count = len(self.wanted_N)
        if self.head is None or count <= (rows := max(1, MOST_LOGITS // self.head.vocabulary)):
            return measure(self.logits().float(), slice(0, count))
        head = self.head
        pieces = [slice(first, min(first + rows, count)) for first in range(0, count, rows)]
        found = [
            checkpoint(
                lambda said, piece: measure(head(said).float(), piece), self.said[piece], piece, use_reentrant=False
            )
            for piece in pieces
        ]
        return torch.cat(found)

    def cross_entropies(self) -> torch.Tensor:
        """The cross-entropy of each token in nats (N,), float32."""
        return self.by_token(
            lambda logits, some: nn.functional.cross_entropy(logits, self.wanted_N[some], reduction="none")
        )


def at_targets(
    student: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    following: Sequence[torch.Tensor],
    *,
    plain_head: bool = False,
) -> list[AtTargets]:
    """One forward pass over `inputs`, keyword arguments of the student, and what it says to each part of its tokens.

    A part is a tensor of `following`, the tokens that have to follow or `IGNORED`; all of them, one behind the other,
    are as many as the tokens of the inputs. `plain_head` says that `has_plain_head` is true of the student; its logits
    are made when they are asked for then.
    """
    counts = torch.cat([part.flatten() for part in following]).view_as(inputs["input_ids"]) != IGNORED
    said = _hidden(student, inputs, counts) if plain_head else _logits(student, inputs, counts)
    wanted = [part[part != IGNORED] for part in following]
    parts = torch.split(said, [len(one) for one in wanted])
    head = Head(student) if plain_head else None
    return [AtTargets(wanted_N=one, said=part, head=head) for one, part in zip(wanted, parts, strict=True)]


def target_logits(student: PreTrainedModel, ids_BT: torch.Tensor, next_BT: torch.Tensor) -> torch.Tensor:
    """The logits (N, V) at the tokens that count, texts in order."""
    return _logits(student, {"input_ids": ids_BT}, next_BT != IGNORED)


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
    return len(seen) == 1 and torch.allclose(Head(student)(seen[0]), logits, atol=1e-5, rtol=1e-4)


def _logits(student: PreTrainedModel, inputs: Mapping[str, torch.Tensor], counts_BT: torch.Tensor) -> torch.Tensor:
    with _before_head(student, lambda hidden_BTC: hidden_BTC[counts_BT][None]):
        logits: torch.Tensor = student(**inputs, use_cache=False).logits
    return logits.flatten(0, 1)


def _hidden(student: PreTrainedModel, inputs: Mapping[str, torch.Tensor], counts_BT: torch.Tensor) -> torch.Tensor:
    """What the head would see of the tokens that count (N, C); it sees the first of them."""
    seen: list[torch.Tensor] = []

    def first(hidden_BTC: torch.Tensor) -> torch.Tensor:
        seen.append(hidden_BTC[counts_BT])
        return seen[0][None, :1].detach()

    with _before_head(student, first):
        student(**inputs, use_cache=False)
    return seen[0]


def _in_pieces(head: Head, hidden_NC: torch.Tensor, wanted_N: torch.Tensor, rows: int) -> torch.Tensor:
    def summed(hidden: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(head(hidden).float(), wanted, reduction="sum")

    sums = [
        checkpoint(summed, hidden, wanted, use_reentrant=False)
        for hidden, wanted in zip(torch.split(hidden_NC, rows), torch.split(wanted_N, rows), strict=True)
    ]
    return torch.stack(sums).sum() / len(wanted_N)


def _number(config: PreTrainedConfig, name: str) -> float | None:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) else None


@contextmanager
def _before_head(student: PreTrainedModel, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
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
