"""What the person at the terminal, or the reader of a job's output file, sees of a stage's advance."""

from pathlib import Path

import pytest

from pipeline.console.logs import log_file
from pipeline.console.progress import LineProgress, QuietProgress, duration, open_progress


def test_plain_lines_come_at_most_every_so_often(capsys: pytest.CaptureFixture[str]) -> None:
    progress = LineProgress(seconds_between=3600)
    progress.start("attention", 100)
    for _ in range(100):
        progress.advance()
    assert capsys.readouterr().err == ""


def test_plain_line_says_how_far_and_how_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went by before the first unit, such as the start of an engine, is no sign of how fast it goes."""
    clock = 0.0
    monkeypatch.setattr("pipeline.console.progress.time.monotonic", lambda: clock)
    progress = LineProgress(seconds_between=0)
    progress.start("attention", 2000)
    clock = 60.0
    progress.advance(100)
    assert capsys.readouterr().err == "attention: 100 of 2,000 (5%)\n"
    clock = 70.0
    progress.advance(900)
    assert capsys.readouterr().err == "attention: 1,000 of 2,000 (50%), 90/s, 11 s left\n"


def test_plain_line_says_how_many_are_committed(capsys: pytest.CaptureFixture[str]) -> None:
    progress = LineProgress(seconds_between=0)
    progress.start("attention", 520)
    progress.saved(0)
    progress.advance(8)
    assert capsys.readouterr().err == "attention: 8 of 520 (2%), 0 committed\n"
    progress.saved(8)
    progress.advance(8)
    assert capsys.readouterr().err.startswith("attention: 16 of 520 (3%), 8 committed")


def test_stderr_that_is_no_terminal_gets_plain_lines() -> None:
    with open_progress(quiet=False) as progress:
        assert isinstance(progress, LineProgress)


def test_quiet_shows_nothing_but_logs_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log_file(tmp_path / "log.jsonl"), open_progress(quiet=True) as progress:
        assert isinstance(progress, QuietProgress)
        progress.start("attention", 1)
        progress.advance()
        progress.note("3 dropped")
    captured = capsys.readouterr()
    assert captured.err + captured.out == ""
    assert "3 dropped" in (tmp_path / "log.jsonl").read_text()


@pytest.mark.parametrize(("seconds", "text"), [(12.4, "12 s"), (600, "10 min"), (5 * 3600 + 240, "5 h 04 min")])
def test_durations_are_rounded_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
