"""A model cut to its first layers: the same weights and logits as by hand, in a folder that says what it is."""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    set_seed,
)

from data.errors import ConfigError
from stages.attention.stepwise import attention_layers
from stages.models.cut import first_layers, load_first_layers, random_first_layers

SHAPE = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": [2, 3, 4, 5],
}  # fmt: skip
GROUPED = {**SHAPE, "num_key_value_heads": 1}
# fmt: off
FAMILIES: dict[str, tuple[PreTrainedConfig, str]] = {
    "llama": (LlamaConfig(**GROUPED), "model.layers"),
    "qwen2": (Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=1), "model.layers"),
    "qwen3": (Qwen3Config(**GROUPED, head_dim=8), "model.layers"),
    "gemma2": (Gemma2Config(**GROUPED, head_dim=8, sliding_window=4), "model.layers"),
    "gpt2": (GPT2Config(vocab_size=50, n_embd=16, n_layer=4, n_head=2, n_positions=32), "transformer.h"),
    "gpt_neo": (
        GPTNeoConfig(
            vocab_size=50, num_layers=4, attention_types=[[["global", "local"], 2]], hidden_size=16, num_heads=2,
            window_size=4, max_position_embeddings=32,
        ),
        "transformer.h",
    ),
    "gpt_neox": (GPTNeoXConfig(**SHAPE), "gpt_neox.layers"),
    "opt": (OPTConfig(**SHAPE, ffn_dim=24, word_embed_proj_dim=16), "model.decoder.layers"),
}
# fmt: on
"""Configurations of four layers, and the list that the layers of each family stand in."""
IDS = torch.arange(1, 21)[None]


def saved(config: PreTrainedConfig, path: Path) -> PreTrainedModel:
    set_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(copy.deepcopy(config)).float().eval()
    model.save_pretrained(path)
    return model


@torch.inference_mode()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model.eval()(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_model_whose_list_of_layers_was_cut_by_hand(family: str, tmp_path: Path):
    config, where = FAMILIES[family]
    whole = saved(config, tmp_path / "whole")
    cut = load_first_layers(str(tmp_path / "whole"), None, 3)
    assert cut.dtype == torch.float32 and attention_layers(cut) == 3
    all_weights = whole.state_dict()
    assert all(torch.equal(weight, all_weights[name]) for name, weight in cut.state_dict().items())
    assert {name for name in all_weights if name not in cut.state_dict()} == {
        name for name in all_weights if name.startswith(f"{where}.3.")
    }
    layers = whole.get_submodule(where)
    del layers[3]
    whole.config.num_hidden_layers = 3
    whole.set_attn_implementation(cut.config._attn_implementation)
    torch.testing.assert_close(logits(cut), logits(whole), rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_is_a_plain_folder_of_fewer_layers(family: str, tmp_path: Path):
    saved(FAMILIES[family][0], tmp_path / "whole")
    cut = load_first_layers(str(tmp_path / "whole"), None, 3)
    cut.save_pretrained(tmp_path / "cut")
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path / "cut", dtype=torch.float32, attn_implementation=cut.config._attn_implementation
    )
    assert again.config.num_hidden_layers == 3 and attention_layers(again) == 3
    torch.testing.assert_close(logits(again), logits(cut), rtol=0, atol=0)


def test_lists_with_an_entry_a_layer_are_cut_and_no_others():
    config = first_layers(FAMILIES["qwen2"][0], 2)
    assert config.layer_types == ["full_attention", "sliding_attention"]
    assert config.eos_token_id == [2, 3, 4, 5]
    assert FAMILIES["qwen2"][0].num_hidden_layers == 4


def test_fresh_weights_are_those_of_a_model_of_that_shape(tmp_path: Path):
    saved(FAMILIES["llama"][0], tmp_path)
    set_seed(3)
    cut = random_first_layers(str(tmp_path), None, 3)
    set_seed(3)
    by_hand = AutoModelForCausalLM.from_config(LlamaConfig(**{**GROUPED, "num_hidden_layers": 3}))
    assert cut.state_dict().keys() == by_hand.state_dict().keys()
    assert all(torch.equal(weight, by_hand.state_dict()[name]) for name, weight in cut.state_dict().items())


def test_more_layers_than_there_are_name_the_setting_and_both_numbers(tmp_path: Path):
    saved(FAMILIES["gpt2"][0], tmp_path)
    with pytest.raises(ConfigError, match=rf"student\.layers: expected at most 4, the layers of {tmp_path}, found 5"):
        load_first_layers(str(tmp_path), None, 5)


class AlwaysFour(LlamaConfig):
    """Reads every configuration as one of four layers."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, object], **_: object) -> PreTrainedConfig:
        return LlamaConfig(**{**GROUPED, "num_hidden_layers": 4})


def test_a_configuration_that_would_be_read_otherwise_is_refused():
    with pytest.raises(ConfigError, match=r"student\.layers: 3: model type llama cannot be cut .* one of 4 layers"):
        first_layers(AlwaysFour(**GROUPED), 3)


def test_layers_that_share_keys_at_the_end_stay_the_same_layers():
    config = AutoConfig.for_model(
        "gemma3n_text", num_hidden_layers=10, num_kv_shared_layers=4, layer_types=["full_attention"] * 10,
        intermediate_size=[16] * 10, activation_sparsity_pattern=[0.0] * 10,
    )  # fmt: skip
    assert [first_layers(config, kept).num_kv_shared_layers for kept in (8, 6, 5)] == [2, 0, 0]
    assert first_layers(config, 8).intermediate_size == [16] * 8


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What transformers warns of while it loads a model, whatever level was set before."""
    logger = logging.getLogger("transformers.modeling_utils")
    with caplog.at_level(logging.WARNING, "transformers"):
        logger.addHandler(caplog.handler)
        try:
            yield caplog
        finally:
            logger.removeHandler(caplog.handler)


def test_layers_that_are_left_out_are_not_reported_as_unused(tmp_path: Path, warned: pytest.LogCaptureFixture):
    saved(FAMILIES["llama"][0], tmp_path)
    load_first_layers(str(tmp_path), None, 2)
    assert not warned.text
    AutoModelForCausalLM.from_pretrained(tmp_path, config=first_layers(FAMILIES["llama"][0], 2))
    assert "UNEXPECTED" in warned.text
