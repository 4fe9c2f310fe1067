"""Every error ends as one line on stderr and the exit code of its family."""

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from data.errors import (
    ConfigError,
    DamagedCacheError,
    DataError,
    EngineError,
    Interrupted,
    MismatchError,
    MissingRecordsError,
    ModelError,
)
from pipeline.console.exits import ErrorsToExitCodes, Invocation, StageProcessError
from pipeline.console.logs import log_file


def ends(error: Exception, *, debug: bool = False, log: Path | None = None) -> Result:
    @click.group(cls=ErrorsToExitCodes)
    @click.pass_context
    def group(ctx: click.Context) -> None:
        ctx.obj = Invocation(debug=debug, log=log)

    @group.command()
    def fail() -> None:
        raise error

    return CliRunner().invoke(group, ["fail"])


@pytest.mark.parametrize(
    ("family", "code"),
    [
        (ConfigError, 2),
        (DataError, 2),
        (ModelError, 2),
        (MismatchError, 2),
        (MissingRecordsError, 1),
        (EngineError, 1),
        (DamagedCacheError, 65),
        (Interrupted, 75),
    ],
)
def test_our_errors_end_with_one_line_and_their_code(family: Callable[[str], Exception], code: int) -> None:
    result = ends(family("what went wrong"))
    assert (result.exit_code, result.stderr, result.stdout) == (code, "error: what went wrong\n", "")


def test_several_problems_are_several_lines_and_indented_lines_belong_to_the_one_above() -> None:
    assert ends(ConfigError("a\n  more of a\nb")).stderr == "error: a\n  more of a\nerror: b\n"


def test_unexpected_error_ends_with_1_and_its_traceback_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "run" / "log.jsonl"
    result = ends(ZeroDivisionError("a / b"), log=log)
    assert result.exit_code == 1
    assert result.stderr == f"error: ZeroDivisionError: a / b (traceback: {log})\n"
    assert "Traceback" in json.loads(log.read_text())["traceback"]


def test_unexpected_error_before_there_is_a_run_is_logged_in_the_cache_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert str(tmp_path / "molsaki") in ends(RuntimeError("odd")).stderr
    assert list((tmp_path / "molsaki").glob("log-*.jsonl"))


def test_traceback_goes_to_stderr_where_no_log_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = ends(RuntimeError("odd"), log=tmp_path / "file" / "log.jsonl")
    assert result.exit_code == 1 and "Traceback" in result.stderr and "cannot be written" in result.stderr


def full(path: str | None = None, number: int = errno.ENOSPC) -> OSError:
    return OSError(number, os.strerror(number), path)


GO_ON = "what was committed is kept: make space there and run the same command to go on\n"


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "no space left on device"), (errno.EDQUOT, "disk quota exceeded")]
)
def test_a_full_disk_is_one_line_with_the_place_and_how_to_go_on(number: int, reason: str) -> None:
    result = ends(full("/store/part", number))
    assert (result.exit_code, result.stderr) == (1, f"error: /store/part: {reason}; {GO_ON}")


def test_a_full_disk_without_a_place_is_that_of_the_run(tmp_path: Path) -> None:
    log = tmp_path / "runs" / "mine" / "log.jsonl"
    expected = f"error: {log.parent}: no space left on device; {GO_ON}"
    for error in (full(), RuntimeError('IoError(Os { code: 28, message: "No space left on device" })')):
        assert ends(error, log=log).stderr == expected
    assert "the disk that was written to (--debug shows where)" in ends(full()).stderr
    assert not log.exists()


def test_of_several_full_disks_the_first_is_named() -> None:
    """What wanted to record the failure failed too; an error that has nothing to do with it is not named."""
    first, second = full("/store/part"), full("/runs/mine/provenance")
    second.__context__ = first
    first.__context__ = ValueError("before")
    assert "error: /store/part: no space" in ends(second).stderr


def test_other_errors_of_the_file_system_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    assert "PermissionError" in ends(PermissionError(errno.EACCES, "denied", "/x"), log=tmp_path / "log").stderr


def test_debug_shows_the_traceback_of_our_errors_too() -> None:
    assert "Traceback" in ends(ConfigError("wrong"), debug=True).stderr
    assert "Traceback" not in ends(ConfigError("wrong")).stderr


def test_code_of_a_stages_process_is_passed_on_without_a_word() -> None:
    result = ends(StageProcessError(65))
    assert (result.exit_code, result.output) == (65, "")


def test_usage_errors_keep_clicks_code() -> None:
    result = ends(click.UsageError("no such option"))
    assert result.exit_code == 2 and "no such option" in result.stderr


def test_keyboard_interrupt_ends_with_75() -> None:
    result = ends(KeyboardInterrupt())  # type: ignore[arg-type]
    assert (result.exit_code, result.stderr) == (75, "error: stopped; run the same command to go on\n")


def test_log_keeps_our_words_and_other_peoples_warnings(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with log_file(path):
        logging.getLogger("stages.student.train").info("line one\nline two")
        logging.getLogger("someone.else").info("chatter")
        logging.getLogger("someone.else").warning("careful")
    logging.getLogger("stages.student.train").warning("after the end")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["message"] for entry in entries] == ["line one\nline two", "careful"]
    assert entries[0]["logger"] == "stages.student.train" and entries[0]["time"].endswith("+00:00")
