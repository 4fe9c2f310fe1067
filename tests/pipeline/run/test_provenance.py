"""Entries of provenance: any number of processes add some at once, and none is lost."""

import json
import multiprocessing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.run.provenance import (
    Provenance,
    StageRecord,
    add_stage,
    environment,
    executions,
    now,
    read_provenance,
)

ENVIRONMENT = environment()
PROCESSES, EACH = 6, 8


def record(**values: object) -> StageRecord:
    plain = StageRecord(
        stage="attention",
        started=now(),
        ended=now(),
        seconds=10.0,
        units=10,
        outcome="done",
        command=("molsaki", "attention"),
        fingerprints={},
        environment=ENVIRONMENT,
    )
    return replace(plain, **values)  # type: ignore[arg-type]


def together(folder: Path) -> list[dict[str, object]]:
    """What provenance.json says."""
    return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["stages"]  # type: ignore[no-any-return]


def test_entries_come_back_as_they_were_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    made = [record(units=number, shard=f"{number + 1}/5") for number in range(5)]
    for each in made:
        add_stage(tmp_path / "run", each)
    assert read_provenance(tmp_path / "run") == Provenance(stages=tuple(made))
    assert [entry["units"] for entry in together(tmp_path / "run")] == list(range(5))


def test_a_run_that_did_nothing_has_none(tmp_path: Path) -> None:
    assert read_provenance(tmp_path).stages == ()
    assert list(tmp_path.iterdir()) == []


def add_many(folder: Path, process: int) -> None:
    for number in range(EACH):
        add_stage(folder, record(units=EACH * process + number))


def test_processes_that_add_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=add_many, args=(tmp_path, process)) for process in range(PROCESSES)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * PROCESSES
    everything = set(range(PROCESSES * EACH))
    assert {each.units for each in read_provenance(tmp_path).stages} == everything
    assert {entry["units"] for entry in together(tmp_path)} == everything
    assert {path.suffix for path in (tmp_path / "provenance").iterdir()} == {".json"}


def test_an_entry_that_comes_while_all_are_put_together_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process adds its entry, and finishes, between our reading and our writing."""
    late = record(units=2)

    def read_then_be_overtaken(folder: Path) -> Provenance:
        monkeypatch.undo()
        before = read_provenance(folder)
        add_stage(folder, late)
        return before

    (tmp_path / "provenance").mkdir()
    monkeypatch.setattr("pipeline.run.provenance.read_provenance", read_then_be_overtaken)
    add_stage(tmp_path, record(units=1))
    assert {entry["units"] for entry in together(tmp_path)} == {1, 2}


def test_entries_of_an_earlier_version_stay_and_come_first(tmp_path: Path) -> None:
    entries = [asdict(record(units=number)) for number in (1, 2)]
    for entry in entries:
        for name in ("id", "shard", "cpu_seconds", "bytes_grown", "peak_bytes", "peak_gpu_bytes"):
            del entry[name]
    (tmp_path / "provenance.json").write_text(json.dumps({"schema": 1, "stages": entries}))
    assert [each.units for each in read_provenance(tmp_path).stages] == [1, 2]
    for units in (3, 4):
        add_stage(tmp_path, record(units=units))
    assert [each.units for each in read_provenance(tmp_path).stages] == [1, 2, 3, 4]
    assert [entry["units"] for entry in together(tmp_path)] == [1, 2, 3, 4]


def test_an_entry_that_cannot_be_read_is_named_and_the_others_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_stage(tmp_path, record(units=1))
    (tmp_path / "provenance" / "20000101T000000-broken.json").write_text('{"schema": 1, "stages": [{"stage": ')
    add_stage(tmp_path, record(units=2))
    assert [each.units for each in read_provenance(tmp_path).stages] == [1, 2]
    assert "20000101T000000-broken.json is not readable" in caplog.text


def test_only_executions_at_the_same_pace_that_did_something_serve_to_reckon_with(tmp_path: Path) -> None:
    shards = [record(units=10, shard=f"{index}/3", pace="a", started=f"2026-01-0{index}") for index in (1, 2, 3)]
    for number, each in enumerate([shards[2], record(units=0, pace="a"), record(units=1, pace="b"), shards[0]]):
        add_stage(tmp_path / f"run-{number}", each)
    add_stage(tmp_path / "study" / "point", shards[1])
    add_stage(tmp_path / "study" / "point", record(stage="train", units=1, pace="a"))
    assert executions(tmp_path, "attention", "a") == shards
    assert executions(tmp_path, "evaluate", "a") == []


def test_another_device_than_the_last_tells_nothing(tmp_path: Path) -> None:
    here = environment()
    slow = record(units=10, pace="a", started="2026-01-01", environment=replace(here, device="cpu"))
    fast = record(units=10, pace="a", started="2026-01-02", environment=replace(here, device="H100"))
    for number, each in enumerate([fast, slow]):
        add_stage(tmp_path / f"run-{number}", each)
    assert executions(tmp_path, "attention", "a") == [fast]
