"""From a model's name to a model in memory: the one place where weights are read.

In: a folder or hub id, and settings. Out: a causal language model of transformers. Only safetensors are read, and code
that comes with a model is not run unless the engine's arguments say so.
"""

from collections.abc import Mapping

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from data.errors import ConfigError
from stages.engines import EngineArguments, first_line
from stages.settings import Device, Dtype


def load_causal_lm(
    path: str, revision: str | None, dtype: Dtype, arguments: EngineArguments | None = None
) -> PreTrainedModel:
    """Load a model from a folder or the hub; `ConfigError` with one line where transformers cannot."""
    defaults: Mapping[str, object] = {
        "revision": revision,
        "dtype": getattr(torch, dtype),
        "trust_remote_code": False,
        "use_safetensors": True,
    }
    try:
        return AutoModelForCausalLM.from_pretrained(path, **{**defaults, **(arguments or {})})
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"model {path}: transformers cannot load it: {first_line(error)}") from error


def torch_device(device: Device) -> torch.device:
    """The device that a setting names; `auto` is the GPU where there is one.

    Raises `ConfigError` where a GPU is asked for and torch finds none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: `cuda` was asked for, but torch finds no CUDA device; use `auto` or `cpu`")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
