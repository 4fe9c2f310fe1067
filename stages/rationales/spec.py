"""What a stage's results depend on, written down: settings and model identity go in, the space's `spec` comes out.

The cache makes a fingerprint of a spec, so whatever stands in it separates stores, and whatever does not is free to
differ between experiments that share one. Left out on purpose: batch and piece sizes, device, host, library versions,
which phases are run and how many samples are asked for (a phase or a sample adds records, it changes none). What is
asked about key words stands in the key of each answer.
"""

from dataclasses import asdict
from pathlib import Path

from cache.fingerprints import JSON, SCHEMA_VERSION, Spec
from data.errors import ConfigError
from data.prompts import prompts_version
from data.settings import RationaleFields
from stages.engines.contract import NEUTRAL_ARGUMENTS, NEUTRAL_IF_GREEDY
from stages.models.identity import ModelIdentity, model_fields, slug
from stages.runtime.kept_hashes import kept_hash
from stages.settings import RationaleSettings, TeacherSettings

RATIONALE_RULES = 4
"""Raised when prompts are rendered, answers are parsed or outcomes are decided differently than before, so that other
rationales are kept or other questions asked again; another name for a reason leaves it as it is."""


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
        # The fields that are read stand there where they are named: others of the same file hold other rationales.
        fields = {} if settings.fields == RationaleFields() else {"fields": asdict(settings.fields)}
        return {**common, "file": kept_hash(rationale_file(settings)), **fields}
    return {
        **common,
        **_writer(identity, teacher, settings),
        "shots": settings.shots,
        "chat": settings.chat,
        **({"as_student": True} if settings.as_student else {}),
        **_template(settings),
        "max_tokens": settings.max_tokens,
        "sampling": _sampling(settings),
        "engine_arguments": {
            name: value for name, value in settings.engine_arguments.items() if name not in _neutral(settings)
        },
    }


def rationale_slug(identity: ModelIdentity, settings: RationaleSettings) -> str:
    """Readable first half of the folder's name, such as `Qwen2.5-7B-Instruct-4-shot`."""
    if settings.engine == "file":
        return slug(rationale_file(settings).stem)
    name = identity.name if (author := author_of(settings)) is None else author.rpartition("/")[2]
    return slug(f"{name}-{settings.shots}-shot")


def rationale_file(settings: RationaleSettings) -> Path:
    """The file of `engine: file`; raises `ConfigError` where none is named or it is not there."""
    if settings.path is None:
        raise ConfigError("rationales.path: engine `file` needs a JSON Lines file with ids and rationales")
    return named_file(settings.path, "rationales")


def named_file(named: str, setting: str) -> Path:
    """The file of rationales that the `path` of a setting names; raises `ConfigError` where it is not there."""
    path = Path(named).expanduser()
    if not path.is_file():
        raise ConfigError(f"{setting}.path: there is no file {path}")
    return path


def author_of(settings: RationaleSettings) -> str | None:
    """The served model that writes instead of the teacher; None where it is the teacher."""
    return settings.author if settings.engine == "openai" else None


def _source(settings: RationaleSettings) -> JSON:
    if settings.engine == "file":
        return "file"
    return "teacher" if author_of(settings) is None else "author"


def _writer(identity: ModelIdentity, teacher: TeacherSettings, settings: RationaleSettings) -> dict[str, JSON]:
    """Who writes: the teacher with its number format, or a served model of which the name is all that is known."""
    author = author_of(settings)
    if author is not None:
        return {"author": author}
    return {**model_fields(identity, teacher), "dtype": teacher.dtype}


def _template(settings: RationaleSettings) -> dict[str, JSON]:
    """What a chat template is told; left out where it is told what it is by default.

    An author's template is its server's, which takes arguments with each request.
    """
    if settings.template_arguments and author_of(settings) is not None:
        raise ConfigError(
            "rationales.template_arguments: the template of rationales.author is its server's; "
            "use rationales.engine_arguments: {chat_template_kwargs: {…}}"
        )
    told: dict[str, JSON] = {"arguments": settings.template_arguments} if settings.template_arguments else {}
    if settings.template_date != RationaleSettings.template_date:
        told["date"] = settings.template_date.isoformat()
    return {"template": told} if told and settings.chat else {}


def _neutral(settings: RationaleSettings) -> frozenset[str]:
    """Engine arguments that change no text: those that guess tokens ahead change none that is decoded greedily."""
    return NEUTRAL_ARGUMENTS | NEUTRAL_IF_GREEDY if settings.temperature == 0 else NEUTRAL_ARGUMENTS


def _sampling(settings: RationaleSettings) -> JSON:
    """Greedy decoding depends on neither seed nor top_p."""
    if settings.temperature == 0:
        return "greedy"
    return {"temperature": settings.temperature, "top_p": settings.top_p, "seed": settings.seed}
