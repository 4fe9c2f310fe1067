"""Students that learn through an adapter of PEFT, such as LoRA, while their own weights stay as they are.

In: a loaded student and `student.peft`, the keys that PEFT's own configuration has. Out: the same model with layers of
the adapter in the place of its own, so that whatever records attention sees an ordinary model of transformers; in the
end the adapter's folder as PEFT saves it, and the student with the adapter merged into its weights.

Only methods that consist of layers which can be merged are taken: what comes out has to be a plain checkpoint.
"""

import copy
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.lora import ParamWrapper
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_target_module_exists
from torch import nn
from transformers import PreTrainedModel

from data.errors import ConfigError, ModelError, first_line
from stages.attention.stepwise import attention_implementation
from stages.models.load import whole_attention
from stages.models.modes import evaluating
from stages.settings import PeftValue

ADAPTER = "adapter"
TYPE = "peft_type"
ALL_LINEAR = "all-linear"
"""To PEFT, all linear layers but the head."""
EXPERT_LAYERS = frozenset({"gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""What the layers of an expert are called where each is a module; many models have others of these names."""
STACKED = 3
"""Axes of a weight that holds those of all experts of a layer."""
MERGING_ERROR = 1e-3
"""Most that merging may change logits, as a share of the largest; rounding in float32 stays under 1e-5."""
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


def add_adapter(student: PreTrainedModel, given: Mapping[str, PeftValue], note: Callable[[str], None]) -> PeftModel:
    """Put the adapter's layers into `student`, whose own weights no longer learn.

    Tied embeddings of which one is adapted are untied first: merged into the weight that both share, what one learned
    would change the other. Raises `ConfigError` where the adapter does not fit the model, and where it could not be
    merged in the end.
    """
    config = adapter_config(given)
    method = str(config.peft_type.value)
    _untie_adapted(student, config, note)
    stacked = _stacked_experts(student, given.get("target_modules"))
    try:
        adapted: PeftModel = get_peft_model(student, config)
    except (ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        raise ConfigError(f"student.peft: {method} does not fit this student: {first_line(error)}") from error
    _require_mergeable(adapted, method)
    _tell_of_experts_left_out(adapted, stacked, note)
    return adapted


def _stacked_experts(student: PreTrainedModel, targets: PeftValue) -> dict[int, str]:
    """By id the weights that hold layers of all experts of one layer, where `targets` ask for such layers."""
    of_experts = isinstance(targets, list | tuple) and EXPERT_LAYERS.intersection(map(str, targets))
    if targets != ALL_LINEAR and not of_experts:
        return {}
    return {
        id(weight): ".".join([*path.split(".")[-2:], name])
        for path, module in student.named_modules()
        if not type(module).__module__.startswith("torch.nn")
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim == STACKED
    }


def _tell_of_experts_left_out(adapted: PeftModel, stacked: Mapping[int, str], note: Callable[[str], None]) -> None:
    """Say which of the `stacked` weights, that transformers 5 has in the place of layers, PEFT has left as they are."""
    learning = {id(layer.get_param()) for layer in adapted.modules() if isinstance(layer, ParamWrapper)}
    if left := [name for weight, name in stacked.items() if weight not in learning]:
        note(
            f"student.peft leaves {len(left):,} stacked weights of experts as they are; to let them learn, name them: "
            f"target_parameters: [{', '.join(dict.fromkeys(left))}], lora_dropout: 0"
        )


def _untie_adapted(student: PreTrainedModel, config: PeftConfig, note: Callable[[str], None]) -> None:
    """Give the head weights of its own where it shares the embeddings' and the adapter changes one of the two."""
    embeddings, head = student.get_input_embeddings(), student.get_output_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return
    names = {module: name for name, module in student.named_modules() if module in (embeddings, head)}
    if getattr(config, "ensure_weight_tying", False):
        if by_layers := [name for name in names.values() if _has_layer(config, name)]:
            raise ConfigError(
                f"student.peft.ensure_weight_tying: what is learnt for {' and '.join(by_layers)} cannot be merged into "
                "weights that head and embeddings share; leave it out, and they are untied"
            )
        return
    adapted = [name for module, name in names.items() if _changes(config, name, is_head=module is head)]
    if not adapted:
        return
    untie(student)
    note(
        f"student.peft changes {' and '.join(adapted)}, and the student's head shares its weights with the embeddings: "
        f"it gets {head.weight.numel():,} of its own"
    )


def _changes(config: PeftConfig, name: str, *, is_head: bool) -> bool:
    """Whether the adapter changes the module of that name for itself, by a layer of its own, a few rows, or as a whole.

    Rows of the embeddings alone are the head's, too: PEFT adapts both, and merges both into what they share.
    """
    rows = getattr(config, "trainable_token_indices", None)
    of_head = rows if is_head and isinstance(rows, Mapping) else ()
    return _has_layer(config, name) or _names((*(getattr(config, "modules_to_save", None) or ()), *of_head), name)


def _has_layer(config: PeftConfig, name: str) -> bool:
    """Whether the adapter puts a layer of its own in the place of the module, or around its weight."""
    targets = getattr(config, "target_modules", None)
    by_name = targets not in (None, ALL_LINEAR) and bool(check_target_module_exists(config, name))
    parameters = getattr(config, "target_parameters", None) or ()
    return by_name or _names(parameters, f"{name}.weight")


def _names(named: Iterable[str], name: str) -> bool:
    """Whether one of the names is the module's, or its end."""
    return any(name == one or name.endswith(f".{one}") for one in named)


def untie(student: PreTrainedModel) -> None:
    """Give the head a copy of the embeddings that it shares until now; the student computes what it did."""
    head = student.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone())
    student.config.get_text_config().tie_word_embeddings = False
    student.config.tie_word_embeddings = False
    student.all_tied_weights_keys = student.get_expanded_tied_weights_keys(all_submodels=True)


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


def save_adapted(adapted: PeftModel, out: Path, texts: Sequence[np.ndarray]) -> PreTrainedModel:
    """Save the adapter to `out/adapter`, and return the student with the adapter merged into its weights.

    `texts` are token ids (T,) each. Raises `ModelError` where the merged student computes other logits of them than
    the adapted one, beyond rounding.
    """
    adapted.save_pretrained(str(out / ADAPTER))
    before = _logits(adapted.get_base_model(), texts)
    merged: PreTrainedModel = adapted.merge_and_unload()
    for expected, found in zip(before, _logits(merged, texts), strict=True):
        difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
        if not difference <= MERGING_ERROR * max(largest, 1.0):
            raise ModelError(
                f"{out / ADAPTER}: merged into the student's weights, the adapter gives another model: logits of up to "
                f"{largest:.4g} differ by {difference:.4g}; the adapter is saved as it was trained, a plain checkpoint "
                "cannot be made of it: take other student.peft.target_modules, or another method"
            )
    return merged


@torch.no_grad()
def _logits(student: PreTrainedModel, texts: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Logits (T, V) of each text, in the weights' own precision and without dropout."""
    with evaluating(student), attention_implementation(student, whole_attention(student)):
        ids = [torch.from_numpy(text).to(student.device)[None] for text in texts]
        return [student(input_ids=ids_1T, use_cache=False).logits[0].float().cpu() for ids_1T in ids]


def _unmergeable(method: str, reason: str) -> str:
    return (
        f"student.peft.{TYPE}: {method} cannot be merged into the student ({reason}), so no plain checkpoint would "
        "come out; use a method such as LORA"
    )


def _nearest(name: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, valid, n=1)
    return f"; did you mean {near[0]}?" if near else f"; valid are {', '.join(valid)}"
