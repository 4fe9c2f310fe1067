#!/usr/bin/env bash
# optimum-onnx 0.1.0: a checkpoint that transformers 5 saved is exported as another model, with exit code 0.
#
# Behaviour: optimum-onnx 0.1.0 takes transformers below 4.58 along, and that reads a checkpoint of transformers 5 without
# its `rope_parameters`: positions turn by the default of the model type. The exported graph is compared with that wrong
# model, which it equals, so the command says that all is well. Nothing looks at `transformers_version` in config.json,
# which tells that a newer version wrote it. With `rope_theta` beside `rope_parameters` the export is right.
#
# Source: `Requires-Dist: transformers<4.58.0,>=4.36.0` of optimum-onnx 0.1.0; LlamaConfig of transformers 4.57.6, which
# has `rope_theta=10000.0` and knows no `rope_parameters`. Logits of a random Llama with rope_theta 500,000, saved by
# transformers 5.19.0, exported by `optimum-cli export onnx`, run by ONNX Runtime.
#
# Output seen:
#   as saved: exit code 0, no difference told, other logits
#   with rope_theta beside: exit code 0, no difference told, the same logits
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
pip=("$place/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 "optimum-onnx[onnxruntime]==0.1.0" transformers==4.57.6 2>/dev/null
"${pip[@]}" --target "$place/newer" transformers==5.19.0 2>/dev/null
export TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1
cat > "$place/write.py" <<'PYTHON'
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
                     max_position_embeddings=64, initializer_range=0.3,
                     rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
model = LlamaForCausalLM(config).eval()
place = Path(sys.argv[1])
model.save_pretrained(place / "as saved")
shutil.copytree(place / "as saved", place / "with rope_theta beside")
path = place / "with rope_theta beside" / "config.json"
path.write_text(json.dumps({**json.loads(path.read_text()), "rope_theta": 500000.0}))
with torch.no_grad():
    np.save(place / "logits.npy", model(input_ids=torch.arange(3, 60)[None]).logits.numpy())
PYTHON
cat > "$place/read.py" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import onnxruntime

place, name = Path(sys.argv[1]), sys.argv[2]
session = onnxruntime.InferenceSession(place / f"{name}.onnx" / "model.onnx")
ids = np.arange(3, 60)[None]
found = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)} | (
    {"position_ids": np.arange(57)[None]} if "position_ids" in [one.name for one in session.get_inputs()] else {}))[0]
print("the same" if np.abs(found - np.load(place / "logits.npy")).max() < 1e-3 else "other", "logits")
PYTHON
PYTHONPATH="$place/newer" "$place/venv/bin/python" "$place/write.py" "$place" >"$place/log" 2>&1 || { cat "$place/log"; exit 1; }
for name in "as saved" "with rope_theta beside"; do
    code=0
    "$place/venv/bin/optimum-cli" export onnx --task text-generation --no-post-process --atol 1e-3 \
        --model "$place/$name" "$place/$name.onnx" >"$place/log" 2>&1 || code=$?
    said=$(grep -q "not close" "$place/log" && echo "differences told" || echo "no difference told")
    echo "$name: exit code $code, $said, $("$place/venv/bin/python" "$place/read.py" "$place" "$name")"
done | tee "$place/seen"
diff <(sed -n 's/^#   //p' "$0") "$place/seen" || { tail -20 "$place/log"; exit 1; }
