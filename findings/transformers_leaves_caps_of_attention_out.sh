#!/usr/bin/env bash
# transformers 5.19.0: Gemma 2 loads with an attention that leaves its soft cap out, without a word; 5.24.0 does not.
#
# Behaviour: Gemma 2 and VaultGemma cap the scores of their attention (`attn_logit_softcapping`). Where nobody names an
# implementation, 5.19.0 (4.57.6 and 5.0.0 as well) takes `sdpa`, whose kernels know no cap: the model hands it over as
# `softcap`, and it goes unread. 5.24.0 takes `eager` by itself and refuses `sdpa`. vLLM caps. So one checkpoint has other
# logits by version and tool, and a model that was trained by the one is evaluated as another. Eager attention is capped
# everywhere.
#
# Source: transformers/integrations/sdpa_attention.py, sdpa_attention_forward: `**kwargs` takes `softcap` in 5.19.0; in
# 5.24.0 `if kwargs.get("softcap") is not None: raise ValueError`. A random Gemma 2 with a cap of 2.
#
# Output seen:
#   5.19.0: sdpa by default, logits other than eager attention's
#   5.24.0: eager by default, logits equal to eager attention's
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
pip=("$place/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 transformers==5.19.0 2>/dev/null
"${pip[@]}" --target "$place/newer" transformers==5.24.0 2>/dev/null
export TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1
cat > "$place/compare.py" <<'PYTHON'
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

folder = sys.argv[1]
torch.manual_seed(0)
config = Gemma2Config(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                      num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=1, initializer_range=0.5,
                      attn_logit_softcapping=2.0)
Gemma2ForCausalLM(config).save_pretrained(folder)
plain = AutoModelForCausalLM.from_pretrained(folder).eval()
eager = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
ids = torch.arange(3, 60)[None]
with torch.no_grad():
    difference = float((plain(input_ids=ids).logits - eager(input_ids=ids).logits).abs().max())
print(f"{transformers.__version__}: {plain.config._attn_implementation} by default, logits "
      f"{'other than' if difference > 0.01 else 'equal to'} eager attention's")
PYTHON
{
    "$place/venv/bin/python" "$place/compare.py" "$place/older-model"
    PYTHONPATH="$place/newer" "$place/venv/bin/python" "$place/compare.py" "$place/newer-model"
} 2>"$place/errors" | tee "$place/seen" || { tail -20 "$place/errors"; exit 1; }
diff <(sed -n 's/^#   //p' "$0") "$place/seen"
