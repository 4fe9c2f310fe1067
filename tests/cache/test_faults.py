"""Writers that are killed, and writers side by side. The long form of the kills belongs to `make faults`."""

import multiprocessing
import random
import time
from pathlib import Path

import numpy as np

from cache.reader import AttentionStore
from cache.spaces import describe
from tests.cache.truth import make_block, make_space, stored, write_parts, write_until_killed

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.cache.truth"])


def assert_all_true(store: AttentionStore, numbers: set[int]) -> None:
    """Every number is stored, and every stored record is the true one."""
    truth = {block.key: block for block in map(make_block, range(max(numbers, default=0) + 100))}
    assert {make_block(number).key for number in numbers} <= set(store)
    for key, found in zip(store, store.read(list(store)), strict=True):
        np.testing.assert_array_equal(found, stored(truth[key]), strict=True)
        assert store.marked(key) == truth[key].marked


def acknowledged_numbers(folder: Path) -> set[int]:
    return {int(line) for path in folder.glob("*.txt") for line in path.read_text().splitlines()}


def test_killed_writers_lose_nothing_that_was_committed(tmp_path):
    chance = random.Random(0)
    for turn in range(5):
        arguments = [(tmp_path, tmp_path / f"{turn}-{pair}.txt", 1000 * turn + 500 * pair) for pair in range(2)]
        writers = [PROCESSES.Process(target=write_until_killed, args=each) for each in arguments]
        for writer in writers:
            writer.start()
        wait_for(arguments[0][1], arguments[1][1])
        time.sleep(chance.random() * 0.2)
        for writer in writers:
            writer.kill()
        for writer in writers:
            writer.join()
        assert [writer.exitcode for writer in writers] == [-9, -9]
    space = make_space(tmp_path)
    numbers = acknowledged_numbers(tmp_path)
    assert len(numbers) >= 3 * 2 * 5
    assert_all_true(AttentionStore(space), numbers)
    assert describe(space).uncommitted_parts, "no kill fell into the writing of a part: the test shows nothing"


def wait_for(*paths: Path) -> None:
    """Return once every writer has committed something."""
    deadline = time.monotonic() + 60
    while not all(path.exists() and path.stat().st_size for path in paths):
        assert time.monotonic() < deadline, "a writer committed nothing for a minute"
        time.sleep(0.01)


def test_writers_side_by_side_lose_nothing(tmp_path):
    writers = [PROCESSES.Process(target=write_parts, args=(tmp_path, first, 6)) for first in (0, 9, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    store = AttentionStore(make_space(tmp_path))
    assert len(store.parts) == 18
    assert len(store) == 27 + 18  # numbers 9 to 17 were computed by two of them
    assert_all_true(store, {*range(27), *range(100, 118)})
