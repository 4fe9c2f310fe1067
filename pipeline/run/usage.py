"""What a process takes: clock, processor time, peak memory and disk, measured alike for a stage and for its sample.

In: a context around the work, folders. Out: `Used`. Memory is that of the process and of all that it starts, because
vLLM computes in a process of its own: a thread looks every so often, since what has ended can be asked nothing. Linux
keeps the peak of each process itself, so little is lost between two looks.
"""

import os
import resource
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from stages.runtime.memory import peak_resident_bytes

LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Used:
    """Seconds by the clock and of processors, peak resident bytes, and the most that torch reserved on a GPU."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    peak_gpu_bytes: int


class Usage:
    """Measures from entering the context on; the peak of this process counts from its start."""

    def __init__(self) -> None:
        self._peaks: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._clock, self._cpu = time.monotonic(), cpu_seconds()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def so_far(self) -> Used:
        """What was used until now."""
        self._look()
        return Used(
            seconds=round(time.monotonic() - self._clock, 3),
            cpu_seconds=round(cpu_seconds() - self._cpu, 3),
            peak_bytes=peak_resident_bytes() + sum(self._peaks.values()),
            peak_gpu_bytes=_gpu_peak(),
        )

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        """Keep what each process says last; its peak never falls, but until it runs a program of its own it is ours."""
        for process in psutil.Process().children(recursive=True):
            if found := peak_resident_bytes(process.pid):
                self._peaks[process.pid] = found


def cpu_seconds() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def disk_bytes(folders: Iterable[Path]) -> int:
    """Size of all files below `folders`, links not followed."""
    return sum(_size(Path(root) / name) for folder in folders for root, _, names in os.walk(folder) for name in names)


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):  # a temporary file of somebody who writes there too
        return path.lstat().st_size
    return 0


def _gpu_peak() -> int:
    """What torch has reserved at most on all GPUs, where a stage has loaded torch."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0
    return sum(int(torch.cuda.max_memory_reserved(device)) for device in range(torch.cuda.device_count()))
