"""Clock, peak memory and files of a piece of work: what every benchmark of ours measures with.

In: works, that is functions without arguments, and the device they run on, or a folder. Out: seconds of each in each
round, and bytes. Two habits make the figures worth comparing. Works to be compared take turns within one process, so
that a machine that becomes slower for a minute becomes slower for all of them. And peak memory belongs to a process and
never goes down again, so whoever wants it of one work gives it a process of its own.

Importing costs no torch: it would be in the figures of whoever needs none.

Without root, pages of one file can be given up (`posix_fadvise`), while the system still knows names and places of the
files: what is read afterwards is cold in content, not in metadata. Pages that are not on disk yet stay.
"""

import os
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from stages.runtime.memory import peak_resident_bytes, resident_bytes

if TYPE_CHECKING:
    import torch

Name = TypeVar("Name", bound=str)
Result = TypeVar("Result")
Work: TypeAlias = Callable[[], object]
MATMUL = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product is a device's peak."""
MATMULS = 5
Rounds: TypeAlias = tuple[float | None, ...]
"""Seconds of one work in each round; None in the rounds that it sat out."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of this process: `baseline_bytes` before a piece of work, `peak_bytes` the most until after it.

    On a CPU it is resident memory, libraries included; on a GPU what torch has allocated there.
    """

    baseline_bytes: int
    peak_bytes: int


def nothing() -> None:
    """What is done after each piece of work where nobody watches."""


def clock(work: Work, device: "torch.device") -> float:
    """Seconds that `work` takes, until the device has finished it too."""
    _finish(device)
    started = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - started


def warmed_up(
    works: Mapping[Name, Callable[[], Result]],
    *,
    before_each: Callable[[Name], object] = lambda _name: None,
    after_each: Work = nothing,
) -> dict[Name, Result]:
    """Do each work once, without a clock; what those return that do not run out of memory."""
    from stages.runtime.device import unless_out_of_memory

    found = {}
    for name, work in works.items():
        before_each(name)
        result = unless_out_of_memory(lambda work=work: (work(),))  # type: ignore[misc]
        after_each()
        if result is not None:
            found[name] = result[0]
    return found


def take_turns(
    works: Mapping[Name, Work],
    *,
    rounds_of: Mapping[Name, Collection[int]],
    device: "torch.device",
    before_each: Callable[[Name], object] = lambda _name: None,
    after_each: Work = nothing,
) -> dict[Name, Rounds]:
    """Seconds of each work in each of the rounds that it takes part in; warming up is the caller's.

    `before_each` is told the name of the work and, like `after_each`, stays outside of the clock. Every second round
    goes backwards, so that no work always follows the same other one. A work that runs out of memory is left out of the
    result.
    """
    from stages.runtime.device import unless_out_of_memory

    repeats = 1 + max((turn for rounds in rounds_of.values() for turn in rounds), default=-1)
    seconds: dict[Name, list[float | None]] = {name: [None] * repeats for name in works}
    for turn in range(repeats):
        for name in list(seconds)[:: 1 if turn % 2 == 0 else -1]:
            if turn not in rounds_of[name]:
                continue
            before_each(name)
            took = unless_out_of_memory(partial(clock, works[name], device))
            after_each()
            if took is None:
                del seconds[name]
            else:
                seconds[name][turn] = took
    return {name: tuple(rounds) for name, rounds in seconds.items()}


def spread_rounds(repeats: int, most: int) -> tuple[int, ...]:
    """At most `most` of the rounds 0 … repeats − 1, evenly spread, the first among them."""
    count = min(repeats, most)
    return tuple(i * repeats // count for i in range(count))


def rounds_of(names: Iterable[Name], repeats: int, most: Mapping[Name, int]) -> dict[Name, tuple[int, ...]]:
    """The rounds that each work takes part in: all, or at most as many as `most` says."""
    return {name: spread_rounds(repeats, most.get(name, repeats)) for name in names}


def median(rounds: Rounds) -> float:
    """Median of the rounds that there were."""
    return statistics.median(seconds for seconds in rounds if seconds is not None)


def fastest(rounds: Rounds) -> float:
    """Seconds of the fastest round: what else a machine does only ever adds to them."""
    return min(seconds for seconds in rounds if seconds is not None)


def median_ratio(rounds: Rounds, reference: Rounds) -> float | None:
    """Median of the ratios round by round, over those that both took part in; None where there are none.

    A slow minute is in both sides of a ratio, while medians of the two sides may come from different minutes.
    """
    pairs = zip(rounds, reference, strict=True)
    ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    return statistics.median(ratios) if ratios else None


def floating_point_operations(work: Work) -> int:
    """What `work` takes, as torch counts it by the shapes of matrix products and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def matmul_peak(device: "torch.device", dtype: "torch.dtype") -> float:
    """Floating-point operations a second of a large matrix product here, the fastest of some."""
    import torch

    size = MATMUL[device.type]
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    torch.matmul(left, right)
    return 2 * size**3 / min(clock(partial(torch.matmul, left, right), device) for _ in range(MATMULS))


def measure_memory(work: Work, device: "torch.device") -> Memory:
    """Do `work` once, in a process that has done nothing but prepare it."""
    _finish(device)
    baseline = bytes_in_use(device)
    work()
    _finish(device)
    return Memory(baseline_bytes=baseline, peak_bytes=peak_bytes(device))


def bytes_in_use(device: "torch.device") -> int:
    """Memory of this process now."""
    cuda = _cuda(device)
    return cuda.memory_allocated(device) if cuda else resident_bytes()


def peak_bytes(device: "torch.device") -> int:
    """The most memory that this process has had."""
    cuda = _cuda(device)
    return cuda.max_memory_allocated(device) if cuda else peak_resident_bytes()


def _finish(device: "torch.device") -> None:
    if cuda := _cuda(device):
        cuda.synchronize(device)


def _cuda(device: "torch.device") -> Any:
    """`torch.cuda` where that is where the work is done."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda


# Files and their place in memory ----------------------------------------------------------------------------------
CAN_DROP = hasattr(os, "posix_fadvise")
BLOCK_BYTES = 512
"""Unit of `st_blocks`, whatever the blocks of the file system are."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What lies below a folder: files, their bytes, and the bytes that the file system keeps for them."""

    files: int
    bytes: int
    allocated_bytes: int


def size_of(path: Path) -> Size:
    """Add up the files below a folder, or take a single file."""
    found = [file.stat() for file in _files(path)]
    return Size(
        files=len(found),
        bytes=sum(one.st_size for one in found),
        allocated_bytes=BLOCK_BYTES * sum(one.st_blocks for one in found),
    )


def drop(path: Path) -> bool:
    """Give up the cached pages of all files below `path`; False where the system has no such call."""
    if not CAN_DROP:
        return False
    for file in _files(path):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def warm(path: Path) -> None:
    """Read all files below `path` once."""
    for file in _files(path):
        file.read_bytes()


def _files(path: Path) -> Iterator[Path]:
    return (file for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file())
