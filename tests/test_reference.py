"""docs/reference.md is what docs/make_reference.py writes, whoever runs it and wherever."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from cache.spaces import default_store
from pipeline.cli.main import molsaki
from pipeline.config.schema import Config

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "docs" / "make_reference.py"
REFERENCE = ROOT / "docs" / "reference.md"


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """The script as a module; docs/ is no package."""
    spec = importlib.util.spec_from_file_location("make_reference", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_program_says(made: ModuleType) -> None:
    assert REFERENCE.read_text(encoding="utf-8") == made.reference(), (
        "docs/reference.md is not what commands and settings say now; write it anew with: make reference"
    )


def test_it_is_the_same_on_every_machine(tmp_path: Path) -> None:
    """Another home, another cache directory, a narrow terminal and no colours."""
    code = f"import runpy; print(runpy.run_path({str(SCRIPT)!r})['reference'](), end='')"
    elsewhere = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "c"), "COLUMNS": "40", "NO_COLOR": "1"}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | elsewhere | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == REFERENCE.read_text(encoding="utf-8")


def test_it_names_no_place_of_this_machine() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for place in (Path.home(), ROOT, default_store()):
        assert f"{place}/" not in text and f"`{place}`" not in text


def visible_commands(command: click.Command, name: str) -> dict[str, click.Command]:
    """Every command that `--help` shows, by its whole name."""
    context = click.Context(command)
    below = getattr(command, "commands", {})
    if isinstance(command, click.Group):
        names = command.list_commands(context)
        below = {one: found for one in names if (found := command.get_command(context, one)) and not found.hidden}
    found = {name: command}
    for one, other in below.items():
        found |= visible_commands(other, f"{name} {one}")
    return found


def test_every_command_has_a_section_with_its_options() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (molsaki[a-z -]*)\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL))
    commands = visible_commands(molsaki, "molsaki")
    assert sections.keys() == commands.keys() and len(commands) > 25
    for name, command in commands.items():
        for option in (one for one in command.params if isinstance(one, click.Option)):
            shown = f"| `{', '.join(option.opts)}" in sections[name]
            assert shown is not option.hidden, f"{name} {option.opts}"


def test_hidden_commands_and_options_stay_out() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    assert "train-share" not in text and "--supervised" not in text


def test_every_section_of_a_configuration_has_its_keys() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for name in Config.model_fields:
        assert f"| `{name}` |" in text or f"| `{name}." in text
    for key in ("rationales.fields.id", "training.early_stopping.patience", "objective.alignment.single"):
        assert f"| `{key}` |" in text


def test_exit_codes_are_those_of_the_errors(made: ModuleType) -> None:
    from data import errors

    codes = {one.exit_code for one in vars(errors).values() if isinstance(one, type) and hasattr(one, "exit_code")}
    assert codes <= made.EXIT_CODES.keys()
    assert "| 65 | damaged data |" in REFERENCE.read_text(encoding="utf-8")


def test_the_columns_of_a_table_are_kept_apart(made: ModuleType) -> None:
    assert made.table(("a", "b"), [("x|y", "z")]) == "| a | b |\n| --- | --- |\n| x\\|y | z |"


def test_variables_of_the_environment_are_ones_that_something_reads(made: ModuleType) -> None:
    files = [path for top in ("cache", "pipeline", "stages") for path in (ROOT / top).rglob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    of_libraries = {"HF_HOME", "HF_HUB_OFFLINE"}
    assert {name for name in made.ENVIRONMENT if name not in sources} <= of_libraries
