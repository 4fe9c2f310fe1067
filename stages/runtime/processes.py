"""Processes that train one student together: which one this is, and waiting for the others.

In: the variables that torchrun, `accelerate launch` or `molsaki` itself set (`RANK`, `WORLD_SIZE`). Out: a `Processes`.
Each process computes its share of every batch and the gradients are averaged; the first one, the main process, writes.
"""

from dataclasses import dataclass

import torch
from accelerate import PartialState

from data.errors import ConfigError
from stages.runtime.device import torch_device
from stages.runtime.progress import StopSignal, interrupted
from stages.settings import Device


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Which process this is, counted from 0, and how many there are."""

    index: int
    count: int

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            PartialState().wait_for_everyone()

    def any(self, flag: bool) -> bool:
        """Whether it is true in any of the processes; all of them have to ask."""
        return self.total([float(flag)])[0] > 0

    def check(self, stop: StopSignal, saved: str) -> None:
        """Raise `Interrupted` in every process if a signal has come to any; all of them have to ask."""
        if self.any(stop.received is not None):
            stop.check(saved)
            raise interrupted("a signal to another process", saved)

    def total(self, values: list[float]) -> list[float]:
        """Sums over all processes; all of them have to ask."""
        if self.count == 1:
            return values
        numbers = torch.tensor(values, device=PartialState().device)
        torch.distributed.all_reduce(numbers)
        found: list[float] = numbers.tolist()
        return found


def join_processes(device: Device, *, batch_size: int) -> Processes:
    """Meet the other processes, if there are any; raises `ConfigError` where the batch has no share for each."""
    state = PartialState(cpu=torch_device(device).type == "cpu")
    processes = Processes(index=state.process_index, count=state.num_processes)
    if batch_size < processes.count:
        raise ConfigError(
            f"training.batch_size {batch_size}: it is shared out over {processes.count} processes, each of which needs "
            "at least one record; start fewer, or raise it"
        )
    return processes
