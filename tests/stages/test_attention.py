"""Stepwise attention against eager attention pooled in plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from data.errors import ModelError
from data.marking import mark
from data.records import Marked
from stages.attention import recording_attention, stepwise_attention
from stages.tokens import locate, padded_ids, pooling
from tests.fakes import tiny_model_folder, tiny_tokenizer

RECORDS = [
    mark("Tom has 3 apples and 12 pens. Ann gives him 4 apples. How many?", "He has 3. So 3 + 4 = 7. The answer is 7."),
    mark("1 2 3 4 5 6 7 8 9 10 11 12.", "Many numbers, more than a head is wide. 12."),
    mark("Is 5 more than 4?", "Yes."),
]


def eager_reference(model: PreTrainedModel, tokenizer, record: Marked) -> np.ndarray:
    """Eq. 2 as written: double sums over the eager attention matrix, averaged over heads, one number at a time."""
    one = locate(tokenizer, record)
    with torch.no_grad():
        layers = model(torch.tensor(one.ids)[None], output_attentions=True).attentions
    result = np.zeros((len(layers), one.steps, len(one.tokens_of_word)))
    for layer, attention in enumerate(layers):
        matrix = attention[0].double().mean(dim=0).numpy()
        for i, step in enumerate(one.step_of_token):
            for word, tokens in enumerate(one.tokens_of_word):
                if step >= 0:
                    result[layer, step, word] += sum(matrix[i, j] for j in tokens)
    return result


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_equals_eager_attention(architecture: str, tmp_path: Path):
    folder = tiny_model_folder(tmp_path, architecture, layers=3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    eager = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    fused = AutoModelForCausalLM.from_pretrained(folder)
    for record, got in zip(RECORDS, stepwise_attention(fused, tokenizer, RECORDS), strict=True):
        assert got.dtype == np.float32
        assert got.shape == (3, len(record.step_spans), len(record.critical_spans))
        np.testing.assert_allclose(got, eager_reference(eager, tokenizer, record), atol=1e-5)


def test_equals_eager_attention_with_a_window_shorter_than_the_text():
    config = MistralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=16,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval()
    fused = stepwise_attention(model, tiny_tokenizer(), RECORDS)
    model.set_attn_implementation("eager")
    for record, got in zip(RECORDS, fused, strict=True):
        np.testing.assert_allclose(got, eager_reference(model, tiny_tokenizer(), record), atol=1e-5)


SMALL = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 256, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2}


def random_model(model_type: str, **sizes: object) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes)).eval()


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [
        ("qwen3", {**GROUPED, "head_dim": 8}),
        ("mixtral", {**GROUPED, "num_local_experts": 4}),
        ("phi3", GROUPED),
        ("gemma3_text", {**GROUPED, "head_dim": 8, "sliding_window": 16}),
        ("olmo2", GROUPED),
        ("opt", {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}),
        ("gpt_neox", SMALL),
    ],
)
def test_other_architectures_equal_eager_attention_too(model_type: str, sizes: dict[str, object]):
    model = random_model(model_type, **sizes)
    fused = stepwise_attention(model, tiny_tokenizer(), RECORDS)
    model.set_attn_implementation("eager")
    for record, got in zip(RECORDS, fused, strict=True):
        np.testing.assert_allclose(got, eager_reference(model, tiny_tokenizer(), record), atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [
        ("gpt_oss", {**GROUPED, "head_dim": 8, "num_local_experts": 4}),
        ("bloom", {"vocab_size": 300, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
        ("falcon", {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}),
        ("gptj", {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 8}),
        ("mpt", {"vocab_size": 300, "d_model": 32, "n_layers": 2, "n_heads": 4}),
    ],
)
def test_architectures_whose_attention_would_come_out_wrong_are_refused(model_type: str, sizes: dict[str, object]):
    with pytest.raises(ModelError):
        stepwise_attention(random_model(model_type, **sizes), tiny_tokenizer(), RECORDS[:1])


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


def test_attention_that_the_kernel_would_get_wrong_is_refused():
    config = Gemma2Config(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    with pytest.raises(ModelError, match="soft-capping"):
        stepwise_attention(Gemma2ForCausalLM(config).eval(), tiny_tokenizer(), RECORDS[:1])


def test_a_model_is_left_as_it_was(tmp_path: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path, "llama"), attn_implementation="eager")
    stepwise_attention(model, tiny_tokenizer(), RECORDS[:1])
    assert model.config._attn_implementation == "eager"
