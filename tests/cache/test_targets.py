"""The memory map of combined records: right, made once, shared, and made again where it is not whole."""

import multiprocessing
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import cache.derived
import cache.targets
from cache.reader import AttentionStore
from cache.spaces import Space
from cache.targets import Combined, combined, targets_path
from cache.writer import AttentionWriter
from data.errors import DamagedCacheError, MissingRecordsError
from tests.cache.truth import make_block, make_space

RULE = {"layers": "mean"}


def mean(block: np.ndarray) -> Combined:
    layers = len(block)
    return Combined(
        attention=block.astype(np.float32).mean(axis=0, keepdims=True),
        layer_weights=np.full(layers, 1 / layers, dtype=np.float32),
    )


class Combining:
    """Combines by the mean, and remembers how many records it was asked for."""

    def __init__(self) -> None:
        self.records = 0

    def __call__(self, blocks: Sequence[np.ndarray]) -> list[Combined]:
        self.records += len(blocks)
        return [mean(block) for block in blocks]


def never(blocks: Sequence[np.ndarray]) -> list[Combined]:
    raise AssertionError("combined again what is there")


@pytest.fixture
def space(tmp_path: Path) -> Space:
    made = make_space(tmp_path)
    write(made, 1, 2, 3)
    AttentionWriter(made).append([make_block(4, steps=1, words=5), make_block(2)])  # 2 lies in both parts
    return made


def write(space: Space, *numbers: int) -> None:
    AttentionWriter(space).append([make_block(number) for number in numbers])


def assert_right(store: AttentionStore, found: cache.targets.CombinedStore) -> None:
    assert list(found) == list(store)
    for key in store:
        expected = mean(store[key])
        np.testing.assert_array_equal(found[key].attention, expected.attention, strict=True)
        np.testing.assert_array_equal(found[key].layer_weights, expected.layer_weights, strict=True)


def the_file(space: Space) -> Path:
    (path,) = (space.path.parent.parent / "targets").iterdir()
    return path


def test_every_record_is_combined_as_the_rule_says(space: Space):
    store = AttentionStore(space)
    found = combined(store, RULE, Combining())
    assert (len(found), store.layers) == (4, 2)
    assert_right(store, found)
    assert the_file(space) == targets_path(store, RULE)
    assert "0" * 64 not in found and next(iter(store)) in found


def test_the_next_job_combines_nothing(space: Space):
    combined(AttentionStore(space), RULE, Combining())
    before = the_file(space).stat()
    store = AttentionStore(space)
    assert_right(store, combined(store, RULE, never))
    assert (the_file(space).stat().st_ino, the_file(space).stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_space_that_has_grown_combines_its_new_parts_only(space: Space):
    old_store = AttentionStore(space)
    old = combined(old_store, RULE, Combining())
    write(space, 7, 8)
    combining, advanced = Combining(), []
    store = AttentionStore(space)
    assert_right(store, combined(store, RULE, combining, advance=advanced.append))
    assert (combining.records, advanced) == (2, [3, 2, 2])
    assert_right(old_store, old)  # whoever has mapped the old file keeps it


def test_other_rules_have_files_of_their_own(space: Space):
    store = AttentionStore(space)
    combined(store, RULE, Combining())
    other = Combining()
    combined(store, {"layers": "last"}, other)
    assert other.records == 5
    assert len(list((space.path.parent.parent / "targets").iterdir())) == 2


def test_large_parts_are_combined_a_few_records_at_a_time(space: Space, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache.targets, "MOST_VALUES", 13)  # a record has 12, or 10
    sizes = []

    def combine(blocks: Sequence[np.ndarray]) -> list[Combined]:
        sizes.append(len(blocks))
        return [mean(block) for block in blocks]

    store = AttentionStore(space)
    assert_right(store, combined(store, RULE, combine))
    assert sizes == [1] * 5


def test_any_flipped_bit_and_any_other_length_is_noticed_and_the_file_made_again(space: Space):
    store = AttentionStore(space)
    combined(store, RULE, Combining())
    path = the_file(space)
    whole = path.read_bytes()
    for byte in range(0, len(whole), 5):
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1 << byte % 8]) + whole[byte + 1 :])
        combining = Combining()
        assert_right(store, combined(store, RULE, combining))
        assert combining.records and path.read_bytes() == whole
    for content in (b"", whole[:1], whole[:-1], whole[:-4], whole + b"\0", b"\n", b"[]\n"):
        path.write_bytes(content)
        assert_right(store, combined(store, RULE, Combining()))
        assert path.read_bytes() == whole


def test_a_file_of_another_space_is_not_taken(space: Space, tmp_path: Path):
    store = AttentionStore(space)
    combined(store, RULE, Combining())
    other = Space.open_or_create(tmp_path, "attention", "teacher", {"schema": 1, "teacher": "other"})
    write(other, 1, 2, 3)
    the_file(space).rename(targets_path(AttentionStore(other), RULE))
    combining = Combining()
    combined(AttentionStore(other), RULE, combining)
    assert combining.records == 3


def test_a_store_without_records_has_nothing_to_combine(tmp_path: Path):
    with pytest.raises(MissingRecordsError, match="no attention yet"):
        combined(AttentionStore(make_space(tmp_path)), RULE, never)
    assert not (tmp_path / "targets").exists()


def test_nothing_is_left_of_a_file_that_could_not_be_made(space: Space):
    def fail(blocks: Sequence[np.ndarray]) -> list[Combined]:
        raise DamagedCacheError("a part is damaged")

    with pytest.raises(DamagedCacheError, match="a part is damaged"):
        combined(AttentionStore(space), RULE, fail)
    assert list((space.path.parent.parent / "targets").iterdir()) == []


def test_where_nothing_may_be_written_the_map_has_no_name(space: Space, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(cache.derived, "make_folder", refuse)
    store = AttentionStore(space)
    assert_right(store, combined(store, RULE, Combining()))
    assert not (space.path.parent.parent / "targets").exists()


def test_everything_is_on_disk_before_the_file_has_its_name(space: Space, monkeypatch: pytest.MonkeyPatch):
    happened: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (happened.append("sync"), fsync(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda one, other: (happened.append("name"), replace(one, other)))
    (space.path.parent.parent / "targets").mkdir()
    combined(AttentionStore(space), RULE, Combining())
    assert happened == ["sync", "name", "sync"]


def test_writing_into_what_was_read_does_not_reach_the_file(space: Space):
    store = AttentionStore(space)
    key = next(iter(store))
    combined(store, RULE, Combining())[key].attention[:] = 7
    assert_right(store, combined(store, RULE, never))


def map_and_compare(store: Path, results: "multiprocessing.SimpleQueue[int]") -> None:
    combining = Combining()
    opened = AttentionStore(make_space(store))
    assert_right(opened, combined(opened, RULE, combining))
    results.put(combining.records)


def test_jobs_that_make_it_at_once_all_end_well_and_leave_one_file(space: Space, tmp_path: Path):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    jobs = [context.Process(target=map_and_compare, args=(tmp_path, results)) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 4
    assert {results.get() for _ in jobs} <= {0, 5}
    store = AttentionStore(space)
    assert_right(store, combined(store, RULE, never))
    assert the_file(space).suffix == ".targets"


def test_a_record_travels_to_other_processes(space: Space):
    store = AttentionStore(space)
    found = combined(store, RULE, Combining())[next(iter(store))]
    copied = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(copied.attention, found.attention)


def test_of_a_space_outside_of_a_store_nothing_is_written_around_it(space: Space, tmp_path: Path):
    exported = tmp_path / "shared" / "qwen"
    shutil.copytree(space.path, exported)
    store = AttentionStore.open(exported)
    assert_right(store, combined(store, RULE, Combining()))
    assert targets_path(store, RULE) is None
    assert [path.name for path in exported.parent.iterdir()] == ["qwen"]
