"""What transformers 4 reads of a checkpoint that transformers 5 wrote, and what has to stand beside it.

transformers 5 writes how positions turn as `rope_parameters`. transformers 4 (4.57.6 and 4.46.3 were read) does not
know that key and takes the defaults of the model type without a word: another model. In: the configuration as JSON has
it. Out: the same with the names that transformers 4 reads. transformers 5 goes by its own names where it finds both.

A tokenizer's class `TokenizersBackend` is `PreTrainedTokenizerFast` to transformers 4; what it calls
`additional_special_tokens` has become a list `extra_special_tokens`, where it expects a mapping.
"""

from collections.abc import Mapping
from typing import Any

BASE, SHARE, SCALING = "rope_theta", "partial_rotary_factor", "rope_scaling"
TYPE, DEFAULT = "rope_type", "default"
OWN_NAMES: Mapping[str, Mapping[str, str]] = {
    "gpt_neox": {BASE: "rotary_emb_base", SHARE: "rotary_pct"},
    "gpt_neox_japanese": {BASE: "rotary_emb_base", SHARE: "rotary_pct"},
}
"""Model types whose configuration of transformers 4 has other names than the usual ones."""
BASE_BY_LAYER_TYPE: Mapping[str, Mapping[str, str]] = {
    "gemma3": {"full_attention": BASE, "sliding_attention": "rope_local_base_freq"},
    "gemma3_text": {"full_attention": BASE, "sliding_attention": "rope_local_base_freq"},
    "gemma3n_text": {"full_attention": BASE, "sliding_attention": "rope_local_base_freq"},
    "modernbert-decoder": {"full_attention": "global_rope_theta", "sliding_attention": "global_rope_theta"},
    "olmo3": {"full_attention": BASE, "sliding_attention": BASE},
}
"""Where layers of one type turn otherwise than those of another: the name of each one's base.

One name for both is all that there is: transformers 4 turns every layer of these models alike.
"""
SCALINGS = frozenset({"linear", "dynamic", "llama3", "yarn"})
"""Ways of scaling positions that transformers 4 reads as they are, under `rope_scaling`."""
FIELDS_BY_TYPE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "olmo": {"linear": ("factor",), "dynamic": ("factor",)},
    "olmo2": {"linear": ("factor",), "dynamic": ("factor",)},
    "phi3": {"longrope": ("short_factor", "long_factor")},
    "phi4_multimodal": {"longrope": ("short_factor", "long_factor")},
    "nemotron": {},
}
"""Model types of transformers 4 that take these ways alone, with `type` and these fields and no others."""
RENAMED: Mapping[str, Mapping[str, str]] = {"qwen3_moe": {"num_local_experts": "num_experts"}}
"""What else a model type of transformers 4 calls by another name."""
LEAST, LEAST_SCALED = "5.0", "4.57"
"""The first that reads `rope_parameters`; the oldest that was tried and scales positions as transformers 5 does.

4.46 goes by other positions under `yarn`, and lets Mistral's and Gemma's be as they are.
"""


def with_older_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with what transformers 4 reads beside `rope_parameters`, whatever was there under those names.

    One that transformers 4 has no names for comes back as it is; `least_version` tells.
    """
    nested = {
        name: with_older_names(value)
        for name, value in config.items()
        if isinstance(value, Mapping) and "rope_parameters" in value
    }
    renamed = {
        older: config[name] for name, older in RENAMED.get(str(config.get("model_type")), {}).items() if name in config
    }
    return {**config, **nested, **renamed, **(_older_names(config) or {})}


def least_version(config: Mapping[str, Any]) -> str | None:
    """The least version of transformers that reads the positions as they are; None where transformers 4 does, too."""
    text = config.get("text_config") or config
    older = _older_names(text)
    if older is None:
        return LEAST
    return LEAST_SCALED if SCALING in older else None


def _older_names(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """None where transformers 4 has no names for what the configuration says."""
    rope = config.get("rope_parameters") or {}
    model_type = str(config.get("model_type"))
    by_layer_type = {name: value for name, value in rope.items() if isinstance(value, Mapping)}
    if not by_layer_type:
        return _names_of(rope, model_type, OWN_NAMES.get(model_type, {}))
    names = BASE_BY_LAYER_TYPE.get(model_type, {})
    if set(by_layer_type) - set(names):
        return None
    older: dict[str, Any] = {}
    for layer_type, parameters in by_layer_type.items():
        found = _names_of(parameters, model_type, {BASE: names[layer_type]})
        if found is None:
            return None
        if layer_type != "full_attention" and set(found) != {names[layer_type]}:
            return None  # only layers that look at everything may be scaled there
        if any(older.get(name, value) != value for name, value in found.items()):
            return None  # one name for both, and they differ
        older |= found
    return older


def _names_of(rope: Mapping[str, Any], model_type: str, names: Mapping[str, str]) -> dict[str, Any] | None:
    """What is said of positions in the names of transformers 4, `names` where they are not the usual ones."""
    older = {names.get(name, name): rope[name] for name in (BASE, SHARE) if rope.get(name) is not None}
    scaling = {name: value for name, value in rope.items() if name not in (BASE, SHARE)}
    if scaling.get(TYPE, DEFAULT) == DEFAULT:
        return older
    if model_type in FIELDS_BY_TYPE:
        fields = FIELDS_BY_TYPE[model_type].get(scaling[TYPE])
        return (
            None if fields is None else {**older, SCALING: {"type": scaling[TYPE], **{f: scaling[f] for f in fields}}}
        )
    return {**older, SCALING: scaling} if scaling[TYPE] in SCALINGS else None


def with_older_class(config: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizer's configuration with a class and special tokens that transformers 4 knows as well.

    Classes of single models give way to the one that goes by tokenizer.json alone: those of Llama and Gemma put a begin
    token in front in transformers 4 whatever that file says. That class makes token types there unless it is told what
    a model takes, and `generate` refuses them.
    """
    older = dict(config)
    if older.get("backend") == "tokenizers":
        older["tokenizer_class"] = "PreTrainedTokenizerFast"
        older.setdefault("model_input_names", ["input_ids", "attention_mask"])
    if isinstance(older.get("extra_special_tokens"), list):
        older["additional_special_tokens"] = older.pop("extra_special_tokens")
    return older
