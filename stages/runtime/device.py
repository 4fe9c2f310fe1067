"""Devices and their memory: which one a setting names, and what to do where its memory runs out.

In: a setting, or a piece of work. Out: a torch device; the work's result, or None where memory did not suffice.
"""

import logging
import os
from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from data.errors import ConfigError
from stages.runtime.shard import Shard, local_rank
from stages.settings import Device

log = logging.getLogger(__name__)
T = TypeVar("T")


def unless_out_of_memory(work: Callable[[], T]) -> T | None:
    """What `work` returns, or None where it runs out of memory; what it had taken is free again then."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error)
        # Plain RuntimeErrors: accelerate knows those of the allocators, cuBLAS has one of its own.
        if not known and "CUBLAS_STATUS_ALLOC_FAILED" not in str(error):
            raise
        log.info("out of memory: %s", error)
    clear_device_cache(garbage_collection=True)
    return None


def torch_device(device: Device) -> torch.device:
    """The device that a setting names; `auto` is the GPU where there is one, with `LOCAL_RANK` that of this process.

    The GPU that `LOCAL_RANK` picks also becomes torch's current one, lest whatever names no GPU meets on the first one
    of all processes. Raises `ConfigError` where a GPU is asked for and torch finds none, or not as many.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: `cuda` was asked for, but torch finds no CUDA device; use `auto` or `cpu`")
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    rank = local_rank(os.environ)
    if rank is None:
        return torch.device("cuda")
    if rank >= (visible := torch.cuda.device_count()):
        raise ConfigError(
            f"LOCAL_RANK={rank} in the environment picks a GPU counted from 0, but torch sees {visible}: start no more "
            "processes than GPUs on a machine, or unset LOCAL_RANK where each process sees its own GPU only"
        )
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


def share_gpus(job: Shard) -> None:
    """Let this process see one GPU, in turn, and take its part of the memory of that; nothing without GPUs."""
    gpus = torch.cuda.device_count()  # as the driver says it: CUDA itself is not begun yet
    if gpus == 0:
        return
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = list(map(str, range(gpus))) if seen is None else [name.strip() for name in seen.split(",") if name.strip()]
    own = (job.index - 1) % gpus
    os.environ["CUDA_VISIBLE_DEVICES"] = names[own]
    beside = sum(1 for other in range(job.count) if other % gpus == own)
    torch.cuda.set_per_process_memory_fraction(1 / beside)
