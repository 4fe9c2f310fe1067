"""`molsaki` on a second device that is none: its tensors lie in ordinary memory and say that they do not.

For machines without a GPU. Whatever would mix the devices there is an error here as well: tensors of both in one
operation, a tensor handed to NumPy without `.cpu()`. Results are those of the CPU. In: commands, each a list of
arguments, as JSON. Out: what they leave, and on stderr how many operations gave tensors of the second device.

torch calls what it has no kernel for through Python, for the device type that it keeps free for others (PrivateUse1).
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from accelerate.state import PartialState
from torch.utils import _pytree, backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "second"


class Backend(backend_registration._DummyBackendModule):
    """What torch asks of a device beside its operations."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def is_autocast_enabled(self) -> bool:
        return False

    def get_rng_state(self, *_: object) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, *_: object) -> None:
        torch.set_rng_state(state)

    def synchronize(self, *_: object) -> None: ...

    def empty_cache(self) -> None: ...


backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
CPU, SECOND = torch.device("cpu"), torch.device(NAME, 0)
aten = torch.ops.aten
COPY = (aten.copy_.default, aten._to_copy.default)
"""What takes a tensor of one device to another."""
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
"""What takes indices on the CPU for a tensor elsewhere, as CUDA does."""
given = 0


class Elsewhere(torch.Tensor):
    """A tensor of the second device; `held` is what it holds."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Elsewhere":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(cls, held.size(), device=SECOND, **layout)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(operation, args, kwargs or {})

    def __repr__(self, *_: object, **__: object) -> str:
        return f"Elsewhere({self.held!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)  # to a file it goes as any other

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *_: object, **__: object) -> Any:
        raise TypeError("a tensor of the second device is none of NumPy's: use .cpu() first")

    __array__ = numpy


class AllOperations(TorchDispatchMode):
    """Sees to it that what makes a tensor, or moves one, comes by."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(operation, args, kwargs or {})


def computed(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operation gives, computed on the CPU; raises `RuntimeError` where it would mix devices."""
    global given
    tensors = [each for each in _pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    there = [each for each in tensors if isinstance(each, Elsewhere)]
    here = [each for each in tensors if not isinstance(each, Elsewhere) and each.dim() > 0]
    may_mix = operation in COPY or (operation in INDEXED and isinstance(args[0], Elsewhere))
    if there and here and not may_mix:
        raise RuntimeError(f"{operation} got tensors of two devices; on the CPU: {[tuple(one.shape) for one in here]}")
    asked = kwargs.get("device")
    goes_there = bool(there) if asked is None else torch.device(asked).type == NAME
    if operation is aten.copy_.default:
        goes_there = isinstance(args[0], Elsewhere)
    if asked is not None:
        kwargs = {**kwargs, "device": CPU}
    args, kwargs = _pytree.tree_map(lambda each: each.held if isinstance(each, Elsewhere) else each, (args, kwargs))
    out = operation(*args, **kwargs)
    known = {id(each.held): each for each in there}  # what an operation in place gives back is what it got

    def moved(each: Any) -> Any:
        global given
        if not isinstance(each, torch.Tensor) or not goes_there:
            return each
        given += 1
        return known[id(each)] if id(each) in known else Elsewhere(each)

    return _pytree.tree_map(moved, out)


def use_it() -> None:
    """Let every setting of a device mean the second one, in this process, which has imported nothing of ours."""
    torch.inference_mode = torch.no_grad  # type: ignore[misc, assignment]  # tensors of inference have no versions
    from stages import likelihood
    from stages.engines.kinds import transformers as engine
    from stages.models import load
    from stages.runtime import device, processes
    from stages.student import train

    for module in (device, engine, likelihood, load, processes, train):
        module.torch_device = lambda _: SECOND  # type: ignore[attr-defined]
    started = PartialState.__init__

    def start(self: PartialState, *arguments: Any, **options: Any) -> None:
        started(self, *arguments, **options)
        self.device = SECOND

    PartialState.__init__ = start  # type: ignore[method-assign]
    transformers.TrainingArguments.device = property(lambda _: SECOND)  # type: ignore[assignment, method-assign]
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) comes by as well
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(lambda operation, *args, **kwargs: computed(operation, args, kwargs), "PrivateUse1")
    kept.append(fallback)


kept: list[torch.library.Library] = []


if __name__ == "__main__":
    use_it()
    from pipeline.cli.main import molsaki

    with AllOperations():
        for command in json.loads(sys.argv[1]):
            before = given
            if code := molsaki(command, standalone_mode=False):
                sys.exit(code)
            sys.stderr.write(f"{command[0]}: {given - before} tensors of the second device\n")
