#!/usr/bin/env bash
# transformers 5.19.0: Gemma 2 and VaultGemma, loaded as they come, compute their attention without its soft cap, silently.
#
# Behaviour: the scores of their attention are capped, attn_logit_softcapping · tanh(scores / attn_logit_softcapping). Only
# eager attention does so. The default is torch's fused function, which leaves the cap out: the logits are those of a model
# whose configuration has none. From 5.24.0 on these two say that they do not support that function, are loaded with eager
# attention, and the function itself refuses a cap.
#
# Source: transformers/integrations/sdpa_attention.py of that version, sdpa_attention_forward, in whose **kwargs `softcap`
# ends; _supports_sdpa = True in models/gemma2/modeling_gemma2.py and models/vaultgemma/modeling_vaultgemma.py.
#
# Output seen:
#   gemma2, sdpa by default: the logits without a cap, not those of eager attention
#   vaultgemma, sdpa by default: the logits without a cap, not those of eager attention
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" \
    torch==2.13.0 transformers==5.19.0 2>/dev/null
PYTHONPATH="$place/packages" TRANSFORMERS_VERBOSITY=error python3 - > "$place/seen" <<'PYTHON'
import torch
from transformers import AutoConfig, AutoModelForCausalLM


def logits(kind, cap, **given):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, pad_token_id=0, attn_logit_softcapping=cap,
    )
    model = AutoModelForCausalLM.from_config(config, **given).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 23)[None]).logits, model.config._attn_implementation


for kind in ("gemma2", "vaultgemma"):
    found, implementation = logits(kind, 0.1)
    without = torch.allclose(found, logits(kind, None)[0], atol=1e-4)
    same = torch.allclose(found, logits(kind, 0.1, attn_implementation="eager")[0], atol=1e-4)
    print(f"{kind}, {implementation} by default: the logits with{'out' if without else ''} a cap,"
          f" {'' if same else 'not '}those of eager attention")
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
gemma2, sdpa by default: the logits without a cap, not those of eager attention
vaultgemma, sdpa by default: the logits without a cap, not those of eager attention
EXPECTED
echo "as described"
