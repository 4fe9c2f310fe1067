"""The command line of `make faults`: what it prints, its exit code, and the processes that it starts of itself."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmarks.faults.__main__ as command_line
from benchmarks.faults.damage import Damage
from benchmarks.faults.full_disk import FullDisk
from benchmarks.faults.kills import Kills
from benchmarks.faults.processes import command, environment
from benchmarks.faults.results import Result
from benchmarks.faults.side_by_side import Check
from benchmarks.faults.stage import StageKills

GOOD = [("kills", Kills(kills=1200)), ("full disk", FullDisk(skipped="no disk here"))]
STAGE = [("kills", StageKills(questions=200, kills=5))]


def run(monkeypatch: pytest.MonkeyPatch, options: str, stores: list[tuple[str, Result]]) -> int | str | None:
    """Run the command line as if each kind of store came to these results; return the exit code."""

    def results(*_: object) -> Iterator[tuple[str, Result]]:
        return iter(stores)

    monkeypatch.setattr(command_line, "store_cases", results)
    monkeypatch.setattr(command_line, "stage_cases", lambda *_: iter(STAGE))
    monkeypatch.setattr(sys, "argv", ["faults", *options.split()])
    monkeypatch.setenv("PYTHONWARNINGS", "")
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return ended.value.code


def test_all_is_each_kind_of_store_and_the_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--json", GOOD) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in rows] == ["attention"] * 2 + ["soft-labels"] * 2 + ["rationales"] * 2 + ["stage"]
    assert rows[0]["case"] == "kills" and rows[0]["kills"] == 1200 and rows[0]["bad"] is False
    assert rows[1]["skipped"] == "no disk here"


@pytest.mark.parametrize(
    ("chosen", "kinds"),
    [
        ("stores", {"attention", "soft-labels", "rationales"}),
        ("soft-labels", {"soft-labels"}),
        ("attention", {"attention"}),
        ("rationales", {"rationales"}),
        ("stage", {"stage"}),
    ],
)
def test_a_kind_is_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], chosen: str, kinds: set[str]
) -> None:
    assert run(monkeypatch, f"--kind {chosen} --json", GOOD) == 0
    assert {row["kind"] for row in json.loads(capsys.readouterr().out)} == kinds


def test_the_table_has_counts_and_reasons(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    damage = Damage(files=3)
    damage.add("detected", Path("data"), "bit 7", allowed=True)
    assert run(monkeypatch, "--kind attention", [*GOOD, ("flips", damage)]) == 0
    shown = capsys.readouterr().out
    assert "kills 1,200, inside an append 0" in shown and "skipped: no disk here" in shown
    assert "files 3, tries 1, wrong 0, crash 0, detected 1" in shown
    assert "ok" in shown and "BAD" not in shown


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Kills(lost=1), ""),
        (Kills(missing_after_finishing=1), ""),
        (FullDisk(wrong=1), ""),
        (Check(problems=["a torn view"]), "attention, bad one: a torn view"),
    ],
)
def test_one_bad_result_is_shown_and_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], result: Result, said: str
) -> None:
    assert run(monkeypatch, "--kind attention", [*GOOD, ("bad one", result)]) == 1
    shown = capsys.readouterr().out
    assert shown.count("BAD") == 1 and said in shown


def test_the_package_runs_in_any_folder_and_hides_what_only_its_own_processes_need(tmp_path: Path) -> None:
    done = subprocess.run(
        command(["--help"]), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    options = done.stdout.partition("\noptions:\n")[2]
    assert "--stage-kills" in options and "--flips" in options
    assert not any(hidden in done.stdout for hidden in ("--be-stage", "--fill", "--padding", "--jobs"))
