#!/usr/bin/env bash
# transformers 5.19.0 and 4.57.6: a checkpoint that the newer one saves is another model in the older one, without a word.
#
# Behaviour: transformers 5 writes the base of rotary positions inside `rope_parameters` in config.json, and no longer
# as `rope_theta`. transformers 4 keeps `rope_parameters` as a key that it does not know and goes by the default of the
# model type, 10,000 for Llama. Neither an error nor a warning says so; shapes and weights fit. Qwen3-MoE's number of
# experts has another name as well (`num_local_experts` for `num_experts`), which fails loudly unless it is the default.
#
# Source: logits of a random Llama with rope_theta 500,000, saved by 5.19.0, read again by both.
#
# Output seen:
#   keys of positions in config.json: rope_parameters
#   5.19.0: rope_theta 500000, the same logits
#   4.57.6: rope_theta 10000, other logits
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
pip=("$place/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 transformers==5.19.0 2>/dev/null
"${pip[@]}" --target "$place/older" transformers==4.57.6 2>/dev/null
export TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1
cat > "$place/write.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
                     max_position_embeddings=64, initializer_range=0.3,
                     rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
model = LlamaForCausalLM(config).eval()
folder = Path(sys.argv[1])
model.save_pretrained(folder)
with torch.no_grad():
    torch.save(model(input_ids=torch.arange(3, 60)[None]).logits, folder / "logits.pt")
print("keys of positions in config.json:", *(key for key in json.loads((folder / "config.json").read_text()) if "rope" in key))
PYTHON
cat > "$place/read.py" <<'PYTHON'
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

folder = Path(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(folder).eval()
with torch.no_grad():
    found = model(input_ids=torch.arange(3, 60)[None]).logits
expected = torch.load(folder / "logits.pt", weights_only=True)
theta = getattr(model.config, "rope_theta", None) or model.config.rope_parameters["rope_theta"]
print(f"{transformers.__version__}: rope_theta {theta:.0f}, {'the same' if torch.allclose(found, expected, atol=1e-4) else 'other'} logits")
PYTHON
{
    "$place/venv/bin/python" "$place/write.py" "$place/model"
    "$place/venv/bin/python" "$place/read.py" "$place/model"
    PYTHONPATH="$place/older" "$place/venv/bin/python" "$place/read.py" "$place/model"
} 2>"$place/errors" | tee "$place/seen" || { tail -20 "$place/errors"; exit 1; }
diff <(sed -n 's/^#   //p' "$0") "$place/seen"
