"""The whole pipeline by its command, on real SVAMP questions: vLLM, zarr, Trainer, evaluation, nothing faked.

The teacher is a tiny model that has learned a handful of SVAMP's training questions with their rationales by heart, so
that it answers them right; the student is tinier still. What is tested is the way of the records and what is found
again, not how well anything reasons.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cache import open_attention
from data.errors import ConfigError
from data.readers import read_questions, read_rationales
from data.records import Question
from data.settings import DataSource, RationaleFields
from tests.forks import run

QUESTIONS, MORE_QUESTIONS = 10, 12


def molsaki(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run(arguments, folder)


@pytest.fixture(scope="module")
def questions(benchmark_data: Path) -> list[Question]:
    """The shortest training questions that PaLM solved, each with that rationale as its reference."""
    source = DataSource(name="svamp", path=str(benchmark_data / "svamp" / "chilled_train.jsonl"))
    every = read_questions(source)
    fields = RationaleFields(id="ID", rationale="palm_rationale", answer="palm_value")
    rationales = read_rationales(
        str(benchmark_data / "palm_rationales" / "svamp_palm_joined.jsonl"), every, fields=fields
    )
    solved = [
        replace(question, reference=rationales[question.id].rsplit("The answer is", 1)[0].strip())
        for question in every
        if rationales.get(question.id, "").endswith(f"The answer is {question.answer}.")
    ]
    return sorted(solved, key=lambda question: len(question.text + (question.reference or "")))[:MORE_QUESTIONS]


@pytest.fixture(scope="module")
def folder(questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with teacher, student, data files and configuration."""
    from stages.runtime.progress import SilentProgress, StopSignal
    from stages.toy.teacher import ModelShape, Recipe, train_from_scratch, word_tokenizer, write_untrained

    folder = tmp_path_factory.mktemp("svamp")
    tokenizer = word_tokenizer(questions * 10)
    shape = ModelShape(layers=2, width=64, heads=2, feed_forward=128)  # vLLM on a CPU wants heads of 32
    recipe = Recipe(
        batch_size=MORE_QUESTIONS, learning_rate=1e-2, good_loss=0.02, most_steps=300, cooling_steps=30, warmup_steps=10
    )
    with StopSignal() as stop:
        train_from_scratch(
            questions, folder / "teacher", tokenizer=tokenizer, shape=shape, recipe=recipe,
            progress=SilentProgress(), stop=stop,
        )  # fmt: skip
    write_untrained(folder / "student", tokenizer, ModelShape(layers=1, width=64, heads=2, feed_forward=64))
    for name, count in (("few", QUESTIONS), ("more", MORE_QUESTIONS)):
        rows = [{"id": q.id, "question": q.text, "answer": q.answer} for q in questions[:count]]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    configuration = {
        "name": "svamp",
        "store": "store",
        "data": {"train": [{"name": "jsonl", "path": "few.jsonl"}], "test": [{"name": "jsonl", "path": "few.jsonl"}]},
        "teacher": {"model": "./teacher", "dtype": "float32"},
        "rationales": {"engine": "vllm", "shots": 0, "max_tokens": 120, "second_phase": False},
        "attention": {"engine": "vllm"},
        "student": {"model": "./student", "initialise": "random"},
        "training": {"seeds": [0, 1], "epochs": 1, "batch_size": 4, "device": "cpu"},
        "evaluation": {"max_new_tokens": 8},
    }
    (folder / "svamp.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    return folder


@pytest.mark.vllm
@pytest.mark.slow
def test_question_to_accuracy_then_nothing_again_then_only_what_is_new(folder: Path):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    first = molsaki("run", "svamp.yaml", "--json", folder=folder)
    assert first.returncode == 0, first.stderr
    scores = json.loads(first.stdout)["scores"]
    assert {(score["prompt"], score["accuracy"]["seeds"]) for score in scores} == {("predict", 2), ("explain", 2)}
    likely = {score["prompt"]: score["likelihood"] for score in scores}
    assert likely["predict"]["per_token"]["questions"] == QUESTIONS and likely["explain"] is None  # no references
    (space,) = (folder / "store" / "attention").iterdir()
    records = len(open_attention(space))
    assert records >= QUESTIONS - 2  # what the teacher has not learned by heart is dropped and counted
    said = first.stderr.splitlines()
    assert sum("starting vllm" in line for line in said) == 1, "one engine for stage one"
    assert any(line.startswith("attention: ") and "nothing to do" in line for line in said)
    by_torch = molsaki("attention", "svamp.yaml", "--set", "attention.engine=transformers", folder=folder)
    assert by_torch.returncode == 0, by_torch.stderr
    (other,) = (path for path in (folder / "store" / "attention").iterdir() if path != space)
    ours, theirs = open_attention(space), open_attention(other)
    assert set(ours) == set(theirs)
    for key in ours:
        assert np.abs(ours[key].astype(np.float32) - theirs[key]).max() < 2e-3  # a unit in the last place of float16

    started = time.monotonic()
    again = molsaki("run", "svamp.yaml", folder=folder)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("nothing to do") == 4
    assert time.monotonic() - started < 20

    other = molsaki("run", "svamp.yaml", "--set", "training.learning_rate=1e-4", "--dry-run", "--json", folder=folder)
    to_do = {plan["name"]: plan["to_do"] for plan in json.loads(other.stdout)}
    assert (to_do["rationales"], to_do["attention"], to_do["train"]) == (0, 0, 2)

    more = ["--set", "data.train.0.path=more.jsonl", "--set", "name=more", "--set", "rationales.engine=transformers"]
    planned = molsaki("run", "svamp.yaml", *more, "--dry-run", "--json", folder=folder)
    assert json.loads(planned.stdout)[0]["to_do"] == MORE_QUESTIONS - QUESTIONS
    grown = molsaki("run", "svamp.yaml", *more, folder=folder)
    assert grown.returncode == 0, grown.stderr
    assert len(open_attention(space)) > records

    before = pd.read_parquet(folder / "runs" / "svamp" / "evaluation" / "seed-0.parquet")
    likelihoods = folder / "runs" / "svamp" / "evaluation" / "likelihood" / "seed-0.parquet"
    measured = likelihoods.stat().st_mtime_ns
    by_vllm = molsaki("evaluate", "svamp.yaml", "--seed", "0", "--set", "evaluation.engine=vllm", folder=folder)
    assert by_vllm.returncode == 0, by_vllm.stderr
    after = pd.read_parquet(folder / "runs" / "svamp" / "evaluation" / "seed-0.parquet")
    assert after["question_id"].tolist() == before["question_id"].tolist()
    assert (after["output"] == before["output"]).mean() >= 0.9  # greedy on both; ties may fall either way
    assert likelihoods.stat().st_mtime_ns == measured  # whatever generates answers has no part in them


def test_stage_two_loads_neither_vllm_nor_the_teacher(folder: Path):
    """Train and evaluate in one process from an imported rationale file, then look at what has been loaded."""
    code = """
import sys
sys.argv = ["molsaki"]
import pipeline.cli.main
loaded = []
import transformers.modeling_utils as m
original = m.PreTrainedModel.from_pretrained.__func__
def spy(cls, path, *a, **k):
    loaded.append(str(path)); return original(cls, path, *a, **k)
m.PreTrainedModel.from_pretrained = classmethod(spy)
run = ["--set", "objective.name=dss", "--set", "name=alone", "--set", "rationales.engine=file",
       "--set", "rationales.path=rationales.jsonl"]
for stage in ("rationales", "train", "evaluate"):
    try:
        pipeline.cli.main.molsaki([stage, "svamp.yaml", *run], prog_name="molsaki")
    except SystemExit as end:
        assert not end.code, (stage, end.code)
assert not [name for name in sys.modules if name.split(".")[0] == "vllm"]
assert loaded and not [path for path in loaded if "teacher" in path], loaded
"""
    rows = [json.loads(line) for line in (folder / "few.jsonl").read_text().splitlines()]
    said = "What is given is put together. The answer is"
    lines = [json.dumps({"id": row["id"], "rationale": f"{said} {row['answer']}."}) for row in rows]
    (folder / "rationales.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=folder, capture_output=True, text=True, timeout=300, env=os.environ
    )
    assert done.returncode == 0, done.stderr


def test_the_questions_are_really_svamp_s(questions: list[Question]):
    assert len(questions) == MORE_QUESTIONS
    assert all(question.id.startswith("chal-") for question in questions)
    with pytest.raises(ConfigError):
        read_questions(DataSource(name="svamp", path="no-such-file.jsonl"))
