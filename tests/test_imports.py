"""What a line may touch: rooms import in one order, in no circle and no private name, and heavy libraries stay put.

`ROOMS` is the order of the flow, lowest first. It is read off the imports as they stand in the text, those inside
functions and those for type checkers included. `MOLSAKI_ROOT` names another checkout to look at.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("MOLSAKI_ROOT", Path(__file__).parents[1])).resolve()
TOP = ("data", "cache", "stages", "pipeline")
ROOMS = (
    "data",
    "cache",
    "cache.exchange",
    "stages",
    "stages.settings",
    "stages.runtime",
    "stages.mixture",
    "stages.losses",
    "stages.head",
    "stages.models",
    "stages.engines",
    "stages.rationales",
    "stages.attention",
    "stages.soft_labels",
    "stages.evaluation",
    "stages.student",
    "stages.likelihood",
    "stages.figures",
    "stages.toy",
    "stages.bench",
    "pipeline",
    "pipeline.console",
    "pipeline.config",
    "pipeline.results",
    "pipeline.run",
    "pipeline.costs",
    "pipeline.check",
    "pipeline.tasks",
    "pipeline.store",
    "pipeline.views",
    "pipeline.bench",
    "pipeline.demo",
    "pipeline.cli",
    "pipeline.__main__",
)
WITHIN = (
    *("cache.parts", "cache.soft_labels", "stages.attention.in_vllm"),
    *("data.answers", "data.rows", "data.sets", "stages.engines.kinds", "stages.student.objectives"),
    *("stages.student.records", "stages.student.terms", "pipeline.views.figures"),
)
"""Folders that are part of the room around them: answers, kinds of files, one file a set, engine, objective or term."""
STRANGERS = ("stages.rationales", "stages.attention", "stages.evaluation")
"""Rooms that never import one another: what one makes reaches the next through the cache, or through whoever calls."""
LAZY = {("cache", "cache.exchange.addresses"), ("cache", "cache.exchange.importing")}
"""The face of `cache` reaches above itself: `cache.open_attention` also takes addresses."""
MOST_MODULES = {"cache": 23, "data/sets": 100, "stages/student/objectives": 100}
"""Where it is not `MODULES_IN_A_FOLDER`; a folder of one file a data set or an objective grows with what there is."""
MODULES_IN_A_FOLDER = 15
HEAVY = ("torch", "transformers", "vllm", "zarr", "datasets", "pandas", "pyarrow", "psutil", "sympy", "math_verify")
LIBRARIES_OF_ONE_ROOM = {
    "torch": "stages",
    "transformers": "stages",
    "vllm": "stages",
    "peft": "stages",
    "gguf": "stages",
    "zarr": "cache",
    "math_verify": "data",
    "latex2sympy2_extended": "data",
}
OF_MODELS = {"torch", "torch._dynamo", "transformers", "accelerate", "sympy", "psutil"}
"""What comes with `transformers.modeling_utils`, whatever is done with it."""
LOADED_BY: Mapping[str, set[str]] = {
    "stages.attention.write": OF_MODELS | {"zarr"},
    "stages.evaluation, stages.likelihood, stages.engines.kinds.transformers": OF_MODELS,
    "stages.student.train": OF_MODELS | {"transformers.trainer", "datasets", "pandas", "peft", "pyarrow"},
}
"""What the process of a stage loads for its work: all heavy libraries, of those that are known here."""
KNOWN_AS_HEAVY = {*HEAVY, *OF_MODELS, "transformers.trainer", "peft", "gguf"}
WITHOUT_TORCH = (
    "cache.arrays",
    "cache.reader",
    "cache.rationales",
    "cache.soft_labels.mapped",
    "cache.soft_labels.reader",
    "cache.targets",
    "data.check",
    "data.readers",
    "stages.settings",
    "stages.attention.select",
    "stages.attention.selected",
    "stages.attention.spec",
    "stages.bench.index",
    "stages.bench.measure",
    "stages.engines.start",
    "stages.evaluation",
    "stages.figures.attention_shares",
    "stages.figures.statistics",
    "stages.figures.targets",
    "stages.models.identity",
    "stages.models.size",
    "stages.rationales.references",
    "stages.rationales.write",
    "stages.runtime.imports",
    "stages.runtime.kept_hashes",
    "stages.student.objective",
    "pipeline.bench.compare",
    "pipeline.check.gather",
    "pipeline.cli.main",
    "pipeline.console.tables",
    "pipeline.costs.targets",
    "pipeline.results.scores",
    "pipeline.run.order",
    "pipeline.tasks.export",
    "pipeline.views.explore",
    "pipeline.views.at_end",
    "pipeline.views.report",
)


@cache
def modules() -> dict[str, Path]:
    """Every module of our packages by its name; a package's `__init__.py` has the package's name."""
    found = {}
    for top in TOP:
        for path in sorted((ROOT / top).glob("**/*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def statements(module: str) -> tuple[ast.stmt, ...]:
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


@cache
def imports(module: str) -> frozenset[str]:
    """Our modules that a module imports, at its top, inside functions or for type checkers."""
    found: set[str] = set()
    for node in statements(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else str(node.module) for name in names}
    return frozenset(found & modules().keys()) - {module}


def room_of(module: str) -> str:
    """The room that a module lies in: the longest entry of `ROOMS` that is the module or a folder around it."""
    package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    around = [
        room
        for room in ROOMS
        if module == room or package == room or (package in WITHIN and package.startswith(f"{room}."))
    ]
    assert around, f"{module} is in no room: add it to ROOMS, at its place in the flow"
    return max(around, key=len)


def libraries(module: str) -> Iterator[str]:
    for node in statements(module):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).partition(".")[0]


@pytest.mark.parametrize("module", modules())
def test_a_room_imports_only_what_comes_before_it(module: str) -> None:
    place = ROOMS.index(room_of(module))
    above = {other for other in imports(module) if ROOMS.index(room_of(other)) > place and (module, other) not in LAZY}
    assert not above, f"{module} imports {sorted(above)}"


def circles() -> list[str]:
    """Circles of files: each that is found is cut open, until there is none left."""
    graph = {module: {other for other in imports(module) if (module, other) not in LAZY} for module in modules()}
    found = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = list(reversed(error.args[1]))
            found.append(" -> ".join(circle))
            for importer, imported in pairwise(circle):
                graph[importer] -= {imported}
        else:
            return found


def test_files_form_no_circle() -> None:
    found = circles()
    assert not found, "imported in circles:\n" + "\n".join(found)


def test_rationales_attention_and_evaluation_do_not_know_each_other() -> None:
    for module in modules():
        own = room_of(module)
        if own in STRANGERS:
            strange = {other for other in imports(module) if room_of(other) in STRANGERS and room_of(other) != own}
            assert not strange, f"{module} imports {sorted(strange)}"


def test_a_folder_holds_no_more_modules_than_one_looks_through() -> None:
    folders: dict[str, int] = {}
    for path in modules().values():
        folders[path.parent.relative_to(ROOT).as_posix()] = folders.get(path.parent.relative_to(ROOT).as_posix(), 0) + 1
    crowded = {name: n for name, n in folders.items() if n > MOST_MODULES.get(name, MODULES_IN_A_FOLDER)}
    assert not crowded, f"modules by folder: {crowded}"


def test_no_private_name_crosses_a_file() -> None:
    for module in modules():
        for node in statements(module):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in TOP:
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not private, f"{module} imports {private} of {node.module}"
        ours = {name.rpartition(".")[2] for name in imports(module)}
        for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours:
                assert node.attr.startswith("__") or not node.attr.startswith("_"), (
                    f"{module} uses {node.value.id}.{node.attr}"
                )


def test_heavy_libraries_stay_in_their_rooms() -> None:
    for module in modules():
        top = module.partition(".")[0]
        strangers = {name for name in libraries(module) if LIBRARIES_OF_ONE_ROOM.get(name, top) != top}
        assert not strangers, f"{module} imports {sorted(strangers)}"


def loaded_after(code: str, among: Iterable[str] = HEAVY) -> set[str]:
    report = f"{code}\nimport json, sys\nprint(json.dumps([n for n in {tuple(among)!r} if n in sys.modules]))"
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


def test_what_plans_and_shows_loads_neither_torch_nor_vllm() -> None:
    assert loaded_after(f"import {', '.join(WITHOUT_TORCH)}") & {"torch", "transformers", "vllm", "datasets"} == set()


@pytest.mark.parametrize("modules", LOADED_BY)
def test_the_process_of_a_stage_loads_what_it_needs(modules: str) -> None:
    """Nobody adds a heavy library unseen.

    Some that no stage of ours asks for cannot be helped: transformers 5.19 imports sympy, torch._dynamo and torch's
    distributed tensors at the top of `modeling_utils` (by `transformers.distributed` and `masking_utils`), and peft
    and datasets, with pandas and pyarrow, at the top of `trainer_utils` and `trainer` wherever they are installed.
    """
    assert loaded_after(f"import {modules}", KNOWN_AS_HEAVY) == LOADED_BY[modules]


def test_keys_of_parts_are_read_without_zarr() -> None:
    assert loaded_after("import cache.reader, cache.soft_labels.reader, cache.soft_labels.mapped", {"zarr"}) == set()


def test_a_finished_run_is_recognised_without_reading_arrays_or_drawing_pages() -> None:
    unwanted = {"zarr", "pandas", "jinja2", "datasets", "torch", "transformers", "psutil", "pipeline.views.report"}
    assert loaded_after("import pipeline.cli.run", {*unwanted, "pipeline.demo"}) == set()
