"""Which device a process computes on; CUDA is made up, so that the choice can be seen on any machine."""

import pytest
import torch

from data.errors import ConfigError
from stages.runtime.device import torch_device
from stages.settings import Device


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two GPUs; the list collects which one was made the current one."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return current


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_without_local_rank_it_is_the_gpu(gpus: list[int], device: Device) -> None:
    assert torch_device(device) == torch.device("cuda")
    assert gpus == []


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_local_rank_picks_the_gpu_and_makes_it_the_current_one(
    gpus: list[int], monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert torch_device(device) == torch.device("cuda:1")
    assert gpus == [1]


def test_local_rank_beyond_the_gpus_is_refused(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"LOCAL_RANK=2 .* torch sees 2"):
        torch_device("auto")
    assert gpus == []


def test_a_local_rank_that_is_no_number_is_refused(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(ConfigError, match="LOCAL_RANK='first'"):
        torch_device("cuda")


def test_the_cpu_stays_the_cpu_whatever_local_rank_says(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert torch_device("cpu") == torch.device("cpu")
    assert gpus == []


def test_without_a_gpu_auto_is_the_cpu_for_every_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert torch_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="no CUDA device"):
        torch_device("cuda")
