"""How much memory this process has: nothing enters, bytes leave. Without torch, so that asking does not change it."""

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Memory of this process now, libraries included; where the system does not tell, the most it has had."""
    return _from_status("VmRSS") if STATUS.exists() else peak_resident_bytes()


def peak_resident_bytes() -> int:
    """The most memory that this process has had.

    Linux counts it for the program that runs (VmHWM). Its `ru_maxrss` is no substitute there: a new process inherits
    it from the one that started it.
    """
    if STATUS.exists():
        return _from_status("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _from_status(field: str) -> int:
    """A field of Linux' account of this process, which is in units of 1,024 bytes."""
    (line,) = (line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])
