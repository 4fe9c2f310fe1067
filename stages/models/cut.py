"""A model cut to its first decoder layers, as students begin that are shallower than what there is to load.

In: a model's configuration and how many layers to keep. Out: the configuration of a model with these, and that model.
Only what the configuration names is built, so that embeddings, the layers that stay, final norm and head are those of
the whole model, layers count from 0 as ever, and what is saved is a plain folder of the smaller model.
"""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, modeling_utils

from data.errors import ConfigError, first_line
from stages.models.load import load_causal_lm
from stages.models.size import too_many_layers

OF_NO_LAYER = frozenset({"architectures", "time_step_limit"})
"""Lists of a configuration that say nothing of layers, whatever their length; so do those of token ids."""
SHARED_AT_THE_END = "num_kv_shared_layers"
"""How many of the last layers take keys and values from earlier ones (Gemma 3n and 4)."""
OTHER_STATUSES = ("MISSING", "MISMATCH", "CONVERSION")
"""What transformers' table of weights says of those that are not merely unused."""


def first_layers(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """The configuration of a model that has the first `layers` decoder layers of `config`'s, and nothing else changed.

    Lists with an entry for each layer (`layer_types` and others) are cut with them. Raises `ConfigError` where there
    are not so many layers, and where transformers does not read the result as what it is.
    """
    cut = copy.deepcopy(config)
    decoder = cut.get_text_config()
    before = int(decoder.num_hidden_layers)
    if layers > before:
        raise ConfigError(too_many_layers(config.name_or_path, before, layers))
    of_layers: dict[str, object] = {
        name: value[:layers]
        for name, value in vars(decoder).items()
        if isinstance(value, list | tuple) and len(value) == before and "token" not in name and name not in OF_NO_LAYER
    }
    if shared := getattr(decoder, SHARED_AT_THE_END, 0):
        of_layers[SHARED_AT_THE_END] = max(0, shared - (before - layers))
    decoder.num_hidden_layers = layers
    for name, value in of_layers.items():
        setattr(decoder, name, value)
    _require_readable(cut, layers)
    return cut


def _require_readable(cut: PreTrainedConfig, layers: int) -> None:
    try:
        again = type(cut).from_dict(cut.to_dict()).get_text_config()
    except Exception as error:  # configurations check themselves each in its own way
        raise _uncuttable(cut, layers, first_line(error)) from error
    if again.num_hidden_layers != layers:
        raise _uncuttable(cut, layers, f"it is read as one of {again.num_hidden_layers} layers")


def _uncuttable(cut: PreTrainedConfig, layers: int, reason: str) -> ConfigError:
    return ConfigError(f"student.layers: {layers}: model type {cut.model_type} cannot be cut to its first: {reason}")


def load_first_layers(path: str, revision: str | None, layers: int) -> PreTrainedModel:
    """Load the first layers of a model in float32; the others' weights are never in memory.

    Raises `ConfigError` where the model cannot be loaded or cut.
    """
    config = first_layers(AutoConfig.from_pretrained(path, revision=revision), layers)
    with _unused_weights_expected():
        return load_causal_lm(path, revision, "float32", {"config": config})


def random_first_layers(path: str, revision: str | None, layers: int) -> PreTrainedModel:
    """A model of the same shape with fresh weights in float32."""
    config = first_layers(AutoConfig.from_pretrained(path, revision=revision), layers)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


@contextmanager
def _unused_weights_expected() -> Iterator[None]:
    """Without transformers' table of weights, where these are but those that the cut leaves out."""
    logger = logging.getLogger(modeling_utils.__name__)
    logger.addFilter(_says_more_than_unused)
    try:
        yield
    finally:
        logger.removeFilter(_says_more_than_unused)


def _says_more_than_unused(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return "UNEXPECTED" not in message or any(status in message for status in OTHER_STATUSES)
