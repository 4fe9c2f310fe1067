"""Texts of a batch one behind the other in a single row, so that no layer computes anything on padding.

In: right-padded token ids, of one group of texts or of several. Out: the row as a model takes it, and what attention
needs to keep the texts apart. Attention alone sees them as padded batches, group by group: it is a small part of the
work, causal attention never looks at what lies behind a text, and its fused kernels want no mask then. Everything else
of a causal model works token by token and does not notice, which `can_pack` tries before it is believed.

Shapes: B texts of a group, T tokens of the longest, N tokens of all of them or of all groups, H heads, D head size.
"""

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from stages.models.modes import evaluating

log = logging.getLogger(__name__)

TRIED = (6, 3, 4)
"""Tokens of the texts that packing is tried on."""
TOLERANCE = 1e-4
"""How far logits may be apart, relative to their size, for the order of sums; texts that see each other are further."""
BY_LENGTH = frozenset({"dynamic", "longrope"})
"""Rotary positions that depend on the longest text of a forward pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Texts that attention sees together: (B, T) is their padded `shape`, `tokens_N` = b · T + t of each token."""

    shape: tuple[int, int]
    tokens_N: torch.Tensor

    def padded(self, states_HND: torch.Tensor) -> torch.Tensor:
        """The states of the texts' tokens as (B, H, T, D), zeros behind each text."""
        states_NHD = states_HND.transpose(0, 1)
        heads, size = states_NHD.shape[1:]
        zeros = states_NHD.new_zeros(self.shape[0] * self.shape[1], heads, size)
        filled = zeros.index_copy(0, self.tokens_N, states_NHD)
        return filled.view(*self.shape, heads, size).transpose(1, 2)

    def packed(self, states_BTHD: torch.Tensor) -> torch.Tensor:
        """The same back in a row, (N, H, D)."""
        return states_BTHD.flatten(0, 1).index_select(0, self.tokens_N)


@dataclass(frozen=True, kw_only=True, eq=False)
class Packing:
    """A row of `groups`, one behind the other; attention of the group `recorded` is what a recording is about."""

    groups: tuple[Group, ...]
    recorded: int | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(group.shape[1] for group in self.groups)

    def row(self, ids_BT: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keyword arguments of a causal model for the groups' padded token ids."""
        ids_N = torch.cat([self.of_tokens(number, ids) for number, ids in enumerate(ids_BT)])
        positions_N = torch.cat([group.tokens_N % group.shape[1] for group in self.groups])
        # With a mask of its own transformers looks for no texts in the positions, and builds no N × N mask for them.
        mask_N = torch.ones_like(ids_N)
        return {"input_ids": ids_N[None], "position_ids": positions_N[None], "attention_mask": mask_N[None]}

    def of_tokens(self, number: int, values_BT: torch.Tensor) -> torch.Tensor:
        """What a padded tensor says of the tokens of a group, (N,)."""
        return values_BT.flatten()[self.groups[number].tokens_N]

    def split(self, *states_1HND: torch.Tensor) -> Iterator[tuple[Group, list[torch.Tensor]]]:
        """Each group with its part of the row's states, padded."""
        sizes = [len(group.tokens_N) for group in self.groups]
        parts = [torch.split(states[0], sizes, dim=1) for states in states_1HND]
        for group, *of_group in zip(self.groups, *parts, strict=True):
            yield group, [group.padded(states) for states in of_group]


active: ContextVar[Packing | None] = ContextVar("molsaki_packing", default=None)


@contextmanager
def packed_attention(packing: Packing | None) -> Iterator[None]:
    """Inside, what a model computes attention on is a row of this packing."""
    token = active.set(packing)
    try:
        yield
    finally:
        active.reset(token)


def group_of(lengths: Sequence[int]) -> Group:
    """Texts of so many tokens."""
    longest = max(lengths)
    is_token_BT = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    return Group(shape=(len(lengths), longest), tokens_N=is_token_BT.flatten().nonzero().flatten())


def text_mask(**arguments: Any) -> torch.Tensor | None:
    """The mask of fused attention as transformers makes it; of packed texts that for the longest of them, by itself."""
    packing = active.get()
    if packing is not None:
        arguments |= {"q_length": packing.longest, "kv_length": packing.longest, "attention_mask": None}
    mask: torch.Tensor | None = sdpa_mask(**arguments)
    return mask


def can_pack(student: PreTrainedModel, implementation: str) -> bool:
    """Whether packed texts get the logits that each gets alone, when attention is computed by `implementation`.

    A few short texts are tried; on a CPU no random number is drawn for it. What depends on the longest text of a pass
    is not packed: that would be another one where tasks share it.
    """
    if not student._can_set_attn_implementation() or _depends_on_longest(student.config):
        return False
    if "position_ids" not in inspect.signature(student.forward).parameters:
        return False
    before = student.config._attn_implementation
    student.set_attn_implementation(implementation)
    try:
        with torch.random.fork_rng(devices=[]), evaluating(student):
            return _same_logits(student)
    except Exception as error:  # models fail at what they were not made for, each in its own way
        log.debug("%s cannot be packed: %s", student.config.model_type, error)
        return False
    finally:
        student.set_attn_implementation(before)


@torch.no_grad()
def _same_logits(student: PreTrainedModel) -> bool:
    group = group_of(TRIED)
    packing = Packing(groups=(group,))
    count = torch.arange(len(TRIED) * max(TRIED)).view(len(TRIED), max(TRIED))
    ids_BT = (7 * count + 3) % student.config.get_text_config().vocab_size
    with packed_attention(packing):
        row = {name: one.to(student.device) for name, one in packing.row([ids_BT]).items()}
        together_NV = student(**row, use_cache=False).logits[0]
    apart = [
        student(input_ids=ids[None, :length].to(student.device), use_cache=False).logits[0]
        for ids, length in zip(ids_BT, TRIED, strict=True)
    ]
    apart_NV = torch.cat(apart)
    return bool(torch.linalg.norm(together_NV - apart_NV) <= TOLERANCE * torch.linalg.norm(apart_NV))


def _depends_on_longest(config: PreTrainedConfig) -> bool:
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [parameters, *(one for one in parameters.values() if isinstance(one, Mapping))]
    return any(kind.get("rope_type") in BY_LENGTH for kind in kinds)
