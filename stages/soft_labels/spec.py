"""What stored soft labels depend on, written down: settings and model identity go in, the space's `spec` comes out.

Left out on purpose: batch and piece sizes, device, host, library versions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cache.fingerprints import JSON, SCHEMA_VERSION, Spec
from data.errors import ConfigError
from data.prompts import explain_prompt
from stages.attention.spec import BEGIN_RULE
from stages.models.identity import ModelIdentity, model_fields, slug
from stages.models.size import logit_scales, model_size
from stages.settings import SoftLabelSettings, TeacherSettings
from stages.soft_labels.vocabulary import vocabulary_of

SOFT_LABEL_RULES = 1
"""Raised when the same spec would lead to other values than before."""
ROW_BYTES = {"top": 3.3, "sampled": 0.5}
"""What a kept token, or a draw, takes on disk, compressed (docs/log.md)."""
BESIDE_A_ROW = 14
"""What a row has beside its tokens: sums over all, its own token's log-probability, where it ends."""


def soft_label_spec(identity: ModelIdentity, teacher: TeacherSettings, settings: SoftLabelSettings) -> Spec:
    """What rows depend on: teacher, number format, vocabulary, what it read, and what is kept of its distributions."""
    assert settings.layout != "auto", "the objective says which layout"
    size = model_size(identity)
    if size is None:
        raise ConfigError(
            f"{identity.name}: its configuration does not say how wide it is and how many tokens it knows"
        )
    if settings.layout == "top" and settings.k > size.vocabulary:
        raise ConfigError(
            f"soft_labels.k: expected at most {size.vocabulary:,}, the tokens that {identity.name} knows, found "
            f"{settings.k:,}"
        )
    quantization: dict[str, JSON] = {"quantization": dict(teacher.quantization)} if teacher.quantization else {}
    vocabulary = vocabulary_of(identity)
    return {
        "schema": SCHEMA_VERSION,
        "rules": SOFT_LABEL_RULES,
        **model_fields(identity, teacher),
        "dtype": teacher.dtype,
        **quantization,
        "vocabulary": vocabulary.hash,
        "vocabulary_size": size.vocabulary,
        **_layout(settings, teacher, size.width, logit_scales(identity)),
        "context": settings.context,
        **_read(settings),
        "max_length": settings.max_length,
    }


def soft_label_slug(identity: ModelIdentity, settings: SoftLabelSettings) -> str:
    """Readable first half of the folder's name, such as `Qwen2.5-7B-Instruct-top-64`."""
    return slug(f"{identity.name}-{settings.layout}" + ("" if settings.layout == "hidden" else f"-{settings.k}"))


@dataclass(frozen=True, kw_only=True)
class LabelBytes:
    """What soft labels take: a target token on disk, the head beside them, a target token in the map of training."""

    row: float
    head: int
    mapped: int


def soft_label_bytes(settings: SoftLabelSettings, width: int, vocabulary: int, dtype_bytes: int) -> LabelBytes:
    """Bytes, on disk as far as is known; there is a head where hidden states are stored."""
    if settings.layout == "hidden":
        states = dtype_bytes * width
        return LabelBytes(row=states + BESIDE_A_ROW, head=states * vocabulary, mapped=states + 8)
    kept = min(settings.k, vocabulary)
    beside = 16 if settings.layout == "top" else 8
    return LabelBytes(row=ROW_BYTES[settings.layout] * kept + BESIDE_A_ROW, head=0, mapped=6 * kept + beside)


def _read(settings: SoftLabelSettings) -> dict[str, JSON]:
    """What stands in front of a rationale beside the question."""
    if settings.context == "student":
        return {"prompt": explain_prompt("…")}
    return {"begin": BEGIN_RULE} if settings.begin_token else {}


def _layout(
    settings: SoftLabelSettings, teacher: TeacherSettings, width: int, scales: Mapping[str, float]
) -> dict[str, JSON]:
    if settings.layout == "top":
        return {"layout": "top", "k": settings.k}
    if settings.layout == "sampled":
        return {"layout": "sampled", "draws": settings.k, "seed": settings.seed}
    stored = "float32" if teacher.dtype == "float32" else "float16"
    return {"layout": "hidden", "hidden": stored, "width": width, "scales": {**scales}}
