"""From a configuration file to a checked `Config`, and back.

In: a path and `--set` overrides. Out: a frozen `Config`; or a `ConfigError` with a line for every problem found: where
it was written, which key, what was expected, what was found, and the nearest valid key.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from data.errors import ConfigError
from pipeline.config.document import Document, Key, Tree, dotted, read_document, to_yaml
from pipeline.config.problems import complaints, conflicts
from pipeline.config.schema import Config, ConfigFile

PATHS: tuple[Key, ...] = (("store",), ("teacher", "model"), ("student", "model"), ("rationales", "path"))


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override and check a configuration file; `ConfigError` with one line a problem.

    Of a file with `matrix` this is what all points begin with; `pipeline.config.matrix` makes the points.
    """
    return check_document(read_config(path, overrides))


def read_config(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Read and override a configuration file without checking it."""
    document = read_document(path, overrides)
    for name in [name for name, value in document.tree.items() if value is None and name in ConfigFile.model_fields]:
        del document.tree[name]  # a section whose keys are all commented out means the defaults
    return document


def check_document(document: Document) -> Config:
    """Check what was read, `matrix` aside; `ConfigError` with one line a problem."""
    document = replace(document, tree={name: value for name, value in document.tree.items() if name != "matrix"})
    _expand_home(document.tree)
    try:
        config = Config.model_validate(document.tree)
    except ValidationError as error:
        raise ConfigError("\n".join(complaints(error, document))) from error
    if found := [f"{document.place(key)}: {dotted(key)}: {problem}" for key, problem in conflicts(config)]:
        raise ConfigError("\n".join(found))
    return config


def resolved_yaml(config: Config) -> str:
    """Every value of `config`, defaults included, as a file that loads back to an equal `Config`."""
    return to_yaml(cast(Tree, config.model_dump(mode="json")))


def _expand_home(tree: dict[str, Tree]) -> None:
    """Replace a leading ~ where a value is a path; relative paths stay relative to the current directory."""
    for key in PATHS:
        _expand_entry(tree.get(str(key[0])) if len(key) == 2 else tree, str(key[-1]))
    further = tree.get("more_rationales")
    for source in further if isinstance(further, list) else ():
        if isinstance(source, dict):
            _expand_home(source)
    data = tree.get("data")
    for sources in data.values() if isinstance(data, dict) else ():
        for source in sources if isinstance(sources, list) else ():
            _expand_entry(source, "path")


def _expand_entry(section: Tree, name: str) -> None:
    if isinstance(section, dict) and isinstance(section.get(name), str):
        section[name] = os.path.expanduser(str(section[name]))  # noqa: PTH111  Path would rewrite hub ids such as a//b
