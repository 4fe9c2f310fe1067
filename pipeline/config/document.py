"""A configuration file as a tree of plain values that remembers where each value stands.

In: the path of a YAML file and `--set a.b=c` overrides. Out: a `Document`, whose `place` turns a key such as
`("training", "epochs")` into `file.yaml:12` or `--set training.epochs=3`, so that a complaint about it can say where
it stands. It knows nothing of what the keys mean; that is `pipeline.config.schema`.

Two departures from YAML 1.1, both against silent surprises: `1e-4` is a number, `2025-01-31` is text. The same table
of scalars is used for writing, so that what is saved reads back as it was.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import yaml

from data.errors import ConfigError

Tree: TypeAlias = "str | int | float | bool | list[Tree] | dict[str, Tree] | None"
Key: TypeAlias = tuple[str | int, ...]

FLOAT_WITHOUT_POINT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
RESOLVERS = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith(":timestamp")]
    + ([("tag:yaml.org,2002:float", FLOAT_WITHOUT_POINT)] if first in tuple("-+0123456789") else [])
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = RESOLVERS


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = RESOLVERS


@dataclass(frozen=True, kw_only=True)
class Document:
    """The values of one configuration file after overrides, and where each of them was written."""

    path: Path
    tree: dict[str, Tree]
    places: Mapping[Key, str]

    def place(self, key: Key) -> str:
        """File and line, or override, of `key` or of the nearest section around it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return str(self.path)

    def existing(self, key: Key) -> Key:
        """The longest beginning of `key` that names something in the tree."""
        value: Tree = self.tree
        for depth, part in enumerate(key):
            if not _holds(value, part):
                return key[:depth]
            value = cast(Any, value)[part]
        return key


def dotted(key: Key) -> str:
    """`("data", "train", 0)` as `data.train.0`, the form that `--set` takes."""
    return ".".join(str(part) for part in key)


def parse_key(name: str) -> Key | None:
    """`data.train.0.limit` or `data.train[0].limit` as a key; None where a part of it is missing."""
    parts = [part.strip() for part in re.sub(r"\[(\d+)\]", r".\1", name).split(".")]
    return tuple(int(part) if part.isdecimal() else part for part in parts) if all(parts) else None


def read_document(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Parse the file at `path` and apply `overrides` (`a.b=c`, the value in YAML) in order.

    Complaints name an override without its value, which may be a secret.
    """
    tree, places = _parse(path)
    for override in overrides:
        key, value = _parse_override(override)
        places[key] = f"--set {override.partition('=')[0]}"
        put(tree, key, value, places[key])
        for length in range(1, len(key)):
            places.setdefault(key[:length], places[key])  # sections that are there because of it
    return Document(path=path, tree=tree, places=places)


def to_yaml(tree: Tree, *, short_lists: bool = False) -> str:
    """`tree` as YAML that `read_document` reads back to an equal tree."""
    style = None if short_lists else False
    return yaml.dump(
        tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf, default_flow_style=style
    )


def entry_yaml(key: str, value: Tree) -> str:
    """`key: value` on one line, for values that are scalars or lists of scalars."""
    return to_yaml({key: value}, short_lists=isinstance(value, list | dict)).strip()


def _parse(path: Path) -> tuple[dict[str, Tree], dict[Key, str]]:
    node = _compose(path)
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}: expected a mapping with keys such as name, data, teacher; see: molsaki config init")
    places: dict[Key, str] = {}
    _record_places(node, (), path, places, frozenset())
    loader = _Loader("")
    try:
        tree = loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(_yaml_complaint(path, error)) from error
    finally:
        loader.dispose()
    return cast(dict[str, Tree], tree), places


def _compose(path: Path) -> yaml.Node | None:
    try:
        return yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file; write one with: molsaki config init {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a configuration file: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_complaint(path, error)) from error


def _yaml_complaint(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"{path}:{mark.line + 1}: not valid YAML: {problem}" if mark else f"{path}: not valid YAML: {problem}"


def _record_places(node: yaml.Node, key: Key, path: Path, places: dict[Key, str], above: frozenset[int]) -> None:
    if id(node) in above:
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: {dotted(key)}: an alias that contains itself")
    above |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            places[*key, index] = f"{path}:{item.start_mark.line + 1}"
            _record_places(item, (*key, index), path, places, above)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, item in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                raise ConfigError(f"{path}:{line}: {dotted(key) or 'top level'}: a key must be a word")
            if name.value in seen:
                raise ConfigError(f"{path}:{line}: {dotted((*key, name.value))}: the key is there twice; keep one")
            seen.add(name.value)
            places[*key, name.value] = f"{path}:{line}"
            _record_places(item, (*key, name.value), path, places, above)


def _parse_override(override: str) -> tuple[Key, Tree]:
    name, equals, text = override.partition("=")
    key = parse_key(name)
    if not equals or key is None:
        raise ConfigError(f"--set {override}: expected key=value such as training.epochs=3")
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506  _Loader is a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"--set {name}: the value is not valid YAML: {problem}") from None  # it quotes the value
    return key, cast(Tree, value)


def put(tree: dict[str, Tree], key: Key, value: Tree, place: str) -> None:
    """Set `key` in `tree`; sections that are missing on the way are made, items of a list are not.

    Raises `ConfigError`, which begins with `place`, where there is no such item, or a value where a section has to be.
    """
    section: Tree = tree
    for depth, part in enumerate(key):
        around = dotted(key[:depth])
        if isinstance(section, list) and not _holds(section, part):
            raise ConfigError(f"{place}: {around} has {len(section)} entries; they count from 0")
        if not isinstance(section, dict | list):
            raise ConfigError(f"{place}: {around} is {section!r}, which has no key {part!r}")
        index = part if isinstance(section, list) else str(part)
        if depth == len(key) - 1:
            cast(Any, section)[index] = value
        elif isinstance(section, dict) and section.get(str(part)) is None:
            section[str(part)] = {}
        section = cast(Any, section)[index]


def _holds(value: Tree, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and 0 <= part < len(value)
    return isinstance(value, dict) and part in value
