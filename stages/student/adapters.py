"""Students that learn through an adapter of PEFT, such as LoRA, while their own weights stay as they are.

In: a loaded student and `student.peft`, the keys that PEFT's own configuration has. Out: the same model with layers of
the adapter in the place of its own, so that whatever records attention sees an ordinary model of transformers; in the
end the adapter's folder as PEFT saves it, and the student with the adapter merged into its weights.

Only methods that consist of layers which can be merged are taken: what comes out has to be a plain checkpoint.
"""

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from transformers import PreTrainedModel

from data.errors import ConfigError, first_line
from stages.settings import PeftValue

ADAPTER = "adapter"
TYPE = "peft_type"
OURS = frozenset({"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"})
"""Fields that follow from the student and from what is done with it."""


def adapter_config(given: Mapping[str, PeftValue]) -> PeftConfig:
    """Build PEFT's configuration from `student.peft`; `ConfigError` names the key that it does not know."""
    keys = dict(given)
    method = str(keys.pop(TYPE, "")).upper()
    methods: Mapping[object, type[PeftConfig]] = PEFT_TYPE_TO_CONFIG_MAPPING
    known = {str(getattr(name, "value", name)): kind for name, kind in methods.items()}
    if method not in known:
        found = f"found {given[TYPE]!r}{_nearest(method, sorted(known))}" if TYPE in given else "which is missing"
        raise ConfigError(f"student.peft.{TYPE}: expected the name of a method, such as LORA, {found}")
    kind = known[method]
    allowed = [field.name for field in fields(kind) if field.name not in OURS | {TYPE}]
    for key in keys:
        if key not in allowed:
            raise ConfigError(f"student.peft.{key}: {kind.__name__} of peft has no such key{_nearest(key, allowed)}")
    try:
        config: PeftConfig = kind(task_type=TaskType.CAUSAL_LM, **keys)
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"student.peft: {kind.__name__}: {first_line(error)}") from error
    if config.is_prompt_learning:
        raise ConfigError(_unmergeable(method, "it puts vectors in front of the text"))
    return config


def add_adapter(student: PreTrainedModel, given: Mapping[str, PeftValue]) -> PeftModel:
    """Put the adapter's layers into `student`, whose own weights no longer learn.

    Raises `ConfigError` where the adapter does not fit the model, and where it could not be merged in the end.
    """
    config = adapter_config(given)
    method = str(config.peft_type.value)
    try:
        adapted: PeftModel = get_peft_model(student, config)
    except (ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        raise ConfigError(f"student.peft: {method} does not fit this student: {first_line(error)}") from error
    _require_mergeable(adapted, method)
    return adapted


def _require_mergeable(adapted: PeftModel, method: str) -> None:
    tuner = adapted.base_model
    if not isinstance(tuner, BaseTuner) or type(tuner).forward is not BaseTuner.forward:
        raise ConfigError(_unmergeable(method, "it does more than replace layers"))
    first_of_kind = {type(layer): layer for layer in tuner.modules() if isinstance(layer, BaseTunerLayer)}
    for layer in first_of_kind.values():
        try:
            copy.deepcopy(layer).merge()
        except (NotImplementedError, ValueError, RuntimeError) as error:
            raise ConfigError(_unmergeable(method, first_line(error) or "its layers know no merging")) from error


def save_adapted(adapted: PeftModel, out: Path) -> PreTrainedModel:
    """Save the adapter to `out/adapter`, and return the student with the adapter merged into its weights."""
    adapted.save_pretrained(str(out / ADAPTER))
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


def _unmergeable(method: str, reason: str) -> str:
    return (
        f"student.peft.{TYPE}: {method} cannot be merged into the student ({reason}), so no plain checkpoint would "
        "come out; use a method such as LORA"
    )


def _nearest(name: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, valid, n=1)
    return f"; did you mean {near[0]}?" if near else f"; valid are {', '.join(valid)}"
