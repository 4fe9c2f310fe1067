"""Several processes write to one log at once, and every line stays whole."""

import json
import logging
import multiprocessing
from pathlib import Path

from pipeline.logs import log_file

PROCESSES, LINES = 4, 30
LENGTHS = (10, 10_000, 200_000)
"""Of messages in characters; a long one is a traceback, longer than any buffer in between."""


def write_lines(path: Path, process: int) -> None:
    with log_file(path):
        for number in range(LINES):
            length = LENGTHS[number % len(LENGTHS)]
            logging.getLogger("stages.extraction").info("%d %d %s", process, number, "é" * length)


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
