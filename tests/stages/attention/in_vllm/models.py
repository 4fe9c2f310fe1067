"""Tiny models that vLLM runs on a CPU, where heads have to be 32 wide, one an architecture."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from stages.models.save import save_checkpoint
from tests.fakes import tiny_tokenizer

LIKE_LLAMA: dict[str, Any] = {
    "vocab_size": 259, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 512, "initializer_range": 0.2,
    "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
WINDOWS = {"sliding_window": 32, "query_pre_attn_scalar": 32, "tie_word_embeddings": True}
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", LIKE_LLAMA),
    "qwen2": ("qwen2", LIKE_LLAMA),
    "qwen3": ("qwen3", LIKE_LLAMA),
    "gemma3": (
        "gemma3_text",
        {**LIKE_LLAMA, **WINDOWS, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "gemma2": ("gemma2", {**LIKE_LLAMA, **WINDOWS, "attn_logit_softcapping": 5.0}),
    "gpt2": (
        "gpt2",
        {"vocab_size": 259, "n_embd": 128, "n_layer": 3, "n_head": 4, "n_positions": 512, "initializer_range": 0.2},
    ),
    "bloom": (
        "bloom",
        {"vocab_size": 259, "hidden_size": 128, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    ),
}


def write_model(name: str, folder: Path) -> Path:
    """Write the random model of that name into `folder`."""
    model_type, sizes = CONFIGURATIONS[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes)).float().eval()
    save_checkpoint(model, tiny_tokenizer(), folder)
    return folder


NUMBERS = {"int": (torch.int8, 127), "float": (torch.float8_e4m3fn, 448)}
"""Of 8 bits, with the largest one."""


def quantise(folder: Path, kind: str) -> Path:
    """Make the Llama in `folder` one of 8-bit weights and activations, as compressed-tensors writes it."""
    dtype, most = NUMBERS[kind]
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        weight = tensors.pop(name)
        scale = weight.abs().amax(dim=1, keepdim=True) / most
        scaled = (weight / scale).clamp(-most, most)
        tensors[name] = (scaled if dtype.is_floating_point else scaled.round()).to(dtype)
        tensors[f"{name}_scale"] = scale
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    eight = {"num_bits": 8, "type": kind, "symmetric": True}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": f"{kind}-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**eight, "strategy": "channel", "dynamic": False},
                "input_activations": {**eight, "strategy": "token", "dynamic": True},
            }
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
