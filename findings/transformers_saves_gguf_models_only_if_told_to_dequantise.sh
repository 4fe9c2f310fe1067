#!/usr/bin/env bash
# transformers 5.19.0: a model read from a GGUF file cannot be saved, though it is a plain one, unless GgufConfig was given.
#
# Behaviour: from_pretrained(…, gguf_file=…) hands back, for Llama and every other architecture of the older reader, a
# model of ordinary layers with float32 weights: nothing of it is quantised. save_pretrained raises ValueError all the
# same, and points to warnings in the log, where there are none. The very same weights, read with
# quantization_config=GgufConfig(dequantize=True), are saved; neither the message nor the docstring of save_pretrained
# says so.
#
# Source: transformers/quantizers/auto.py of that version, get_hf_quantizer: `if not getattr(…, "dequantize", False)`;
# quantizers/quantizer_gguf.py, GgufHfQuantizer: validate_environment, which sets dequantize where no kernel is there,
# returns before that for architectures of the older reader, and is_serializable returns False.
#
# Output seen:
#   as it is: Embedding Linear LlamaRMSNorm of torch.float32; ValueError, The model is quantized with
#   QuantizationMethod.GGUF and is not serializable
#   GgufConfig(dequantize=True): Embedding Linear LlamaRMSNorm of torch.float32; saved
#   weights equal: True
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" \
    torch==2.13.0 transformers==5.19.0 gguf==0.19.0 accelerate==1.15.0 2>/dev/null
PYTHONPATH="$place/packages" TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 python3 - "$place" > "$place/seen" <<'PYTHON'
import sys

import numpy as np
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, GgufConfig

place = sys.argv[1]
writer = GGUFWriter(f"{place}/model.gguf", "llama")
for key, value in {"block_count": 1, "context_length": 64, "embedding_length": 8, "feed_forward_length": 8,
                   "attention.head_count": 1, "attention.head_count_kv": 1, "rope.dimension_count": 8,
                   "vocab_size": 16}.items():
    writer.add_uint32(f"llama.{key}", value)
writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
of_block = {name: (8, 8) for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
of_block |= {"attn_norm": (8,), "ffn_norm": (8,)}
shapes = {"token_embd": (16, 8), "output_norm": (8,), **{f"blk.0.{name}": shape for name, shape in of_block.items()}}
for name, shape in shapes.items():
    writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

models = []
ways = {"as it is": {}, "GgufConfig(dequantize=True)": {"quantization_config": GgufConfig(dequantize=True)}}
for way, arguments in ways.items():
    model = AutoModelForCausalLM.from_pretrained(place, gguf_file="model.gguf", **arguments)
    kinds = sorted({type(one).__name__ for one in model.modules() if list(one.parameters(recurse=False))})
    dtypes = {str(one.dtype) for one in model.parameters()}
    try:
        model.save_pretrained(f"{place}/saved")
        end = "saved"
    except ValueError as error:
        end = f"ValueError, {str(error).partition(' - ')[0]}"
    print(f"{way}: {' '.join(kinds)} of {' '.join(dtypes)}; {end}")
    models.append(model.state_dict())
first, second = models
print("weights equal:", first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first))
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
as it is: Embedding Linear LlamaRMSNorm of torch.float32; ValueError, The model is quantized with QuantizationMethod.GGUF and is not serializable
GgufConfig(dequantize=True): Embedding Linear LlamaRMSNorm of torch.float32; saved
weights equal: True
EXPECTED
echo "as described"
