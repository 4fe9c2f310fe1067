#!/usr/bin/env bash
# vLLM 0.33.0: FlashInfer's attention metadata, unlike those of nine other back-ends, has no `query_start_loc`.
#
# Behaviour: an attention implementation's `forward` gets, as `attn_metadata`, what its back-end's builder has made. Code that looks
# at queries from there (a worker extension, a hook, a custom layer) finds where each request's tokens begin in
# `attn_metadata.query_start_loc`, with FlashAttention, Triton, FlexAttention, the CPU, ROCm's and others. FlashInferMetadata has
# no such field: it holds wrappers that were planned with it, for decodes and prefills apart. vLLM takes FlashInfer first on
# compute capability 10 (Blackwell) and FlashAttention on others, so that such code runs on a Hopper and ends with an
# AttributeError on a Blackwell. The runner has the numbers in any case, before a layer is called: `model_runner.query_start_loc`,
# with a copy on the CPU (`.np`), which costs no wait for the device either. 0.32.0 is the same.
#
# Source: vllm/v1/attention/backends/*.py (the classes' fields), vllm/platforms/cuda.py (_get_backend_priorities) and
# vllm/v1/worker/gpu_model_runner.py (_prepare_inputs) of the wheel; read, not run: there the classes import CUDA's libraries.
#
# Output seen:
#   with query_start_loc: b12x cpu_attn flash_attn flex_attention rocm_aiter_fa rocm_attn rocm_octave_attn triton_attn turboquant_attn
#   without: flashinfer hpc_attn
#   capability 10: FLASHINFER before FLASH_ATTN; others: FLASH_ATTN before FLASHINFER
#   the runner's own: query_start_loc.np
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$place" vllm==0.33.0 2>/dev/null
python3 - "$place" <<'PYTHON' | tee "$place/said"
import ast, pathlib, sys, zipfile

(wheel,) = pathlib.Path(sys.argv[1]).glob("*.whl")
files = zipfile.ZipFile(wheel)


def tree(name):
    return ast.parse(files.read(name).decode())


told = {}
folder = "vllm/v1/attention/backends/"
for name in files.namelist():
    if not name.startswith(folder) or "/" in name.removeprefix(folder) or not name.endswith(".py"):
        continue
    for node in ast.walk(tree(name)):
        if not isinstance(node, ast.ClassDef) or not node.name.endswith("Metadata"):
            continue
        fields = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)}
        if "slot_mapping" in fields:  # of attention with a cache of keys and values, not of a part of it
            told[name.removeprefix(folder).removesuffix(".py")] = "query_start_loc" in fields
print("with query_start_loc:", *sorted(one for one, has in told.items() if has))
print("without:", *sorted(one for one, has in told.items() if not has))

lists = [
    [each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute) and each.attr in ("FLASHINFER", "FLASH_ATTN")]
    for node in ast.walk(tree("vllm/platforms/cuda.py"))
    if isinstance(node, ast.Return) and isinstance(node.value, ast.List)
]
first, second = [" before ".join(one) for one in lists if len(one) == 2][:2]
print(f"capability 10: {first}; others: {second}")
runner = files.read("vllm/v1/worker/gpu_model_runner.py").decode()
print("the runner's own:", "query_start_loc.np" if "self.query_start_loc.np[1 : num_reqs + 1] = cu_num_tokens" in runner else "none")
PYTHON
sed -n '/^# Output seen:/,/^set/s/^#   //p' "$0" | diff - "$place/said" && echo "as described"
