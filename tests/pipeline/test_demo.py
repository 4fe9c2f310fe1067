"""The demo's own parts: what it writes, and that the commented example says the same."""

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.demo import OBJECTIVES, _write_configuration

EXAMPLE = Path(__file__).parents[2] / "examples" / "demo.yaml"


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    return Path("demo")


def test_the_commented_example_is_what_the_demo_runs(demo: Path):
    written = load_config(_write_configuration(demo, "molsaki", range(3)))
    assert load_config(EXAMPLE) == written


def test_the_two_objectives_differ_in_nothing_but_objective_and_name(demo: Path):
    dss, molsaki = (
        load_config(_write_configuration(demo, objective, range(2))).model_dump(mode="json") for objective in OBJECTIVES
    )
    assert (dss.pop("name"), molsaki.pop("name")) == ("dss", "molsaki")
    assert (dss["objective"].pop("name"), molsaki["objective"].pop("name")) == ("dss", "molsaki")
    assert dss == molsaki


def test_a_folder_with_blanks_and_colons_in_its_name_is_no_trouble(tmp_path: Path):
    out = tmp_path / "my demo: one"
    out.mkdir()
    config = load_config(_write_configuration(out, "dss", range(1)))
    assert config.store == out / "store"
    assert config.teacher.model == str(out / "teacher")
