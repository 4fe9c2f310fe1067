"""Adding a data set takes one new file: nothing else has to name it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

import data.sets
from data.dataset import data_set, is_right
from data.prompts import rationale_prompt
from data.readers import read_questions
from data.settings import DataSource
from data.worked_examples import worked_examples

ROOT = Path(__file__).resolve().parents[3]
MODULE = """
from data.dataset import published
from data.records import Question
from data.rows.row import Row

def read(row: Row) -> Question:
    return row.question(text=row.text("asked"), answer=row.optional("label"), kind="number")

SET = published(hub="lab/riddles", read=read, rounded_labels=True)
"""


@pytest.fixture
def riddles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSource:
    """A data set of which nobody has heard: its module and a file of its own form."""
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "riddles.py").write_text(MODULE)
    monkeypatch.setattr(data.sets, "__path__", [*data.sets.__path__, str(tmp_path / "sets")])
    monkeypatch.delitem(sys.modules, "data.sets.riddles", raising=False)
    path = tmp_path / "train.jsonl"
    path.write_text('{"asked": "What is a third of 49?", "label": "16.3"}\n')
    return DataSource(name="riddles", path=str(path))


def test_a_new_module_is_a_data_set_with_prompts_and_scoring(riddles: DataSource) -> None:
    (question,) = read_questions(riddles)
    assert (question.id, question.dataset, question.benchmark) == ("riddles-train-1", "riddles", "riddles")
    assert is_right("16.3333", question) and not is_right("16.4", question)
    assert rationale_prompt(question, shots=1).startswith(f"Q: {worked_examples('number')[0].text}\n")
    assert data.sets.names()[-1] == "riddles"
    assert data_set("riddles").hub == "lab/riddles"


def test_the_configuration_accepts_each_module_of_the_folder(tmp_path: Path) -> None:
    copytree(ROOT / "data", tmp_path / "data")
    (tmp_path / "data" / "sets" / "riddles.py").write_text(MODULE)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", "config", "schema"],
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = json.loads(shown.stdout)["$defs"]["DataSource"]["properties"]["name"]["enum"]
    assert listed == [*data.sets.names(), "riddles"]
