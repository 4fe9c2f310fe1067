#!/usr/bin/env bash
# transformers 5.19.0: a Llama read from a GGUF file with scaled positions is a Llama with unscaled ones, silently.
#
# Behaviour: a GGUF file says how positions are scaled by LLAMA.rope.scaling.type and .factor, or, as files of Llama 3.1
# and later do, by a tensor rope_freqs.weight that divides the frequencies. from_pretrained(…, gguf_file=…) reads
# neither: the configuration has rope_type default, the tensor is left out, and the loading report lists no missing and
# no unexpected key. Two files that differ in nothing else give the same logits. Whoever converts a file has to look at
# the keys, and to count that every value of the file has found its place.
#
# Source: transformers/integrations/ggml.py of that version, GGUF_CONFIG_MAPPING["llama"], has rope.freq_base and
# rope.dimension_count only; transformers/modeling_gguf_pytorch_utils.py, load_gguf_checkpoint:
# `if name not in tensor_key_mapping: continue`.
#
# Output seen:
#   plain: rope_type default; missing 0, unexpected 0
#   scaled by 8: rope_type default; missing 0, unexpected 0
#   rope_freqs: rope_type default; missing 0, unexpected 0
#   logits of all three equal: True; of one scaled by its configuration: False
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" \
    torch==2.13.0 transformers==5.19.0 gguf==0.19.0 accelerate==1.15.0 2>/dev/null
PYTHONPATH="$place/packages" TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 python3 - "$place" > "$place/seen" <<'PYTHON'
import sys

import numpy as np
import torch
from gguf import GGUFWriter, RopeScalingType
from transformers import AutoModelForCausalLM

place = sys.argv[1]
ids = torch.tensor([[1, 5, 9, 2, 7, 3, 8, 4]])


def model_of(name, scaled=False, frequencies=False, **arguments):
    """A random Llama from a file; the same weights each time."""
    random = np.random.default_rng(0)
    writer = GGUFWriter(f"{place}/{name}.gguf", "llama")
    for key, value in {"block_count": 1, "context_length": 64, "embedding_length": 8, "feed_forward_length": 8,
                       "attention.head_count": 1, "attention.head_count_kv": 1, "rope.dimension_count": 8,
                       "vocab_size": 16}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    if scaled:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(8.0)
    if frequencies:
        writer.add_tensor("rope_freqs.weight", np.full(4, 8, np.float32))
    block = {one: (8, 8) for one in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    block |= {"attn_norm": (8,), "ffn_norm": (8,)}
    shapes = {"token_embd": (16, 8), "output_norm": (8,), **{f"blk.0.{one}": shape for one, shape in block.items()}}
    for one, shape in shapes.items():
        writer.add_tensor(f"{one}.weight", random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return AutoModelForCausalLM.from_pretrained(
        place, gguf_file=f"{name}.gguf", output_loading_info=True, **arguments
    )


logits = []
for name, options in (("plain", {}), ("scaled by 8", {"scaled": True}), ("rope_freqs", {"frequencies": True})):
    model, report = model_of(name.replace(" ", "_"), **options)
    logits.append(model(ids).logits)
    counts = f"missing {len(report['missing_keys'])}, unexpected {len(report['unexpected_keys'])}"
    print(f"{name}: rope_type {model.config.rope_parameters['rope_type']}; {counts}")
scaling = {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0}
really, _ = model_of("really", rope_parameters=scaling)
same = all(torch.equal(logits[0], other) for other in logits)
print(f"logits of all three equal: {same}; of one scaled by its configuration:", torch.equal(logits[0], really(ids).logits))
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
plain: rope_type default; missing 0, unexpected 0
scaled by 8: rope_type default; missing 0, unexpected 0
rope_freqs: rope_type default; missing 0, unexpected 0
logits of all three equal: True; of one scaled by its configuration: False
EXPECTED
echo "as described"
