"""Starting the processes of vLLM sooner: on a CPU there are two, and each would load 15 seconds of modules by itself.

The first of them is forked from the process that uses vLLM and has loaded everything; on GPUs vLLM does so on its own,
and on a CPU it need not spawn it either, since all that computes is in the second. That one is spawned, for it has to
find other settings of OpenMP. What it loads before all else is this file, by which Python looks for cycles of garbage
less often while it loads the rest, and not again as it ends.
"""

import gc
import multiprocessing
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from importlib import import_module

from stages.runtime.imports import end_without_searching

WHILE_LOADING = (200_000, 50, 1_000)
"""`gc.set_threshold`: objects before a search among the youngest, and how many of each kind before the next."""
CHOOSING = "get_mp_context"
"""Where vLLM 0.32 and 0.33 choose how their first process is started; nobody promises that it stays."""


@contextmanager
def starting_soon(*, on_cpu: bool) -> Iterator[None]:
    """Inside, vLLM's first process is a fork, and spawned ones load this file in place of our main module."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = import_module(__name__)
    try:
        with forking() if on_cpu else nullcontext():
            yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def forking() -> Iterator[None]:
    """Let vLLM fork its first process; a version that decides that elsewhere does as it wants."""
    module = "vllm.v1.engine.utils"
    with suppress(ImportError):
        import_module(module)
    chooser = sys.modules.get(module)
    if not hasattr(chooser, CHOOSING):
        yield
        return
    usual = getattr(chooser, CHOOSING)
    setattr(chooser, CHOOSING, partial(multiprocessing.get_context, "fork"))
    try:
        yield
    finally:
        setattr(chooser, CHOOSING, usual)


def search_rarely_while_loading() -> None:
    """Search for garbage as usual only once vLLM has frozen what it has loaded, which workers on a CPU never do."""
    usual = gc.get_threshold()

    def again(_phase: str, _found: Mapping[str, int]) -> None:
        if gc.get_freeze_count():
            gc.set_threshold(*usual)
            gc.callbacks.remove(again)

    gc.set_threshold(*WHILE_LOADING)
    gc.callbacks.append(again)


if __name__ == "__mp_main__":  # so `multiprocessing` calls the main module of who spawned this process
    search_rarely_while_loading()
    end_without_searching()
