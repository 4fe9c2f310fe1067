"""What to do where memory runs out: know it from other errors, and give back what was taken.

In: a piece of work. Out: its result, or None where the memory of the device or of the host did not suffice.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

log = logging.getLogger(__name__)
T = TypeVar("T")


def unless_out_of_memory(work: Callable[[], T]) -> T | None:
    """What `work` returns, or None where it runs out of memory; what it had taken is free again then."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        log.info("out of memory: %s", error)
    clear_device_cache(garbage_collection=True)
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the memory of the device or of the host did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # Plain RuntimeErrors: accelerate knows those of the allocators, cuBLAS has one of its own.
    return should_reduce_batch_size(error) or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)
