"""Imports between the rooms point one way, and asking for help costs none of the heavy libraries."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "data": set(),
    "cache": {"data"},
    "stages": {"data", "cache"},
    "pipeline": {"data", "cache", "stages"},
}
HEAVY = ("torch", "transformers", "vllm", "zarr", "datasets", "pandas", "pyarrow")
LIBRARIES_OF_ONE_ROOM = {
    "torch": "stages",
    "transformers": "stages",
    "vllm": "stages",
    "peft": "stages",
    "zarr": "cache",
}


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).glob("**/*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_between_rooms_point_one_way(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    assert modules(room)
    for path in modules(room):
        rooms = {name.partition(".")[0] for name in imported(path)} & MAY_IMPORT.keys()
        assert rooms <= allowed, f"{path.relative_to(ROOT)} imports {sorted(rooms - allowed)}"


def test_heavy_libraries_stay_in_their_rooms() -> None:
    for room in MAY_IMPORT:
        for path in modules(room):
            names = {name.partition(".")[0] for name in imported(path)}
            strangers = {name for name in names if LIBRARIES_OF_ONE_ROOM.get(name, room) != room}
            assert not strangers, f"{path.relative_to(ROOT)} imports {sorted(strangers)}"


def loaded_after(code: str) -> set[str]:
    report = f"{code}\nimport json, sys\nprint(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_loads_no_heavy_library() -> None:
    run = "import sys\nfrom pipeline.cli.main import molsaki\nsys.argv = ['molsaki', '--help']\n"
    assert (
        loaded_after(
            run + "try:\n    molsaki(prog_name='molsaki')\nexcept SystemExit as end:\n    assert end.code == 0"
        )
        == set()
    )


def test_order_of_work_loads_neither_torch_nor_vllm() -> None:
    modules_of_run = (
        "import pipeline.run.work, pipeline.console.tables, cache.reader, cache.rationales, data.readers, "
        "stages.rationales.write"
    )
    assert loaded_after(modules_of_run) & {"torch", "transformers", "vllm", "datasets"} == set()
