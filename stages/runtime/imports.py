"""Importing at full speed: Python's search for cycles of garbage rests meanwhile.

Loading torch, transformers and what a stage needs makes 700,000 objects that stay; CPython 3.11 looks through them
again and again while they are made, and once more when the process ends: two fifths of what starting a stage takes.
"""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import inside without a search for garbage; what was loaded is left out of all later ones.

    That goes for all that there is by then, so it is for the beginning of a stage, before there is a model. Where
    everything is loaded already, nothing changes: what a stage has made can still be garbage.
    """
    loaded, searches = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > loaded:
            gc.freeze()
        if searches:
            gc.enable()


COUNTS_ITS_OBJECTS = "triton._C.libtriton"
"""Triton 3.9, of torch 2.15, is bound by nanobind, which writes of all objects that are left as a process ends."""


def end_without_searching() -> None:
    """Let the process end without looking for garbage in what the system is about to take back."""
    atexit.register(leave_garbage)


def leave_garbage() -> None:
    """Take all there is out of the last search, or, where a library would complain of that, nothing."""
    if COUNTS_ITS_OBJECTS in sys.modules:
        gc.unfreeze()
    else:
        gc.freeze()
