"""Stepwise attention against eager attention pooled in plain loops."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)

from cache.step_totals import step_totals
from data.errors import ModelError
from data.marking import mark
from data.records import Marked
from stages.attention.batches import TokenBudget
from stages.attention.kernels import BLOCKS, INDICATORS, LOG_SUM_EXP
from stages.attention.stepwise import (
    attention_of,
    difference_to_eager,
    forward,
    recording_attention,
    stepwise_attention,
    stepwise_of,
)
from stages.attention.tokens import Located, locate, padded_ids, pooling
from stages.models.tokenizer import begin_token
from tests.fakes import tiny_model_folder, tiny_tokenizer

RECORDS = [
    mark("Tom has 3 apples and 12 pens. Ann gives him 4 apples. How many?", "He has 3. So 3 + 4 = 7. The answer is 7."),
    mark("1 2 3 4 5 6 7 8 9 10 11 12.", "Many numbers, more than a head is wide. 12."),
    mark("Is 5 more than 4?", "Yes."),
]


BUDGET = TokenBudget(16384)


def eager_reference(model: PreTrainedModel, tokenizer, record: Marked) -> np.ndarray:
    """Eq. 2 as written: double sums over the eager attention matrix, averaged over heads, one number at a time."""
    one = locate(tokenizer, record)
    with torch.no_grad():
        layers = model(torch.tensor(one.ids)[None], output_attentions=True, use_cache=False).attentions
    layers = [attention for attention in layers if attention is not None]
    result = np.zeros((len(layers), one.steps, len(one.tokens_of_word)))
    for layer, attention in enumerate(layers):
        matrix = attention[0].double().mean(dim=0).numpy()
        for i, step in enumerate(one.step_of_token):
            for word, tokens in enumerate(one.tokens_of_word):
                if step >= 0:
                    result[layer, step, word] += sum(matrix[i, j] for j in tokens)
    return result


SMALL = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "max_position_embeddings": 256, "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2}
SIZED = {**GROUPED, "head_dim": 8}
WINDOW = {"sliding_window": 16}  # shorter than the texts
LATENT = {
    **SMALL, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 12, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16,
}  # fmt: skip
FALCON = {**SMALL, "multi_query": True}
ARCHITECTURES = {
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": SIZED,
    "mistral": {**GROUPED, **WINDOW},
    "gemma2": {**SIZED, **WINDOW, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0},
    "gemma3_text": {**SIZED, **WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "phi3": GROUPED,
    "gpt2": SMALL,
    "gpt_neox": SMALL,
    "opt": {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3},
    "falcon": FALCON,
    "mixtral": {**GROUPED, "num_local_experts": 4},
    "qwen3_moe": {**SIZED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "gpt_oss": {**SIZED, **WINDOW, "num_local_experts": 4},
    "olmo2": GROUPED,
    "deepseek_v3": LATENT,
    "qwen3_next": {
        **SIZED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
}  # fmt: skip
"""Model types with sizes; linear attention gives no weights, so the last has two layers of attention only."""


def random_model(model_type: str, sizes: dict[str, object], *, attention: str | None = None) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **sizes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).float().eval()
    for name, parameter in model.named_parameters():
        if "sinks" in name:  # zero from the start in some releases, which would hide them
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_equals_eager_attention(model_type: str):
    model = random_model(model_type, ARCHITECTURES[model_type])
    eager = random_model(model_type, ARCHITECTURES[model_type], attention="eager")
    for record, got in zip(RECORDS, stepwise_attention(model, tiny_tokenizer(), RECORDS, begins=False), strict=True):
        assert got.dtype == np.float32
        expected = eager_reference(eager, tiny_tokenizer(), record)
        assert got.shape == expected.shape == (len(expected), len(record.step_spans), len(record.critical_spans))
        assert expected.max() > 0.5  # uneven enough to tell one way of attending from another
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)


def test_a_begin_token_stands_in_front_where_the_tokenizer_puts_none_there():
    model, tokenizer = random_model("llama", GROUPED), tiny_tokenizer()
    begun = stepwise_attention(model, tokenizer, RECORDS)
    plain = stepwise_attention(model, tokenizer, RECORDS, begins=False)
    located = [locate(tokenizer, record, begin=begin_token(tokenizer)) for record in RECORDS]
    for one, other, expected in zip(begun, plain, attention_of(model, located, TokenBudget(1000)), strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-6)
        assert np.abs(one - other).max() > 0.1
    own = tiny_tokenizer(adds_begin=True)
    both = (stepwise_attention(model, own, RECORDS, begins=begins) for begins in (True, False))
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_equals_eager_attention_in_bfloat16(model_type: str):
    sizes = {**ARCHITECTURES[model_type], "initializer_range": 0.1, "init_std": 0.1}
    model = random_model(model_type, sizes).bfloat16()
    eager = random_model(model_type, sizes, attention="eager").bfloat16()
    for record, got in zip(RECORDS, stepwise_attention(model, tiny_tokenizer(), RECORDS, begins=False), strict=True):
        expected = eager_reference(eager, tiny_tokenizer(), record)
        for ours, theirs in zip(got, expected, strict=True):
            assert np.linalg.norm(ours - theirs) <= 1e-2 * np.linalg.norm(theirs)


def eager_receivers(model: PreTrainedModel, one: Located) -> np.ndarray:
    """Where each step's attention goes, token by token: to critical ones, special ones, and to none, (L, S, 3)."""
    critical = {token for tokens in one.tokens_of_word for token in tokens.tolist()}
    with torch.no_grad():
        layers = model(torch.tensor(one.ids)[None], output_attentions=True, use_cache=False).attentions
    layers = [attention for attention in layers if attention is not None]
    result = np.zeros((len(layers), one.steps, 3))
    for layer, attention in enumerate(layers):
        matrix = attention[0].double().mean(dim=0).numpy()
        for i, step in enumerate(one.step_of_token):
            if step >= 0:
                result[layer, step, 0] += sum(matrix[i, j] for j in critical)
                result[layer, step, 1] += sum(matrix[i, j] for j, (a, b) in enumerate(one.spans) if a == b)
                result[layer, step, 2] += 1 - sum(matrix[i])
    return result


def with_shared_tokens(one: Located) -> Located:
    """Two words more, over the first word and the token behind it, and over its first token."""
    first = one.tokens_of_word[0]
    return replace(one, tokens_of_word=(*one.tokens_of_word, np.arange(first[0], first[-1] + 2), first[:1]))


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_what_steps_look_at_in_all_equals_eager_attention(model_type: str):
    model = random_model(model_type, ARCHITECTURES[model_type])
    eager = random_model(model_type, ARCHITECTURES[model_type], attention="eager")
    tokenizer = tiny_tokenizer(adds_begin=True)
    located = [with_shared_tokens(locate(tokenizer, record)) for record in RECORDS]
    words = attention_of(model, located, BUDGET)
    for one, alone, got in zip(located, words, stepwise_of(model, located, BUDGET), strict=True):
        np.testing.assert_allclose(got.words, alone, atol=1e-6)
        expected = eager_receivers(eager, one)
        assert got.receivers.dtype == np.float32
        assert expected[..., 0].max() > 0.5 and expected[..., 1].max() > 0.05
        assert (expected[..., 2].max() > 0.1) == (model_type == "gpt_oss")
        totals = step_totals(got.words, got.receivers, one.step_tokens())
        found = np.stack([totals.critical, totals.special, totals.sinks], axis=-1)
        np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-5)
        assert got.receivers[..., 0].max() > 0.01
        assert (found.sum(axis=2) <= one.step_tokens() * (1 + 1e-5)).all()


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt_oss"])
def test_what_steps_look_at_in_all_is_the_same_under_gradients(model_type: str):
    model = random_model(model_type, ARCHITECTURES[model_type])
    one = with_shared_tokens(locate(tiny_tokenizer(adds_begin=True), RECORDS[0]))
    with recording_attention(model, pooling([one], len(one.ids), receivers=True)) as recording:
        model(input_ids=padded_ids([one], 0), use_cache=False)
    assert set(recording.ways.values()) == {INDICATORS if model_type == "llama" else BLOCKS}
    (expected,) = stepwise_of(model, [one], BUDGET)
    found = recording.stacked()[0].detach().numpy()
    np.testing.assert_allclose(found[..., :-3], expected.words, atol=1e-5)
    np.testing.assert_allclose(found[..., -3:], expected.receivers, atol=1e-5)


def test_what_steps_look_at_in_all_does_not_depend_on_the_batch(tmp_path: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path, "llama"))
    located = [locate(tiny_tokenizer(adds_begin=True), record) for record in RECORDS]
    together = stepwise_of(model, located, BUDGET)
    for one, other in zip(together, (stepwise_of(model, [one], BUDGET)[0] for one in located), strict=True):
        np.testing.assert_allclose(one.receivers, other.receivers, atol=1e-6)


def test_the_comparison_with_eager_attention_sees_a_wrong_receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path, "llama"))
    one = with_shared_tokens(locate(tiny_tokenizer(adds_begin=True), RECORDS[0]))
    assert difference_to_eager(model, one)[0] < 1e-5
    for column in (-1, -2, -3):

        def wrong(*arguments, column=column, **options):
            recording = forward(*arguments, **options)
            recording.attention_BSK[1][..., column] += 0.5
            return recording

        monkeypatch.setattr("stages.attention.stepwise.forward", wrong)
        assert difference_to_eager(model, one)[0] > 0.01


def test_weights_from_a_folder_equal_eager_attention(tmp_path: Path):
    folder = tiny_model_folder(tmp_path, "llama", layers=3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    eager = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    fused = AutoModelForCausalLM.from_pretrained(folder)
    for record, got in zip(RECORDS, stepwise_attention(fused, tokenizer, RECORDS, begins=False), strict=True):
        np.testing.assert_allclose(got, eager_reference(eager, tokenizer, record), atol=1e-5)


def test_falcon_with_alibi_equals_the_formula():
    """Against softmax((q·k + slope·j) / √d) from its own projections: transformers' eager path adds the bias twice."""
    model = random_model("falcon", {**FALCON, "alibi": True})
    projected: list[torch.Tensor] = []
    for block in model.transformer.h:
        block.self_attention.query_key_value.register_forward_hook(lambda *call: projected.append(call[2]))
    one = locate(tiny_tokenizer(), RECORDS[0])
    got = forward(model, [one]).stacked()[0]
    length, heads, size = len(one.ids), 4, 8
    slope_H11 = torch.tensor([2.0 ** (-8 * (head + 1) / heads) for head in range(heads)])[:, None, None]
    pool = pooling([one], length)
    for layer, states in enumerate(projected):
        query_HTD, key_1TD = states[0].view(length, heads + 2, size).transpose(0, 1).split([heads, 1, 1])[:2]
        scores_HTT = (query_HTD @ key_1TD.transpose(1, 2) + slope_H11 * torch.arange(length)) / size**0.5
        future = torch.ones(length, length).triu(1).bool()
        weights_TT = scores_HTT.masked_fill(future, -torch.inf).softmax(-1).mean(0)
        expected = pool.steps_BST[0] @ weights_TT @ pool.words_BTK[0]
        torch.testing.assert_close(got[layer], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "ways"),
    [
        ("llama", {LOG_SUM_EXP: 4}),
        ("gpt_oss", {LOG_SUM_EXP: 4}),
        ("falcon", {LOG_SUM_EXP: 4}),
        ("gemma2", {BLOCKS: 4}),
        ("qwen3_next", {LOG_SUM_EXP: 2}),
    ],
)
def test_tells_which_way_each_layer_took(model_type: str, ways: dict[str, int]):
    model = random_model(model_type, ARCHITECTURES[model_type])
    with torch.no_grad():
        recording = forward(model, [locate(tiny_tokenizer(), RECORDS[0])])
    assert Counter(recording.ways.values()) == ways


REFUSED = [
    ("bloom", {"vocab_size": 300, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "computes attention on its own"),
    ("mpt", {"vocab_size": 300, "d_model": 32, "n_layers": 2, "n_heads": 4}, "computes attention on its own"),
    ("bert", SMALL, "looks at later tokens"),
    ("diffllama", GROUPED, "more than once"),
    ("glm_moe_dsa", {**LATENT, "index_topk": 8, "index_n_heads": 2, "index_head_dim": 16}, "`indices`"),
    ("mamba", {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2}, "no layer with attention"),
]


@pytest.mark.parametrize(("model_type", "sizes", "reason"), REFUSED, ids=[one[0] for one in REFUSED])
def test_architectures_whose_attention_would_come_out_wrong_are_refused(model_type: str, sizes: dict, reason: str):
    with pytest.raises(ModelError, match=reason):
        stepwise_attention(random_model(model_type, sizes), tiny_tokenizer(), RECORDS[:1])


def test_gptj_is_refused_or_followed():
    """transformers 5.19 lets it compute attention on its own, 5.24 through the interface."""
    sizes = {"vocab_size": 300, "n_embd": 32, "n_layer": 4, "n_head": 4, "rotary_dim": 8, "initializer_range": 0.3}
    model, eager = (random_model("gptj", sizes, attention=attention) for attention in (None, "eager"))
    try:
        found = stepwise_attention(model, tiny_tokenizer(), RECORDS, begins=False)
    except ModelError as error:
        assert "computes attention on its own" in str(error)
        return
    for record, got in zip(RECORDS, found, strict=True):
        expected = eager_reference(eager, tiny_tokenizer(), record)
        assert expected.max() > 0.5
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)


def test_does_not_depend_on_the_batch(tmp_path: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path, "llama"))
    together = stepwise_attention(model, tiny_tokenizer(), RECORDS)
    alone = [stepwise_attention(model, tiny_tokenizer(), [record], batch_tokens=1)[0] for record in RECORDS]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_rows_hold_what_causality_allows(tmp_path: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path, "llama"))
    record = RECORDS[0]
    block = stepwise_attention(model, tiny_tokenizer(), [record])[0]
    tokens = locate(tiny_tokenizer(), record).step_tokens()
    assert (block >= 0).all()
    assert (block.sum(axis=2) <= tokens * (1 + 1e-5)).all()
    for s, (_, end) in enumerate(record.step_spans):
        later = [k for k, (start, _) in enumerate(record.critical_spans) if start >= end]
        assert (block[:, s, later] == 0).all()


def test_gradients_equal_those_of_eager_attention(tmp_path: Path):
    folder = tiny_model_folder(tmp_path, "llama")
    tokenizer, record = tiny_tokenizer(), RECORDS[0]
    one = locate(tokenizer, record)
    pool = pooling([one], len(one.ids))
    ids = padded_ids([one], 0)
    weights = torch.linspace(-1, 1, 2 * one.steps * len(one.tokens_of_word)).reshape(1, 2, one.steps, -1)

    fused = AutoModelForCausalLM.from_pretrained(folder)
    with recording_attention(fused, pool) as recording:
        fused(input_ids=ids)
    (recording.stacked() * weights).sum().backward()

    eager = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    matrices = torch.stack(eager(input_ids=ids, output_attentions=True).attentions, dim=1).mean(dim=2)
    (pool.steps_BST[:, None] @ matrices @ pool.words_BTK[:, None] * weights).sum().backward()

    theirs = dict(eager.named_parameters())
    compared = 0
    for name, parameter in fused.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-4)
            compared += 1
    assert compared == 4


def test_value_states_come_from_the_same_pass(tmp_path: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path, "llama", hidden=32, heads=4, kv_heads=2))
    one = locate(tiny_tokenizer(), RECORDS[2])
    kept = {}
    model.model.layers[1].self_attn.v_proj.register_forward_hook(lambda *call: kept.update(value=call[2]))
    with recording_attention(model, pooling([one], len(one.ids)), keep_values=True) as recording:
        model(input_ids=padded_ids([one], 0))
    assert recording.values().shape == (1, 2, len(one.ids), 16)
    torch.testing.assert_close(recording.values()[:, 1], kept["value"])


def test_a_model_is_left_as_it_was(tmp_path: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path, "llama"), attn_implementation="eager")
    stepwise_attention(model, tiny_tokenizer(), RECORDS[:1])
    assert model.config._attn_implementation == "eager"
