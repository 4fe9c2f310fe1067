"""The package that docs/objectives.md shows: pip installs it, and a configuration may name its objective."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[1] / "docs" / "objectives.md"
FILES = {"toml": "pyproject.toml", "python": "molsaki_hard_tokens.py"}
CONFIG = """
name: hard
data: {train: [{name: synthetic, limit: 4}], test: [{name: synthetic, split: test, limit: 4}]}
teacher: {model: teacher}
student: {model: student}
"""
ASKED = """
import torch
from pathlib import Path
from pipeline.config.load import load_config
from stages.student.objective import objective_of
objective = objective_of(load_config(Path("run.yaml")).objective)
assert objective.tasks == ("explain",)
assert objective.described() == {"name": "hard-tokens", "options": {"power": 1.5}, "version": 1}
class Step:
    def cross_entropy(self, task):
        return torch.tensor({"explain": 4.0}[task])
print(float(objective.losses(Step())["loss"]))
"""


@pytest.fixture(scope="module")
def blocks() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for language, text in re.findall(r"```(\w+)\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL):
        found.setdefault(language, []).append(text)
    return found


def test_the_package_of_the_document_is_installed_and_used(blocks: dict[str, list[str]], tmp_path: Path) -> None:
    package, installed = tmp_path / "package", tmp_path / "installed"
    package.mkdir()
    for language, name in FILES.items():
        (text,) = blocks[language]
        (package / name).write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(installed), str(package)], check=True, capture_output=True, text=True)
    (tmp_path / "run.yaml").write_text(CONFIG + blocks["yaml"][1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASKED],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert float(done.stdout) == 4**1.5


def test_the_combination_of_the_document_is_one(blocks: dict[str, list[str]], tmp_path: Path) -> None:
    from pipeline.config.load import load_config
    from stages.student.objective import objective_of

    (tmp_path / "run.yaml").write_text(CONFIG + blocks["yaml"][0])
    objective = objective_of(load_config(tmp_path / "run.yaml").objective)
    assert objective.terms.keys() == {"attention", "soft_labels"}
