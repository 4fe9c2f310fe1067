"""Scaled-dot-product attention that also tells how much attention chosen words received, exactly and without T × T.

In: the arguments of one attention call, and the sums of Eq. 2 (after arXiv 2604.15701). Out: what the call returns, and
`A[s, k] = Σ_{i in step s} Σ_{j in word k} I[i, j]` with I the attention averaged over heads. Three ways, each exact:

- `LOG_SUM_EXP`, without gradients: fused kernels return, beside their output, log Σ_j exp(score_ij) for each token i.
  With it the attention to the few tokens that words consist of is exp(score_ij − log-sum-exp_i): T × C numbers more.
- `INDICATORS`, with gradients: attention is linear in its values, so a second call with the words' indicator columns as
  values returns the attention that each word gets, and the kernel's own backward pass differentiates it.
- `BLOCKS`, for what fused kernels cannot do (soft-capping; sinks under gradients; shapes that no kernel takes): the
  weights of some rows at a time, as eager attention computes them.

docs/decisions/0002 has the reasons and the figures.

Shapes: B batch, T tokens, H heads, G key-value heads, D head size, S reasoning steps, K critical words, C tokens that
words consist of, R rows of a block.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, Literal

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from stages.attention.tokens import Pooling
from stages.mixture import at_least_float32

Way = Literal["log-sum-exp", "indicator values", "block by block"]
LOG_SUM_EXP: Way = "log-sum-exp"
INDICATORS: Way = "indicator values"
BLOCKS: Way = "block by block"

BLOCK_NUMBERS = 2**22
"""Most scores held at once, 16 MiB in float32."""

_aten = torch.ops.aten
FUSED = frozenset(
    {
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_cudnn_attention.default,
    }
)
"""Fused kernels; each returns (output, log-sum-exp, …)."""
UNFUSED = frozenset({_aten._scaled_dot_product_attention_math.default, _aten.bmm.default, _aten.baddbmm.default})
"""What torch falls back to where no fused kernel takes a call: it would build T × T numbers a head."""


@dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """One call of `scaled_dot_product_attention`, and what models do to its scores beyond that function."""

    query_BHTD: torch.Tensor
    key_BGTD: torch.Tensor
    value_BGTD: torch.Tensor
    mask: torch.Tensor | None
    """Boolean (true: may look) or added to the scores; broadcastable to (B, H, T, T)."""
    is_causal: bool
    scale: float
    dropout: float = 0.0
    softcap: float | None = None
    """Scores become `softcap · tanh(scores / softcap)` before the mask."""
    sinks_H: torch.Tensor | None = None
    """One more score a head that takes its share of every token's attention and leads to no value."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, H, T)."""
        batch, heads, tokens, _ = self.query_BHTD.shape
        return batch, heads, tokens

    def fused(self) -> torch.Tensor:
        """The ordinary call (B, H, T, D), without soft-capping and sinks."""
        grouped = self.key_BGTD.shape[1] < self.query_BHTD.shape[1]
        return functional.scaled_dot_product_attention(
            self.query_BHTD, self.key_BGTD, self.value_BGTD, attn_mask=self.mask, dropout_p=self.dropout,
            is_causal=self.is_causal, scale=self.scale, enable_gqa=grouped,
        )  # fmt: skip


def attend(call: AttentionCall, pool: Pooling) -> tuple[torch.Tensor, torch.Tensor, Way]:
    """Output (B, H, T, D) of the call, stepwise attention (B, S, K) in float32, and the way it took.

    Where the pooling asks for it, one column more, (B, S, K + 1): what sinks receive, 0 where the model has none.
    """
    differentiable = torch.is_grad_enabled() and (call.query_BHTD.requires_grad or call.key_BGTD.requires_grad)
    if differentiable and call.softcap is None and call.sinks_H is None:
        return call.fused(), _with_column_of_sinks(attention_from_indicators(call, pool), pool), INDICATORS
    if not differentiable and call.softcap is None and (found := fused_with_log_sum_exp(call)) is not None:
        output_BHTD, log_sum_exp_BHT = found
        to_sinks_BT = None
        if call.sinks_H is not None:
            output_BHTD, log_sum_exp_BHT = with_sinks(output_BHTD, log_sum_exp_BHT, call.sinks_H)
            to_sinks_BT = (at_least_float32(call.sinks_H)[:, None] - log_sum_exp_BHT).exp().mean(dim=1)
        pooled_BSK = attention_from_log_sum_exp(call, log_sum_exp_BHT, pool)
        return output_BHTD, _with_column_of_sinks(pooled_BSK, pool, to_sinks_BT), LOG_SUM_EXP
    return *block_by_block(call, pool), BLOCKS


def plain_attention(call: AttentionCall) -> torch.Tensor:
    """Output (B, H, T, D) of the call alone."""
    if call.softcap is None and call.sinks_H is None:
        return call.fused()
    batch, _, length = call.shape
    nothing = call.query_BHTD.new_zeros(batch, 0, length, dtype=torch.float32)
    return block_by_block(call, Pooling(steps_BST=nothing, words_BTK=nothing.transpose(1, 2)))[0]


class _NoFusedKernelError(Exception):
    """Torch is about to compute the call with T × T scores."""


class _LogSumExp(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs what is inside as it is and keeps the log-sum-exp that the fused kernel returns beside its output."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: torch.Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # torch's own types
        kwargs = dict(kwargs or {})
        if func is _aten.scaled_dot_product_attention.default:  # under inference mode it arrives undivided
            with self:
                return func.decompose(*args, **kwargs)
        if func in UNFUSED:
            raise _NoFusedKernelError
        if func not in FUSED:
            return func(*args, **kwargs)
        names = [argument.name for argument in func._schema.arguments]
        if "compute_log_sumexp" in names:  # off by default where no gradient is asked for
            position = names.index("compute_log_sumexp")
            args = (*args[:position], True, *args[position + 1 :])
        result = func(*args, **kwargs)
        self.found = result[1]
        return result


def fused_with_log_sum_exp(call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Output (B, H, T, D) and log-sum-exp (B, H, T) of the kernel that torch chooses; None where it is not fused."""
    try:
        with _LogSumExp() as kernel:
            output_BHTD = call.fused()
    except _NoFusedKernelError:
        return None
    if kernel.found is None:
        return None
    batch, heads, tokens = call.shape
    # Some kernels pad the tokens to a multiple of their block, some add a last dimension.
    return output_BHTD, at_least_float32(kernel.found.reshape(batch, heads, -1)[..., :tokens])


def with_sinks(
    output_BHTD: torch.Tensor, log_sum_exp_BHT: torch.Tensor, sinks_H: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Let sinks take their share afterwards: all weights shrink by Z / (Z + exp(sink)), Z the sum of exp(scores)."""
    total_BHT = torch.logaddexp(log_sum_exp_BHT, at_least_float32(sinks_H)[:, None])
    share_BHT = (log_sum_exp_BHT - total_BHT).exp()
    return (output_BHTD * share_BHT[..., None]).to(output_BHTD.dtype), total_BHT


def attention_from_log_sum_exp(call: AttentionCall, log_sum_exp_BHT: torch.Tensor, pool: Pooling) -> torch.Tensor:
    """Stepwise attention (B, S, K) as `exp(score − log-sum-exp)` of the words' tokens alone, in float32.

    Rows in front of the first step are left out: nobody asks where they look.
    """
    tokens_BC, words_BCK = pool.columns()
    batch, heads, length = call.shape
    keys_BGCD = at_least_float32(torch.take_along_dim(call.key_BGTD, tokens_BC[:, None, :, None], dim=2)) * call.scale
    mask = call.mask
    if mask is not None:  # its columns (B, 1 or H, T, C) at each text's own tokens
        mask = torch.take_along_dim(mask[(None,) * (4 - mask.dim())], tokens_BC[:, None, None, :], dim=3)
    # What all heads may see alike is left out once, behind their mean, whatever exp() makes of it before.
    of_all_heads = mask is not None and mask.dtype == torch.bool and mask.shape[1] == 1
    pooled_BSK = log_sum_exp_BHT.new_zeros(batch, pool.steps_BST.shape[1], words_BCK.shape[2])
    for rows in _blocks(length, first=pool.first_row, numbers_a_row=batch * heads * tokens_BC.shape[1]):
        scores_BHRC = _grouped_matmul(at_least_float32(call.query_BHTD[:, :, rows]), keys_BGCD.transpose(2, 3))
        if mask is not None and not of_all_heads:
            scores_BHRC = _masked(scores_BHRC, _rows_of(mask, rows))
        weights_BRC = scores_BHRC.sub_(log_sum_exp_BHT[:, :, rows, None]).exp_().mean(dim=1)
        if mask is not None and of_all_heads:
            weights_BRC.masked_fill_(~_rows_of(mask, rows)[:, 0], 0.0)
        if call.is_causal:
            i_R1 = torch.arange(rows.start, rows.stop, device=tokens_BC.device)[:, None]
            weights_BRC.masked_fill_(tokens_BC[:, None, :] > i_R1, 0.0)
        pooled_BSK += _pooled(pool.steps_BST[..., rows], weights_BRC, words_BCK)
    return pooled_BSK


def attention_from_indicators(call: AttentionCall, pool: Pooling) -> torch.Tensor:
    """Stepwise attention (B, S, K) by further calls with the words' indicators as values; differentiable."""
    size = call.key_BGTD.shape[-1]
    pooled = []
    for first in range(0, max(pool.words_BTK.shape[-1], 1), size):
        words = pool.words_BTK[..., first : first + size].to(call.key_BGTD)
        # Padded to the head size: the fused kernels want values as wide as keys.
        columns = functional.pad(words, (0, size - words.shape[-1]))
        values = columns[:, None].expand(-1, call.key_BGTD.shape[1], -1, -1)
        received_BHTK = replace(call, value_BGTD=values, dropout=0.0).fused()
        mean_BTK = at_least_float32(received_BHTK[..., : words.shape[-1]]).mean(dim=1)
        pooled.append(_pooled(pool.steps_BST, mean_BTK))
    return torch.cat(pooled, dim=-1)


def block_by_block(call: AttentionCall, pool: Pooling) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (B, H, T, D) and stepwise attention (B, S, K) from the weights of a few rows at a time.

    As eager attention does it: scores in the model's dtype, softmax in float32. Under gradients each block is computed
    again in the backward pass, so that memory stays bounded there too.
    """
    batch, heads, length = call.shape
    block: Callable[..., tuple[torch.Tensor, torch.Tensor]] = _block
    if torch.is_grad_enabled():
        block = partial(checkpoint, _block, use_reentrant=False)
    found = [block(call, pool, rows) for rows in _blocks(length, numbers_a_row=batch * heads * length)]
    outputs, parts_BSK = zip(*found, strict=True)
    return torch.cat(outputs, dim=2), reduce(torch.add, parts_BSK)


def _block(call: AttentionCall, pool: Pooling, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows `rows` of the output, and what they add to the stepwise attention."""
    # Under causal attention nothing looks beyond the block's last row.
    seen = slice(0, rows.stop if call.is_causal else call.key_BGTD.shape[2])
    keys_BGDT = call.key_BGTD[:, :, seen].transpose(2, 3)
    scores_BHRT = _grouped_matmul(call.query_BHTD[:, :, rows], keys_BGDT).mul_(call.scale)
    if call.softcap is not None:
        scores_BHRT = torch.tanh(scores_BHRT / call.softcap) * call.softcap
    if call.is_causal:
        i_R = torch.arange(rows.start, rows.stop, device=scores_BHRT.device)
        scores_BHRT = _masked(scores_BHRT, i_R[:, None] >= torch.arange(seen.stop, device=scores_BHRT.device))
    if call.mask is not None:
        scores_BHRT = _masked(scores_BHRT, _rows_of(call.mask, rows)[..., seen])
    weights_BHRT = _softmax(scores_BHRT, call.sinks_H)
    kept = functional.dropout(weights_BHRT, call.dropout).to(call.value_BGTD.dtype)
    output_BHRD = _grouped_matmul(kept, call.value_BGTD[:, :, seen])
    part = replace(pool, steps_BST=pool.steps_BST[..., rows])
    pooled_BSK = _pooled(part.steps_BST, weights_BHRT.mean(dim=1), pool.words_BTK[:, seen])
    to_sinks_BR = None if call.sinks_H is None else 1 - weights_BHRT.sum(dim=-1).mean(dim=1)
    return output_BHRD, _with_column_of_sinks(pooled_BSK, part, to_sinks_BR)


def _softmax(scores_BHRT: torch.Tensor, sinks_H: torch.Tensor | None) -> torch.Tensor:
    """Softmax over the last dimension, with the sinks taking their share of the sum."""
    scores_BHRT = at_least_float32(scores_BHRT)
    if sinks_H is None:
        return scores_BHRT.softmax(dim=-1)
    sinks_BHR1 = sinks_H[:, None, None].expand(*scores_BHRT.shape[:3], 1).to(scores_BHRT.dtype)
    return torch.cat((scores_BHRT, sinks_BHR1), dim=-1).softmax(dim=-1)[..., :-1]


def _pooled(steps_BSR: torch.Tensor, weights_BRC: torch.Tensor, words_BCK: torch.Tensor | None = None) -> torch.Tensor:
    """Sum over the rows of each step, and over the columns of each word where `weights` are not by word already."""
    with torch.autocast(weights_BRC.device.type, enabled=False):  # sums over many tokens want full precision
        weights = weights_BRC if words_BCK is None else weights_BRC @ words_BCK.to(weights_BRC.dtype)
        return steps_BSR.to(weights.dtype) @ weights


def _with_column_of_sinks(
    pooled_BSK: torch.Tensor, pool: Pooling, to_sinks_BR: torch.Tensor | None = None
) -> torch.Tensor:
    """Append what the rows of each step give to sinks, where that is wanted; nothing without sinks."""
    if not pool.sinks:
        return pooled_BSK
    if to_sinks_BR is None:
        return functional.pad(pooled_BSK, (0, 1))
    return torch.cat((pooled_BSK, _pooled(pool.steps_BST, to_sinks_BR[..., None]).to(pooled_BSK)), dim=-1)


def _grouped_matmul(left_BHRX: torch.Tensor, right_BGXY: torch.Tensor) -> torch.Tensor:
    """Matrix product (B, H, R, Y) where H / G neighbouring heads on the left share one on the right."""
    batch, heads, rows, inner = left_BHRX.shape
    groups = right_BGXY.shape[1]
    together = left_BHRX.reshape(batch, groups, heads // groups * rows, inner) @ right_BGXY
    return together.view(batch, heads, rows, -1)


def _masked(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


def _rows_of(mask: torch.Tensor, rows: slice) -> torch.Tensor:
    return mask if mask.shape[-2] == 1 else mask[..., rows, :]


def _blocks(length: int, *, numbers_a_row: int, first: int = 0) -> list[slice]:
    """Cut the rows from `first` to `length` into blocks of at most `BLOCK_NUMBERS` numbers, one row at least."""
    rows = max(BLOCK_NUMBERS // max(numbers_a_row, 1), 1)
    return [slice(start, min(start + rows, length)) for start in range(first, length, rows)]
