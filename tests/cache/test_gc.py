"""What no commit names goes once it is old; what is committed, young or doubtful stays."""

import os
import shutil
import time
from pathlib import Path

import pytest

import cache.age
from cache.gc import Leftover, leftovers, remove
from cache.reader import AttentionStore
from cache.repair import repair
from cache.spaces import Space, describe
from cache.writer import AttentionWriter
from data.errors import DamagedCacheError
from tests.cache.truth import make_block, make_space

DAY = 86400


@pytest.fixture
def space(tmp_path: Path) -> Space:
    made = make_space(tmp_path)
    AttentionWriter(made).append([make_block(1)])
    AttentionWriter(made).append([make_block(2)])
    return made


def make_old(path: Path, seconds: float = 2 * DAY) -> None:
    at = time.time() - seconds
    for below in (*path.rglob("*"), path):
        os.utime(below, (at, at))


def left_behind(space: Space) -> Path:
    part = space.new_part()
    (part / "attention").mkdir()
    (part / "attention" / "half").write_bytes(b"12345")
    return part


def collect(space: Space, older_than: float = DAY) -> list[Leftover]:
    return list(remove(space, leftovers(space, older_than=older_than)))


def files(space: Space) -> set[Path]:
    return {path for path in space.path.rglob("*") if path.is_file()}


def test_nothing_committed_is_ever_removed(space):
    make_old(space.path)
    before = files(space)
    assert collect(space, older_than=0) == []
    assert files(space) == before


def test_a_part_without_commit_goes_once_its_newest_file_is_old(space):
    before = files(space)
    part = left_behind(space)
    make_old(part)
    os.utime(part / "attention" / "half")
    assert collect(space) == []
    make_old(part)
    (gone,) = collect(space)
    assert (gone.path, gone.what, gone.bytes) == (part, "part without commit", 5)
    assert DAY < gone.seconds < 3 * DAY
    assert not part.exists()
    assert files(space) == before


def test_looking_removes_nothing(space):
    part = left_behind(space)
    make_old(part)
    assert len(leftovers(space, older_than=DAY)) == 1
    assert part.exists()


def test_temporary_files_go(space):
    before = files(space)
    for folder in (space.path, space.path / "commits"):
        (folder / ".0123.tmp").write_bytes(b"abc")
        make_old(folder / ".0123.tmp")
    (space.path / "commits" / ".young.tmp").write_bytes(b"")
    assert [gone.what for gone in collect(space)] == ["temporary file"] * 2
    assert files(space) == {*before, space.path / "commits" / ".young.tmp"}


def test_the_part_of_a_withdrawn_commit_stays_for_its_readers_until_that_was_long_ago(space):
    path = space.part_path(space.commits()[0])
    (path / "attention" / "c" / "0" / "0").unlink()
    repair(space.path)
    make_old(path)
    assert collect(space) == []
    make_old(space.path / "withdrawn")
    assert [(gone.what, gone.path.exists()) for gone in collect(space)] == [
        ("part of a withdrawn commit", False),
        ("withdrawn commit", False),
    ]
    assert describe(space).uncommitted_parts == ()
    assert set(AttentionStore(space)) == {make_block(2).key}


def test_what_was_committed_meanwhile_stays(space):
    part = left_behind(space)
    make_old(part)
    found = leftovers(space, older_than=DAY)
    space.commit(part, counts={"records": 0})
    assert list(remove(space, found)) == []
    assert part.exists()


@pytest.mark.parametrize("content", [b"", b"{}\n"])
def test_a_space_with_a_commit_that_proves_nothing_is_left_alone(space, content):
    make_old(left_behind(space))
    path = space.path / "commits" / "00000000.json"
    path.write_bytes(content)
    make_old(path)
    make_old(space.path / "parts")
    before = files(space)
    with pytest.raises(DamagedCacheError, match="molsaki cache verify"):
        collect(space)
    assert files(space) == before


def test_age_is_told_by_the_clock_of_the_file_system(space, monkeypatch):
    make_old(left_behind(space), DAY / 2)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert collect(space) == []


def test_a_full_disk_does_not_keep_from_making_room(space, monkeypatch):
    part = left_behind(space)
    make_old(part)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.age, "temporary_file", full)
    assert len(collect(space)) == 1
    assert not part.exists()


def test_removing_goes_on_where_a_crash_stopped_it(space, monkeypatch):
    part = left_behind(space)
    make_old(part)

    def crash(*_):
        (part / "attention" / "half").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", crash)
        collect(space)
    make_old(part)
    assert [gone.path for gone in collect(space)] == [part]
