"""What `status`, `--dry-run` and `cache show` say of targets before any student is trained."""

import json
from pathlib import Path

import numpy as np
import pytest

from cache.reader import AttentionStore
from stages.mixture import mixed_targets
from tests.pipeline.conftest import Experiment

FIRST = ("rationales", "attention")


@pytest.fixture
def uneven(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """Stage one is done, with attention that differs from record to record."""
    from tests.pipeline import conftest

    random = np.random.default_rng(0)
    block = conftest._block

    def random_block(marked):
        attention = random.random(block(marked).attention.shape, dtype=np.float32)
        return conftest.AttentionBlock(**{**vars(block(marked)), "attention": attention})

    monkeypatch.setattr(conftest, "_block", random_block)
    for stage in FIRST:
        experiment.run("--only", stage)
    return experiment


def targets(experiment: Experiment, *arguments: str) -> list[dict]:
    result = experiment(*(arguments or ("status", "run.yaml")), "--json")
    assert result.exit_code == 0, result.output
    (train,) = [stage for stage in json.loads(result.stdout) if stage["name"] == "train"]
    return train["targets"]


def test_status_and_dry_run_say_what_the_stored_targets_are(uneven: Experiment) -> None:
    (found,) = targets(uneven)
    assert targets(uneven, "run", "run.yaml", "--dry-run") == [found]
    (space,) = (Path("store") / "attention").iterdir()
    made = mixed_targets(list(AttentionStore.open(space).values()), 0.1)
    above = [one.attention[0] + 1e-6 for one in made]
    rows = [each / each.sum(-1, keepdims=True) for each in above]
    distance = np.mean([(p * np.log(p * p.shape[1])).sum(-1).mean() for p in rows])
    weights = np.array([one.layer_weights for one in made])
    assert (found["records"], found["stored"], found["rows"]) == (10, 10, "share")
    assert found["nats_from_uniform"] == pytest.approx(distance, rel=1e-4)
    first = (weights.argmax(axis=1) == 0).mean()
    assert found["weights"]["share"] == pytest.approx(max(first, 1 - first))
    assert found["weights"]["weight"] == pytest.approx(weights[:, found["weights"]["layer"] - 1].mean(), rel=1e-4)
    said = " ".join(uneven("status", "run.yaml").stdout.split())
    assert f"targets: {distance:.2g} nats from uniform, the mean of 10 stored records (rows: share)" in said
    assert "of the entropy of even ones (tau 0.1); layer" in said


def test_nothing_is_said_before_there_is_attention_nor_where_none_is_needed(experiment: Experiment) -> None:
    assert targets(experiment) == []
    for stage in FIRST:
        experiment.run("--only", stage)
    assert "targets: 0 nats from uniform" in experiment("status", "run.yaml").stdout
    assert targets(experiment, "status", "run.yaml", "--set", "objective.name=dss") == []
    assert "targets" not in experiment("rationales", "run.yaml", "--dry-run").stdout


def test_points_that_learn_from_the_same_are_one_paragraph(uneven: Experiment) -> None:
    matrix = "\nmatrix: {objective.beta: [1, 2], objective.tau_teacher: [0.1, 1]}\n"
    Path("matrix.yaml").write_text(Path("run.yaml").read_text() + matrix)
    found = json.loads(uneven("status", "matrix.yaml", "--json").stdout)
    (train,) = [stage for stage in found["stages"] if stage["name"] == "train"]
    assert [len(one["points"]) for one in train["targets"]] == [2, 2]
    assert [one["weights"]["tau"] for one in train["targets"]] == [0.1, 1]
    printed = uneven("status", "matrix.yaml").stdout
    assert printed.count("targets of ") == 2 and " and 1 more: " in " ".join(printed.split())


def test_cache_show_says_it_with_the_defaults(uneven: Experiment) -> None:
    (space,) = (Path("store") / "attention").iterdir()
    (expected,) = targets(uneven)
    shown = uneven("cache", "show", str(space))
    assert "targets, by default" in shown.stdout and "teacher's layer weights, by default" in shown.stdout
    found = json.loads(uneven("cache", "show", str(space), "--json").stdout)["targets"]
    assert found["weights"] == pytest.approx(expected["weights"])
    (other,) = (Path("store") / "rationales").iterdir()
    assert json.loads(uneven("cache", "show", str(other), "--json").stdout)["targets"] is None


def test_a_damaged_store_does_not_keep_status_from_speaking(uneven: Experiment) -> None:
    (chunks,) = Path("store").glob("attention/*/parts/*/attention/c/0/0")
    content = bytearray(chunks.read_bytes())
    content[20:40] = bytes(20)
    chunks.write_bytes(bytes(content))
    told = uneven("status", "run.yaml")
    assert told.exit_code == 0 and "warning: targets: " in told.stderr and "targets:" not in told.stdout
