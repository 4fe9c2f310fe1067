"""`molsaki attention --shard i/n`: what a shard counts, does, says and writes down. Models are scripted."""

import json
from pathlib import Path

import pytest
from click.testing import Result

from cache.reader import AttentionStore
from pipeline.config.matrix import load_matrix
from pipeline.run.plan import StagePlan
from pipeline.run.points import Run, look
from pipeline.run.provenance import read_provenance
from stages.runtime.progress import SilentProgress, StopSignal
from stages.runtime.shard import Shard
from tests.pipeline.conftest import Experiment

RUN = Path("runs/small")
THIRDS = ("1/3", "2/3", "3/3")


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def explained(experiment: Experiment) -> Experiment:
    """An experiment with all rationales and no attention."""
    experiment.run("--only", "rationales")
    return experiment


def attention(experiment: Experiment, *arguments: str) -> Result:
    result = experiment("attention", "run.yaml", *arguments)
    assert result.exit_code == 0, result.output
    return result


def stored() -> AttentionStore:
    (space,) = Path("store/attention").iterdir()
    return AttentionStore.open(space)


def to_do(experiment: Experiment, *arguments: str) -> int:
    (plan,) = json.loads(attention(experiment, "--dry-run", "--json", *arguments).stdout)
    return int(plan["to_do"])


def test_shards_do_every_record_once_and_together_everything(explained: Experiment) -> None:
    for shard in THIRDS:
        attention(explained, "--shard", shard)
    done = explained.scripted.attention
    assert len(done) == len(set(done)) == 10
    assert set(stored()) == set(done)
    plans = {plan["name"]: plan for plan in json.loads(explained("status", "run.yaml", "--json").stdout)}
    assert (plans["attention"]["done"], plans["attention"]["to_do"], plans["attention"]["shard"]) == (10, 0, None)


def test_a_shard_does_the_records_that_it_owns(explained: Experiment) -> None:
    attention(explained, "--shard", "2/3")
    own = explained.scripted.attention
    assert own and all(Shard(index=2, count=3).owns(key) for key in own)


def test_a_shard_says_what_it_counts(explained: Experiment) -> None:
    result = attention(explained, "--shard", "2/3")
    count = len(explained.scripted.attention)
    assert 0 < count < 10
    assert result.stderr == f"attention, shard 2/3: {count} of {count} records there, done\n"
    again = attention(explained, "--shard", "2/3")
    assert again.stderr == f"attention, shard 2/3: {count} of {count} records there, nothing to do\n"
    assert len(explained.scripted.attention) == count


def test_a_dry_run_counts_the_shard_and_computes_nothing(explained: Experiment) -> None:
    shares = [to_do(explained, "--shard", shard) for shard in THIRDS]
    assert sum(shares) == to_do(explained) == 10 and explained.scripted.attention == []
    (row,) = json.loads(attention(explained, "--dry-run", "--json", "--shard", "2/3").stdout)
    assert row["shard"] == {"index": 2, "count": 3}
    assert "attention, shard 2/3" in attention(explained, "--dry-run", "--shard", "2/3").stdout


def test_the_share_of_a_record_does_not_depend_on_what_is_done(explained: Experiment) -> None:
    attention(explained, "--shard", "2/3")
    second = set(explained.scripted.attention)
    explained.scripted.attention.clear()
    attention(explained, "--shard", "1/2")  # the same work, cut in another way
    attention(explained, "--shard", "2/2")
    assert second.isdisjoint(explained.scripted.attention)
    assert len(second) + len(explained.scripted.attention) == len(stored()) == 10


def test_torchrun_s_variables_name_the_shard(explained: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert attention(explained).stderr.startswith("attention, shard 2/3: ")
    assert all(Shard(index=2, count=3).owns(key) for key in explained.scripted.attention)


def test_option_and_environment_that_differ_are_one_line_of_error(
    explained: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    result = explained("attention", "run.yaml", "--shard", "1/3")
    assert result.exit_code == 2 and result.stderr.startswith("error: --shard 1/3, but RANK=1 and WORLD_SIZE=3")
    assert explained.scripted.attention == []


@pytest.mark.parametrize("shard", ["0/8", "9/8", "a/b", "3"])
def test_a_wrong_shard_is_wrong_usage(experiment: Experiment, shard: str) -> None:
    result = experiment("attention", "run.yaml", "--shard", shard)
    assert result.exit_code == 2 and "Invalid value for '--shard'" in result.stderr


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_what_has_to_be_one_process_refuses_torchrun(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = experiment(command, "run.yaml")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert f"WORLD_SIZE=2 in the environment, but `molsaki {command}`" in result.stderr
    assert "molsaki attention CONFIG" in result.stderr
    assert not Path("store").exists()


def test_a_world_of_one_runs_everything(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    experiment.run()
    assert len(experiment.scripted.attention) == 10 and experiment.scripted.trained == [0, 1]


def test_training_names_how_many_records_of_a_missing_shard_are_missing(explained: Experiment) -> None:
    attention(explained, "--shard", "1/3")
    attention(explained, "--shard", "3/3")
    missing = to_do(explained, "--shard", "2/3")
    result = explained("train", "run.yaml")
    assert result.exit_code == 1 and missing > 0 and explained.scripted.trained == []
    assert result.stderr == (
        f"error: teacher attention of {missing} records is missing; make it with: molsaki attention CONFIG\n"
    )
    attention(explained, "--shard", "2/3")
    assert explained("train", "run.yaml").exit_code == 0 and explained.scripted.trained == [0, 1]


def test_two_jobs_that_compute_the_same_records_at_once_end_well(explained: Experiment) -> None:
    """Both have looked before either has written, so that every record is computed and committed twice."""
    run = Run(matrix=load_matrix(Path("run.yaml")), folder=RUN)
    jobs = [look(run)[0].attention for _ in range(2)]
    assert [job.plan().to_do for job in jobs] == [10, 10]
    with StopSignal() as stop:
        for job in jobs:
            job.execute(SilentProgress(), stop)
    assert len(explained.scripted.attention) == 20
    assert len(stored()) == len(stored().to_pandas()) == 10
    assert len(stored().parts) == 2
    assert "10 of 10 records there, nothing to do" in attention(explained).stderr
    assert explained("train", "run.yaml").exit_code == 0 and explained.scripted.examples == 10


def test_a_shard_without_records_has_nothing_to_do(explained: Experiment) -> None:
    empty = next(n for n in range(1, 101) if to_do(explained, "--shard", f"{n}/100") == 0)
    result = attention(explained, "--shard", f"{empty}/100")
    assert result.stderr == f"attention, shard {empty}/100: 0 of 0 records there, nothing to do\n"


def test_dropped_questions_belong_to_no_shard(experiment: Experiment) -> None:
    """Without a critical word there is no record, hence no key that could belong to a shard."""
    lines = Path("rationales.jsonl").read_text().splitlines()[1:]
    first = json.dumps({"id": "q-1", "rationale": "One joins two others: 3."})
    Path("rationales.jsonl").write_text("\n".join([first, *lines]) + "\n")
    words = ("--set", "attention.critical=regex", "--set", "attention.pattern=make")
    experiment.run("--only", "rationales", *words)
    (whole,) = json.loads(attention(experiment, "--dry-run", "--json", *words).stdout)
    assert whole["dropped"] == {"no critical word": 1} and whole["to_do"] == 9
    shares = [
        json.loads(attention(experiment, "--dry-run", "--json", *words, "--shard", shard).stdout)[0] for shard in THIRDS
    ]
    assert [share["dropped"] for share in shares] == [{}] * 3
    assert sum(share["to_do"] for share in shares) == 9


def test_each_shard_has_its_own_entry_and_its_own_log(explained: Experiment) -> None:
    for shard in THIRDS:
        attention(explained, "--shard", shard)
    entries = read_provenance(RUN).stages[1:]
    assert [(entry.stage, entry.shard, entry.outcome) for entry in entries] == [
        ("attention", shard, "done") for shard in THIRDS
    ]
    assert sum(entry.units for entry in entries) == 10
    for number, entry in enumerate(entries, start=1):
        log = (RUN / f"log-{number}-of-3.jsonl").read_text()
        assert f"attention done: {entry.units} units" in log and f"shard {number}/3" in log
    assert "attention done" not in (RUN / "log.jsonl").read_text()


def test_a_stopped_shard_goes_on_where_it_was(explained: Experiment) -> None:
    explained.scripted.stop_after_pieces = 1
    stopped = explained("attention", "run.yaml", "--shard", "2/2", "--set", "attention.piece=1")
    assert stopped.exit_code == 75 and len(explained.scripted.attention) == 1
    explained.scripted.stop_after_pieces = None
    attention(explained, "--shard", "2/2")
    assert [(entry.shard, entry.outcome) for entry in read_provenance(RUN).stages[1:]] == [
        ("2/2", "stopped"),
        ("2/2", "done"),
    ]
    done = explained.scripted.attention
    assert len(done) == len(set(done)) == 10 - to_do(explained)


def test_a_space_that_another_job_is_just_making_counts_as_empty(explained: Experiment) -> None:
    """Between its folders and its spec.json, and where there are no hard links between claiming that and filling it."""
    attention(explained, "--shard", "1/3")
    (space,) = Path("store/attention").iterdir()
    for path in (space / "commits").iterdir():
        path.unlink()
    (space / "spec.json").write_bytes(b"")
    assert to_do(explained) == 10
    (space / "spec.json").unlink()
    assert to_do(explained) == 10
    attention(explained)
    assert len(stored()) == 10


def test_a_plan_names_its_shard_in_every_line() -> None:
    plan = StagePlan(name="attention", unit="records", done=120, to_do=5, shard=Shard(index=2, count=8))
    assert plan.line() == "attention, shard 2/8: 120 of 125 records there, 5 to do"
    assert plan.result() == "attention, shard 2/8: 120 of 125 records there, 5 still to do"
