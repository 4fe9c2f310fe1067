"""What a configuration may hold: the settings that the stages declare, put together, and their JSON schema.

Pydantic checks types and bounds; what only several values together can tell is in `pipeline.config.problems`.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, cast

from annotated_types import MinLen
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from cache.spaces import default_store
from data.settings import DataSource, describe_fields
from pipeline.config.document import Key, Tree
from stages.settings import (
    AttentionSettings,
    EvaluationSettings,
    ObjectiveSettings,
    RationaleSettings,
    SoftLabelSettings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
)

RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._=,+-]{0,99}$"


class DataSettings(BaseModel):
    """Which questions are learned from and which are measured on."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, json_schema_extra=describe_fields)

    train: Annotated[tuple[DataSource, ...], MinLen(1)]
    """Questions that the teacher explains and the students learn from."""
    dev: tuple[DataSource, ...] = ()
    """Questions to choose settings by: `molsaki evaluate --split dev` measures on them."""
    test: tuple[DataSource, ...] = ()
    """Questions that the finished students are measured on."""


class FurtherRationales(BaseModel):
    """A further source of rationales."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, json_schema_extra=describe_fields)

    teacher: TeacherSettings | None = None
    """Who wrote or writes them; unset is the run's own teacher."""
    rationales: RationaleSettings = RationaleSettings()
    """How."""


class Config(BaseModel):
    """One run: its data, teacher, student, and how each stage works."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra=describe_fields, hide_input_in_errors=True
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
    more_rationales: tuple[FurtherRationales, ...] = ()
    """Rationales that others wrote for the same questions, or the teacher otherwise: a mentor's samples beside a
    teacher's. Students learn from all of them; attention and soft labels are the teacher's of this run."""
    attention: AttentionSettings = AttentionSettings()
    """Stage one, second half: what to pool the teacher's attention over, and how."""
    soft_labels: SoftLabelSettings = SoftLabelSettings()
    """Stage one, for objectives with soft labels: what else the teacher could have written at each token."""
    student: StudentSettings
    """The model that learns."""
    objective: ObjectiveSettings = ObjectiveSettings()
    """What the student is trained for."""
    training: TrainingSettings = TrainingSettings()
    """How the student is trained; one student for every seed."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How the trained students are measured."""

    def sources(self) -> "tuple[Config, ...]":
        """Each of `more_rationales` as a configuration of its own."""
        return tuple(
            self.model_copy(
                update={
                    "name": f"rationales-{number}",
                    "teacher": more.teacher or self.teacher,
                    "rationales": more.rationales,
                    "more_rationales": (),
                }
            )
            for number, more in enumerate(self.more_rationales, start=2)
        )


class ConfigFile(Config):
    """What a configuration file may hold: one run, and in `matrix` what varies from run to run."""

    model_config = ConfigDict(defer_build=True)  # its schema is for people; what is checked is `Config`

    matrix: dict[str, list[JsonValue]] | list[dict[str, list[JsonValue]]] | None = None
    """Several runs in one file: a mapping from keys such as objective.beta to lists of values, of which every
    combination is a run (a point), or a list of such mappings, whose points are put together."""


def schema_json() -> str:
    """JSON schema of the configuration file, with descriptions, for editors."""
    return json.dumps(_schema(), indent=2, ensure_ascii=False)


@cache
def _schema() -> dict[str, Tree]:
    return cast(dict[str, Tree], ConfigFile.model_json_schema())


def schema_at(key: Key) -> dict[str, Tree]:
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
    return {name: schema_at((*key, name)) for name in _properties(schema_at(key))}


def _properties(schema: Mapping[str, Tree]) -> dict[str, Tree]:
    options = schema.get("anyOf")
    if isinstance(options, list):  # a section that may be left out is, where it is there, one of these
        sections = [_dereferenced(one) for one in options if isinstance(one, dict) and "$ref" in one]
        return _properties(sections[0]) if len(sections) == 1 else {}
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}
