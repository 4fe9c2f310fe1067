"""What no commit names goes once it is old; what is committed, young or doubtful stays."""

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cache.durable
from cache.arrays import arrays_path, make_arrays
from cache.exchange.exporting import export_space
from cache.exchange.importing import fetch, import_space
from cache.gc import Leftover, discard, leftovers, leftovers_of_store, remove
from cache.reader import AttentionStore
from cache.repair import repair
from cache.spaces import Space, describe
from cache.targets import targets_path
from cache.writer import AttentionWriter
from data.errors import DamagedCacheError
from tests.cache.exchange.test_hostile_archives import sound_block
from tests.cache.truth import make_block, make_space

DAY = 86400
PROCESSES = multiprocessing.get_context("forkserver")


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

    monkeypatch.setattr(cache.durable, "temporary_file", full)
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


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of our own for temporary files: others' exports leave theirs in the system's."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class Hang:
    """Lets the copying of a file take for ever, so that it can be killed in the middle of its work."""

    def start(self, task: str, total: int) -> None:
        assert total > 0

    def advance(self, count: int = 1) -> None:
        time.sleep(60)


def import_slowly(source: str, store: Path) -> None:
    import_space(source, store, meter=Hang())


def fetch_slowly(source: str, user: Path) -> None:
    os.environ["XDG_CACHE_HOME"] = str(user)
    fetch(source, meter=Hang())


def export_slowly(space: Space, target: str, temporary: Path) -> None:
    tempfile.tempdir = str(temporary)
    export_space(space, target, keys=[sound_block(1).key], meter=Hang())


def kill_once(there: Callable[[], object], action: Callable[..., None], *arguments: object) -> None:
    """Let a process do `action` until `there` is true, and kill it."""
    process = PROCESSES.Process(target=action, args=arguments)
    process.start()
    deadline = time.monotonic() + 60
    while not there() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -9
    assert there()


def collect_beside(store: Path, older_than: float = DAY) -> list[tuple[str, bool]]:
    found = leftovers_of_store(store, older_than=older_than)
    assert all(leftover.bytes > 0 for leftover in found)
    return [(discard(leftover).what, leftover.path.exists()) for leftover in found]


def test_what_a_killed_import_has_staged_goes_once_it_is_old(tmp_path, temporary):
    theirs = make_space(tmp_path / "theirs")
    AttentionWriter(theirs).append([sound_block(1)])
    ours = make_space(tmp_path)
    AttentionWriter(ours).append([sound_block(2)])
    before = files(ours)
    staged = lambda: list((tmp_path / "attention").glob(".import-*/space/parts/*/*"))  # noqa: E731
    kill_once(staged, import_slowly, str(theirs.path), tmp_path)
    assert collect_beside(tmp_path) == []
    (folder,) = (tmp_path / "attention").glob(".import-*")
    make_old(folder)
    assert collect_beside(tmp_path) == [("import that did not end", False)]
    assert files(ours) == before
    assert import_space(str(theirs.path), tmp_path).records == 1


def test_what_a_killed_opening_of_an_address_has_staged_goes_once_it_is_old(tmp_path, temporary):
    theirs = make_space(tmp_path / "theirs")
    AttentionWriter(theirs).append([sound_block(1)])
    export_space(theirs, str(tmp_path / "space.tar"))
    store = tmp_path / "user" / "molsaki"  # the user's own, in which copies are kept
    staged = lambda: list(store.glob("fetched/*/.import-*/space/parts/*/*"))  # noqa: E731
    kill_once(staged, fetch_slowly, str(tmp_path / "space.tar"), tmp_path / "user")
    assert collect_beside(store) == []
    make_old(store)
    assert collect_beside(store) == [("import that did not end", False)]


def test_what_a_killed_export_of_chosen_records_has_put_together_goes_once_it_is_old(tmp_path, temporary):
    ours = make_space(tmp_path)
    AttentionWriter(ours).append([sound_block(1), sound_block(2)])
    out = tmp_path / "out"
    kill_once(lambda: list(out.glob("README.md")), export_slowly, ours, str(out), temporary)
    assert collect_beside(tmp_path) == []
    make_old(temporary)
    assert collect_beside(tmp_path) == [("export that did not end", False)] * 2  # the records, and the card
    assert list(temporary.iterdir()) == []
    assert (out / "README.md").exists()  # a place of the user's, with which the same export goes on


def test_targets_go_once_their_space_is_gone_and_they_are_old(space, tmp_path, temporary):
    path = targets_path(AttentionStore(space), {"layers": "first"})
    path.parent.mkdir()
    path.write_text("half a day's work")
    foreign = path.with_name("notes-about.targets")
    foreign.write_text("no file of ours")
    make_old(path.parent)
    assert collect_beside(tmp_path) == []
    shutil.rmtree(space.path)
    os.utime(path)
    assert collect_beside(tmp_path) == []
    make_old(path.parent)
    assert collect_beside(tmp_path) == [("targets of a space that is gone", False)]
    assert foreign.exists()


def test_texts_go_once_the_rationales_are_gone_and_they_are_old(tmp_path, temporary):
    space = Space.open_or_create(tmp_path, "rationales", "teacher", {"schema": 1})
    paths = [arrays_path(space, {"a": 1}, suffix) for suffix in ("selection", "tokens")]
    for path in paths:
        make_arrays(path, {"b": 2}, lambda made: made.append("key", np.zeros(3, np.uint8)))
    make_old(tmp_path / "texts")
    assert collect_beside(tmp_path) == []
    shutil.rmtree(space.path)
    assert collect_beside(tmp_path) == [("texts of a space that is gone", False)] * 2
    assert list((tmp_path / "texts").iterdir()) == []


def test_targets_stay_where_no_space_is_in_reach(space, tmp_path, temporary):
    path = tmp_path / "targets" / f"{space.path.name}-0123456789abcdef.targets"
    path.parent.mkdir()
    path.write_text("half a day's work")
    make_old(path.parent)
    (tmp_path / "attention").rename(tmp_path / "not mounted")
    assert collect_beside(tmp_path) == []
    (tmp_path / "attention").mkdir()
    space.path.parent.mkdir(exist_ok=True)
    assert collect_beside(tmp_path) == []  # the space lies beside, under another folder's name
    assert path.exists()


def test_a_leftover_that_somebody_else_removes_meanwhile_is_no_error(space):
    part = left_behind(space)
    make_old(part)
    (found,) = leftovers(space, older_than=DAY)
    shutil.rmtree(part)
    assert discard(found) == found
