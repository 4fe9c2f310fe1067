"""GGUF files made on the spot, as llama.cpp writes them: a tiny random model and the tokenizer of `tests.fakes`.

`SENTENCEPIECE` is a vocabulary of the other kind, as metadata.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, TokenType, get_tensor_name_map, quantize
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel, set_seed

from tests.fakes import BEGIN, END, PAD, tiny_model, tiny_tokenizer

ARCHITECTURES = {"llama": MODEL_ARCH.LLAMA, "qwen2": MODEL_ARCH.QWEN2, "gemma2": MODEL_ARCH.GEMMA2}
LAYERS, HEADS, KV_HEADS = 2, 4, 2
SPECIAL, BYTES = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = [*SPECIAL, *BYTES, "\u2581", *map(chr, range(33, 127))]
"""A vocabulary of SentencePiece in which every text can be written."""
SENTENCEPIECE: Mapping[str, object] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": PIECES,
    "tokenizer.ggml.scores": [-float(place) for place in range(len(PIECES))],
    "tokenizer.ggml.token_type": [3, 3, 3, 2, 3, *256 * [6], *(len(PIECES) - 261) * [1]],
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 3,
}
"""Metadata of such a vocabulary, as Llama 2's and Gemma's files have it."""


def tiny_llama(architecture: Literal["llama", "qwen2"] = "llama") -> PreTrainedModel:
    """The model that files hold, unless another one is given."""
    return tiny_model(architecture, layers=LAYERS, heads=HEADS, kv_heads=KV_HEADS)


def tiny_gemma() -> PreTrainedModel:
    """A random Gemma 2 for the vocabulary of `SENTENCEPIECE`."""
    set_seed(0)
    config = Gemma2Config(
        vocab_size=len(PIECES),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=8,
        max_position_embeddings=1024,
        initializer_range=0.2,
    )
    model = Gemma2ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter)
    return model


def tiny_gguf(
    path: Path,
    architecture: str = "llama",
    *,
    model: PreTrainedModel | None = None,
    quantised: bool = False,
    named: str | None = None,
    metadata: Mapping[str, object] | None = None,
    without: str | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a GGUF file of a tiny model; `metadata` adds and replaces, and leaves out what is None."""
    model = model or tiny_llama()
    writer = GGUFWriter(path, named or architecture)
    for key, value in {**_metadata(model, named or architecture), **(metadata or {})}.items():
        _add(writer, key, value)
    names = get_tensor_name_map(ARCHITECTURES[architecture], LAYERS)
    for name, values in model.named_parameters():  # each once, where two share one
        stem, _, kind = name.rpartition(".")
        called = f"{names.get_name(stem)}.{kind}"
        if called != without:
            _add_tensor(writer, called, _as_stored(architecture, called, values), quantised=quantised)
    for name, array in (extra or {}).items():
        _add_tensor(writer, name, array, quantised=False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _metadata(model: PreTrainedModel, architecture: str) -> dict[str, object]:
    tokenizer, config = tiny_tokenizer(), model.config
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    head = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    ends = {"bos": BEGIN, "eos": END, "padding": PAD}
    return {
        f"{architecture}.block_count": config.num_hidden_layers,
        f"{architecture}.context_length": config.max_position_embeddings,
        f"{architecture}.embedding_length": config.hidden_size,
        f"{architecture}.feed_forward_length": config.intermediate_size,
        f"{architecture}.attention.head_count": config.num_attention_heads,
        f"{architecture}.attention.head_count_kv": config.num_key_value_heads,
        f"{architecture}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{architecture}.rope.freq_base": config.rope_parameters["rope_theta"],
        f"{architecture}.rope.dimension_count": head,
        f"{architecture}.attention.key_length": head,
        f"{architecture}.vocab_size": config.vocab_size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [
            int(TokenType.CONTROL if token in ends.values() else TokenType.NORMAL) for token in tokens
        ],
        "tokenizer.ggml.scores": [0.0] * len(tokens),  # no merges: one token a byte
        **{f"tokenizer.ggml.{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in ends.items()},
    }


def _add(writer: GGUFWriter, key: str, value: object) -> None:
    match value:
        case None:
            return
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)
        case _:
            raise TypeError(f"{key}: {value!r}")


def _as_stored(architecture: str, name: str, values: torch.Tensor) -> np.ndarray:
    """As llama.cpp stores it: Llama's rotated rows of a head take turns by halves, Gemma's norms are one more."""
    array = values.detach().float().numpy()
    if architecture == "gemma2" and "norm" in name:
        return array + 1
    heads = {"attn_q.weight": HEADS, "attn_k.weight": KV_HEADS}.get(name.partition(".")[2].partition(".")[2])
    if architecture != "llama" or heads is None:
        return array
    rows = array.shape[0] // heads // 2
    return array.reshape(heads, 2, rows, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _add_tensor(writer: GGUFWriter, name: str, array: np.ndarray, *, quantised: bool) -> None:
    if quantised and array.ndim == 2:
        kind = GGMLQuantizationType.Q8_0
        writer.add_tensor(name, quantize(array, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, np.ascontiguousarray(array))
