import dataclasses
import multiprocessing
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

import cache
import cache.exchange.chosen
import cache.exchange.importing
from cache.exchange.chosen import read_keys
from cache.exchange.exporting import TEMPLATE, Exported, export_space
from cache.exchange.importing import import_space
from cache.exchange.incoming import read_offer, stage
from cache.exchange.locations import open_source
from cache.exchange.metering import Unmetered
from cache.keys import record_key
from cache.rationales import Attempt, RationaleStore
from cache.reader import AttentionStore
from cache.spaces import Space, describe, list_spaces
from cache.verify import verify
from cache.writer import AttentionWriter
from data.errors import ConfigError, DamagedCacheError, DataError, Interrupted, MismatchError, MissingRecordsError
from tests.cache.exchange.test_hostile_archives import ATTEMPT, sound_block
from tests.cache.truth import SPEC, make_block, make_space, stored

PROCESSES = multiprocessing.get_context("forkserver")


def write(store: Path, *parts: range) -> Space:
    space = make_space(store)
    for part in parts:
        AttentionWriter(space, note={"device": "cpu"}).append([sound_block(number) for number in part])
    return space


def assert_holds(folder: Path, numbers: range) -> None:
    """The space holds these records and no others, each as it was made, and nothing in it is damaged."""
    store = AttentionStore(Space.open(folder))
    assert set(store) == {make_block(number).key for number in numbers}
    for number in numbers:
        block = sound_block(number)
        np.testing.assert_array_equal(store[block.key], stored(block), strict=True)
        np.testing.assert_array_equal(store.step_tokens(block.key), block.step_tokens)
        assert store.marked(block.key) == block.marked
    assert verify(folder, deep=True).findings == ()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    files = fsspec.filesystem("memory")
    yield files
    if files.exists("/shared"):
        files.rm("/shared", recursive=True)


PLACES = ["folder", "tar", "file://", "memory://", "memory:// tar"]
BUCKETS = ["s3://", "s3:// tar"]


@pytest.fixture(params=PLACES)
def address(request, tmp_path, memory) -> str:
    if request.param in BUCKETS:
        return f"{request.getfixturevalue('bucket')}/space" + (".tar" if "tar" in request.param else "")
    return {
        "folder": str(tmp_path / "out" / "space"),
        "tar": str(tmp_path / "out" / "space.tar"),
        "file://": f"file://{tmp_path}/out/space",
        "memory://": "memory://shared/space",
        "memory:// tar": "memory://shared/space.tar",
    }[request.param]


@pytest.mark.parametrize("address", [*PLACES, *BUCKETS], indirect=True)
def test_what_was_exported_comes_back_equal(tmp_path, address):
    space = write(tmp_path / "ours", range(5), range(5, 7))
    space.commit(None, counts={"records": 0}, dropped={"k": "too long"})
    exported = export_space(space, address)
    assert (exported.records, exported.parts, exported.written, exported.files) == (7, 2, 43, 43)
    imported = import_space(address, tmp_path / "theirs")
    assert (imported.records, imported.known, imported.parts) == (7, 0, 2)
    assert imported.path == tmp_path / "theirs" / "attention" / space.path.name
    assert_holds(imported.path, range(7))
    ours, theirs = describe(space), describe(Space.open(imported.path))
    assert (theirs.spec, theirs.drop_reasons, theirs.notes) == (ours.spec, {"too long": 1}, ours.notes)
    assert theirs.uncommitted_parts == ()


@pytest.mark.parametrize("address", [*PLACES, *BUCKETS], indirect=True)
def test_an_address_is_read_as_if_it_were_a_folder(tmp_path, address, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    space = write(tmp_path / "ours", range(3))
    export_space(space, address)
    store = cache.open_attention(address)
    block = sound_block(1)
    np.testing.assert_array_equal(store[block.key], stored(block))
    assert verify(store.space.path, deep=True).findings == ()


def test_what_fsspec_opens_as_a_whole_has_no_folder_in_its_address(tmp_path):
    export_space(write(tmp_path / "ours", range(3)), str(tmp_path / "out"))
    zipped = shutil.make_archive(str(tmp_path / "out"), "zip", tmp_path / "out")
    assert_holds(import_space(f"zip://::file://{zipped}", tmp_path / "theirs").path, range(3))


def test_an_address_is_copied_once_and_again_when_there_is_more(tmp_path, monkeypatch, memory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    space = write(tmp_path / "ours", range(3))
    export_space(space, "memory://shared/space")
    first = cache.open_attention("memory://shared/space").space.path
    with monkeypatch.context() as patched:
        patched.setattr(cache.exchange.importing, "stage", None)
        assert cache.open_attention("memory://shared/space").space.path == first
    export_space(write(tmp_path / "ours", range(3, 5)), "memory://shared/space")
    assert len(cache.open_attention("memory://shared/space")) == 5
    assert not list((tmp_path / "user").rglob(".import*"))


@pytest.mark.parametrize("address", [*PLACES, *BUCKETS], indirect=True)
def test_importing_twice_changes_nothing(tmp_path, address):
    export_space(write(tmp_path / "ours", range(3)), address)
    imported = import_space(address, tmp_path / "theirs")
    before = sorted((tmp_path / "theirs").rglob("*"))
    again = import_space(address, tmp_path / "theirs")
    assert (again.records, again.known, again.parts, again.path) == (0, 3, 0, imported.path)
    assert sorted((tmp_path / "theirs").rglob("*")) == before


@pytest.mark.parametrize("address", [*PLACES, *BUCKETS], indirect=True)
def test_exporting_twice_writes_nothing(tmp_path, address):
    space = write(tmp_path / "ours", range(3))
    assert export_space(space, address).written == 22
    assert export_space(space, address).written == 0


@pytest.mark.parametrize("address", [*PLACES, *BUCKETS], indirect=True)
def test_an_export_that_has_grown_gets_what_is_new(tmp_path, address):
    space = write(tmp_path / "ours", range(3))
    export_space(space, address)
    write(tmp_path / "ours", range(3, 5))
    written = export_space(space, address).written
    assert written == (42 if address.endswith(".tar") else 21)  # a part, its commit and the card; a tar file is whole
    assert_holds(import_space(address, tmp_path / "theirs").path, range(5))


def test_two_stores_of_one_fingerprint_merge(tmp_path):
    """Parts that bring nothing are left out, those that overlap come whole, and each record is served once."""
    ours, theirs = write(tmp_path / "a", range(3), range(3, 6)), write(tmp_path / "b", range(2), range(4, 9))
    imported = import_space(str(theirs.path), tmp_path / "a")
    assert (imported.path, imported.records, imported.known, imported.parts) == (ours.path, 3, 4, 1)
    assert_holds(ours.path, range(9))
    assert [commit.index for commit in ours.commits()] == [0, 1, 2]
    assert import_space(str(ours.path), tmp_path / "b").records == 2
    assert_holds(theirs.path, range(9))


def test_what_was_dropped_elsewhere_is_learned_once(tmp_path):
    theirs = write(tmp_path / "b", range(2))
    theirs.commit(None, counts={"records": 0}, dropped={"k": "too long"})
    AttentionWriter(theirs).append([sound_block(0)], {"l": "no critical word"})
    ours = write(tmp_path / "a", range(2))
    import_space(str(theirs.path), tmp_path / "a")
    assert describe(ours).drop_reasons == {"too long": 1, "no critical word": 1}
    commits = len(ours.commits())
    import_space(str(theirs.path), tmp_path / "a")
    assert len(ours.commits()) == commits


def test_a_space_that_has_another_name_here_is_the_same_space(tmp_path):
    theirs = Space.open_or_create(tmp_path / "b", "attention", "their-name", SPEC)
    AttentionWriter(theirs).append([sound_block(3)])
    ours = write(tmp_path / "a", range(3))
    assert import_space(str(theirs.path), tmp_path / "a").path == ours.path
    assert_holds(ours.path, range(4))


def take_in(source: str, store: Path) -> None:
    import_space(source, store)


@pytest.mark.parametrize("there", [range(0), range(2)])
def test_two_imports_at_once_lose_nothing(tmp_path, there):
    if there:
        write(tmp_path / "a", there)
    sources = [write(tmp_path / name, part) for name, part in (("b", range(1, 8)), ("c", range(5, 12)))]
    processes = [PROCESSES.Process(target=take_in, args=(str(space.path), tmp_path / "a")) for space in sources]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert_holds(make_space(tmp_path / "a").path, range(0 if there else 1, 12))
    assert list((tmp_path / "a").rglob(".import*")) == []


def test_a_killed_import_leaves_a_store_that_the_next_one_fills(tmp_path):
    theirs = write(tmp_path / "b", *(range(start, start + 2) for start in range(0, 20, 2)))
    ours = write(tmp_path / "a", range(1))
    for seconds in (0.0, 0.05, 0.1, 0.2, 0.3):
        process = PROCESSES.Process(target=take_in, args=(str(theirs.path), tmp_path / "a"))
        process.start()
        deadline = time.monotonic() + 30
        while not list((tmp_path / "a").rglob(".import*/*")) and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(seconds)
        process.kill()
        process.join()
        assert set(AttentionStore(ours)) <= set(keys_of(range(20)))
        assert [space.path for space in list_spaces(tmp_path / "a")] == [ours.path]
    import_space(str(theirs.path), tmp_path / "a")
    assert_holds(ours.path, range(20))


def test_a_store_that_is_being_written_can_be_taken_in(tmp_path):
    theirs = write(tmp_path / "b", range(3))
    (theirs.new_part() / "half").write_text("written by somebody now")
    (theirs.path / "commits" / ".0123.tmp").write_text("a commit on its way")
    (theirs.path / "commits" / "00000009.json").write_text("")  # claimed, where there are no hard links
    assert_holds(import_space(str(theirs.path), tmp_path / "a").path, range(3))
    exported = tmp_path / "out"
    export_space(theirs, str(exported))
    assert {path.name for path in (exported / "commits").iterdir()} == {"00000000.json"}
    assert len(list((exported / "parts").iterdir())) == 1


def test_damage_is_never_exported(tmp_path, address):
    flip = "attention/c/0/0"
    space = write(tmp_path / "ours", range(3))
    path = space.part_path(space.commits()[0]) / flip
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedCacheError, match=f"{flip}: the content is not what was committed"):
        export_space(space, address)
    with pytest.raises(ConfigError, match=r"no spec\.json there|there is no such file"):
        import_space(address, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_a_missing_file_is_never_exported(tmp_path, address):
    space = write(tmp_path / "ours", range(3))
    (space.part_path(space.commits()[0]) / "attention/c/0/0").unlink()
    with pytest.raises(DamagedCacheError, match="attention/c/0/0: missing"):
        export_space(space, address)


class StopAfter:
    """Ends the copying as a signal would."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def start(self, task: str, total: int) -> None:
        assert total > 0

    def advance(self, count: int = 1) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted("stopped")


@pytest.mark.parametrize("calls", [20, 41])
def test_an_interrupted_export_is_no_space_and_goes_on(tmp_path, address, calls):
    space = write(tmp_path / "ours", range(3), range(3, 5))
    with pytest.raises(Interrupted):
        export_space(space, address, meter=StopAfter(calls))
    if calls < 41:
        with pytest.raises(ConfigError, match=r"no spec\.json there|there is no such file"):
            import_space(address, tmp_path / "theirs")
    expected = 42 if address.endswith(".tar") else 42 - calls - 1
    assert export_space(space, address).written == expected
    assert_holds(import_space(address, tmp_path / "theirs").path, range(5))


@pytest.mark.parametrize("calls", [5, 30])
def test_an_interrupted_export_of_chosen_records_goes_on(tmp_path, address, calls, monkeypatch):
    monkeypatch.setattr(cache.exchange.chosen, "MAX_RECORDS", 2)
    write(tmp_path / "ours", range(5))
    keys = keys_of(range(1, 4))
    space = make_space(tmp_path / "ours")
    with pytest.raises(Interrupted):
        export_space(space, address, keys=keys, meter=StopAfter(calls))
    with pytest.raises(ConfigError, match=r"no spec\.json there|there is no such file"):
        import_space(address, tmp_path / "theirs")
    write(tmp_path / "ours", range(5, 7))  # records that were not chosen change nothing
    assert export_space(space, address, keys=keys).written == (42 if address.endswith(".tar") else 42 - calls - 1)
    assert export_space(space, address, keys=keys).written == 0
    assert_holds(import_space(address, tmp_path / "theirs").path, range(1, 4))


def test_an_interrupted_export_of_chosen_rationales_goes_on(tmp_path):
    ours, out = write_attempts(tmp_path / "a", range(6)), str(tmp_path / "out")
    keys = [f"{number:064x}" for number in (1, 3)]
    with pytest.raises(Interrupted):
        export_space(ours.space, out, keys=keys, meter=StopAfter(1))
    assert export_space(ours.space, out, keys=keys).written == 2
    theirs = RationaleStore(Space.open(import_space(out, tmp_path / "b").path))
    assert list(theirs.attempts().values()) == [attempt(1), attempt(3)]


@pytest.mark.parametrize("others", [range(2, 4), range(3)])
def test_what_an_export_of_other_records_left_unfinished_is_in_the_way_in_one_clear_line(tmp_path, memory, others):
    space = write(tmp_path / "ours", range(4))
    for address in (str(tmp_path / "out"), "memory://shared/space"):
        with pytest.raises(Interrupted):
            export_space(space, address, keys=keys_of(range(2)), meter=StopAfter(12))
        with pytest.raises(ConfigError, match=r"^\S+: holds parts/\S+, which is not of this export; [^\n]+ remove it$"):
            export_space(space, address, keys=keys_of(others))
        assert export_space(space, address, keys=keys_of(range(2))).written < 22


def kill_at(calls: int) -> StopAfter:
    class Kill(StopAfter):
        def advance(self, count: int = 1) -> None:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return Kill(calls)


def export_and_be_killed(space: Space, target: str, keys: list[str] | None, calls: int, temporary: Path) -> None:
    tempfile.tempdir = str(temporary)  # what is left there is no test's business but this one's
    export_space(space, target, keys=keys, meter=kill_at(calls))


@pytest.mark.parametrize(("target", "chosen"), [("out", True), ("out", False), ("out.tar", True)])
def test_a_killed_export_is_whole_or_none_and_goes_on(tmp_path, target, chosen):
    space, out = write(tmp_path / "ours", range(3), range(3, 6)), str(tmp_path / target)
    keys = keys_of(range(6)) if chosen else None
    files = 22 if chosen else 42
    for calls in (3, files - 2):
        process = PROCESSES.Process(target=export_and_be_killed, args=(space, out, keys, calls, tmp_path))
        process.start()
        process.join()
        if process.exitcode == 0:  # fewer files were missing
            break
        assert process.exitcode == -signal.SIGKILL
        with pytest.raises(ConfigError, match=r"no spec\.json there|there is no such file"):
            import_space(out, tmp_path / "none")
    assert export_space(space, out, keys=keys).files == files
    assert_holds(import_space(out, tmp_path / "theirs").path, range(6))


def test_an_export_that_is_interrupted_while_it_grows_is_still_what_its_card_says(tmp_path):
    space, out = write(tmp_path / "ours", range(3)), tmp_path / "out"
    export_space(space, str(out))
    write(tmp_path / "ours", range(3, 5))
    with pytest.raises(Interrupted):
        export_space(space, str(out), meter=StopAfter(10))
    assert "| 3 in 1 parts |" in (out / "README.md").read_text(encoding="utf-8")
    assert_holds(import_space(str(out), tmp_path / "theirs").path, range(3))
    export_space(space, str(out))
    assert "| 5 in 2 parts |" in (out / "README.md").read_text(encoding="utf-8")
    assert_holds(import_space(str(out), tmp_path / "theirs").path, range(5))


@pytest.mark.parametrize("name", ["README.md", "spec.json", "commits/00000000.json", "attention/c/0/0"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_file_that_breaks_off_where_writing_is_not_at_once_is_written_again(tmp_path, memory, name, share):
    space, address = write(tmp_path / "ours", range(3)), "memory://shared/space"
    export_space(space, address)
    path = f"/shared/space/{name}" if name[0] != "a" else next(p for p in memory.find("/shared") if p.endswith(name))
    content = memory.cat_file(path)
    memory.pipe_file(path, content[: int(len(content) * share)])
    assert export_space(space, address).written == 1
    assert_holds(import_space(address, tmp_path / "theirs").path, range(3))


def test_a_tar_file_that_breaks_off_is_named_and_not_replaced(tmp_path, memory):
    space, address = write(tmp_path / "ours", range(3)), "memory://shared/space.tar"
    export_space(space, address)
    memory.pipe_file("/shared/space.tar", memory.cat_file("/shared/space.tar")[:5000])
    with pytest.raises(ConfigError, match=r"an export was cut off there, or it is something else: remove it"):
        export_space(space, address)
    assert memory.size("/shared/space.tar") == 5000


@pytest.mark.parametrize("tar", [True, False])
def test_temporary_files_of_killed_exports_go_once_they_are_old_and_others_stay(tmp_path, tar):
    space, out = write(tmp_path / "ours", range(3)), tmp_path / "out" / "space"
    folder = out.parent if tar else out
    target = f"{out}.tar" if tar else str(out)
    begin = f".{out.name}.tar-" if tar else "."
    folder.mkdir(parents=True)
    young, old, foreign = (
        folder / f"{begin}{end}" for end in ("0123456789abcdef.tmp", "00112233aabbccdd.tmp", "notes.tmp")
    )
    for path in (young, old, foreign):
        path.write_text("half")
    for path in (old, foreign):
        os.utime(path, (0, 0))
    export_space(space, target)
    assert [path.exists() for path in (young, old, foreign)] == [True, False, True]


def test_a_folder_that_is_refused_loses_nothing(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("precious")
    (home / ".0123456789abcdef.tmp").write_text("of some other program")
    os.utime(home / ".0123456789abcdef.tmp", (0, 0))
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        export_space(write(tmp_path / "ours", range(3)), str(home))
    assert len(list(home.iterdir())) == 2


@pytest.mark.parametrize("calls", [0, 10, 30])
def test_an_interrupted_import_leaves_nothing(tmp_path, calls):
    theirs = write(tmp_path / "b", range(3), range(3, 5))
    with pytest.raises(Interrupted):
        import_space(str(theirs.path), tmp_path / "a", meter=StopAfter(calls))
    assert not (tmp_path / "a").exists()
    ours = write(tmp_path / "a", range(1))
    before = sorted((tmp_path / "a").rglob("*"))
    with pytest.raises(Interrupted):
        import_space(str(theirs.path), tmp_path / "a", meter=StopAfter(calls))
    assert sorted((tmp_path / "a").rglob("*")) == before
    import_space(str(theirs.path), tmp_path / "a")
    assert_holds(ours.path, range(5))


def test_a_running_import_is_no_space_and_a_killed_one_is_cleared_away(tmp_path):
    theirs, ours = write(tmp_path / "b", range(3)), write(tmp_path / "a", range(1))
    with cache.exchange.importing.staging_folder(tmp_path / "a" / "attention") as running:
        with open_source(str(theirs.path)) as source:
            stage(read_offer(source), running, Unmetered())
        assert [space.path for space in list_spaces(tmp_path / "a")] == [ours.path]
        import_space(str(theirs.path), tmp_path / "a")
        assert running.exists()
    killed = tmp_path / "a" / "attention" / ".import-0123"
    killed.mkdir()
    (killed / "half").write_text("")
    for path in (killed / "half", killed):
        os.utime(path, (0, 0))
    import_space(str(write(tmp_path / "c", range(7, 8)).path), tmp_path / "a")
    assert not killed.exists()


def test_a_full_disk_while_importing_leaves_no_part_behind(tmp_path, monkeypatch):
    theirs, ours = write(tmp_path / "b", range(3)), write(tmp_path / "a", range(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(Space, "commit", full)
        import_space(str(theirs.path), tmp_path / "a")
    assert describe(ours).uncommitted_parts == ()
    assert_holds(ours.path, range(1))
    import_space(str(theirs.path), tmp_path / "a")
    assert_holds(ours.path, range(3))


@pytest.mark.parametrize("address", [*PLACES, *BUCKETS], indirect=True)
def test_a_place_with_another_space_is_refused_field_by_field(tmp_path, address):
    export_space(write(tmp_path / "ours", range(3)), address)
    spec = {"schema": 1, "teacher": {"source": "made up", "revision": "abc"}}
    other = Space.open_or_create(tmp_path / "b", "attention", "teacher", spec)
    AttentionWriter(other).append([sound_block(7)])
    with pytest.raises(MismatchError) as caught:
        export_space(other, address)
    assert str(caught.value).splitlines()[1:] == ["  teacher.revision", '    ours:   "abc"', "    theirs: (absent)"]
    assert_holds(import_space(address, tmp_path / "theirs").path, range(3))


def test_a_place_with_other_parts_of_the_space_is_refused(tmp_path, address):
    export_space(write(tmp_path / "b", range(3)), address)
    with pytest.raises(ConfigError, match="not of this export; name an empty place, or take in"):
        export_space(write(tmp_path / "a", range(4, 7)), address)
    assert_holds(import_space(address, tmp_path / "theirs").path, range(3))


@pytest.mark.parametrize("name", ["thesis.tex", "README.md", "parts/x", "commits/00000000.json"])
def test_a_place_with_other_files_is_refused_and_they_stay(tmp_path, memory, name):
    space = write(tmp_path / "ours", range(3))
    precious = tmp_path / "out" / name
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    memory.pipe_file(f"/shared/space/{name}", b"precious")
    for address in (str(tmp_path / "out"), "memory://shared/space"):
        with pytest.raises(ConfigError, match=f"holds (a )?{name}"):
            export_space(space, address)
    assert precious.read_text() == "precious"
    assert memory.cat_file(f"/shared/space/{name}") == b"precious"
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        export_space(space, str(precious))


def test_an_unknown_address_is_refused(tmp_path):
    space = write(tmp_path / "ours", range(1))
    for address in ("nonsense://x", "nonsense://x.tar"):
        with pytest.raises(ConfigError, match=r"nonsense://x(\.tar)?: cannot be reached"):
            export_space(space, address)
        with pytest.raises(ConfigError, match="cannot be reached"):
            import_space(address, tmp_path / "theirs")
    with pytest.raises(ConfigError, match=r"no spec\.json there"):
        import_space("memory://nowhere", tmp_path / "theirs")
    with pytest.raises(ConfigError, match=r"memory://nowhere\.tar: there is no such file"):
        import_space("memory://nowhere.tar", tmp_path / "theirs")
    with pytest.raises(ConfigError, match=r"no spec\.json there"):
        import_space(str(tmp_path / "nowhere"), tmp_path / "theirs")


def test_a_library_that_is_missing_is_named_with_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    line = r"gs://x/y: cannot be reached: ImportError: .*; `pip install 'molsaki\[remote\]'` brings it$"
    with pytest.raises(ConfigError, match=line):
        import_space("gs://x/y", tmp_path)


@pytest.mark.parametrize("address", ["memory://away", "memory://away.tar"])
def test_an_address_that_does_not_answer_is_named(tmp_path, monkeypatch, memory, address):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no network")  # each library has errors of its own

    for name in ("find", "info"):
        monkeypatch.setattr(type(memory), name, fail)
    with pytest.raises(ConfigError, match=f"{address}: cannot be reached: RuntimeError: no network"):
        import_space(address, tmp_path / "theirs")


def test_a_tar_file_of_the_same_space_is_the_same_to_the_byte(tmp_path):
    space = write(tmp_path / "ours", range(3))
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    export_space(space, str(first))
    export_space(space, str(second))
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        assert {member.type for member in tar} == {tarfile.REGTYPE}


def keys_of(numbers: range) -> list[str]:
    return [make_block(number).key for number in numbers]


@pytest.mark.parametrize("address", [*PLACES, *BUCKETS], indirect=True)
def test_only_chosen_records_are_exported(tmp_path, address, monkeypatch):
    monkeypatch.setattr(cache.exchange.chosen, "MAX_RECORDS", 2)
    space = write(tmp_path / "ours", range(5), range(5, 9))
    exported = export_space(space, address, keys=keys_of(range(3, 8)))
    assert (exported.records, exported.parts) == (5, 3)
    imported = import_space(address, tmp_path / "theirs")
    assert imported.path.name == space.path.name
    assert_holds(imported.path, range(3, 8))


def test_a_chosen_record_that_is_not_stored_is_named(tmp_path):
    space = write(tmp_path / "ours", range(2))
    with pytest.raises(
        MissingRecordsError, match=f"1 of 2 records are not stored, the first is {keys_of(range(9))[8]}"
    ):
        export_space(space, str(tmp_path / "out"), keys=keys_of(range(1, 9))[::7])
    assert not (tmp_path / "out").exists()


def test_a_chosen_record_that_is_damaged_is_not_exported(tmp_path):
    space = write(tmp_path / "ours", range(2))
    path = space.part_path(space.commits()[0]) / "attention/c/0/0"
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedCacheError, match="does not decode"):
        export_space(space, str(tmp_path / "out"), keys=keys_of(range(1)))
    assert not (tmp_path / "out").exists()


def test_keys_are_read_from_a_file(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text(f"# chosen\n{'a' * 64}\n\n {'b' * 64}\n{'a' * 64}\n")
    assert read_keys(path) == ["a" * 64, "b" * 64]
    for content, line in (("xyz\n", r"keys\.txt: line 1: expected a key of 64 hex digits"), ("\n", "no key in it")):
        path.write_text(content)
        with pytest.raises(DataError, match=line):
            read_keys(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_keys(tmp_path / "nowhere.txt")


def write_attempts(store: Path, *parts: range) -> RationaleStore:
    rationales = RationaleStore(Space.open_or_create(store, "rationales", "teacher", {"schema": 1}))
    for part in parts:
        rationales.append([attempt(number) for number in part])
    return rationales


def attempt(number: int) -> Attempt:
    outcome = "wrong answer" if number % 3 == 0 else "kept"
    return dataclasses.replace(ATTEMPT, key=f"{number:064x}", output=f"{number} ä", outcome=outcome)


def test_rationales_are_shared_in_the_same_way(tmp_path, address):
    ours = write_attempts(tmp_path / "a", range(3), range(3, 6))
    export_space(ours.space, address)
    imported = import_space(address, tmp_path / "b")
    theirs = RationaleStore(Space.open(imported.path))
    assert (imported.kind, imported.records) == ("rationales", 6)
    assert theirs.attempts() == ours.attempts()
    assert describe(theirs.space).drop_reasons == {"wrong answer": 2}
    write_attempts(tmp_path / "a", range(4, 8))
    assert import_space(str(ours.space.path), tmp_path / "b").records == 2
    assert theirs.attempts() == ours.attempts()


def test_chosen_rationales_are_exported(tmp_path, address):
    ours = write_attempts(tmp_path / "a", range(6))
    export_space(ours.space, address, keys=[f"{number:064x}" for number in (1, 3)])
    theirs = RationaleStore(Space.open(import_space(address, tmp_path / "b").path))
    assert list(theirs.attempts().values()) == [attempt(1), attempt(3)]
    with pytest.raises(MissingRecordsError, match="1 of 1 questions are not stored"):
        export_space(ours.space, str(tmp_path / "out"), keys=["f" * 64])


def test_an_empty_space_can_be_shared(tmp_path, address):
    export_space(make_space(tmp_path / "ours"), address)
    imported = import_space(address, tmp_path / "theirs")
    assert imported.records == 0
    assert [space.records for space in list_spaces(tmp_path / "theirs")] == [0]


def test_the_card_says_what_it_is(tmp_path):
    spec = {**SPEC, "model": "hub/teacher|x@abc", "dtype": "bfloat16", "steps": "periods"}
    space = Space.open_or_create(tmp_path, "attention", "teacher", spec)
    AttentionWriter(space).append([sound_block(1), sound_block(2)], {"k": "too long"})
    export_space(space, str(tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for line in (
        "size_categories: [n<1K]",
        f"| fingerprint | `{space.fingerprint}` |",
        "| model | `hub/teacher\\|x@abc` |",
        "| dtype | `bfloat16` |",
        "| records | 2 in 1 parts |",
        "| left out | 1, each with its reason in `commits/` |",
        "| layers | 2 |",
        ' "steps": "periods"',
        "## Licence",
        "molsaki cache import",
    ):
        assert line in card
    import yaml

    front = yaml.safe_load(card.split("---")[1])
    assert front["tags"] == ["molsaki", "attention", "knowledge-distillation", "chain-of-thought"]
    assert "license" not in front


def test_the_template_of_the_card_is_installed_with_the_package():
    project = tomllib.loads((TEMPLATE.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert TEMPLATE.is_file() and TEMPLATE.name in project["tool"]["setuptools"]["package-data"]["cache.exchange"]


def test_the_code_of_the_card_reads_the_export_with_zarr_alone(tmp_path, monkeypatch):
    export_space(write(tmp_path / "ours", range(3)), str(tmp_path / "out"))
    code = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path / "out")
    found: dict[str, object] = {"zarr": zarr}
    exec(code, found)
    block = sound_block(0)
    np.testing.assert_array_equal(found["attention"], stored(block))
    assert (found["question"].decode(), found["rationale"].decode()) == (block.marked.question, block.marked.rationale)
    assert record_key(block.marked) == block.key


def test_the_code_of_a_rationale_card_reads_the_export_with_pandas_alone(tmp_path, monkeypatch):
    export_space(write_attempts(tmp_path / "a", range(4)).space, str(tmp_path / "out"))
    code = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path / "out")
    found: dict[str, object] = {}
    exec(code, found)
    assert list(found["attempts"]["output"]) == ["0 ä", "1 ä", "2 ä", "3 ä"]


def test_an_export_says_what_it_holds(tmp_path):
    space = write(tmp_path / "ours", range(3))
    exported = export_space(space, str(tmp_path / "out"))
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert exported == Exported(
        target=str(tmp_path / "out"),
        kind="attention",
        fingerprint=space.fingerprint,
        records=3,
        parts=1,
        files=22,
        written=22,
        bytes=size,
    )
