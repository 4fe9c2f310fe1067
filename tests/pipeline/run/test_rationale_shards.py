"""`molsaki rationales --shard i/n`: what a shard asks, counts, says and writes down. The teacher is scripted."""

import json
from pathlib import Path

import pytest
from click.testing import Result

from cache.rationales import Attempt, RationaleStore
from cache.spaces import Space
from pipeline.run.provenance import read_provenance
from stages.runtime.shard import Shard
from tests.pipeline.conftest import Experiment
from tests.pipeline.run.conftest import EVERYTHING, Teacher

RUN = Path("runs/small")
THIRDS = ("1/3", "2/3", "3/3")


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def rationales(experiment: Experiment, *arguments: str) -> Result:
    result = experiment("rationales", "run.yaml", *arguments)
    assert result.exit_code == 0, result.output
    return result


def attempts() -> list[Attempt]:
    """All attempts in the one space, those included that were made twice."""
    (space,) = map(Space.open, Path("store/rationales").iterdir())
    store = RationaleStore(space)
    return [attempt for commit in space.commits() for attempt in store.read_part(commit)]


def to_do(experiment: Experiment, *arguments: str) -> int:
    (plan,) = json.loads(rationales(experiment, "--dry-run", "--json", *arguments).stdout)
    return int(plan["to_do"])


def test_shards_ask_every_question_once_in_both_phases(experiment: Experiment, teacher: Teacher) -> None:
    for shard in THIRDS:
        rationales(experiment, "--shard", shard)
    assert teacher.asked == EVERYTHING
    plans = {plan["name"]: plan for plan in json.loads(experiment("status", "run.yaml", "--json").stdout)}
    assert (plans["rationales"]["done"], plans["rationales"]["to_do"], plans["rationales"]["shard"]) == (10, 0, None)


def test_a_shard_asks_the_questions_that_it_owns_and_those_again_that_went_wrong(
    experiment: Experiment, teacher: Teacher
) -> None:
    rationales(experiment, "--shard", "2/3")
    own = Shard(index=2, count=3)
    assert attempts() and all(own.owns(attempt.key) for attempt in attempts())
    plain = {number for number, shown in teacher.asked if not shown}
    assert {number for number, shown in teacher.asked if shown} == {number for number in plain if number % 2}


def test_a_shard_says_what_it_counts_and_without_work_starts_no_engine(
    experiment: Experiment, teacher: Teacher
) -> None:
    count = to_do(experiment, "--shard", "2/3")
    assert 0 < count < 10 and teacher.engines == []
    said = rationales(experiment, "--shard", "2/3").stderr
    assert f"rationales, shard 2/3: {count} of {count} questions there, done\n" in said
    again = rationales(experiment, "--shard", "2/3")
    assert again.stderr == f"rationales, shard 2/3: {count} of {count} questions there, nothing to do\n"
    assert len(teacher.engines) == 1


def test_a_dry_run_counts_the_shard_and_asks_nothing(experiment: Experiment, teacher: Teacher) -> None:
    assert sum(to_do(experiment, "--shard", shard) for shard in THIRDS) == to_do(experiment) == 10
    (row,) = json.loads(rationales(experiment, "--dry-run", "--json", "--shard", "2/3").stdout)
    assert row["shard"] == {"index": 2, "count": 3}
    assert teacher.engines == [] and not Path("store").exists()


def test_the_same_work_can_be_cut_in_another_way(experiment: Experiment, teacher: Teacher) -> None:
    rationales(experiment, "--shard", "2/3")
    rationales(experiment, "--shard", "1/2")
    rationales(experiment)
    assert teacher.asked == EVERYTHING


def test_torchrun_s_variables_name_the_shard(
    experiment: Experiment, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "rationales, shard 2/3: " in rationales(experiment).stderr
    assert all(Shard(index=2, count=3).owns(attempt.key) for attempt in attempts())


def test_a_file_of_rationales_is_shared_out_as_well(experiment: Experiment) -> None:
    for shard in THIRDS:
        rationales(experiment, "--shard", shard)
    assert sorted(attempt.question_id for attempt in attempts()) == sorted(f"q-{n}" for n in range(1, 11))


def test_what_one_shard_has_written_can_be_recorded_while_the_others_are_missing(
    experiment: Experiment, teacher: Teacher
) -> None:
    rationales(experiment, "--shard", "2/3")
    there = 10 - to_do(experiment)
    result = experiment("attention", "run.yaml", "--shard", "1/2")
    assert result.exit_code == 0
    assert f"rationales: {there} of 10 questions there, {10 - there} to do; going on with those that are there" in (
        result.stderr
    )
    assert set(experiment.scripted.attention) and len(experiment.scripted.attention) <= there


def test_what_a_shard_of_the_attention_would_cost_follows_from_all_questions(
    experiment: Experiment, teacher: Teacher
) -> None:
    (whole,) = json.loads(experiment("attention", "run.yaml", "--dry-run", "--json").stdout)
    (half,) = json.loads(experiment("attention", "run.yaml", "--dry-run", "--json", "--shard", "1/2").stdout)
    assert (whole["cost"]["units"], half["cost"]["units"]) == (10, 5)


def test_each_shard_has_its_own_entry_and_its_own_log(experiment: Experiment, teacher: Teacher) -> None:
    for shard in THIRDS:
        rationales(experiment, "--shard", shard)
    entries = read_provenance(RUN).stages
    assert [(entry.stage, entry.shard, entry.outcome) for entry in entries] == [
        ("rationales", shard, "done") for shard in THIRDS
    ]
    assert sum(entry.units for entry in entries) == 10
    for number, entry in enumerate(entries, start=1):
        assert f"rationales done: {entry.units} units" in (RUN / f"log-{number}-of-3.jsonl").read_text()


def test_two_jobs_that_ask_the_same_questions_at_once_end_well(experiment: Experiment, teacher: Teacher) -> None:
    """The second one does everything after the first has looked and before it has written anything."""
    results: list[Result] = []
    teacher.before_answers = lambda: results.append(rationales(experiment))
    results.append(rationales(experiment))
    assert len(results) == len(teacher.engines) == 2
    assert all("10 of 10 questions there, done" in result.stderr for result in results)
    assert teacher.asked.keys() == EVERYTHING.keys()
    assert {count for (_, shown), count in teacher.asked.items() if not shown} == {2}
    assert len(attempts()) == sum(teacher.asked.values())
    assert "10 of 10 questions there, nothing to do" in rationales(experiment).stderr
    assert experiment("attention", "run.yaml").exit_code == 0 and len(experiment.scripted.attention) == 10


def test_a_matrix_hands_the_shard_on(experiment: Experiment, teacher: Teacher) -> None:
    Path("run.yaml").write_text(Path("run.yaml").read_text() + "matrix: {objective.name: [dss, molsaki]}\n")
    rationales(experiment, "--shard", "2/3")
    assert 0 < len(teacher.asked) < len(EVERYTHING)
    assert all(Shard(index=2, count=3).owns(attempt.key) for attempt in attempts())
