"""Arrays beside a store: as they were appended, in little memory, whole or made again."""

import json
import multiprocessing
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import cache.derived
from cache.arrays import Arrays, ArraysToFill, arrays_path, make_arrays, part, read_arrays
from tests.cache.truth import make_space

HEAD = {"of": "a test"}


def fill(made: ArraysToFill) -> None:
    for rows in ([[1, 2], [3]], [], [[], [4, 5, 6]]):
        made.append_lengths("row_offset", [len(row) for row in rows])
        made.append("row", np.array([value for row in rows for value in row], np.int32))
        made.append("pair", np.full((len(rows), 2), len(rows), np.int32))
    made.append("byte", np.frombuffer(b"abc", np.uint8))


def assert_right(found: Arrays) -> None:
    np.testing.assert_array_equal(found["row"], np.array([1, 2, 3, 4, 5, 6], np.int32), strict=True)
    np.testing.assert_array_equal(found["row_offset"], np.array([0, 2, 3, 3, 6]), strict=True)
    np.testing.assert_array_equal(found["pair"], np.full((4, 2), 2, np.int32), strict=True)
    assert found["byte"].tobytes() == b"abc"
    assert [found["row"][part(found["row_offset"], number)].tolist() for number in range(4)] == [
        [1, 2],
        [3],
        [],
        [4, 5, 6],
    ]


def never(_: ArraysToFill) -> None:
    raise AssertionError("made again what is there")


def test_arrays_are_as_they_were_appended_and_found_by_the_next(tmp_path: Path):
    path = tmp_path / "texts" / "some.arrays"
    assert read_arrays(path, HEAD) is None
    assert_right(make_arrays(path, HEAD, fill))
    found = read_arrays(path, HEAD)
    assert found is not None
    assert_right(found)
    assert [each.name for each in path.parent.iterdir()] == ["some.arrays"]


def test_the_file_reads_as_the_document_says(tmp_path: Path):
    path = tmp_path / "some.arrays"
    make_arrays(path, HEAD, fill)
    line, _, rest = path.read_bytes().partition(b"\n")
    listed = {one["name"]: one for one in json.loads(line)["arrays"]}
    assert (len(line) + 1) % 64 == 0 and list(listed) == ["row_offset", "row", "pair", "byte"]
    assert (listed["pair"]["dtype"], listed["pair"]["shape"]) == ("<i4", [4, 2])
    assert np.frombuffer(rest[:40], "<i8").tolist() == [0, 2, 3, 3, 6]
    assert np.frombuffer(rest[64:88], "<i4").tolist() == [1, 2, 3, 4, 5, 6]
    assert rest[192:195] == b"abc" and len(rest) == 256


def test_arrays_made_of_something_else_are_none(tmp_path: Path):
    path = tmp_path / "some.arrays"
    make_arrays(path, HEAD, fill)
    assert read_arrays(path, {"of": "another test"}) is None
    assert read_arrays(None, HEAD) is None


def test_only_a_damaged_file_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "some.arrays"
    make_arrays(path, HEAD, fill)
    content = path.read_bytes()
    with caplog.at_level("INFO", logger="cache.derived"):
        read_arrays(path, {"of": "a later version"})
        path.write_bytes(content[:-1])
        read_arrays(path, HEAD)
        path.write_bytes(b"[]")
        read_arrays(path, HEAD)
    assert [(record.levelname, record.message.partition(": ")[2]) for record in caplog.records] == [
        ("INFO", "made by another version; it is made again from the store"),
        ("WARNING", "damaged; it is made again from the store"),
        ("WARNING", "damaged; it is made again from the store"),
    ]


def test_any_flipped_bit_and_any_other_length_is_noticed(tmp_path: Path):
    path = tmp_path / "some.arrays"
    make_arrays(path, HEAD, fill)
    whole = path.read_bytes()
    for byte in range(0, len(whole), 3):
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1 << byte % 8]) + whole[byte + 1 :])
        assert read_arrays(path, HEAD) is None, byte
    for content in (b"", whole[:1], whole[:-1], whole + b"\0", b"\n", b"[]\n", b'{"arrays":[{}]}\n'):
        path.write_bytes(content)
        assert read_arrays(path, HEAD) is None
    assert_right(make_arrays(path, HEAD, fill))
    assert path.read_bytes() == whole


def test_nothing_is_left_of_arrays_that_could_not_be_made(tmp_path: Path):
    def fail(made: ArraysToFill) -> None:
        fill(made)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_arrays(tmp_path / "some.arrays", HEAD, fail)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_may_be_written_the_map_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(cache.derived, "make_folder", refuse)
    assert_right(make_arrays(tmp_path / "texts" / "some.arrays", HEAD, fill))
    assert list(tmp_path.iterdir()) == []


def test_arrays_lie_beside_the_space_and_nowhere_for_one_outside_of_a_store(tmp_path: Path):
    space = make_space(tmp_path)
    path = arrays_path(space, {"a": 1}, "tokens")
    assert path is not None and path.parent == tmp_path / "texts"
    assert path.name.startswith(f"{space.path.name}-") and path.suffix == ".tokens"
    space.path.rename(tmp_path / "shared")
    assert arrays_path(type(space).open(tmp_path / "shared"), {"a": 1}, "tokens") is None


def test_writing_into_what_was_read_does_not_reach_the_file(tmp_path: Path):
    path = tmp_path / "some.arrays"
    make_arrays(path, HEAD, fill)["row"][:] = 7
    found = read_arrays(path, HEAD)
    assert found is not None
    assert_right(found)


def test_making_and_proving_take_no_more_memory_for_more_rows(tmp_path: Path):
    def peak(pieces: int) -> int:
        def many(made: ArraysToFill) -> None:
            for _ in range(pieces):
                made.append("row", np.zeros(1 << 16, np.int32))

        tracemalloc.start()
        make_arrays(tmp_path / "many.arrays", HEAD, many)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(40) < peak(10) + (1 << 18)


def test_of_several_processes_one_makes_what_all_map(tmp_path: Path):
    path, made = tmp_path / "texts" / "a.tokens", tmp_path / "made"

    def fill(arrays: ArraysToFill) -> None:
        with made.open("a") as file:
            file.write("once\n")
        time.sleep(0.2)
        arrays.append("ids", np.arange(5, dtype=np.int64))

    def need(results: "multiprocessing.SimpleQueue[int]") -> None:
        results.put(int(make_arrays(path, HEAD, fill)["ids"].sum()))

    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [context.Process(target=need, args=(results,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [results.get() for _ in processes] == [10, 10, 10]
    assert made.read_text() == "once\n" and [file.name for file in path.parent.iterdir()] == ["a.tokens"]
