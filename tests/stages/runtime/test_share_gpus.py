"""What each of several processes of one machine gets of its GPUs."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages.runtime.device import share_gpus
from stages.runtime.shard import Shard


@pytest.mark.parametrize(
    ("gpus", "seen", "jobs", "expected"),
    [
        (0, None, 2, [(None, None), (None, None)]),
        (1, None, 3, [("0", 1 / 3)] * 3),
        (2, None, 3, [("0", 1 / 2), ("1", 1.0), ("0", 1 / 2)]),
        (2, "5, GPU-7", 2, [("5", 1.0), ("GPU-7", 1.0)]),
    ],
)
def test_gpus_are_dealt_out_in_turn_and_their_memory_in_parts(
    gpus: int, seen: str | None, jobs: int, expected: list[Any], monkeypatch: pytest.MonkeyPatch
):
    found: list[tuple[str | None, float | None]] = []
    for number in range(1, jobs + 1):
        shares: list[float] = []
        fake = SimpleNamespace(device_count=lambda: gpus, set_per_process_memory_fraction=shares.append)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "cuda", fake)
            patch.setattr(os, "environ", {} if seen is None else {"CUDA_VISIBLE_DEVICES": seen})
            share_gpus(Shard(index=number, count=jobs))
            found.append((os.environ.get("CUDA_VISIBLE_DEVICES"), shares[0] if shares else None))
    assert found == expected
