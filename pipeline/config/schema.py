"""What a run is asked to do: one YAML file, checked before anything is computed.

In: a path and `--set` overrides. Out: a frozen `Config`, built on the settings that the stages declare; pydantic
checks types and bounds, `_conflicts` what only several values together can tell. Every problem found becomes one
line of one `ConfigError`: where it was written, which key, what was expected, what was found, and the nearest valid
key.
"""

import difflib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, cast

from annotated_types import MinLen
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cache.spaces import default_store
from data.errors import ConfigError
from data.settings import DataSource
from pipeline.config.document import Document, Key, Tree, dotted, read_document, to_yaml
from stages.engines.openai_server import address_problem
from stages.settings import (
    AttentionSettings,
    EngineValue,
    EvaluationSettings,
    ObjectiveSettings,
    RationaleSettings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
)
from stages.student.objective import objective_class

LARGEST_PIECE = 4096  # records in one part of a store
RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._=,+-]{0,99}$"
SECRET = re.compile(
    r"(^|[_-])token$|passw(or)?d|secret|(api|access|private)[_-]?key|credential|authorization|bearer", re.IGNORECASE
)
SAID_BY: Mapping[str, str] = {"model": "teacher.model", "revision": "teacher.revision"}
"""Engine arguments that would put another model in the place of the configured one, and the keys that say it."""
OF_A_REQUEST: Mapping[str, str | None] = {
    "temperature": "rationales.temperature",
    "top_p": "rationales.top_p",
    "seed": "rationales.seed",
    "max_tokens": "rationales.max_tokens",
    "max_completion_tokens": "rationales.max_tokens",
    **dict.fromkeys(("stop", "prompt", "messages", "stream", "n", "best_of", "echo"), None),
}
"""The same of what is asked of a served author; None is what only this program can say."""
PATHS: tuple[Key, ...] = (("store",), ("teacher", "model"), ("student", "model"), ("rationales", "path"))
EXPECTED = {
    "string_type": "text; put it in quotes",
    "dataclass_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "tuple_type": "a list",
    "too_short": "at least one entry",
}


class DataSettings(BaseModel):
    """Which questions are learned from and which are measured on."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    train: Annotated[tuple[DataSource, ...], MinLen(1)]
    """Questions that the teacher explains and the students learn from."""
    dev: tuple[DataSource, ...] = ()
    """Questions to choose settings by: `molsaki evaluate --split dev` measures on them."""
    test: tuple[DataSource, ...] = ()
    """Questions that the finished students are measured on."""


class Config(BaseModel):
    """One run: its data, teacher, student, and how each stage works."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )  # what `--debug` and logs would show of a key in the wrong place

    name: Annotated[str, Field(pattern=RUN_NAME)]
    """Name of the run and of its folder: letters, digits and any of . _ - = , +"""
    store: Path = Field(default_factory=default_store)
    """Folder of the shared stores of rationales and attention."""
    data: DataSettings
    """Which questions are learned from and which are measured on."""
    teacher: TeacherSettings
    """The model that reasons and whose attention is distilled."""
    rationales: RationaleSettings = RationaleSettings()
    """Stage one, first half: the teacher writes rationales."""
    attention: AttentionSettings = AttentionSettings()
    """Stage one, second half: what to pool the teacher's attention over, and how."""
    student: StudentSettings
    """The model that learns."""
    objective: ObjectiveSettings = ObjectiveSettings()
    """What the student is trained for."""
    training: TrainingSettings = TrainingSettings()
    """How the student is trained; one student for every seed."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How the trained students are measured."""


class ConfigFile(Config):
    """What a configuration file may hold: one run, and in `matrix` what varies from run to run."""

    matrix: dict[str, list[JsonValue]] | list[dict[str, list[JsonValue]]] | None = None
    """Several runs in one file: a mapping from keys such as objective.beta to lists of values, of which every
    combination is a run (a point), or a list of such mappings, whose points are put together."""


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override and check a configuration file; `ConfigError` with one line a problem.

    Of a file with `matrix` this is what all points begin with; `pipeline.config.matrix` makes the points.
    """
    return check_document(read_config(path, overrides))


def read_config(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Read and override a configuration file without checking it."""
    document = read_document(path, overrides)
    _drop_empty_sections(document.tree)
    return document


def check_document(document: Document) -> Config:
    """Check what was read, `matrix` aside; `ConfigError` with one line a problem."""
    document = replace(document, tree={name: value for name, value in document.tree.items() if name != "matrix"})
    _expand_home(document.tree)
    try:
        config = Config.model_validate(document.tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_complaints(error, document))) from error
    conflicts = [f"{document.place(key)}: {dotted(key)}: {problem}" for key, problem in _conflicts(config)]
    if conflicts:
        raise ConfigError("\n".join(conflicts))
    return config


def resolved_yaml(config: Config) -> str:
    """Every value of `config`, defaults included, as a file that loads back to an equal `Config`."""
    return to_yaml(cast(Tree, config.model_dump(mode="json")))


def schema_json() -> str:
    """JSON schema of the configuration file, with descriptions, for editors."""
    return json.dumps(_schema(), indent=2, ensure_ascii=False)


def _drop_empty_sections(tree: dict[str, Tree]) -> None:
    """A section whose keys are all commented out reads as null; it means the defaults."""
    for section in [name for name, value in tree.items() if value is None and name in ConfigFile.model_fields]:
        del tree[section]


def _expand_home(tree: dict[str, Tree]) -> None:
    """Replace a leading ~ where a value is a path; relative paths stay relative to the current directory."""
    for key in PATHS:
        _expand_entry(tree.get(str(key[0])) if len(key) == 2 else tree, str(key[-1]))
    data = tree.get("data")
    for sources in data.values() if isinstance(data, dict) else ():
        for source in sources if isinstance(sources, list) else ():
            _expand_entry(source, "path")


def _expand_entry(section: Tree, name: str) -> None:
    if isinstance(section, dict) and isinstance(section.get(name), str):
        section[name] = os.path.expanduser(str(section[name]))  # noqa: PTH111  Path would rewrite hub ids such as a//b


def _conflicts(config: Config) -> Iterator[tuple[Key, str]]:
    """What is wrong although every value by itself is allowed."""
    yield from _attention_conflicts(config.attention)
    rationales = config.rationales
    taught = objective_class(config.objective.name).tasks
    if not set(taught) & set(config.evaluation.prompts):
        yield (
            ("evaluation", "prompts"),
            f"expected {' or '.join(taught)}, all that objective.name {config.objective.name} teaches, "
            f"found {list(config.evaluation.prompts)}",
        )
    yield from _rationale_conflicts(config)
    if config.training.early_stopping is not None and not config.data.dev:
        yield (
            ("training", "early_stopping"),
            "needs questions to measure on, never those of the test; name some in data.dev",
        )
    if config.training.processes > config.training.batch_size:
        yield (
            ("training", "batch_size"),
            f"expected at least the {config.training.processes} of training.processes, which share each batch, "
            f"found {config.training.batch_size}",
        )
    if len(set(config.training.seeds)) < len(config.training.seeds):
        yield ("training", "seeds"), f"expected different seeds, found {list(config.training.seeds)}"
    yield from _server_conflicts(rationales)
    for section, settings in (("rationales", rationales), ("evaluation", config.evaluation)):
        yield from _argument_conflicts((section, "engine_arguments"), settings.engine_arguments)
    yield from _said_elsewhere(config)
    for key, value in _floats(config):
        if not math.isfinite(value):
            yield key, f"expected a finite number, found {value}"


def _server_conflicts(rationales: RationaleSettings) -> Iterator[tuple[Key, str]]:
    if rationales.server is not None and (problem := address_problem(rationales.server)):
        yield ("rationales", "server"), problem
    if rationales.author is not None and rationales.engine != "openai":
        yield ("rationales", "author"), f"needs `engine: openai`; with `engine: {rationales.engine}` the teacher writes"
    if rationales.author is not None and rationales.served_model is not None:
        yield (
            ("rationales", "served_model"),
            "means that the server runs teacher.model, rationales.author that another model writes; leave one out",
        )


def _argument_conflicts(key: Key, arguments: Mapping[str, EngineValue]) -> Iterator[tuple[Key, str]]:
    """Arguments of an engine that may not be said there, at any depth."""
    for name, value in arguments.items():
        below = (*key, name)
        if SECRET.search(name):
            yield below, "a secret, and this file is saved with the run; set it in the environment (HF_TOKEN)"
        elif name == "trust_remote_code":
            yield (
                below,
                "is said by teacher.trust_remote_code, for all that loads the teacher; a student's code never runs",
            )
        for number in value if isinstance(value, list) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                yield below, f"expected a finite number, found {number}"
        for mapping in (value,) if isinstance(value, dict) else value if isinstance(value, list) else ():
            if isinstance(mapping, dict):
                yield from _argument_conflicts(below, mapping)


def _said_elsewhere(config: Config) -> Iterator[tuple[Key, str]]:
    """Engine arguments that contradict other keys, or what every request says by itself."""
    rationales = config.rationales
    of_rationales = SAID_BY if rationales.author is None else {**OF_A_REQUEST, "model": "rationales.author"}
    of_evaluation = {name: key.replace("teacher", "student") for name, key in SAID_BY.items()}
    for section, arguments, elsewhere in (
        ("rationales", rationales.engine_arguments, of_rationales),
        ("evaluation", config.evaluation.engine_arguments, of_evaluation),
    ):
        for name in (name for name in arguments if name in elsewhere):
            key = elsewhere[name]
            problem = "every request says it by itself; leave it out" if key is None else f"is said by {key}"
            yield (section, "engine_arguments", name), problem


def _rationale_conflicts(config: Config) -> Iterator[tuple[Key, str]]:
    rationales, attention = config.rationales, config.attention
    if rationales.engine == "file" and rationales.path is None:
        yield ("rationales", "path"), "missing; `engine: file` needs the file that holds the rationales"
    if rationales.engine == "file" and rationales.keywords:
        yield ("rationales", "keywords"), "needs an engine that can be asked, which rationales.engine `file` is not"
    if rationales.samples > 1 and rationales.engine == "file":
        yield ("rationales", "samples"), f"expected 1 with rationales.engine `file`, found {rationales.samples}"
    elif rationales.samples > 1 and rationales.temperature == 0:
        yield (
            ("rationales", "samples"),
            f"expected 1 with rationales.temperature 0, which gives the same text every time, found "
            f"{rationales.samples}; set rationales.temperature, such as 0.7",
        )
    asked = attention.critical == "keywords" and attention.keyword_sources == ("teacher",) and not attention.keywords
    if asked and not rationales.keywords:
        yield (
            ("attention", "keyword_sources"),
            "only the teacher is to name key words and is not asked; set rationales.keywords to true",
        )


def _attention_conflicts(attention: AttentionSettings) -> Iterator[tuple[Key, str]]:
    if attention.critical == "regex" and attention.pattern is None:
        yield ("attention", "pattern"), "missing; `critical: regex` needs the regular expression that finds the words"
    if attention.pattern is not None and (problem := _regex_problem(attention.pattern)):
        yield ("attention", "pattern"), f"expected a regular expression, found {attention.pattern!r}: {problem}"
    if attention.piece > LARGEST_PIECE:
        yield ("attention", "piece"), f"expected at most {LARGEST_PIECE:,}, found {attention.piece:,}"


def _regex_problem(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except re.error as error:
        return str(error)
    return None


def _floats(config: Config) -> Iterator[tuple[Key, float]]:
    for section in Config.model_fields:
        values = getattr(config, section)
        for field in fields(values) if is_dataclass(values) else ():
            if isinstance(value := getattr(values, field.name), float):
                yield (section, field.name), value


def _complaints(error: ValidationError, document: Document) -> list[str]:
    """One line for each key that pydantic refused; the branches of a union speak about one key and share a line."""
    lines: dict[tuple[str, str], list[str]] = {}
    problems = error.errors(include_url=False)
    for problem in problems:
        key, kind = problem["loc"], problem["type"]
        if kind in {"missing", "missing_argument", "missing_keyword_only_argument"}:
            lines[document.place(key), dotted(key)] = [f"missing{_description(key)}"]
            continue
        if kind == "too_short" and any(key == other["loc"][: len(key)] != other["loc"] for other in problems):
            continue  # pydantic counts the valid entries only, and the invalid ones have lines of their own
        key = document.existing(key)
        start = lines.setdefault((document.place(key), dotted(key)), [])
        if kind in {"extra_forbidden", "unexpected_keyword_argument"}:
            start.append(f"no such key{_nearest_key(key)}")
        else:
            expected = EXPECTED.get(kind) or problem["msg"].removeprefix("Input should be ").partition(", unable")[0]
            start.append(f"expected {expected}, found {_shown(problem['input'])}{_nearest_value(problem)}")
    return [f"{place}: {key}: {_joined(parts)}" for (place, key), parts in lines.items()]


def _joined(parts: list[str]) -> str:
    """`expected x, found z` and `expected y, found z` as `expected x or y, found z`."""
    if len(parts) == 1:
        return parts[0]
    expected = [part.removeprefix("expected ").rpartition(", found ")[0] for part in parts]
    return f"expected {' or '.join(dict.fromkeys(expected))}, found {parts[0].rpartition(', found ')[2]}"


def _shown(value: object) -> str:
    text = {True: "true", False: "false", None: "nothing"}.get(value) if isinstance(value, bool | None) else repr(value)
    return text if text is not None and len(text) <= 60 else f"{repr(value)[:57]}…"


def _nearest_value(problem: Mapping[str, object]) -> str:
    expected = str(cast(Mapping[str, object], problem.get("ctx", {})).get("expected", ""))
    near = difflib.get_close_matches(str(problem["input"]), re.findall(r"'([^']+)'", expected), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _nearest_key(key: Key) -> str:
    """The sibling spelled most like the last part of `key`, else a key of that name elsewhere, else all siblings."""
    siblings, name = _valid_keys(key[:-1]), str(key[-1])
    near = [(*key[:-1], match) for match in difflib.get_close_matches(name, siblings, n=1)]
    near += [(section, name) for section in Config.model_fields if name in _valid_keys((section,))]
    if near:
        return f"; did you mean {dotted(near[0])}?"
    return f"; valid keys are {', '.join(siblings)}" if siblings else ""


@cache
def _schema() -> dict[str, Tree]:
    return cast(dict[str, Tree], ConfigFile.model_json_schema())


def _schema_at(key: Key) -> dict[str, Tree]:
    """The part of the JSON schema that describes `key`; empty where there is none."""
    schema = _schema()
    for part in key:
        below = schema.get("items") if isinstance(part, int) else _properties(schema).get(part)
        schema = _dereferenced(below) if isinstance(below, dict) else {}
    return schema


def _dereferenced(schema: dict[str, Tree]) -> dict[str, Tree]:
    """`schema` with the definition that it refers to, which its own entries take precedence over."""
    if not isinstance(reference := schema.get("$ref"), str):
        return schema
    definitions = cast(dict[str, dict[str, Tree]], _schema()["$defs"])
    return {**definitions[reference.rpartition("/")[2]], **schema}


def schema_of(key: Key) -> dict[str, dict[str, Tree]]:
    """The JSON schemas of the keys below `key`, by name, in the order in which they are declared."""
    return {name: _schema_at((*key, name)) for name in _properties(_schema_at(key))}


def _properties(schema: Mapping[str, Tree]) -> dict[str, Tree]:
    options = schema.get("anyOf")
    if isinstance(options, list):  # a section that may be left out is, where it is there, one of these
        sections = [_dereferenced(one) for one in options if isinstance(one, dict) and "$ref" in one]
        return _properties(sections[0]) if len(sections) == 1 else {}
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _valid_keys(key: Key) -> list[str]:
    return list(schema_of(key))


def _description(key: Key) -> str:
    description = _schema_at(key).get("description")
    return f" ({str(description).rstrip('.')})" if description else ""
