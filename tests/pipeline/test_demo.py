"""The demo's own parts: what it writes, and that the commented example says the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config.matrix import load_matrix
from pipeline.demo import _write_configuration, jobs_at_a_time
from stages.models.identity import ModelIdentity
from stages.rationales.spec import rationale_spec

EXAMPLE = Path(__file__).parents[2] / "examples" / "demo.yaml"


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    return Path("demo")


def test_the_commented_example_is_what_the_demo_runs(demo: Path):
    written = load_matrix(_write_configuration(demo, range(3)))
    assert load_matrix(EXAMPLE) == written


def test_the_two_objectives_differ_in_nothing_but_objective_and_name(demo: Path):
    dss, molsaki = (
        point.config.model_dump(mode="json") for point in load_matrix(_write_configuration(demo, range(2))).points
    )
    assert (dss.pop("name"), molsaki.pop("name")) == ("objective=dss", "objective=molsaki")
    assert (dss["objective"].pop("name"), molsaki["objective"].pop("name")) == ("dss", "molsaki")
    assert dss == molsaki


def test_a_folder_with_blanks_and_colons_in_its_name_is_no_trouble(tmp_path: Path):
    out = tmp_path / "my demo: one"
    out.mkdir()
    config = load_matrix(_write_configuration(out, range(1))).base
    assert config.store == out / "store"
    assert config.teacher.model == str(out / "teacher")


def test_students_get_a_core_each_and_there_are_no_more_processes_than_students(monkeypatch: pytest.MonkeyPatch):
    for cores, seeds, jobs in ((2, 3, 2), (16, 3, 6), (16, 10, 8), (1, 3, 1)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert jobs_at_a_time(seeds) == jobs


def test_either_engine_writes_into_the_same_space(demo: Path):
    """The store is one and the same, and so are the students."""
    by_default, by_vllm = (
        load_matrix(_write_configuration(demo, range(1), engine)).base for engine in ("transformers", "vllm")
    )
    assert replace(by_vllm.rationales, engine="transformers") == by_default.rationales
    identity = ModelIdentity(source="folder", path="teacher", revision="0" * 64, tokenizer="0" * 64)
    specs = [rationale_spec(identity, config.teacher, config.rationales) for config in (by_default, by_vllm)]
    assert specs[0] == specs[1]
