"""What a stage's results depend on, written down: settings and model identity go in, the space's `spec` comes out.

The cache makes a fingerprint of a spec, so whatever stands in it separates stores, and whatever does not is free to
differ between experiments that share one. Left out on purpose: batch and piece sizes, device, host, library versions,
which phases are run and how many samples are asked for (a phase or a sample adds records, it changes none). What is
asked about key words stands in the key of each answer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from cache.fingerprints import JSON, SCHEMA_VERSION, Spec, hash_file, hash_folder
from cache.rounding import ALL_BITS
from data.errors import ConfigError
from data.marking import Keywords, Numbers, Regex
from data.prompts import prompts_version
from data.records import Question
from data.settings import RationaleFields
from stages.models import ModelIdentity
from stages.settings import AttentionSettings, EngineValue, RationaleSettings, TeacherSettings

RATIONALE_RULES = 3
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
CODE = "*.py"


def rationale_spec(identity: ModelIdentity, teacher: TeacherSettings, settings: RationaleSettings) -> Spec:
    """What rationales depend on: the file and its fields for `engine: file`, else who writes, prompts and sampling.

    Which engine runs the teacher is not part of it, so that one engine continues what another began. An author behind
    a server is known by its name only, wherever it is served.
    """
    common: dict[str, JSON] = {
        "schema": SCHEMA_VERSION,
        "rules": RATIONALE_RULES,
        "source": _source(settings),
        "prompts": prompts_version(),
    }
    if settings.engine == "file":
        return {**common, "file": hash_file(rationale_file(settings)), **_fields(settings)}
    return {
        **common,
        **_writer(identity, teacher, settings),
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
        **_model_fields(identity, teacher),
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
    name = identity.name if (author := author_of(settings)) is None else author.rpartition("/")[2]
    return _slug(f"{name}-{settings.shots}-shot")


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


def marking_rule(
    settings: AttentionSettings, question: Question, named: Sequence[str] = ()
) -> Numbers | Keywords | Regex:
    """The rule that finds the critical words of one question; `named` are the words that the teacher named as key."""
    if settings.critical == "numbers":
        return Numbers()
    if settings.critical == "keywords":
        sources = settings.keyword_sources
        own = question.keywords if "data" in sources else ()
        return Keywords(
            words=tuple(dict.fromkeys((*settings.keywords, *own, *(named if "teacher" in sources else ()))))
        )
    return Regex(pattern=_pattern(settings))


def author_of(settings: RationaleSettings) -> str | None:
    """The served model that writes instead of the teacher; None where it is the teacher."""
    return settings.author if settings.engine == "openai" else None


def _source(settings: RationaleSettings) -> JSON:
    if settings.engine == "file":
        return "file"
    return "teacher" if author_of(settings) is None else "author"


def _fields(settings: RationaleSettings) -> dict[str, JSON]:
    """The fields of the file that are read where they are named: others of the same file hold other rationales."""
    return {} if settings.fields == RationaleFields() else {"fields": asdict(settings.fields)}


def _writer(identity: ModelIdentity, teacher: TeacherSettings, settings: RationaleSettings) -> dict[str, JSON]:
    """Who writes: the teacher with its number format, or a served model of which the name is all that is known."""
    author = author_of(settings)
    if author is not None:
        return {"author": author}
    return {**_model_fields(identity, teacher), "dtype": teacher.dtype}


def _model_fields(identity: ModelIdentity, teacher: TeacherSettings) -> dict[str, JSON]:
    model = f"{identity.path}@{identity.revision}" if identity.source == "hub" else f"sha256:{identity.revision}"
    return {"model": model, "tokenizer": identity.tokenizer, **_trust(identity, teacher)}


def _trust(identity: ModelIdentity, teacher: TeacherSettings) -> dict[str, JSON]:
    """A model's own code, where it may run; a hub model's commit says which code that is, a folder's files have to."""
    if not teacher.trust_remote_code:
        return {}
    folder = Path(identity.path)
    has_code = identity.source == "folder" and any(folder.glob(CODE))
    return {"trust_remote_code": True, **({"code": hash_folder(folder, (CODE,))} if has_code else {})}


def _sampling(settings: RationaleSettings) -> JSON:
    """Greedy decoding depends on neither seed nor top_p."""
    if settings.temperature == 0:
        return "greedy"
    return {"temperature": settings.temperature, "top_p": settings.top_p, "seed": settings.seed}


def _relevant(arguments: Mapping[str, EngineValue]) -> JSON:
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
