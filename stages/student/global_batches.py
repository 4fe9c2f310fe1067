"""Which records each process takes in each step: the same training, however many processes share it.

In: how many records there are, the batch size over all processes, the number of processes and a seed. Out: for one
process the record numbers of its share of every batch, epoch after epoch; and how much each share counts.

A batch is cut into one share a process. Shares may hold different numbers of records and of target tokens, so a mean
over a share is weighed by `shares`: the mean over all shares of an optimizer step is then the mean over all of its
records or tokens, as if one process had seen them in one batch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from stages.head import IGNORED
from stages.runtime.processes import Processes
from stages.student.texts import TrainingRecord

ONLY_TAKES_PART = -1
"""Number of a record that a process computes because there is none for it, and that counts nothing."""


class NumberedRecords(Dataset[tuple[int, TrainingRecord]]):
    """Training records with their numbers; below zero stands the first record, as one that only takes part."""

    def __init__(self, records: Sequence[TrainingRecord]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> tuple[int, TrainingRecord]:
        return (number, self._records[max(number, 0)])


class Shares(Sampler[list[int]]):
    """Record numbers of one process's share of every batch; their order follows from seed and epoch."""

    def __init__(self, records: int, batch_size: int, processes: Processes, *, seed: int) -> None:
        self._records, self._batch_size, self._processes, self._seed = records, batch_size, processes, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counted from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self._records // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self._records, generator=torch.Generator().manual_seed(self._seed + self._epoch))
        for start in range(0, self._records, self._batch_size):
            batch = order[start : start + self._batch_size].numpy()
            share = np.array_split(batch, self._processes.count)[self._processes.index]
            yield share.tolist() or [ONLY_TAKES_PART]


class ShareLoader(DataLoader[Any]):
    """A loader of shares that the Trainer tells the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        assert isinstance(self.batch_sampler, Shares)
        self.batch_sampler.set_epoch(epoch)


def counts(batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Records of a share and target tokens of each of its tasks, by the name of what they weigh in the batch."""
    if batch["record"].eq(ONLY_TAKES_PART).any():
        return dict.fromkeys(_counted(batch), 0.0)
    return {name: float(values.sum()) for name, values in _counted(batch).items()}


def _counted(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    tasks = [name.removesuffix("_labels") for name in batch if name.endswith("_labels")]
    targets = {f"{task}_share": batch[f"{task}_labels"][:, 1:].ne(IGNORED) for task in tasks}
    labelled = {"soft_share": batch["soft_counted"]} if "soft_counted" in batch else {}
    return {"record_share": torch.ones_like(batch["record"]), **targets, **labelled}
