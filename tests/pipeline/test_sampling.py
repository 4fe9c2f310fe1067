"""`--sample` on real tiny models: from nothing to the last stage, and nothing is left behind."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli.main import molsaki
from pipeline.run.provenance import read_provenance
from pipeline.run.supervise import ForwardingStop
from tests.fakes import tiny_model_folder

QUESTIONS = 40


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with tiny models in the current directory; stages run in this process."""
    monkeypatch.chdir(tmp_path)
    tiny_model_folder(tmp_path / "teacher", "llama")
    tiny_model_folder(tmp_path / "student", "llama", layers=1)
    rows = [{"id": f"q{n}", "question": f"Ann has {n} figs and finds 2.", "answer": str(n + 2)} for n in range(80)]
    told = [{"id": f"q{n}", "rationale": f"{n} and 2 make {n + 2}. The answer is {n + 2}."} for n in range(QUESTIONS)]
    for name, content in (("train", rows[:QUESTIONS]), ("test", rows[QUESTIONS:50]), ("told", told)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
    configuration = {
        "name": "tiny",
        "store": "store",
        "data": {name: [{"name": "jsonl", "path": f"{name}.jsonl"}] for name in ("train", "test")},
        "teacher": {"model": "./teacher", "dtype": "float32", "device": "cpu"},
        "rationales": {"engine": "file", "path": "told.jsonl", "piece": 8},
        "student": {"model": "./student", "initialise": "random"},
        "training": {"epochs": 1, "batch_size": 4, "device": "cpu", "seeds": [0, 1]},
        "evaluation": {"max_new_tokens": 4, "prompts": ["predict"]},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(configuration))

    def run_here(_self: ForwardingStop, command: Sequence[str]) -> int:
        arguments = [argument for argument in command[4:] if argument != "--supervised"]
        result = CliRunner().invoke(molsaki, arguments)
        assert result.exit_code == 0, result.output
        return result.exit_code

    monkeypatch.setattr(ForwardingStop, "run", run_here)
    return tmp_path


def status(*arguments: str) -> dict[str, dict[str, Any]]:
    result = CliRunner().invoke(molsaki, ["status", "tiny.yaml", "--json", "--quiet", *arguments])
    assert result.exit_code == 0, result.output
    return {plan["name"]: plan["cost"] for plan in json.loads(result.stdout)}


def test_every_stage_is_sampled_before_any_has_begun_and_nothing_is_left(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    costs = status("--sample", "1")
    assert sorted(path for path in folder.rglob("*") if path.name != "runs") == before
    for name, cost in costs.items():
        for figure in ("bytes", "peak_bytes", "seconds", "cpu_seconds"):
            assert cost[figure]["source"] == "sample" and cost[figure]["value"] > 0, (name, figure)
    assert costs["attention"]["units"] == QUESTIONS
    assert costs["attention"]["assumptions"][0].startswith("100% of ")
    assert "10 of 20 optimizer steps" in costs["train"]["seconds"]["how"]


def test_bytes_of_a_sample_are_those_of_the_run(folder: Path) -> None:
    costs = status("--sample", "1")
    for stage in costs:
        result = CliRunner().invoke(molsaki, [stage, "tiny.yaml", "--quiet"])
        assert result.exit_code == 0, result.output
    done = {record.stage: record for record in read_provenance(folder / "runs" / "tiny").stages}
    for stage in ("rationales", "attention", "train"):
        assert costs[stage]["bytes"]["value"] == pytest.approx(done[stage].bytes_grown, rel=0.25), stage
    assert not any(status("--sample").values())


def test_where_no_rationale_is_kept_later_stages_keep_their_rough_figures(folder: Path) -> None:
    wrong = [{"id": f"q{n}", "rationale": "The answer is 999."} for n in range(QUESTIONS)]
    (folder / "told.jsonl").write_text("\n".join(map(json.dumps, wrong)))
    costs = status("--sample", "1")
    assert costs["rationales"]["seconds"]["source"] == "sample"
    assert costs["attention"]["seconds"]["source"] == costs["train"]["seconds"]["source"] == "unknown"
