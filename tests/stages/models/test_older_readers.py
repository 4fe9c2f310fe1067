"""What transformers 4 needs beside what transformers 5 writes: names worked out by hand, and real folders."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaTokenizer,
    GenerationConfig,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
)

from benchmarks.architectures import small_model
from stages.models.older_readers import least_version, with_older_class, with_older_names
from stages.models.save import save_checkpoint, save_tokenizer
from tests.fakes import tiny_model, tiny_tokenizer

LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.5],
    "long_factor": [2.0, 3.0],
    "original_max_position_embeddings": 4096,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}


def rope(model_type: str, parameters: dict[str, object]) -> dict[str, object]:
    config = {"model_type": model_type, "rope_parameters": parameters}
    older = with_older_names(config)
    assert {name: older.pop(name) for name in config} == config, "what transformers 5 reads stays"
    return older


@pytest.mark.parametrize(
    ("model_type", "parameters", "older"),
    [
        ("llama", {"rope_type": "default", "rope_theta": 5e5}, {"rope_theta": 5e5}),
        ("llama", {"rope_theta": 5e5}, {"rope_theta": 5e5}),
        ("qwen2", {"rope_theta": 1e6, **YARN}, {"rope_theta": 1e6, "rope_scaling": YARN}),
        (
            "phi3",
            {"rope_theta": 1e4, "partial_rotary_factor": 1.0, **LONG},
            {
                "rope_theta": 1e4,
                "partial_rotary_factor": 1.0,
                "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0]},
            },
        ),
        (
            "olmo2",
            {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0},
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
        ),
        (
            "phi",
            {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.4},
            {"rope_theta": 1e4, "partial_rotary_factor": 0.4},
        ),
        (
            "gpt_neox",
            {"rope_type": "default", "rope_theta": 2e4, "partial_rotary_factor": 0.25},
            {"rotary_emb_base": 2e4, "rotary_pct": 0.25},
        ),
        (
            "gemma3_text",
            {"full_attention": {"rope_theta": 1e6, **YARN}, "sliding_attention": {"rope_theta": 1e4}},
            {"rope_theta": 1e6, "rope_scaling": YARN, "rope_local_base_freq": 1e4},
        ),
        (
            "olmo3",
            {"full_attention": {"rope_theta": 5e5, **YARN}, "sliding_attention": {"rope_theta": 5e5}},
            {"rope_theta": 5e5, "rope_scaling": YARN},
        ),
    ],
)
def test_the_names_of_transformers_4_stand_beside_those_of_5(model_type, parameters, older):
    assert rope(model_type, parameters) == older
    scaled = "rope_scaling" in older
    assert least_version({"model_type": model_type, "rope_parameters": parameters}) == ("4.57" if scaled else None)


@pytest.mark.parametrize(
    ("model_type", "parameters"),
    [
        ("llama", {"rope_theta": 5e5, **LONG}),
        ("nemotron", {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}),
        ("olmo2", {"rope_theta": 5e5, **YARN}),
        ("gemma3_text", {"full_attention": {"rope_theta": 1e6, **LONG}, "sliding_attention": {"rope_theta": 1e4}}),
        ("gemma4_text", {"rope_theta": 1e6, "rope_type": "proportional"}),
        ("olmo3", {"full_attention": {"rope_theta": 5e5}, "sliding_attention": {"rope_theta": 1e4}}),
        ("gemma3_text", {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4, **YARN}}),
        ("mellum", {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}),
        ("gemma3_text", {"full_attention": {"rope_theta": 1e6}, "chunked_attention": {"rope_theta": 1e4}}),
    ],
)
def test_what_transformers_4_has_no_names_for_stays_and_the_least_version_is_told(model_type, parameters):
    assert rope(model_type, parameters) == {}
    assert least_version({"model_type": model_type, "rope_parameters": parameters}) == "5.0"


def test_models_without_such_positions_and_those_inside_others():
    assert with_older_names({"model_type": "gpt2"}) == {"model_type": "gpt2"}
    assert least_version({"model_type": "gpt2"}) is None
    text = {"model_type": "llama", "rope_parameters": {"rope_theta": 5e5}}
    whole = {"model_type": "llava", "text_config": text}
    assert with_older_names(whole)["text_config"]["rope_theta"] == 5e5
    assert least_version(whole) is None
    assert with_older_names({"model_type": "qwen3_moe", "num_local_experts": 4})["num_experts"] == 4


@pytest.mark.parametrize(
    "model_type",
    ["llama", "qwen2", "qwen3", "qwen3_moe", "gemma3_text", "olmo3", "modernbert-decoder", "gpt_neox", "phi", "phi3",
     "stablelm", "mistral", "smollm3", "falcon", "cohere2", "gpt2"],
)  # fmt: skip
def test_transformers_reads_the_same_configuration_and_model_with_the_older_names(model_type, tmp_path):
    def turn(config: object) -> None:
        parameters = getattr(config, "rope_parameters", None) or {}
        for one in [value for value in parameters.values() if isinstance(value, dict)] or [parameters]:
            if one:
                one["rope_theta"] = 123456.0

    model = small_model(model_type, turn).float()
    save_checkpoint(model, tiny_tokenizer(), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    if "rope_parameters" in written:
        assert 123456.0 in (written.get("rope_theta"), written.get("rotary_emb_base"), written.get("global_rope_theta"))
    read = AutoConfig.from_pretrained(tmp_path)
    assert getattr(read, "rope_parameters", None) == getattr(model.config, "rope_parameters", None)
    ids = torch.arange(3, 40)[None]
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_tokenizers_class_and_special_tokens_are_those_that_transformers_4_knows():
    config = {"backend": "tokenizers", "tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<x>"]}
    assert with_older_class(config) == {
        "backend": "tokenizers",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<x>"],
        "model_input_names": ["input_ids", "attention_mask"],
    }
    slow = {"tokenizer_class": "CTRLTokenizer", "extra_special_tokens": {"image": "<image>"}}
    assert with_older_class(slow) == slow


@pytest.mark.parametrize("kind", ["bytes", "Llama", "Gemma"])
def test_a_saved_tokenizer_is_the_same_one(kind, tmp_path):
    pieces = ["<unk>", "<s>", "</s>", "<pad>", "<eos>", "<bos>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, *"abcdefghijklmnopqrstuvwxyz"])}
    tokenizer = {
        "bytes": lambda: tiny_tokenizer(adds_begin=True),
        "Llama": lambda: LlamaTokenizer(vocab=vocabulary, merges=[]),
        "Gemma": lambda: GemmaTokenizer(vocab=vocabulary, merges=[]),
    }[kind]()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<x>"]})
    save_tokenizer(tokenizer, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = " two  words,\n<x>and </s> 7 crêpes "
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.decode(again(text)["input_ids"]) == tokenizer.decode(tokenizer(text)["input_ids"])
    assert set(again.all_special_tokens) == set(tokenizer.all_special_tokens)


def test_a_tokenizers_sides_and_whether_it_tidies_texts_are_written_as_they_are(tmp_path):
    """transformers leaves out what is a class's default, or was set afterwards; 4.57 tidies what 5.19 does not."""
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    tokenizer.clean_up_tokenization_spaces = True
    save_tokenizer(tokenizer, tmp_path)
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (written["padding_side"], written["truncation_side"]) == ("left", "left")
    assert written["clean_up_tokenization_spaces"] is False
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert (again.padding_side, again.truncation_side) == ("left", "left")
    ids = tokenizer("don't , you")["input_ids"]
    assert again.decode(ids) == tokenizer.decode(ids) == "don't , you"


def test_a_tokenizer_of_words_tidies_texts_as_it_did(tmp_path):
    backend = Tokenizer(WordPiece({"[UNK]": 0, "don": 1, ",": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=True)
    save_tokenizer(tokenizer, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).decode([1, 2]) == tokenizer.decode([1, 2]) == "don,"


def test_a_student_inherits_no_decoding_but_its_ends(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    model.generation_config.update(do_sample=True, temperature=0.3, repetition_penalty=1.1, eos_token_id=[7, 9])
    save_checkpoint(model, tokenizer, tmp_path)
    neutral = GenerationConfig(eos_token_id=sorted({7, 9, tokenizer.eos_token_id}))
    assert GenerationConfig.from_pretrained(tmp_path).to_diff_dict() == neutral.to_diff_dict()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.repetition_penalty in (None, 1.0)
