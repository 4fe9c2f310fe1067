"""Every causal language model of transformers against its own eager attention, on tiny random weights.

For each model type that `AutoModelForCausalLM` knows: make its configuration small, fill it with uneven random weights,
and compare `stages.attention.stepwise_attention` with `output_attentions=True`, pooled as Eq. 2 says. Prints one line a
model type: the largest difference, or why it was refused or could not be made small.

    python benchmarks/architectures.py [MODEL_TYPE…] [--json]
"""

import copy
import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable

import click
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from data.errors import ModelError
from stages.attention.stepwise import forward
from stages.attention.tokens import Located, padded_ids, pooling

SMALL = {
    "hidden_size": 64, "n_embd": 64, "d_model": 64, "embed_dim": 64, "intermediate_size": 96, "ffn_dim": 96,
    "n_inner": 96, "d_ff": 96, "num_hidden_layers": 4, "n_layer": 4, "n_layers": 4, "num_layers": 4,
    "decoder_layers": 4, "encoder_layers": 4, "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4,
    "decoder_attention_heads": 4, "encoder_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "decoder_ffn_dim": 96, "encoder_ffn_dim": 96, "vocab_size": 300, "max_position_embeddings": 256,
    "n_positions": 256, "word_embed_proj_dim": 64, "sliding_window": 16, "num_local_experts": 4, "num_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16, "v_head_dim": 16, "rotary_dim": 8, "initializer_range": 0.3, "init_std": 0.3,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "padding_idx": 0, "attention_dropout": 0.0, "top_k": 2,
    "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 300, "num_kv_shared_layers": 0,
    "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_num_heads": 4, "mamba_head_dim": 32, "mamba_d_ssm": 128,
    "lm_head_dim": 64, "dim_model_base": 64, "scale_depth": 1.4,
}  # fmt: skip
"""Sizes by the names that configurations give them; only those that a configuration has are set."""
OWN: dict[str, dict[str, object]] = {
    "bamba": {"layer_types": None, "attn_layer_indices": [1, 3]},
    "deepseek_v2": {"num_experts_per_tok": 2, "first_k_dense_replace": 4},
    "dots1": {"n_shared_experts": 1, "first_k_dense_replace": 4},
    "falcon_h1": {"layer_types": None},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 16},
    "granitemoehybrid": {"layer_types": ["full_attention"] * 4},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "lfm2_moe": {"num_dense_layers": 4},
    "ministral": {"head_dim": 16},
    "modernbert-decoder": {"local_attention": 32},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 2},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "mamba", "attention"], "n_groups": 1},
}
"""What single architectures need beside that; None leaves a size as it is by default."""


def small_model(model_type: str, change: Callable[[PreTrainedConfig], None] | None = None) -> PreTrainedModel:
    """A random model of `model_type` in evaluation mode, a few layers of width 64, float64.

    `change` may change the small configuration before the model is made.
    """
    known = AutoConfig.for_model(model_type).get_text_config()
    given = known.to_dict()
    given |= {alias: given.get(name) for alias, name in known.attribute_map.items()}
    sizes = {name: size for name, size in SMALL.items() if given.get(name) is not None}
    layers = next(size for name, size in sizes.items() if name in ("num_hidden_layers", "n_layer", "n_layers"))
    for name in ("layer_types", "mlp_layer_types"):
        if kinds := given.get(name):  # every kind that the architecture has
            sizes[name] = (list(dict.fromkeys(kinds)) * layers)[:layers]
    if "kv_lora_rank" in sizes:  # latent attention has as many keys as queries
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    own = OWN.get(model_type, {})
    config = type(known)(**{name: size for name, size in {**sizes, **own}.items() if size is not None})
    if change is not None:
        change(config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    if model._can_set_experts_implementation():
        model.set_experts_implementation("eager")  # the fused one knows no float64
    return model.double().eval()


def located(length: int = 60) -> Located:
    """A text of random tokens, half of it in three steps, with six words of one or two tokens."""
    random = np.random.default_rng(0)
    steps = np.full(length, -1)
    steps[length // 2 :] = np.sort(random.integers(0, 3, length - length // 2))
    words = tuple(np.arange(first, first + 1 + first % 2) for first in range(4, length - 8, length // 6))
    ids = random.integers(3, 299, length)
    spans = np.stack([np.arange(length), np.arange(length) + 1], axis=1)
    return Located(ids=ids, step_of_token=steps, tokens_of_word=words, steps=3, text="x" * length, spans=spans)


@torch.no_grad()
def largest_difference(model: PreTrainedModel) -> tuple[float, Counter[str]]:
    """Largest difference to eager attention a token, over all layers, steps and words, and the layers' ways."""
    one, other = located(60), located(41)
    recording = forward(model, [one, other])
    ours = recording.stacked()
    eager_model = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), attn_implementation="eager")
    eager_model.to(model.dtype).eval().load_state_dict(model.state_dict())
    worst = 0.0
    for row, text in enumerate((one, other)):
        ids = padded_ids([text], pad=0)
        matrices = eager_model.base_model(input_ids=ids, output_attentions=True, use_cache=False).attentions
        pool = pooling([text], len(text.ids))
        steps_BST, words_BTK = pool.steps_BST.double(), pool.words_BTK.double()
        matrices = [matrix for matrix in matrices if matrix is not None and matrix.shape[-2:] == (ids.shape[1],) * 2]
        eager = [steps_BST @ matrix.double().mean(dim=1) @ words_BTK for matrix in matrices]
        assert len(eager) == ours.shape[1], f"{len(eager)} layers against {ours.shape[1]}"
        for layer, expected in enumerate(eager):
            tokens = torch.from_numpy(text.step_tokens())[:, None].clamp(min=1)
            worst = max(worst, float(((ours[row, layer] - expected[0]).abs() / tokens).max()))
    return worst, Counter(recording.ways.values())


def examine(model_type: str) -> dict[str, object]:
    """Outcome for one model type."""
    try:
        model = small_model(model_type)
    except Exception as error:  # a configuration that cannot be made small is a finding, not a failure
        return {"model_type": model_type, "outcome": "not made", "detail": f"{type(error).__name__}: {error}"[:150]}
    try:
        difference, ways = largest_difference(model)
    except ModelError as error:
        return {"model_type": model_type, "outcome": "refused", "detail": str(error)}
    except Exception as error:
        return {"model_type": model_type, "outcome": "failed", "detail": f"{type(error).__name__}: {error}"[:150]}
    return {
        "model_type": model_type,
        "outcome": "equal" if difference < 1e-5 else "DIFFERENT",
        "difference": difference,
        "detail": ", ".join(f"{count} {way}" for way, count in ways.items()),
    }


@click.command()
@click.argument("model_types", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def main(model_types: tuple[str, ...], as_json: bool) -> None:
    """Compare MODEL_TYPES, or all that transformers has."""
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    results = [examine(name) for name in model_types or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    if as_json:
        click.echo(json.dumps(results, indent=1))
        return
    for result in results:
        difference = f"{result['difference']:.1e}" if "difference" in result else ""
        click.echo(f"{result['model_type']:28} {result['outcome']:10} {difference:8} {result['detail']}")
    click.echo(", ".join(f"{outcome} {count}" for outcome, count in Counter(r["outcome"] for r in results).items()))


if __name__ == "__main__":
    main()
