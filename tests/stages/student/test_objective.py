"""Which objectives there are, and what each needs and depends on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import ConfigError
from stages.settings import (
    AttentionTerm,
    MutualInformationTerm,
    ObjectiveSettings,
    SinglePair,
    SoftLabelTerm,
    TermSettings,
    objective_names,
)
from stages.student.objective import objective_class, objective_of

LAST = AttentionTerm(weight=2.0, alignment="last")
FOLDER = Path(__file__).parents[3] / "stages" / "student" / "objectives"


def test_every_file_of_the_folder_is_an_objective_of_its_name():
    files = {path.stem.replace("_", "-") for path in FOLDER.glob("[!_]*.py")}
    published = {"answer-only", "fine-tune-cot", "dss", "mmi", "molsaki", "mentor-kd", "cascod"}
    assert files == set(objective_names()) == published | {"molsaki-cot"}
    for name in objective_names():
        assert objective_class(name).name == name


def test_every_objective_has_a_test_of_its_own():
    tests = {path.stem.removeprefix("test_") for path in (Path(__file__).parent / "objectives").glob("test_*.py")}
    assert tests == {name.replace("-", "_") for name in objective_names()}


def test_only_molsaki_needs_attention():
    needing = [name for name in objective_names() if objective_of(ObjectiveSettings(name=name)).needs_attention]
    assert needing == ["molsaki", "molsaki-cot"]


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
        (ObjectiveSettings(name="dss", tasks=("predict", "explain")), {"name": "dss", "alpha": 0.5}),
        (ObjectiveSettings(name="dss", tasks=("explain",)), {"name": "dss", "tasks": ["explain"]}),
        (
            ObjectiveSettings(name="molsaki-cot", alpha=0.3, alignment="last", rows="softmax"),
            {"name": "molsaki-cot", "beta": 1.0, "alignment": "last"},
        ),
        (
            ObjectiveSettings(name="fine-tune-cot", terms=TermSettings(attention=LAST)),
            {"name": "fine-tune-cot", "terms": {"attention": {"weight": 2.0, "alignment": "last", "rows": "share"}}},
        ),
        (
            ObjectiveSettings(beta=3.0, terms=TermSettings(attention=LAST)),
            {"name": "molsaki", "alpha": 0.5,
             "terms": {"attention": {"weight": 2.0, "alignment": "last", "rows": "share"}}},
        ),
        (
            ObjectiveSettings(terms=TermSettings(mutual_information=MutualInformationTerm(), attention=LAST)),
            {"name": "molsaki", "alpha": 0.5,
             "terms": {"attention": {"weight": 2.0, "alignment": "last", "rows": "share"},
                       "mutual_information": {"weight": 0.1}}},
        ),
        (
            ObjectiveSettings(name="mentor-kd"),
            {"name": "mentor-kd", "beta": 0.3, "match": "tokens", "divergence": "forward-kl", "temperature": 2.0,
             "squared": False},
        ),
        (
            ObjectiveSettings(name="mentor-kd", terms=TermSettings(soft_labels=SoftLabelTerm(match="text"))),
            {"name": "mentor-kd", "terms": {"soft_labels": {"weight": 0.5, "match": "text"}}},
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


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            ObjectiveSettings(name="answer-only", terms=TermSettings(attention=LAST)),
            "objective.terms.attention: needs explain among the tasks, which are predict",
        ),
        (
            ObjectiveSettings(
                name="dss", tasks=("explain",), terms=TermSettings(mutual_information=MutualInformationTerm())
            ),
            "objective.terms.mutual_information: needs predict among the tasks, which are explain",
        ),
        (ObjectiveSettings(name="mmi", tasks=("predict",)), "objective.terms.mutual_information: needs explain among"),
        (ObjectiveSettings(name="dss", options={"a": 1}), "objective.options: dss has none"),
        (ObjectiveSettings(name="molsake"), "found 'molsake'; did you mean molsaki?"),
    ],
)
def test_what_does_not_fit_together_is_said_with_its_key(settings: ObjectiveSettings, line: str):
    with pytest.raises(ConfigError, match=re.escape(line)):
        objective_of(settings)


def test_the_share_of_a_task_and_the_weight_of_a_term():
    both = objective_of(ObjectiveSettings(alpha=0.2, beta=3.0))
    assert (both.share("predict"), both.share("explain"), both.weight("attention"), both.weight("soft_labels")) == (
        0.2, 0.8, 3.0, 0.0,
    )  # fmt: skip
    assert objective_of(ObjectiveSettings(name="fine-tune-cot", alpha=0.2)).share("explain") == 1.0
    assert both.key("attention", "weight") == "objective.beta"
    own = objective_of(ObjectiveSettings(terms=TermSettings(attention=LAST)))
    assert own.key("attention", "tau_student") == "objective.terms.attention.tau_student"


MODULE = """
from stages.student.objective import Objective


class Focal(Objective):
    \"\"\"The explanation loss, to a power.\"\"\"

    name = "focal"
    preset_tasks = ("explain",)
    version = 2

    def losses(self, step):
        l_exp = step.cross_entropy("explain")
        return {"loss": l_exp ** float(self.settings.options.get("power", 2)), "L_exp": l_exp}
"""


def test_an_installed_package_adds_an_objective(tmp_path: Path):
    """What pip leaves of a package whose pyproject registers an entry point."""
    (tmp_path / "focal.py").write_text(MODULE)
    installed = tmp_path / "molsaki_focal-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: molsaki-focal\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[molsaki.objectives]\nfocal = focal:Focal\nodd = focal:Objective\nlost = nowhere:Lost\n"
    )
    code = """
from stages.settings import ObjectiveSettings
from stages.student.objective import objective_of
from data.errors import ConfigError
found = objective_of(ObjectiveSettings(name="focal", options={"power": 3}))
assert found.described() == {"name": "focal", "options": {"power": 3}, "version": 2}, found.described()
assert found.tasks == ("explain",) and not found.needs_attention
class Step:
    def cross_entropy(self, task): return 2.0
assert found.losses(Step())["loss"] == 8
for name in ("odd", "lost", "focel"):
    try:
        objective_of(ObjectiveSettings(name=name))
    except ConfigError as error:
        print(error)
"""
    python_path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path},
    )
    odd, lost, misspelt = done.stdout.splitlines()
    registered = "which the installed package molsaki-focal registers"
    assert odd == (
        f"objective.name: odd, {registered}, is no subclass of stages.student.objective.Objective called 'odd'"
    )
    assert lost.startswith(f"objective.name: lost, {registered}, does not load: No module named 'nowhere'")
    assert misspelt.endswith("found 'focel'; did you mean focal?")
