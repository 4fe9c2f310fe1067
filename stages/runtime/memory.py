"""How much memory a process has: its number enters, bytes leave. Without torch, so that asking does not change it."""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import psutil


def resident_bytes() -> int:
    """Memory of this process now, libraries included."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes(process: int | None = None) -> int:
    """The most memory that a process has had, this one where none is named; 0 where it has ended.

    Linux counts it for the program that runs (VmHWM), which psutil does not tell. `ru_maxrss` is no substitute there: a
    new process inherits it from the one that started it. Elsewhere it is that, and of another process what it has now.
    """
    number = os.getpid() if process is None else process
    with suppress(OSError):
        for line in Path(f"/proc/{number}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    if number == os.getpid():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    with suppress(psutil.Error):
        return int(psutil.Process(number).memory_info().rss)
    return 0
