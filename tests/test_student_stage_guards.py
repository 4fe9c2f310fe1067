"""The student stage by its real command: the teacher stays on disk, vLLM is not imported, nothing missing is passed by.

Stage one is done with a teacher of 20 million weights, 80 MB in float32, so that a student stage that loaded it would
be seen in the peak memory.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.fakes import tiny_model_folder
from tests.forks import run

RECORDS = 8
TEACHER_BYTES = 80_000_000
STUDENT_STAGE = """
import json, resource, sys
import pipeline.cli.main, transformers.modeling_utils as m
loaded = []
original = m.PreTrainedModel.from_pretrained.__func__
def spy(cls, path, *a, **k):
    loaded.append(str(path)); return original(cls, path, *a, **k)
m.PreTrainedModel.from_pretrained = classmethod(spy)
peaks = []
for name in ("dss", "molsaki"):
    for stage in ("train", "evaluate"):
        try:
            settings = ["--set", f"objective.name={name}", "--set", f"name={name}"]
            pipeline.cli.main.molsaki([stage, "run.yaml", "--quiet", *settings])
        except SystemExit as end:
            assert not end.code, (name, stage, end.code)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(json.dumps({"peaks": peaks, "loaded": loaded, "modules": sorted({n.split(".")[0] for n in sys.modules})}))
"""
MATRIX_STAGE = """
import json, sys
import pipeline.cli.main
for stage in ("train", "evaluate"):
    try:
        pipeline.cli.main.molsaki([stage, "run.yaml", "--quiet", "--set", sys.argv[1]])
    except SystemExit as end:
        assert not end.code, (stage, end.code)
print(json.dumps(sorted({n.split(".")[0] for n in sys.modules})))
"""


def molsaki(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run(arguments, folder)


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", *arguments], cwd=folder, capture_output=True, text=True, timeout=300, env=os.environ
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which stage one is done."""
    folder = tmp_path_factory.mktemp("guards")
    tiny_model_folder(folder / "student", "llama", hidden=16, heads=2, kv_heads=1)
    tiny_model_folder(folder / "teacher", "llama", hidden=1024, heads=8, kv_heads=8)
    weights = sum(path.stat().st_size for path in (folder / "teacher").glob("*.safetensors"))
    assert weights > TEACHER_BYTES, "too small a teacher to be noticed"
    numbers = range(1, RECORDS + 1)
    questions = [{"id": str(n), "question": f"Ann has {n} figs and finds 2.", "answer": str(n + 2)} for n in numbers]
    rationales = [{"id": str(n), "rationale": f"{n} + 2 = {n + 2}.", "answer": str(n + 2)} for n in numbers]
    for name, rows in (("questions", questions), ("rationales", rationales)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    source = [{"name": "jsonl", "path": "questions.jsonl"}]
    configuration = {
        "name": "molsaki",
        "store": "store",
        "data": {"train": source, "test": source},
        "teacher": {"model": "./teacher", "dtype": "float32", "device": "cpu"},
        "rationales": {"engine": "file", "path": "rationales.jsonl"},
        "attention": {"piece": 4},
        "student": {"model": "./student"},
        "training": {"epochs": 1, "batch_size": 4, "device": "cpu"},
        "evaluation": {"max_new_tokens": 2},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    for stage in ("rationales", "attention"):
        done = molsaki(stage, "run.yaml", folder=folder)
        assert done.returncode == 0, done.stderr
    return folder


def test_neither_the_teacher_nor_vllm_is_loaded_and_memory_shows_it(folder: Path):
    done = python("-c", STUDENT_STAGE, folder=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "vllm" not in found["modules"] and "torch" in found["modules"]
    assert found["loaded"] and not [path for path in found["loaded"] if "teacher" in path]
    without_attention, with_attention = found["peaks"]
    weights = sum(path.stat().st_size for path in (folder / "teacher").glob("*.safetensors"))
    assert with_attention - without_attention < weights / 4


def test_a_missing_record_stops_training_before_anything_is_loaded(folder: Path, tmp_path: Path):
    work = tmp_path / "work"
    shutil.copytree(folder, work, ignore=shutil.ignore_patterns("runs"))
    (space,) = (work / "store" / "attention").iterdir()
    sorted((space / "commits").iterdir())[-1].unlink()
    done = molsaki("train", "run.yaml", folder=work)
    assert done.returncode == 1, done.stderr
    assert "teacher attention of 4 records is missing" in done.stderr and "molsaki attention" in done.stderr
    assert not list(work.glob("runs/*/student/*"))


def test_students_of_a_matrix_in_one_process_are_those_of_processes_of_their_own(folder: Path, tmp_path: Path):
    """And the process that trains them all loads no more than one that trains one."""
    work = tmp_path / "work"
    shutil.copytree(folder, work, ignore=shutil.ignore_patterns("runs"))
    matrix = "matrix={objective.name: [mmi, molsaki]}"
    together = python("-c", MATRIX_STAGE, matrix, folder=work)
    assert together.returncode == 0, together.stderr
    modules = json.loads(together.stdout.splitlines()[-1])
    assert "vllm" not in modules and "torch" in modules
    point = work / "runs/molsaki/objective=molsaki"
    alone = molsaki("train", str(point / "config.yaml"), "--runs", "alone", folder=work)
    assert alone.returncode == 0, alone.stderr
    other = work / "alone/objective=molsaki"
    for file in ("model.safetensors", "config.json"):
        assert (point / "student/seed-0" / file).read_bytes() == (other / "student/seed-0" / file).read_bytes()
