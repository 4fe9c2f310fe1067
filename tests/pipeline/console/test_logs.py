"""Several processes write to one log at once, and every line stays whole."""

import json
import logging
import multiprocessing
from pathlib import Path

import pytest

from data.errors import Interrupted
from pipeline.console.logs import log_file, record_exception

PROCESSES, LINES = 4, 30
LENGTHS = (10, 10_000, 200_000)
"""Of messages in characters; a long one is a traceback, longer than any buffer in between."""


def write_lines(path: Path, process: int) -> None:
    with log_file(path):
        for number in range(LINES):
            length = LENGTHS[number % len(LENGTHS)]
            logging.getLogger("stages.attention.write").info("%d %d %s", process, number, "é" * length)


def test_lines_of_processes_side_by_side_stay_whole_and_none_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=write_lines, args=(tmp_path / "log.jsonl", number)) for number in range(PROCESSES)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * PROCESSES
    messages = [json.loads(line)["message"].split(" ") for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {(int(process), int(number)) for process, number, _ in messages} == {
        (process, number) for process in range(PROCESSES) for number in range(LINES)
    }
    assert all(len(text) == LENGTHS[int(number) % len(LENGTHS)] for _, number, text in messages)


needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


@needs_full_device
def test_a_log_that_cannot_be_written_neither_stops_the_work_nor_shows_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.jsonl"
    path.symlink_to("/dev/full")
    with log_file(path):
        logging.getLogger("stages.student.train").info("one")
        logging.getLogger("stages.student.train").info("two")
    assert capsys.readouterr().err == f"warning: {path}: the log is incomplete ([Errno 28] No space left on device)\n"


@needs_full_device
def test_a_log_that_cannot_be_written_hides_no_error(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(ZeroDivisionError), log_file(path):
        logging.getLogger("stages.student.train").info("one")
        raise ZeroDivisionError
    with pytest.raises(OSError, match="No space left"):
        record_exception(path, ZeroDivisionError())


def test_a_log_that_cannot_be_opened_does_not_stop_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with log_file(tmp_path / "log.jsonl"):
        logging.getLogger("stages.student.train").info("one")
    assert "the log is incomplete ([Errno 21] Is a directory" in capsys.readouterr().err


def test_a_signal_is_logged_as_one_and_an_error_with_its_traceback(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    record_exception(path, Interrupted("stopped by SIGTERM after saving 8 records"))
    record_exception(path, ZeroDivisionError("a / b"))
    signal, error = (json.loads(line) for line in path.read_text().splitlines())
    assert (signal["level"], "traceback" in signal) == ("WARNING", False)
    assert (error["level"], "traceback" in error) == ("ERROR", True)
