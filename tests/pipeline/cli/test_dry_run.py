"""What `--dry-run` finds in real models before anything is paid for."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli.main import molsaki
from tests.fakes import blankless_tokenizer, tiny_model_folder

QUESTION = {"ID": "q-1", "Body": "Ann has 3 figs and finds 2.", "Question": "How many figs?", "Answer": 5}
CONFIG = """\
name: small
store: ./store
data: {train: [{name: svamp, path: train.jsonl}], test: [{name: svamp, path: train.jsonl}]}
teacher: {model: ./teacher}
rationales: {engine: transformers}
student: {model: ./student}
"""


@pytest.mark.parametrize("wrong", ["teacher", "student"])
def test_a_tokenizer_that_loses_blanks_is_refused_before_the_first_question(
    tmp_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(CONFIG)
    Path("train.jsonl").write_text(json.dumps(QUESTION) + "\n")
    for name in ("teacher", "student"):
        tiny_model_folder(tmp_path / name, "llama")
    command = ["run", "run.yaml", "--dry-run"]
    fine = CliRunner().invoke(molsaki, command)
    assert fine.exit_code == 0 and "rationales" in fine.stdout
    blankless_tokenizer().save_pretrained(tmp_path / wrong)
    refused = CliRunner().invoke(molsaki, command)
    assert refused.exit_code == 2 and not (tmp_path / "store").exists()
    assert f"{wrong}: its tokenizer makes 'Tomhas3figs" in refused.stderr
