#!/usr/bin/env bash
# torch 2.13.0: torch.tensor(…, device=…) ends in an internal assertion on a device whose operations are a Python fallback.
#
# Behaviour: a device may be written in Python alone: its key set up by torch.utils.backend_registration, tensors that are wrapper
# subclasses, and one fallback registered for "PrivateUse1" that does every operation. Factories (torch.ones with device=)
# and moves (.to) come by the fallback as they should, and backward passes work. torch.tensor and Tensor.new_tensor with
# device= do not come by: they copy their numbers with Python's dispatch switched off, and the fallback, which is Python, is not
# found: "func != nullptr INTERNAL ASSERT FAILED". After torch._C._set_only_lift_cpu_tensors(True), which FakeTensorMode sets for
# itself, they make the tensor on the CPU and move it, and all is well. 2.14.0 does the same.
#
# Source: torch/csrc/utils/tensor_new.cpp (internal_new_from_data excludes the Python keys) and python_dispatch.cpp, the assertion;
# the set-up is github.com/pytorch/pytorch/pull/157859.
#
# Output seen:
#   ones: slate:0
#   tensor, then moved: slate:0
#   tensor(device=): RuntimeError, INTERNAL ASSERT
#   new_tensor: RuntimeError, INTERNAL ASSERT
#   tensor(device=), lifting CPU tensors only: slate:0
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" torch==2.13.0 2>/dev/null
PYTHONPATH="$place/packages" python3 -W ignore - <<'PYTHON' | tee "$place/said"
import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_map

backend_registration._setup_privateuseone_for_python_backend("slate")
HERE = torch.device("slate", 0)


class Slate(torch.Tensor):
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        made = torch.Tensor._make_wrapper_subclass(cls, held.size(), dtype=held.dtype, device=HERE)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return on_slate(operation, *args, **(kwargs or {}))


def on_slate(operation, *args, **kwargs):
    if "device" in kwargs:
        kwargs["device"] = "cpu"
    args, kwargs = tree_map(lambda one: one.held if isinstance(one, Slate) else one, (args, kwargs))
    return tree_map(lambda one: Slate(one) if isinstance(one, torch.Tensor) else one, operation(*args, **kwargs))


library = torch.library.Library("_", "IMPL")
library.fallback(on_slate, "PrivateUse1")


def tried(what, make):
    try:
        said = make().device
    except RuntimeError as error:
        said = "RuntimeError, INTERNAL ASSERT" if "INTERNAL ASSERT" in str(error) else error
    print(f"{what}: {said}")


tried("ones", lambda: torch.ones(2, device="slate"))
tried("tensor, then moved", lambda: torch.tensor([1, 2]).to("slate"))
tried("tensor(device=)", lambda: torch.tensor([1, 2], device="slate"))
tried("new_tensor", lambda: torch.ones(2, device="slate").new_tensor([1]))
torch._C._set_only_lift_cpu_tensors(True)
tried("tensor(device=), lifting CPU tensors only", lambda: torch.tensor([1, 2], device="slate"))
PYTHON
sed -n '/^# Output seen:/,/^set/s/^#   //p' "$0" | diff - "$place/said" && echo "as described"
