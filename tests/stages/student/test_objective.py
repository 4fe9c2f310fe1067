"""Which objectives there are, and what each needs and depends on."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.settings import ObjectiveSettings, SinglePair, objective_names
from stages.student.objective import objective_class, objective_of

FOLDER = Path(__file__).parents[3] / "stages" / "student" / "objectives"


def test_every_file_of_the_folder_is_an_objective_of_its_name():
    files = {path.stem.replace("_", "-") for path in FOLDER.glob("[!_]*.py")}
    assert files == set(objective_names()) == {"answer-only", "fine-tune-cot", "dss", "mmi", "molsaki"}
    for name in objective_names():
        assert objective_class(name).name == name


def test_every_objective_has_a_test_of_its_own():
    tests = {path.stem.removeprefix("test_") for path in (Path(__file__).parent / "objectives").glob("test_*.py")}
    assert tests == {name.replace("-", "_") for name in objective_names()}


def test_only_molsaki_needs_attention():
    assert [name for name in objective_names() if objective_class(name).needs_attention] == ["molsaki"]


@pytest.mark.parametrize(("name", "beta"), [("mmi", 0.1), ("molsaki", 1.0)])
def test_beta_is_the_sources_unless_set(name: str, beta: float):
    assert objective_of(ObjectiveSettings(name=name)).beta == beta
    assert objective_of(ObjectiveSettings(name=name, beta=0.0)).beta == 0.0


@pytest.mark.parametrize(
    ("settings", "described"),
    [
        (ObjectiveSettings(name="answer-only", alpha=0.1), {"name": "answer-only"}),
        (ObjectiveSettings(name="dss", beta=3.0), {"name": "dss", "alpha": 0.5}),
        (ObjectiveSettings(name="mmi"), {"name": "mmi", "alpha": 0.5, "beta": 0.1}),
        (
            ObjectiveSettings(alignment=SinglePair(single=(2, 1))),
            {"name": "molsaki", "alpha": 0.5, "beta": 1.0, "alignment": {"single": (2, 1)}, "rows": "share"},
        ),
        (
            ObjectiveSettings(),
            {"name": "molsaki", "alpha": 0.5, "beta": 1.0, "alignment": "mixture", "tau_teacher": 0.1,
             "tau_student": 0.5, "router": "mean", "router_learning_rate": 0.1, "rows": "share"},
        ),
        (
            ObjectiveSettings(router="paper", router_learning_rate=3.0, rows="softmax"),
            {"name": "molsaki", "alpha": 0.5, "beta": 1.0, "alignment": "mixture", "tau_teacher": 0.1,
             "tau_student": 0.5},
        ),
        (
            ObjectiveSettings(alignment="last", router="paper", rows="share"),
            {"name": "molsaki", "alpha": 0.5, "beta": 1.0, "alignment": "last", "rows": "share"},
        ),
    ],
)  # fmt: skip
def test_what_an_objective_does_not_use_makes_no_difference(settings: ObjectiveSettings, described: dict):
    assert objective_of(settings).described() == described


def test_asking_what_an_objective_needs_imports_no_torch():
    code = (
        "import sys; from stages.settings import objective_names\n"
        "from stages.student.objective import objective_class\n"
        "assert all(objective_class(name) for name in objective_names())\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
