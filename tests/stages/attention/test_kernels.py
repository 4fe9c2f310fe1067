"""Attention to chosen words: by hand where scores are equal, then against dense attention in float64."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stages.attention import kernels
from stages.attention.kernels import (
    BLOCKS,
    INDICATORS,
    LOG_SUM_EXP,
    AttentionCall,
    attend,
    attention_from_indicators,
    block_by_block,
    plain_attention,
)
from stages.attention.tokens import Pooling

LENGTH = 12
POOL = Pooling(
    steps_BST=torch.stack([torch.zeros(2, LENGTH), torch.zeros(2, LENGTH)]),
    words_BTK=torch.zeros(2, LENGTH, 3),
)
for text in range(2):
    POOL.steps_BST[text, 0, 5 + text : 8] = 1
    POOL.steps_BST[text, 1, 8:11] = 1
    POOL.words_BTK[text, 1, 0] = 1
    POOL.words_BTK[text, 3 : 5 + text, 1] = 1
    POOL.words_BTK[text, 9, 2] = 1


def random_call(*, heads: int = 4, groups: int = 4, size: int = 8, value_size: int | None = None) -> AttentionCall:
    random = torch.Generator().manual_seed(0)

    def states(count: int, width: int) -> torch.Tensor:
        return 2 * torch.randn(2, count, LENGTH, width, generator=random, dtype=torch.float64)

    return AttentionCall(
        query_BHTD=states(heads, size),
        key_BGTD=states(groups, size),
        value_BGTD=states(groups, value_size or size),
        mask=None,
        is_causal=True,
        scale=0.3,
    )


def window(width: int) -> torch.Tensor:
    i, j = torch.arange(LENGTH)[:, None], torch.arange(LENGTH)
    return ((j <= i) & (j > i - width))[None, None]


def slopes(heads: int) -> torch.Tensor:
    """ALiBi: a bias a head that grows with the token's position, and causality."""
    i, j = torch.arange(LENGTH)[:, None], torch.arange(LENGTH)
    bias = 0.25 * torch.arange(1, heads + 1)[:, None, None] * j
    return bias.masked_fill(j > i, -torch.inf).double()[None]


CALLS = {
    "causal": random_call(),
    "grouped": random_call(groups=2),
    "one key head": random_call(groups=1),
    "window": replace(random_call(), is_causal=False, mask=window(4)),
    "grouped with a window a text": replace(
        random_call(groups=2), is_causal=False, mask=torch.cat([window(4), window(6)])
    ),
    "bias a head": replace(random_call(), is_causal=False, mask=slopes(4)),
    "sinks": replace(random_call(groups=2), sinks_H=torch.tensor([-1.0, 0.0, 1.0, 4.0], dtype=torch.float64)),
    "soft-capping": replace(random_call(groups=2), softcap=1.5),
    "soft-capping with a window": replace(random_call(), softcap=1.5, is_causal=False, mask=window(4)),
    "narrow values": random_call(value_size=6),
}


def dense(call: AttentionCall, pool: Pooling = POOL) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and stepwise attention from the whole matrix, as the definitions say."""
    times = call.query_BHTD.shape[1] // call.key_BGTD.shape[1]
    key, value = call.key_BGTD.repeat_interleave(times, 1), call.value_BGTD.repeat_interleave(times, 1)
    scores = torch.einsum("bhid,bhjd->bhij", call.query_BHTD, key) * call.scale
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    if call.is_causal:
        scores = scores.masked_fill(~window(LENGTH), -torch.inf)
    if call.mask is not None:
        bias = call.mask if call.mask.dtype != torch.bool else torch.where(call.mask, 0.0, -torch.inf)
        scores = scores + bias
    total = scores.exp().sum(-1, keepdim=True)
    if call.sinks_H is not None:
        total = total + call.sinks_H.exp()[:, None, None]
    weights = scores.exp() / total
    pooled = pool.steps_BST.double() @ weights.mean(1) @ pool.words_BTK.double()
    return weights @ value, pooled


@pytest.mark.parametrize("name", CALLS)
def test_without_gradients_equals_dense_attention(name: str):
    call = CALLS[name]
    expected_output, expected = dense(call)
    with torch.no_grad():
        output, pooled, way = attend(call, POOL)
    assert way == (BLOCKS if "soft-capping" in name or "narrow" in name else LOG_SUM_EXP)
    torch.testing.assert_close(output, expected_output, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pooled, expected, rtol=1e-12, atol=1e-12)
    with torch.inference_mode():  # torch hands the call over undivided here
        assert torch.equal(attend(call, POOL)[1], pooled)
        torch.testing.assert_close(plain_attention(call), expected_output, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("numbers", [2**22, 100])
def test_gradients_equal_those_of_dense_attention(name: str, numbers: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "BLOCK_NUMBERS", numbers)
    given = CALLS[name]

    def gradients(function):
        leaves = {
            field: getattr(given, field).clone().requires_grad_()
            for field in ("query_BHTD", "key_BGTD", "value_BGTD", "sinks_H")
            if getattr(given, field) is not None
        }
        output, pooled = function(replace(given, **leaves))
        weights = torch.linspace(-1, 1, pooled.numel(), dtype=torch.float64).view_as(pooled)
        (pooled * weights).sum().add(output.square().sum()).backward()
        return {field: leaf.grad for field, leaf in leaves.items()}

    ways = []

    def ours(call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor]:
        output, pooled, way = attend(call, POOL)
        ways.append(way)
        return output, pooled

    expected = gradients(dense)
    for field, gradient in gradients(ours).items():
        torch.testing.assert_close(gradient, expected[field], rtol=1e-10, atol=1e-10)
    assert ways == [BLOCKS if "soft-capping" in name or "sinks" in name else INDICATORS]


@pytest.mark.parametrize("name", CALLS)
def test_blocks_of_any_size_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch):
    call = CALLS[name]
    with torch.no_grad():
        output, pooled, way = attend(call, POOL)
        blocks = block_by_block(call, POOL)
        monkeypatch.setattr(kernels, "BLOCK_NUMBERS", 200)
        cut_output, cut_pooled, cut_way = attend(call, POOL)
        cut_blocks = block_by_block(call, POOL)
    assert cut_way == way
    for got in ((output, pooled), blocks, cut_blocks):
        torch.testing.assert_close(got[0], cut_output, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(got[1], cut_pooled, rtol=1e-12, atol=1e-12)


def dense_with_sinks(call: AttentionCall) -> torch.Tensor:
    """Stepwise attention with one column more: what is left of each token's 1."""
    everything = replace(POOL, words_BTK=torch.ones(2, LENGTH, 1))
    _, received = dense(call, everything)
    to_sinks = everything.steps_BST.double().sum(2, keepdim=True) - received
    return torch.cat((dense(call)[1], to_sinks), dim=2)


@pytest.mark.parametrize("name", CALLS)
def test_what_sinks_receive_is_one_more_column_whatever_the_way(name: str):
    call, pool = CALLS[name], replace(POOL, sinks=True)
    expected = dense_with_sinks(call)
    assert (expected[..., -1] > 0.05).all() == (name == "sinks")
    with torch.no_grad():
        _, pooled, way = attend(call, pool)
        found = {way: pooled, BLOCKS: block_by_block(call, pool)[1]}
    found["with gradients"] = attend(replace(call, query_BHTD=call.query_BHTD.clone().requires_grad_()), pool)[1]
    for pooled in found.values():
        assert pooled.shape == (2, 2, 4)
        torch.testing.assert_close(pooled, expected, rtol=1e-12, atol=1e-12)
        assert name == "sinks" or (pooled[..., -1] == 0).all()


def test_a_sink_with_a_score_like_all_others_receives_one_share_by_hand():
    call = equal_scores(sinks_H=torch.zeros(4, dtype=torch.float64))
    with torch.no_grad():
        pooled = attend(call, replace(POOL, sinks=True))[1]
    assert pooled[0, 0, -1].item() == pytest.approx(1 / 7 + 1 / 8 + 1 / 9)


def equal_scores(**changes: object) -> AttentionCall:
    call = random_call()
    return replace(call, query_BHTD=torch.zeros_like(call.query_BHTD), **changes)


# Token i sees tokens 0 to i alike, so each gets 1 / (i + 1); step 0 of the first text is tokens 5 to 7.
BY_HAND = [
    (equal_scores(), 1 / 6 + 1 / 7 + 1 / 8),
    (equal_scores(softcap=2.0), 1 / 6 + 1 / 7 + 1 / 8),
    (equal_scores(sinks_H=torch.zeros(4, dtype=torch.float64)), 1 / 7 + 1 / 8 + 1 / 9),  # one more to share with
    (equal_scores(is_causal=False, mask=window(5)), 1 / 5),  # of tokens 5 to 7 only token 5 still sees token 1
]


@pytest.mark.parametrize(("call", "expected"), BY_HAND)
def test_equal_scores_share_attention_equally(call: AttentionCall, expected: float):
    with torch.no_grad():
        pooled = attend(call, POOL)[1]
    assert pooled[0, 0, 0].item() == pytest.approx(expected)
    assert pooled[0, 0, 2].item() == 0  # the third word comes after the step


def test_a_word_of_two_tokens_gets_what_both_get_and_steps_add_up_their_tokens():
    with torch.no_grad():
        pooled = attend(equal_scores(), POOL)[1]
    assert pooled[0, 0, 1].item() == pytest.approx(2 * (1 / 6 + 1 / 7 + 1 / 8))
    assert pooled[0, 1, 2].item() == pytest.approx(1 / 10 + 1 / 11)  # tokens 9 and 10 see token 9, token 8 does not
    assert pooled[1, 0, 0].item() == pytest.approx(1 / 7 + 1 / 8)  # the second text's step 0 is tokens 6 and 7


def test_more_words_than_a_head_is_wide():
    call = random_call(size=8)
    words = torch.eye(LENGTH)[None].expand(2, -1, -1)
    pool = replace(POOL, words_BTK=words)
    with torch.no_grad():
        pooled = attend(call, pool)[1]
    torch.testing.assert_close(attention_from_indicators(call, pool), pooled, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pooled.sum(2), POOL.steps_BST.sum(2).double())  # each token gives away 1 in all


def test_texts_without_words_or_steps():
    call = random_call()
    for empty in (
        replace(POOL, words_BTK=torch.zeros(2, LENGTH, 0)),
        replace(POOL, steps_BST=torch.zeros(2, 0, LENGTH)),
    ):
        with torch.no_grad():
            assert attend(call, empty)[1].numel() == 0
        assert attention_from_indicators(call, empty).numel() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype):
    call = random_call(groups=2)
    half = {field: getattr(call, field).to(dtype) for field in ("query_BHTD", "key_BGTD", "value_BGTD")}
    expected = dense(replace(call, **{field: states.double() for field, states in half.items()}))[1]
    with torch.no_grad():
        pooled = attend(replace(call, **half), POOL)[1]
    assert pooled.dtype == torch.float32
    # Scores of rounded queries and keys are exact in float32: no loss beyond that of the inputs.
    torch.testing.assert_close(pooled.double(), expected, rtol=1e-4, atol=1e-5)


class LargestTensor(TorchDispatchMode):
    """Remembers the most numbers that an operation has put out."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


@pytest.mark.parametrize("softcap", [None, 20.0])
def test_nothing_of_the_size_of_all_scores_is_made(softcap: float | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "BLOCK_NUMBERS", 2**14)
    states = torch.randn(1, 2, 600, 8)
    call = AttentionCall(
        query_BHTD=states, key_BGTD=states, value_BGTD=states, mask=None, is_causal=True, scale=0.3, softcap=softcap
    )
    pool = Pooling(steps_BST=torch.ones(1, 2, 600), words_BTK=torch.eye(600)[None, :, :5])
    with torch.no_grad(), LargestTensor() as largest:
        attend(call, pool)
    assert 0 < largest.numbers <= 2**14 < 2 * 600 * 600


def test_blocks_keep_no_scores_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "BLOCK_NUMBERS", 2**14)
    states = torch.randn(1, 2, 600, 8, requires_grad=True)
    call = AttentionCall(
        query_BHTD=states, key_BGTD=states, value_BGTD=states, mask=None, is_causal=True, scale=0.3, softcap=20.0
    )
    pool = Pooling(steps_BST=torch.ones(1, 2, 600), words_BTK=torch.eye(600)[None, :, :5])
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.numel()) or tensor, lambda t: t):
        attend(call, pool)
    assert 0 < max(saved, default=1) <= states.numel()
