"""What is wrong with a configuration: one line for each key.

In: what pydantic refused, or a `Config` whose values are all allowed by themselves. Out: expected against found, with
the nearest valid key or value.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import cast

from pydantic import ValidationError

from data.errors import ConfigError
from pipeline.config.document import Document, Key, dotted
from pipeline.config.schema import Config, schema_at, schema_of
from stages.engines.openai_server import MAY_BE_LEFT_OUT, address_problem
from stages.rationales.spec import author_of
from stages.settings import (
    AlignmentSettings,
    AttentionSettings,
    EngineValue,
    RationaleSettings,
    SoftLabelSettings,
    SoftLabelTerm,
)
from stages.student.objective import Objective, objective_of

LARGEST_PIECE = 4096  # records in one part of a store
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
EXPECTED = {
    "string_type": "text; put it in quotes",
    "dataclass_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "tuple_type": "a list",
    "too_short": "at least one entry",
}


def conflicts(config: Config) -> Iterator[tuple[Key, str]]:
    """What is wrong although every value by itself is allowed."""
    yield from _attention_conflicts(config.attention)
    rationales = config.rationales
    try:
        objective = objective_of(config.objective)
    except ConfigError as error:
        name, _, problem = str(error).partition(": ")
        yield tuple(name.split(".")), problem
        return
    yield from _objective_conflicts(objective)
    if objective.soft_labels is not None:
        yield from _soft_label_conflicts(config.soft_labels, objective.soft_labels)
    taught = objective.tasks
    if not set(taught) & set(config.evaluation.prompts):
        expected = f"{' or '.join(taught)}, all that objective.name {objective.name} teaches"
        yield ("evaluation", "prompts"), f"expected {expected}, found {list(config.evaluation.prompts)}"
    yield from _rationale_conflicts(config)
    if config.training.early_stopping is not None and not config.data.dev:
        problem = "needs questions to measure on, never those of the test; name some in data.dev"
        yield ("training", "early_stopping"), problem
    if config.training.processes > config.training.batch_size:
        expected = f"at least the {config.training.processes} of training.processes, which share each batch"
        yield ("training", "batch_size"), f"expected {expected}, found {config.training.batch_size}"
    if len(set(config.training.seeds)) < len(config.training.seeds):
        yield ("training", "seeds"), f"expected different seeds, found {list(config.training.seeds)}"
    yield from _server_conflicts(rationales)
    yield from _attention_engine_conflicts(config)
    for section in ("rationales", "attention", "evaluation"):
        yield from _argument_conflicts((section, "engine_arguments"), getattr(config, section).engine_arguments)
    yield from _said_elsewhere(config)
    yield from _source_conflicts(config)
    for key, value in _floats(config.model_dump()):
        if not math.isfinite(value):
            yield key, f"expected a finite number, found {value}"


def _source_conflicts(config: Config) -> Iterator[tuple[Key, str]]:
    """The same of further sources of rationales, under their own keys."""
    for number, source in enumerate(config.sources()):
        for key, problem in (*_rationale_conflicts(source), *_server_conflicts(source.rationales)):
            if key[0] == "rationales":
                yield ("more_rationales", number, *key), problem
        for key, problem in _said_elsewhere(source):
            if key[0] == "rationales":
                yield ("more_rationales", number, *key), problem
        arguments = source.rationales.engine_arguments
        yield from _argument_conflicts(("more_rationales", number, "rationales", "engine_arguments"), arguments)


def _objective_conflicts(objective: Objective) -> Iterator[tuple[Key, str]]:
    """Keys of the preset that a term of its own makes meaningless."""
    given, defaults = objective.settings, AlignmentSettings()
    if given.terms.attention is not None:
        for name in (field.name for field in fields(AlignmentSettings)):
            if getattr(given, name) != getattr(defaults, name):
                yield ("objective", name), f"is not read beside objective.terms.attention; set it there, as {name}"
    for name, term in objective.terms.items():
        if term.takes_part_of is not None and term.weight > 1:
            key = tuple(objective.key(name, "weight").split("."))
            problem = f"expected at most 1, the share of {term.symbol} in the loss, found {term.weight:g}"
            yield key, problem


def _soft_label_conflicts(stored: SoftLabelSettings, term: SoftLabelTerm) -> Iterator[tuple[Key, str]]:
    """What the layout of soft labels does not tell."""
    if stored.piece > LARGEST_PIECE:
        yield ("soft_labels", "piece"), f"expected at most {LARGEST_PIECE:,}, found {stored.piece:,}"
    if term.match == "text":
        return
    layout, at = ("soft_labels", "layout"), f"temperature {term.temperature:g}"
    if stored.layout == "top" and term.temperature not in (1, 2):
        yield layout, f"`top` holds the sums over all tokens at temperatures 1 and 2; `hidden` tells those at {at}"
    if stored.layout == "sampled" and (term.temperature != 1 or term.divergence != "forward-kl"):
        yield layout, f"`sampled` tells the forward-kl at temperature 1; `hidden` tells the {term.divergence} at {at}"


def _server_conflicts(rationales: RationaleSettings) -> Iterator[tuple[Key, str]]:
    if rationales.server is not None and (problem := address_problem(rationales.server)):
        yield ("rationales", "server"), problem
    for name in MAY_BE_LEFT_OUT if author_of(rationales) is None else ():
        if getattr(rationales, name) is None:
            problem = "expected a number; null leaves it to the server of a rationales.author (`engine: openai`)"
            yield ("rationales", name), problem
    if rationales.author is not None and rationales.engine != "openai":
        yield ("rationales", "author"), f"needs `engine: openai`; with `engine: {rationales.engine}` the teacher writes"
    if rationales.author is not None and rationales.served_model is not None:
        problem = "means that the server runs teacher.model, rationales.author that another model writes; leave one out"
        yield ("rationales", "served_model"), problem


def _attention_engine_conflicts(config: Config) -> Iterator[tuple[Key, str]]:
    attention = config.attention
    if attention.engine == "transformers" and attention.engine_arguments:
        yield ("attention", "engine_arguments"), "are vLLM's: set attention.engine: vllm, or leave them out"
    if attention.engine == "vllm" and config.teacher.quantization:
        where = "attention.engine_arguments, as vLLM calls it (quantization: …)"
        yield (
            ("teacher", "quantization"),
            f"is how transformers loads the teacher; with attention.engine vllm say it in {where}",
        )


def _argument_conflicts(key: Key, arguments: Mapping[str, EngineValue]) -> Iterator[tuple[Key, str]]:
    """Arguments of an engine that may not be said there, at any depth."""
    for name, value in arguments.items():
        below = (*key, name)
        if SECRET.search(name):
            yield below, "a secret, and this file is saved with the run; set it in the environment (HF_TOKEN)"
        elif name == "trust_remote_code":
            where = "teacher.trust_remote_code, for all that loads the teacher; a student's code never runs"
            yield below, f"is said by {where}"
        for part in value if isinstance(value, list) else (value,):
            if isinstance(part, dict):
                yield from _argument_conflicts(below, part)


def _said_elsewhere(config: Config) -> Iterator[tuple[Key, str]]:
    """Engine arguments that contradict other keys, or what every request says by itself."""
    rationales = config.rationales
    of_rationales = SAID_BY if rationales.author is None else {**OF_A_REQUEST, "model": "rationales.author"}
    of_evaluation = {name: key.replace("teacher", "student") for name, key in SAID_BY.items()}
    for section, arguments, elsewhere in (
        ("rationales", rationales.engine_arguments, of_rationales),
        ("attention", config.attention.engine_arguments, SAID_BY),
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
    if rationales.as_student and rationales.engine == "file":
        problem = "needs an engine that can be asked, which rationales.engine `file` is not"
        yield ("rationales", "as_student"), problem
    elif rationales.as_student:
        others = {"shots": 0, "chat": False, "second_phase": False, "keywords": False}
        for name, value in others.items():
            if (found := getattr(rationales, name)) != value:
                expected = f"{_shown(value)} with rationales.as_student, which asks by a prompt of its own"
                yield ("rationales", name), f"expected {expected}, found {_shown(found)}"
    if rationales.samples > 1 and rationales.engine == "file":
        yield ("rationales", "samples"), f"expected 1 with rationales.engine `file`, found {rationales.samples}"
    elif rationales.samples > 1 and rationales.temperature == 0:
        expected = "1 with rationales.temperature 0, which gives the same text every time"
        found = f"{rationales.samples}; set rationales.temperature, such as 0.7"
        yield ("rationales", "samples"), f"expected {expected}, found {found}"
    asked = attention.critical == "keywords" and attention.keyword_sources == ("teacher",) and not attention.keywords
    if asked and not rationales.keywords:
        problem = "only the teacher is to name key words and is not asked; set rationales.keywords to true"
        yield ("attention", "keyword_sources"), problem


def _attention_conflicts(attention: AttentionSettings) -> Iterator[tuple[Key, str]]:
    if attention.critical == "regex" and attention.pattern is None:
        yield ("attention", "pattern"), "missing; `critical: regex` needs the regular expression that finds the words"
    try:
        re.compile(attention.pattern or "")
    except re.error as error:
        yield ("attention", "pattern"), f"expected a regular expression, found {attention.pattern!r}: {error}"
    if attention.piece > LARGEST_PIECE:
        yield ("attention", "piece"), f"expected at most {LARGEST_PIECE:,}, found {attention.piece:,}"


def _floats(value: object, key: Key = ()) -> Iterator[tuple[Key, float]]:
    """Every float of a configuration, however deep, with its key."""
    if isinstance(value, float):
        yield key, value
    elif isinstance(value, Mapping):
        for name, below in value.items():
            yield from _floats(below, (*key, name))
    elif isinstance(value, list | tuple):
        for number, below in enumerate(value):
            yield from _floats(below, (*key, number))


def complaints(error: ValidationError, document: Document) -> list[str]:
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
    siblings, name = schema_of(key[:-1]), str(key[-1])
    near = [(*key[:-1], match) for match in difflib.get_close_matches(name, siblings, n=1)]
    near += [(section, name) for section in Config.model_fields if name in schema_of((section,))]
    if near:
        return f"; did you mean {dotted(near[0])}?"
    return f"; valid keys are {', '.join(siblings)}" if siblings else ""


def _description(key: Key) -> str:
    description = schema_at(key).get("description")
    return f" ({str(description).rstrip('.')})" if description else ""
