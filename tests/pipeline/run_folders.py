"""Folders of runs as stages leave them, without running any: what reports are made of."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.records import Likelihood, Prediction
from pipeline.config.load import load_config, resolved_yaml
from pipeline.results.folder import RunFolder
from pipeline.results.likelihoods import write_likelihoods
from pipeline.results.predictions import write_predictions
from pipeline.run.provenance import Environment, StageRecord, add_stage

PARTS = {
    "dss": {"L_pre": 2.0, "L_exp": 3.0},
    "mmi": {"L_pre": 2.0, "L_exp": 3.0, "L_mi": 4.0},
    "molsaki": {"L_pre": 2.0, "L_exp": 3.0, "L_att": 0.02},
}
QUESTION = {"predict": "Ann has 3 figs.", "explain": "Ann has 3 figs."}
CONFIGURATION = """\
name: {name}
store: {store}
data:
  train: [{{name: synthetic, seed: 5, limit: 40}}]
  test: [{{name: synthetic, seed: 6, split: test, limit: {questions}}}]
teacher: {{model: {teacher}}}
rationales: {{shots: 0}}
student: {{model: made/student, initialise: random}}
objective: {{name: {objective}}}
training: {{seeds: {seeds}}}
"""


def write_run(
    folder: Path,
    *,
    objective: str = "molsaki",
    seeds: Sequence[int] = (0, 1, 2),
    teacher: str = "made/teacher",
    store: str = "store",
    entries: int = 60,
    layers: tuple[int, int] = (2, 2),
    questions: int = 50,
    by_record: bool = True,
    described: bool = True,
    evaluated: bool = True,
    dataset: str = "synthetic",
    right: float = 0.3,
    likely: float | None = None,
) -> None:
    """Write a finished run: its configuration, students' summaries, answers and provenance.

    Its students give a token a log-probability of about `likely`, where one is given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "raw.yaml"
    raw.write_text(
        CONFIGURATION.format(
            name="run",
            store=json.dumps(store),
            questions=questions,
            teacher=json.dumps(teacher),
            objective=objective,
            seeds=list(seeds),
        )
    )
    (folder / "config.yaml").write_text(
        resolved_yaml(load_config(raw, [])).replace("name: run\n", f"name: {json.dumps(folder.name)}\n", 1)
    )
    raw.unlink()
    for seed in seeds:
        student = folder / "student" / f"seed-{seed}"
        student.mkdir(parents=True)
        trained = summary(objective, seed, entries, layers[1]) | (origin(teacher) if described else {})
        student.joinpath("training.json").write_text(json.dumps(trained))
        if objective == "molsaki" and by_record:
            write_weights(student / "layer_weights.parquet", seed, layers)
        if evaluated:
            write_predictions(
                RunFolder(folder).evaluation().predictions(seed),
                seed,
                answers(seed, questions, dataset, right),
                "f" * 64,
            )
        if likely is not None:
            path = RunFolder(folder).evaluation().likelihood(seed)
            write_likelihoods(path, seed, log_probabilities(seed, questions, dataset, likely), "f" * 64)
    write_provenance(folder, objective, len(seeds))


def origin(teacher: str) -> dict[str, object]:
    """What an earlier version did not say of a student."""
    return {
        "teacher": {"model": teacher, "source": "hub", "revision": "7eacher"},
        "student": {"model": "student", "source": "folder", "revision": "5tudent", "initialise": "random"},
        "rationales": "a" * 64,
        "attention": "b" * 64,
    }


def summary(objective: str, seed: int, entries: int, layers: int) -> dict[str, object]:
    log: list[Mapping[str, object]] = []
    for number in range(1, entries + 1):
        done = number / entries
        parts = {name: start * math.exp(-3 * done) + 0.01 * start * seed for name, start in PARTS[objective].items()}
        weights = np.linspace(1, 1 + done * (1 + seed), layers)
        shares = {"layer_weights": (weights / weights.sum()).tolist()} if objective == "molsaki" else {}
        entry = {"loss": sum(parts.values()), "grad_norm": 1.0, "learning_rate": 1e-3, "epoch": 30 * done}
        log.append({**entry, **parts, **shares, "step": 10 * number})
    log.append({"train_runtime": 3.0, "train_loss": 0.5, "epoch": 30.0, "step": 10 * entries})
    described = {"name": objective, "alpha": 0.5}
    return {
        "fingerprint": "c" * 64,
        "objective": described,
        "seed": seed,
        "records": 36,
        "steps": 10 * entries,
        "log": log,
    }


def write_weights(path: Path, seed: int, layers: tuple[int, int], records: int = 36) -> None:
    """The teacher's weights are the same beside every student, as they are in truth."""
    teacher = np.random.default_rng(0).dirichlet(np.full(layers[0], 8.0), records)
    student = np.random.default_rng(seed + 1).dirichlet(np.full(layers[1], 8.0), records)
    keys = [f"{number:064x}" for number in range(records)]
    pq.write_table(pa.table({"key": keys, "teacher": teacher.tolist(), "student": student.tolist()}), path)


def answers(seed: int, questions: int, dataset: str, right: float) -> list[Prediction]:
    random = np.random.default_rng(seed)
    return [
        Prediction(
            question_id=f"q-{number}",
            dataset=dataset,
            prompt=prompt,
            output="",
            parsed=None,
            gold="5",
            correct=bool(random.random() < right),
        )
        for prompt in ("predict", "explain")
        for number in range(questions)
    ]


def log_probabilities(seed: int, questions: int, dataset: str, likely: float) -> list[Likelihood]:
    random = np.random.default_rng(seed)
    return [
        Likelihood(
            question_id=f"q-{number}",
            dataset=dataset,
            prompt=prompt,
            target="5",
            log_probability=float(2 * random.normal(likely, 0.2)),
            tokens=2,
        )
        for prompt in ("predict", "explain")
        for number in range(questions)
    ]


def write_provenance(folder: Path, objective: str, students: int) -> None:
    environment = Environment(
        python="3.11.7",
        platform="Linux",
        host="node-7",
        device="CPU",
        cpus=2,
        libraries={"molsaki": "0.1.0"},
        commit=None,
    )
    stages = {"rationales": 40, "attention": 36, "train": students, "evaluate": students}
    for number, (stage, units) in enumerate(stages.items()):
        if stage == "attention" and objective != "molsaki":
            continue
        kind = {"rationales": "a", "attention": "b", "train": "c", "evaluate": "d"}[stage]
        record = StageRecord(
            id=f"2026-0{number}",
            stage=stage,
            started=f"2026-11-25T1{number}:00:00+00:00",
            ended=f"2026-11-25T1{number}:30:00+00:00",
            seconds=100.0 * (number + 1),
            units=units,
            cpu_seconds=90.0,
            bytes_grown=50_000,
            peak_bytes=500 * 2**20,
            outcome="done",
            command=("molsaki", stage, "run.yaml"),
            fingerprints={stage: kind * 64},
            environment=environment,
        )
        add_stage(folder, record)
