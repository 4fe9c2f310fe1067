"""What a stage's results depend on, written down: settings and model identity go in, the space's `spec` comes out.

The cache makes a fingerprint of a spec, so whatever stands in it separates stores, and whatever does not is free to
differ between experiments that share one. Left out on purpose: batch and piece sizes, device, host, library versions,
and which phases are run (a phase adds records, it changes none).
"""

import re
from collections.abc import Mapping
from pathlib import Path

from cache.fingerprints import JSON, SCHEMA_VERSION, Spec, hash_file
from cache.rounding import ALL_BITS
from data.errors import ConfigError
from data.marking import Keywords, Numbers, Regex
from data.prompts import prompts_version
from data.records import Question
from stages.models import ModelIdentity
from stages.settings import AttentionSettings, RationaleSettings, TeacherSettings

RATIONALE_RULES = 1
"""Raised when prompts are rendered, answers are parsed or outcomes are decided differently than before."""
ATTENTION_RULES = 1
"""Raised when the same spec would lead to other attention values than before."""
NEUTRAL_ARGUMENTS = frozenset(
    {
        "batch_size",
        "block_size",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "load_format",
        "max_num_batched_tokens",
        "max_num_seqs",
        "pipeline_parallel_size",
        "swap_space",
        "tensor_parallel_size",
        "use_tqdm_on_load",
    }
)
"""Engine arguments that say how fast, not what: experiments that differ in them share a store."""


def rationale_spec(identity: ModelIdentity, teacher: TeacherSettings, settings: RationaleSettings) -> Spec:
    """What rationales depend on: the file for `engine: file`, else teacher, prompts and sampling.

    Which engine runs the teacher is not part of it, so that one engine continues what another began.
    """
    common: dict[str, JSON] = {
        "schema": SCHEMA_VERSION,
        "rules": RATIONALE_RULES,
        "source": "file" if settings.engine == "file" else "teacher",
        "prompts": prompts_version(),
    }
    if settings.engine == "file":
        return {**common, "file": hash_file(rationale_file(settings))}
    return {
        **common,
        **_model_fields(identity),
        "dtype": teacher.dtype,
        "shots": settings.shots,
        "chat": settings.chat,
        "max_tokens": settings.max_tokens,
        "sampling": _sampling(settings),
        "engine_arguments": _relevant(settings.engine_arguments),
    }


def attention_spec(identity: ModelIdentity, teacher: TeacherSettings, settings: AttentionSettings) -> Spec:
    """What stepwise attention depends on: teacher, number format, pooling, and the rules that mark a text."""
    quantization: dict[str, JSON] = {"quantization": dict(teacher.quantization)} if teacher.quantization else {}
    return {
        "schema": SCHEMA_VERSION,
        "rules": ATTENTION_RULES,
        **_model_fields(identity),
        "dtype": teacher.dtype,
        **quantization,
        "heads": "mean",
        "steps": settings.steps,
        "critical": _critical(settings),
        "max_length": settings.max_length,
        "rounding": _rounding(settings),
    }


def rationale_slug(identity: ModelIdentity, settings: RationaleSettings) -> str:
    """Readable first half of the folder's name, such as `Qwen2.5-7B-Instruct-4-shot`."""
    if settings.engine == "file":
        return _slug(rationale_file(settings).stem)
    return _slug(f"{identity.name}-{settings.shots}-shot")


def attention_slug(identity: ModelIdentity, settings: AttentionSettings) -> str:
    """Readable first half of the folder's name, such as `Qwen2.5-7B-Instruct-numbers`."""
    return _slug(f"{identity.name}-{settings.critical}")


def rationale_file(settings: RationaleSettings) -> Path:
    """The file of `engine: file`; raises `ConfigError` where none is named or it is not there."""
    if settings.path is None:
        raise ConfigError("rationales.path: engine `file` needs a JSON Lines file with ids and rationales")
    path = Path(settings.path).expanduser()
    if not path.is_file():
        raise ConfigError(f"rationales.path: there is no file {path}")
    return path


def marking_rule(settings: AttentionSettings, question: Question) -> Numbers | Keywords | Regex:
    """The rule that finds the critical words of one question; its own keywords come after the configured ones."""
    if settings.critical == "numbers":
        return Numbers()
    if settings.critical == "keywords":
        return Keywords(words=tuple(dict.fromkeys((*settings.keywords, *question.keywords))))
    return Regex(pattern=_pattern(settings))


def _model_fields(identity: ModelIdentity) -> dict[str, str]:
    if identity.source == "hub":
        return {"model": f"{identity.path}@{identity.revision}", "tokenizer": identity.tokenizer}
    return {"model": f"sha256:{identity.revision}", "tokenizer": identity.tokenizer}


def _sampling(settings: RationaleSettings) -> JSON:
    """Greedy decoding depends on neither seed nor top_p."""
    if settings.temperature == 0:
        return "greedy"
    return {"temperature": settings.temperature, "top_p": settings.top_p, "seed": settings.seed}


def _relevant(arguments: Mapping[str, str | int | float | bool]) -> JSON:
    return {name: value for name, value in arguments.items() if name not in NEUTRAL_ARGUMENTS}


def _critical(settings: AttentionSettings) -> JSON:
    if settings.critical == "keywords":
        return {"rule": "keywords", "words": list(settings.keywords)}
    if settings.critical == "regex":
        return {"rule": "regex", "pattern": _pattern(settings)}
    return {"rule": "numbers"}


def _rounding(settings: AttentionSettings) -> JSON:
    """All bits of float16 are the same values as no rounding, and share its store."""
    return None if settings.keep_bits in {None, ALL_BITS} else {"bitround": settings.keep_bits}


def _pattern(settings: AttentionSettings) -> str:
    if settings.pattern is None:
        raise ConfigError("attention.pattern: `critical: regex` needs a regular expression")
    return settings.pattern


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "model"
