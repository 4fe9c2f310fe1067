"""What stored attention depends on, written down: settings and model identity go in, the space's `spec` comes out.

Left out on purpose: batch and piece sizes, device, attention kernel, host, library versions.
"""

from cache.fingerprints import JSON, SCHEMA_VERSION, Spec
from cache.rounding import ALL_BITS
from data.marking import MARKING_RULES
from stages.attention.select import regex_of
from stages.engines.contract import NEUTRAL_ARGUMENTS
from stages.models.identity import ModelIdentity, model_fields, slug
from stages.settings import AttentionSettings, TeacherSettings

ATTENTION_RULES = 1
"""Raised when the same spec would lead to other attention values than before."""
OF_WINDOWS = frozenset({"max_model_len", "speculative_config"})
"""Arguments that say how long a text of an engine may be and how it writes, which change nothing of what it reads."""
BEGIN_RULE = "begin token, else end token"
"""What stands in front of texts that the tokenizer puts nothing in front of; see `begin_token`."""


def attention_spec(identity: ModelIdentity, teacher: TeacherSettings, settings: AttentionSettings) -> Spec:
    """What stepwise attention depends on: teacher, number format, pooling, and the rules that mark a text."""
    quantization: dict[str, JSON] = {"quantization": dict(teacher.quantization)} if teacher.quantization else {}
    return {
        "schema": SCHEMA_VERSION,
        "rules": ATTENTION_RULES,
        "marking": MARKING_RULES,
        **model_fields(identity, teacher),
        "dtype": teacher.dtype,
        **quantization,
        **_engine(settings),
        "heads": "mean",
        "steps": settings.steps,
        "critical": _critical(settings),
        **({"begin": BEGIN_RULE} if settings.begin_token else {}),
        "max_length": settings.max_length,
        "rounding": _rounding(settings),
    }


def attention_slug(identity: ModelIdentity, settings: AttentionSettings) -> str:
    """Readable first half of the folder's name, such as `Qwen2.5-7B-Instruct-numbers`."""
    return slug(f"{identity.name}-{settings.critical}")


def _engine(settings: AttentionSettings) -> dict[str, JSON]:
    """Whose weights and kernels the numbers come from, where that is not transformers."""
    if settings.engine == "transformers":
        return {}
    return {"engine": {settings.engine: telling_arguments(settings)}}


def telling_arguments(settings: AttentionSettings) -> dict[str, JSON]:
    """The engine's arguments that change what it computes of a text."""
    neutral = NEUTRAL_ARGUMENTS | OF_WINDOWS
    return {name: value for name, value in settings.engine_arguments.items() if name not in neutral}


def _critical(settings: AttentionSettings) -> JSON:
    if settings.critical == "keywords":
        return {"rule": "keywords", "words": list(settings.keywords)}
    if settings.critical == "regex":
        return {"rule": "regex", "pattern": regex_of(settings)}
    return {"rule": "numbers"}


def _rounding(settings: AttentionSettings) -> JSON:
    """All bits of float16 are the same values as no rounding, and share its store."""
    return None if settings.keep_bits in {None, ALL_BITS} else {"bitround": settings.keep_bits}
