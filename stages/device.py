"""Which device a setting means: `auto`, `cpu` or `cuda` goes in, a torch device comes out."""

import torch

from data.errors import ConfigError
from stages.settings import Device


def torch_device(device: Device) -> torch.device:
    """The device that a setting names; `auto` is the GPU where there is one.

    Raises `ConfigError` where a GPU is asked for and torch finds none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: `cuda` was asked for, but torch finds no CUDA device; use `auto` or `cpu`")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
