"""Where everything lies in a run's folder, and that one module alone says so."""

import ast
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import pipeline
from pipeline.results.folder import RunFolder
from stages.runtime.shard import Shard

ROOM = Path(pipeline.__file__).parent
RUN = RunFolder(Path("runs/small"))
NAMES = {
    RUN.config: "config.yaml",
    RUN.matrix: "matrix.json",
    RUN.summary: "summary.json",
    RUN.results: "results.md",
    RUN.report: "report.html",
    RUN.explorer: "explore.html",
    RUN.provenance: "provenance.json",
    RUN.log(): "log.jsonl",
    RUN.log(Shard(index=2, count=8)): "log-2-of-8.jsonl",
    RUN.student(3).path: "student/seed-3",
    RUN.student(3).summary: "student/seed-3/training.json",
    RUN.student(3).card: "student/seed-3/README.md",
    RUN.student(3).layer_weights: "student/seed-3/layer_weights.parquet",
    RUN.student(3).attention: "student/seed-3/student_attention.parquet",
    RUN.evaluation().predictions(3): "evaluation/seed-3.parquet",
    RUN.evaluation().likelihood(3): "evaluation/likelihood/seed-3.parquet",
    RUN.evaluation().summary: "evaluation/summary.json",
    RUN.evaluation("dev").predictions(3): "evaluation-dev/seed-3.parquet",
    RUN.trackers: "logs",
    RUN.provenance_entries: "provenance",
    RUN.earlier_at(datetime(2026, 11, 5, 7, 8, 9, 10, UTC)): "earlier/20261105T070809.000010Z",
}
WORDS = {"student", "evaluation", "evaluation-dev", "likelihood", "logs", "provenance", "earlier", "checkpoints"}
"""Names that mean other things too: they count where a path is put together."""
FILES = {Path(name).name for name in NAMES.values()} - {"seed-3", "seed-3.parquet", "README.md"} - WORDS
OTHER = {("demo.py", "student")}
"""The demo's folder has a model of that name."""


@pytest.mark.parametrize(("path", "name"), NAMES.items(), ids=NAMES.values())
def test_everything_lies_where_documents_say(path: Path, name: str) -> None:
    assert path == Path("runs/small") / name


def test_students_and_answers_are_listed_by_seed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("seed-10", "seed-2", "seed-x", "other", "seed-3.old"):
        (tmp_path / "student" / name).mkdir(parents=True)
        (tmp_path / "evaluation" / f"{name}.parquet").parent.mkdir(exist_ok=True)
        (tmp_path / "evaluation" / f"{name}.parquet").touch()
    run = RunFolder(tmp_path)
    assert {seed: one.path.name for seed, one in run.students().items()} == {2: "seed-2", 10: "seed-10"}
    assert list(run.evaluation().seeds().items()) == [(seed, run.evaluation().predictions(seed)) for seed in (2, 10)]
    assert RunFolder(tmp_path / "none").students() == {} == RunFolder(tmp_path / "none").evaluation().seeds()


def texts(tree: ast.AST) -> Iterator[str]:
    """Text in a module but for what documents it, and templates of pages."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    said |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "template"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


def parts_of_paths(tree: ast.AST) -> Iterator[str]:
    """Text that `/` puts into a path, and what is looked for in a folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield from texts(node.right)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"glob", "joinpath"}
        ):
            yield from (text for argument in node.args for text in texts(argument))


def spelled(path: Path) -> set[str]:
    """Names of a run's folder that a module spells."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    whole = {part for text in texts(tree) if " " not in text for part in text.split("/")}
    parts = {part for text in parts_of_paths(tree) for part in text.split("/")}
    seeds = {text for text in whole | parts if text.startswith("seed-")}
    return whole & FILES | parts & WORDS | seeds


def test_no_other_module_of_the_pipeline_spells_these_names() -> None:
    found = {path.relative_to(ROOM).as_posix(): spelled(path) for path in ROOM.glob("**/*.py")}
    own = found.pop("results/folder.py")
    assert own >= {"config.yaml", "matrix.json", "summary.json", "provenance.json", "seed-"}
    elsewhere = {(name, text) for name, each in found.items() for text in each} - OTHER
    assert not elsewhere
