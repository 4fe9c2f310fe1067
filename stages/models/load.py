"""From a model's name to a model in memory: the one place where weights are read.

In: a folder or hub id, and settings. Out: a causal language model of transformers. Only safetensors are read, and code
that comes with a model is not run unless `teacher.trust_remote_code` says so.
"""

import os
import sys
from collections.abc import Mapping
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.quantizers import AutoQuantizationConfig

from data.errors import ConfigError, Interrupted, first_line
from stages.models.tokenizer import needs_trust, untrusted
from stages.runtime.device import torch_device
from stages.runtime.shard import local_rank
from stages.settings import Dtype, TeacherSettings


def load_causal_lm(
    path: str,
    revision: str | None,
    dtype: Dtype,
    arguments: Mapping[str, object] | None = None,
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a model from a folder or the hub; `ConfigError` with one line where transformers cannot."""
    defaults: Mapping[str, object] = {
        "revision": revision,
        "dtype": getattr(torch, dtype),
        "trust_remote_code": trust_remote_code,
        "use_safetensors": True,
    }
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, **{**defaults, **(arguments or {})})
        if model.config._attn_implementation == "sdpa" and whole_attention(model) != "sdpa":
            model.set_attn_implementation(whole_attention(model))
        return model
    except (torch.OutOfMemoryError, MemoryError, Interrupted):
        raise
    except Exception as error:  # of a wrong argument or file, transformers raises whatever it meets first
        if needs_trust(error) and not trust_remote_code:
            raise ConfigError(untrusted(path)) from error
        raise ConfigError(f"model {path}: transformers cannot load it: {first_line(error)}") from error


def whole_attention(model: PreTrainedModel) -> Literal["sdpa", "eager"]:
    """How a model computes its attention with a cache and leaves nothing out: by torch's fused function, or eagerly.

    That function knows no soft cap and no sinks. transformers says so of gpt-oss, and from 5.24 on of Gemma 2 and
    VaultGemma; with 5.19 these two take it as they come, and are other models without a word.
    """
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    return "sdpa" if model._supports_sdpa and not capped else "eager"


def known_positions(model: PreTrainedModel) -> int:
    """Most tokens that the model knows positions for."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize)


def load_teacher(path: str, revision: str | None, teacher: TeacherSettings) -> PreTrainedModel:
    """Load the teacher's body, without its language-model head; see `load_whole_teacher`."""
    body: PreTrainedModel = load_whole_teacher(path, revision, teacher).base_model
    return body.eval()


def load_whole_teacher(path: str, revision: str | None, teacher: TeacherSettings) -> PreTrainedModel:
    """Load the teacher onto the devices that the settings name.

    Raises `ConfigError` where they contradict each other or transformers cannot load it.
    """
    if teacher.device_map is not None and teacher.device != "auto":
        raise ConfigError(
            f"teacher.device_map: it chooses the devices itself; leave out teacher.device: {teacher.device}"
        )
    if teacher.device_map is not None and local_rank(os.environ) is not None:
        raise ConfigError(
            "teacher.device_map: LOCAL_RANK is set, so other processes use the GPUs that it would spread over; "
            "start one process, or give each its own GPUs by CUDA_VISIBLE_DEVICES and unset LOCAL_RANK"
        )
    arguments: dict[str, object] = {"device_map": teacher.device_map or torch_device(teacher.device)}
    if teacher.quantization:
        arguments["quantization_config"] = _quantization(teacher.quantization)
    model = load_causal_lm(path, revision, teacher.dtype, arguments, trust_remote_code=teacher.trust_remote_code)
    return model.eval()


def _quantization(given: Mapping[str, str | int | float | bool]) -> object:
    try:
        return AutoQuantizationConfig.from_dict(dict(given))
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise ConfigError(f"teacher.quantization: {first_line(error)}") from error
