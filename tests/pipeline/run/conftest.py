"""A teacher that is scripted: what it is asked, and by how many engines."""

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.fakes import ScriptedEngine
from tests.pipeline.conftest import Experiment

ASKED = re.compile(r"Ann has (\d+) figs")
EVERYTHING = Counter([(number, False) for number in range(1, 11)] + [(number, True) for number in range(1, 11, 2)])
"""Each question without its answer, and those with odd numbers with it."""


def answer(prompt: str) -> str:
    """Right for even numbers at once, for odd ones where the answer is shown."""
    number = int(ASKED.findall(prompt)[-1])
    shown = "The correct answer" in prompt
    found = number + 2 if shown or number % 2 == 0 else number
    return f" {number} figs and 2 make {found}. The answer is {found}."


class Teacher:
    """Stands in for the engines: every one that is opened is scripted, and all prompts are remembered."""

    def __init__(self) -> None:
        self.engines: list[ScriptedEngine] = []
        self.before_answers: Callable[[], None] = lambda: None
        """Called once, when the first engine is opened."""

    def open(self, _setup: object) -> ScriptedEngine:
        engine = ScriptedEngine(answer)
        self.engines.append(engine)
        before, self.before_answers = self.before_answers, lambda: None
        before()
        return engine

    @property
    def asked(self) -> Counter[tuple[int, bool]]:
        """How often each question was put, and whether with its answer."""
        prompts = [prompt for engine in self.engines for prompt in engine.prompts]
        return Counter((int(ASKED.findall(prompt)[-1]), "The correct answer" in prompt) for prompt in prompts)


@pytest.fixture
def teacher(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Teacher:
    """The experiment with a teacher instead of a file."""
    teacher = Teacher()
    module = ModuleType("stages.engines.kinds.transformers")
    module.ENGINE = teacher.open  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    text = Path("run.yaml").read_text()
    Path("run.yaml").write_text(text.replace("{engine: file, path: rationales.jsonl}", "{engine: transformers}"))
    return teacher
