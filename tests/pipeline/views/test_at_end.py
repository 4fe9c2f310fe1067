"""The report at the end of a run: never one that is older than what it shows, and not written again for nothing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.results.folder import RunFolder
from pipeline.views import at_end
from tests.pipeline.run_folders import write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", seeds=(0, 1))
    (tmp_path / "space" / "commits").mkdir(parents=True)
    report(tmp_path / "run")
    return tmp_path / "run"


def report(folder: Path) -> int:
    """Which file the report is, after the end of a run."""
    said: list[str] = []
    at_end.report_at_end(folder, [folder.parent / "space"], said.append)
    path = RunFolder(folder).report
    assert said == [f"{path} shows the run on one page"]
    return path.stat().st_ino


def test_a_report_of_a_run_of_which_nothing_changed_stays(folder: Path) -> None:
    first = report(folder)
    RunFolder(folder).log().write_text("{}\n")
    assert report(folder) == first


def rewrite(folder: Path) -> None:
    path = RunFolder(folder).evaluation().predictions(0)
    path.write_bytes(path.read_bytes())


def copy_older(folder: Path) -> None:
    path = RunFolder(folder).evaluation().predictions(0)
    path.write_bytes(path.read_bytes())
    os.utime(path, (0, 0))


def remove(folder: Path) -> None:
    shutil.rmtree(RunFolder(folder).student(1).path)


def commit(folder: Path) -> None:
    (folder.parent / "space" / "commits" / "00000000.json").touch()


@pytest.mark.parametrize("change", [rewrite, copy_older, remove, commit])
def test_whatever_it_shows_makes_it_anew_when_it_changes(folder: Path, change: Callable[[Path], None]) -> None:
    first = RunFolder(folder).report.stat().st_mtime_ns
    change(folder)
    report(folder)
    assert RunFolder(folder).report.stat().st_mtime_ns > first


def test_another_version_writes_it_anew(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = RunFolder(folder).report.stat().st_mtime_ns
    (tmp_path / "installed").mkdir()
    monkeypatch.setattr(at_end, "PROGRAM", [tmp_path / "installed"])
    report(folder)
    assert RunFolder(folder).report.stat().st_mtime_ns > first


def test_what_changes_while_it_is_written_is_not_missed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(folder)
    monkeypatch.setattr("pipeline.views.report.write_report", lambda *_: rewrite(folder))
    report(folder)
    assert not at_end.is_current(RunFolder(folder).report, folder, [])
