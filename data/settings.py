"""Settings that say which questions and which existing rationales to read, and the decorator that makes settings.

Every room declares its settings with it. A settings class is a frozen dataclass with keyword-only fields; the docstring
below a field becomes its description in `molsaki config schema`. The configuration (pipeline.config) validates them
with pydantic, which this room need not import.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

from annotated_types import Ge

from data.sets import DatasetName

T = TypeVar("T")
OwnKind = Literal["number", "numbers", "boolean", "text"]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def settings(cls: type[T]) -> type[T]:
    """Make `cls` a frozen keyword-only dataclass in which pydantic refuses unknown keys."""
    cls.__pydantic_config__ = {"extra": "forbid", "json_schema_extra": describe_fields}  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


def describe_fields(schema: dict[str, Any], cls: type) -> None:  # pydantic's own types
    """Add to a class's JSON schema what the docstrings below its fields say.

    Pydantic can read them itself, and does so whenever the class is made, which takes longer than all the rest of it.
    """
    for name, described in schema.get("properties", {}).items():
        texts = (_field_docstrings(each.__module__).get(each.__name__, {}) for each in cls.__mro__)
        if text := next((found[name] for found in texts if name in found), None):
            described.setdefault("description", text)


@cache
def _field_docstrings(module: str) -> dict[str, dict[str, str]]:
    """The docstrings of all fields in a module, by the name of their class."""
    if module == "builtins":
        return {}
    classes = [
        node for node in ast.parse(inspect.getsource(sys.modules[module])).body if isinstance(node, ast.ClassDef)
    ]
    return {node.name: dict(_docstrings(node)) for node in classes}


def _docstrings(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for declared, behind in pairwise(node.body):
        if isinstance(declared, ast.AnnAssign) and isinstance(declared.target, ast.Name):
            text = behind.value if isinstance(behind, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield declared.target.id, inspect.cleandoc(text.value)


@settings
class DataSource:
    """Where one list of questions comes from: a named data set, from a local file or from the Hugging Face hub."""

    name: DatasetName
    """Which reader to use, and for a published data set its worked examples and scoring."""
    path: str | None = None
    """A local file in the data set's published format. Without it the set is loaded from the hub; `singleeq` and
    `addsub` have no dependable place there and need a file."""
    split: str = "train"
    """Split on the hub, or the seed's stream of `synthetic`; with a local file it is only a label."""
    hub: str | None = None
    """Another hub id than the usual one."""
    revision: str | None = None
    """Commit or tag of the hub data set."""
    kind: OwnKind | None = None
    """`jsonl` and `csv`: what the answers of questions without choices are; unset is what most of them are. `numbers`
    are several, such as 8; 128, or ratios, `boolean` yes or no."""
    limit: Annotated[int, Ge(1)] | None = None
    """Take only the first so many questions (after `skip`)."""
    skip: Annotated[int, Ge(0)] = 0
    """Leave out the first so many questions."""
    seed: int = 0
    """Seed of `synthetic`."""


@settings
class RationaleFields:
    """Which fields of a file of existing rationales hold what."""

    id: str = "id"
    """The question's id, as the data set has it."""
    rationale: str = "rationale"
    """The rationale; null where there is none."""
    answer: str = "answer"
    """The answer that the rationale leads to; rows without the field state it in the rationale's text."""
