"""The file that `molsaki config init` writes: every key there is, described, with its default.

In: the JSON schema of the configuration, so that this file cannot fall behind the settings. Out: YAML in which only
what a user has to decide is set; everything else is a comment that shows the default.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from data.errors import ConfigError
from pipeline.config.document import Tree, entry_yaml
from pipeline.config.schema import schema_of

WIDTH = 110
CHOSEN = {
    "name": "my-run",
    "teacher.model": "Qwen/Qwen2.5-7B-Instruct",
    "student.model": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
}
MADE: dict[str, Tree] = {"store": "~/.cache/molsaki"}
SOURCES = {"train": "    - {name: svamp, split: train}", "test": "    - {name: svamp, split: test}"}
EXAMPLES = {
    "matrix": ("#   - {objective.name: [dss, mmi]}", "#   - {objective.name: [molsaki], objective.beta: [0.3, 1, 3]}"),
}
HEAD = """\
# Configuration of a MoLSAKI run. Commented keys show their defaults.
#   molsaki run FILE --dry-run      what would be done
#   molsaki run FILE                do it; finished work is found and skipped
"""


def write_starter(path: Path) -> None:
    """Write the starter file; an existing file is never overwritten."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter_text())
    except FileExistsError as error:
        raise ConfigError(f"{path}: is there already and stays as it is; name another file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def starter_text() -> str:
    """The starter file as text."""
    return "\n".join((HEAD, *_top_level())) + "\n"


def _top_level() -> Iterator[str]:
    for name, schema in schema_of(()).items():
        if keys := schema_of((name,)):
            yield from ("", *_comment(_about(schema), ""), f"{name}:")
            for key, below in keys.items():
                yield from _sources(key, below) if name == "data" else _entry(key, below, f"{name}.{key}", "  ")
        elif name in EXAMPLES:
            yield from ("", *_comment(_about(schema), ""), f"# {name}:", *EXAMPLES[name])
        else:
            yield from _entry(name, schema, name, "")


def _entry(key: str, schema: dict[str, Tree], dotted_key: str, indent: str) -> Iterator[str]:
    yield from _comment(_about(schema) + _choices(schema), indent)
    if dotted_key in CHOSEN:
        yield f"{indent}{key}: {CHOSEN[dotted_key]}"
    else:
        yield f"{indent}# {entry_yaml(key, _default(dotted_key, schema))}"


def _sources(key: str, schema: dict[str, Tree]) -> Iterator[str]:
    yield from _comment(_about(schema), "  ")
    if key in SOURCES:
        yield from (f"  {key}:", SOURCES[key])
    else:
        yield f"  # {key}: []"
    if key == "train":
        yield from _comment("A source has these keys:", "    ")
        for name, below in schema_of(("data", "train", 0)).items():
            yield from _comment(f"{name}: {_about(below)}{_choices(below)}", "    ", hanging="  ")


def _default(dotted_key: str, schema: dict[str, Tree]) -> Tree:
    """The default of a key; the schema has none for those that are made anew for each configuration."""
    if schema.get("type") == "object":
        return {}
    return MADE[dotted_key] if dotted_key in MADE else schema["default"]


def _about(schema: dict[str, Tree]) -> str:
    return str(schema.get("description", ""))


def _choices(schema: dict[str, Tree]) -> str:
    choices = cast(list[str], schema.get("enum") or [])
    return f" One of: {', '.join(choices)}." if choices else ""


def _comment(text: str, indent: str, hanging: str = "") -> list[str]:
    prefix = f"{indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=prefix, subsequent_indent=prefix + hanging, break_on_hyphens=False)
