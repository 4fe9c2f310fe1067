#!/usr/bin/env bash
# transformers 5.19.0: texts packed into one row by position_ids are kept apart only where use_cache=False is said.
#
# Behaviour: several texts lie one behind the other in a row, and positions begin at 0 with each. Without an attention mask,
# create_causal_mask looks for such beginnings and keeps the texts apart. By default a model makes a cache of keys and
# values, also without gradients in sight; then the beginnings are not looked for, and each text sees the ones in front
# of it. Nothing is said, and the logits are those of no text. A mask of ones in attention_mask has the same effect.
#
# Source: transformers/masking_utils.py of that version, _preprocess_mask_arguments: "only if the 2D attention mask is
# explicitly None, and we don't have past_key_values"; the default of use_cache is the configuration's, True.
#
# Output seen:
#   position_ids alone: not the logits of each text alone
#   and use_cache=False: the logits of each text alone
#   and attention_mask of ones: not the logits of each text alone
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" \
    torch==2.13.0 transformers==5.19.0 2>/dev/null
PYTHONPATH="$place/packages" TRANSFORMERS_VERBOSITY=error python3 - > "$place/seen" <<'PYTHON'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                initializer_range=0.3)
).eval()
texts = [torch.arange(3, 9), torch.arange(20, 25)]
row = torch.cat(texts)[None]
positions = torch.cat([torch.arange(len(text)) for text in texts])[None]
with torch.no_grad():
    alone = torch.cat([model(input_ids=text[None]).logits[0] for text in texts])
    for name, more in (
        ("position_ids alone", {}),
        ("and use_cache=False", {"use_cache": False}),
        ("and attention_mask of ones", {"use_cache": False, "attention_mask": torch.ones_like(row)}),
    ):
        packed = model(input_ids=row, position_ids=positions, **more).logits[0]
        same = torch.allclose(packed, alone, atol=1e-5)
        print(f"{name}: {'' if same else 'not '}the logits of each text alone")
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
position_ids alone: not the logits of each text alone
and use_cache=False: the logits of each text alone
and attention_mask of ones: not the logits of each text alone
EXPECTED
echo "as described"
