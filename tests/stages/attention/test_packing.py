"""Packed texts: what a model says of each is what it says of the text alone, or they are not packed."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from stages.attention.packing import Packing, can_pack, group_of, packed_attention
from stages.attention.stepwise import IMPLEMENTATION, checkpointing_contexts, recording_attention
from stages.attention.tokens import Pooling

SMALL = {
    "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    "initializer_range": 0.3,
}  # fmt: skip
WINDOW = {"sliding_window": 4, "head_dim": 8}
PACKED = {
    "llama": {},
    "gpt2": {"n_positions": 64, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "gpt_neox": {},
    "opt": {"word_embed_proj_dim": 16, "ffn_dim": 32, "dropout": 0.0},
    "mistral": WINDOW,
    "gemma2": WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
    "gemma3_text": WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "cohere": {},
    "granite": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": ["full_attention"] * 2},
}
NOT_PACKED = {
    "bloom": {},  # its positions are a distance within the row
    "mamba": {"state_size": 4, "expand": 2},  # what it keeps of a text reaches the next
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "llama": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
}
LENGTHS = ((9, 5, 7), (3, 8))


def model_of(kind: str, more: dict) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, **more)).eval()


def padded_texts() -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(1)
    return [torch.randint(3, 64, (len(lengths), max(lengths)), generator=source) for lengths in LENGTHS]


def alone(model, ids_BT: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(
        [
            model(input_ids=ids[None, :length], use_cache=False).logits[0]
            for padded, lengths in zip(ids_BT, LENGTHS, strict=True)
            for ids, length in zip(padded, lengths, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("kind", "checkpointing"), [*((kind, False) for kind in PACKED), ("llama", True), ("gemma2", True), ("opt", True)]
)
def test_packed_texts_get_the_logits_and_gradients_of_each_alone(kind: str, checkpointing: bool):
    model, ids_BT = model_of(kind, PACKED[kind]), padded_texts()
    expected = alone(model, ids_BT)
    weights = list(model.parameters())
    turned = torch.randn(expected.shape)
    wanted = torch.autograd.grad((expected * turned).sum(), weights, allow_unused=True)
    assert can_pack(model, IMPLEMENTATION)
    model.set_attn_implementation(IMPLEMENTATION)
    if checkpointing:
        model.train().gradient_checkpointing_enable({"use_reentrant": False, "context_fn": checkpointing_contexts})
    packing = Packing(groups=tuple(group_of(lengths) for lengths in LENGTHS))
    with packed_attention(packing):
        found = model(**packing.row(ids_BT), use_cache=False).logits[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    gradients = torch.autograd.grad((found * turned).sum(), weights, allow_unused=True)
    for one, other in zip(gradients, wanted, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", NOT_PACKED)
def test_models_whose_texts_would_see_each_other_are_not_packed(kind: str):
    model = model_of(kind, NOT_PACKED[kind])
    before = model.config._attn_implementation
    assert not can_pack(model, IMPLEMENTATION)
    assert model.config._attn_implementation == before


def test_trying_leaves_random_numbers_and_modes_as_they_are():
    model = model_of("gpt2", PACKED["gpt2"]).train()
    model.lm_head.eval()
    random = torch.random.get_rng_state()
    assert can_pack(model, IMPLEMENTATION)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert model.training and model.transformer.drop.training and not model.lm_head.training


def test_a_row_and_its_groups_by_hand():
    group = group_of([2, 3])
    assert group.shape == (2, 3) and group.tokens_N.tolist() == [0, 1, 3, 4, 5]
    packing = Packing(groups=(group, group_of([1])))
    row = packing.row([torch.tensor([[5, 6, 0], [7, 8, 9]]), torch.tensor([[4]])])
    assert row["input_ids"].tolist() == [[5, 6, 7, 8, 9, 4]]
    assert row["position_ids"].tolist() == [[0, 1, 0, 1, 2, 0]]
    states_HND = torch.arange(1.0, 11).view(1, 5, 2)
    padded = group.padded(states_HND)
    assert padded.shape == (2, 1, 3, 2)
    assert padded[0, 0].tolist() == [[1, 2], [3, 4], [0, 0]]
    assert torch.equal(group.packed(padded.transpose(1, 2)).transpose(0, 1), states_HND)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "mistral"])
def test_where_packed_texts_look_is_where_each_looks_alone(kind: str):
    model, ids_BT = model_of(kind, PACKED[kind]), padded_texts()
    packing = Packing(groups=tuple(group_of(lengths) for lengths in LENGTHS), recorded=0)
    is_token = torch.zeros(3, 9, dtype=torch.bool)
    is_token.view(-1)[packing.groups[0].tokens_N] = True
    steps_BST, words_BTK = torch.randint(0, 2, (3, 2, 9)), torch.randint(0, 2, (3, 9, 4))
    pool = Pooling(steps_BST=steps_BST * is_token[:, None].float(), words_BTK=words_BTK * is_token[..., None].float())
    with torch.no_grad(), recording_attention(model, pool, keep_values=True) as expected:
        model(input_ids=ids_BT[0], use_cache=False)
    with (
        torch.no_grad(),
        recording_attention(model, pool, keep_values=True) as found,
        packed_attention(packing),
    ):
        model(**packing.row(ids_BT), use_cache=False)
    torch.testing.assert_close(found.stacked(), expected.stacked(), atol=1e-5, rtol=1e-4)
    values = expected.values().masked_fill(~is_token[:, None, :, None], 0.0)
    torch.testing.assert_close(found.values(), values, atol=1e-5, rtol=1e-4)
