#!/usr/bin/env bash
# peft 0.21.2: under transformers 5 the experts of Qwen2-MoE are left out of an adapter, and of one that has them already.
#
# Behaviour: transformers 5 keeps the experts of a layer as two stacked parameters, where transformers 4 had linear layers.
# PEFT translates target_modules (gate_proj, up_proj, down_proj, all-linear) for Mixtral, for Qwen3-MoE, OLMoE and other
# types that say "like qwen2_moe", but not for qwen2_moe itself (Qwen1.5-MoE, Qwen2-57B-A14B): only the shared expert and
# attention learn then. An adapter that was trained with transformers 4 loads without a word, its weights for experts go
# nowhere, and the model is another one. all-linear also leaves out the experts of Jamba and PhiMoE, linear layers before as
# well, and those of GraniteMoE, Llama 4, Qwen3.5-MoE and gpt-oss. target_parameters names them:
# ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"].
#
# Source: peft/utils/transformers_weight_conversion.py of that version: `_MODEL_TO_CONVERSION_PATTERN.get(model_type)`, and
# `return` where it is None. transformers' dictionary has no entry of its own for a type that others point to; PEFT adds
# the one of mixtral and not that of qwen2_moe. peft/peft_model.py, load_adapter, warns of missing keys, not of unexpected ones.
#
# Output seen:
#   4.57.6: qwen2_moe, 3904 weights learn, 2304 of experts
#   4.57.6: qwen3_moe, 3328 weights learn, 2304 of experts
#   5.19.0: qwen2_moe, 1600 weights learn, 0 of experts
#   5.19.0: qwen2_moe with the adapter of 4.57.6: other logits, warnings: 0
#   5.19.0: qwen2_moe, target_parameters: experts learn
#   5.19.0: qwen3_moe, 3840 weights learn, 2816 of experts
#   5.19.0: qwen3_moe with the adapter of 4.57.6: the same logits
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
pip=("$place/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 transformers==5.19.0 peft==0.21.2 2>/dev/null
"${pip[@]}" --target "$place/older" transformers==4.57.6 2>/dev/null
export TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1
cat > "$place/adapt.py" <<'PYTHON'
import sys
import warnings

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2MoeConfig, Qwen3MoeConfig

place, old = sys.argv[1], transformers.__version__.startswith("4.")
small = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
         "max_position_embeddings": 64, "initializer_range": 0.3}
configs = {"qwen2_moe": Qwen2MoeConfig(shared_expert_intermediate_size=16, **small),
           "qwen3_moe": Qwen3MoeConfig(head_dim=16, **small)}
targets = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "r": 2}
ids = torch.arange(3, 40)[None]


def learning(model: torch.nn.Module, of: str = "") -> int:
    return sum(value.numel() for name, value in model.named_parameters() if value.requires_grad and of in name)


def read(folder: str) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


torch.manual_seed(0)
for name, config in configs.items():
    folder = f"{place}/{name}"
    if old:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    model = get_peft_model(read(folder), LoraConfig(**targets, init_lora_weights=False)).eval()
    print(f"{transformers.__version__}: {name}, {learning(model)} weights learn, {learning(model, '.mlp.experts')} of experts")
    if old:
        model.save_pretrained(f"{folder}-adapter")
        with torch.no_grad():
            torch.save(model(input_ids=ids).logits, f"{folder}-logits.pt")
        continue
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(read(folder), f"{folder}-adapter").eval()
    with torch.no_grad():
        off = float((model(input_ids=ids).logits - torch.load(f"{folder}-logits.pt", weights_only=True)).abs().max())
    said = "the same logits" if off < 1e-3 else f"other logits, warnings: {len(told)}" if off > 0.1 else f"{off} off"
    print(f"{transformers.__version__}: {name} with the adapter of 4.57.6: {said}")
    if name == "qwen2_moe":
        named = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        model = get_peft_model(read(folder), LoraConfig(**targets, target_parameters=named))
        print(f"{transformers.__version__}: {name}, target_parameters:", "experts learn" * bool(learning(model, ".mlp.experts")))
PYTHON
{
    PYTHONPATH="$place/older" "$place/venv/bin/python" "$place/adapt.py" "$place"
    "$place/venv/bin/python" "$place/adapt.py" "$place"
} 2>"$place/errors" | tee "$place/seen" || { tail -20 "$place/errors"; exit 1; }
diff <(sed -n 's/^#   //p' "$0") "$place/seen"
