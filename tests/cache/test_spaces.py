import errno
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

import cache.durable
import cache.spaces
from cache.commits import Commit, FileEntry
from cache.fingerprints import fingerprint
from cache.spaces import Space, check_files, describe, is_space, list_spaces
from data.errors import ConfigError, DamagedCacheError, MismatchError

SPEC = {"schema": 1, "teacher": {"source": "hub/model", "revision": "abc"}, "steps": "periods"}


def make_space(store: Path) -> Space:
    return Space.open_or_create(store, "attention", "model", SPEC)


def commit_text(space: Space, text: str, **options) -> Commit:
    part = space.new_part()
    (part / "inner").mkdir()
    (part / "inner" / "text").write_text(text)
    return space.commit(part, counts={"records": 1}, **options)


def refuse_links(monkeypatch):
    def link(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


@pytest.fixture(params=["hard links", "no hard links"])
def space(request, tmp_path, monkeypatch) -> Space:
    if request.param == "no hard links":
        refuse_links(monkeypatch)
    return make_space(tmp_path)


def test_the_folder_is_named_for_slug_and_fingerprint_and_says_what_it_was_made_of(space, tmp_path):
    assert space.path == tmp_path / "attention" / f"model-{fingerprint(SPEC)[:16]}"
    assert json.loads((space.path / "spec.json").read_text()) == {
        "kind": "attention",
        "slug": "model",
        "fingerprint": fingerprint(SPEC),
        "spec": SPEC,
    }


def test_opening_again_gives_the_same_space(space, tmp_path):
    assert make_space(tmp_path) == space == Space.open(space.path)


def test_a_commit_says_what_was_written(space):
    commit = commit_text(space, "abc", dropped={"k": "too long"}, note={"device": "cpu"})
    assert space.commits() == [commit]
    assert commit.index == 0
    assert commit.counts == {"records": 1}
    assert commit.dropped == {"k": "too long"}
    assert commit.note == {"device": "cpu"}
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # the standard's own test vector
    assert commit.files == {"inner/text": FileEntry(size=3, sha256=sha256)}
    assert (space.part_path(commit) / "inner" / "text").read_text() == "abc"


def test_commits_come_in_the_order_in_which_they_were_made(space):
    made = [commit_text(space, str(number)) for number in range(12)]
    assert [commit.index for commit in made] == list(range(12))
    assert space.commits() == made


def test_only_dropped_records_make_a_commit_without_part(space):
    commit = space.commit(None, counts={"records": 0}, dropped={"k": "no critical word"})
    assert commit.part is None
    assert Space.open(space.path).commits() == [commit]
    assert describe(space).summary.parts == 0


def test_a_part_without_commit_is_not_served(space):
    (space.new_part() / "text").write_text("left over")
    assert space.commits() == []
    committed = commit_text(space, "committed")
    assert space.commits() == [committed]
    assert len(describe(space).uncommitted_parts) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc to tell which file is synced")
def test_everything_is_on_disk_before_the_commit_appears_and_the_commit_before_it_returns(tmp_path, monkeypatch):
    space = make_space(tmp_path)
    part = space.new_part()
    (part / "inner").mkdir()
    (part / "inner" / "text").write_text("abc")
    happened = []
    fsync, link = os.fsync, os.link

    def logged_fsync(descriptor):
        happened.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def logged_link(source, target):
        happened.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "link", logged_link)
    space.commit(part, counts={"records": 1})
    temporary = happened[4]
    assert happened == [
        part / "inner" / "text",
        part / "inner",
        part,
        part.parent,
        temporary,
        "link",
        space.path / "commits",
    ]
    assert temporary.suffix == ".tmp"


def test_no_temporary_file_stays(space):
    commit_text(space, "abc")
    assert sorted(path.name for path in space.path.iterdir()) == ["commits", "parts", "spec.json"]
    assert [path.name for path in (space.path / "commits").iterdir()] == ["00000000.json"]


def test_a_commit_under_a_taken_index_takes_the_next_one(space, monkeypatch):
    first = commit_text(space, "first")
    monkeypatch.setattr(Space, "_next_index", lambda self: 0)
    second = commit_text(space, "second")
    assert (first.index, second.index) == (0, 1)
    assert space.commits() == [first, second]


def test_a_link_that_succeeded_but_was_reported_as_taken_is_no_second_commit(tmp_path, monkeypatch):
    space = make_space(tmp_path)
    link = os.link

    def link_and_lose_the_answer(source, target):
        link(source, target)
        raise FileExistsError(errno.EEXIST, "as a network file system says after repeating the request")

    monkeypatch.setattr(os, "link", link_and_lose_the_answer)
    commit = commit_text(space, "abc")
    assert space.commits() == [commit]


def test_a_commit_that_was_claimed_and_never_filled_is_ignored_and_its_index_left_alone(tmp_path, monkeypatch):
    refuse_links(monkeypatch)
    space = make_space(tmp_path)
    first = commit_text(space, "first")
    crash_at(monkeypatch, Path, "replace", lambda: commit_text(space, "claimed"))
    assert (space.path / "commits" / "00000001.json").read_bytes() == b""
    assert space.commits() == [first]
    third = commit_text(space, "third")
    assert third.index == 2
    assert space.commits() == [first, third]


class Killed(BaseException):
    """Ends a process at once, for the test's purposes."""


def crash_at(monkeypatch, where: object, name: str, action) -> None:
    """Do `action` up to the call of `name` in it; nothing is cleaned up afterwards, as after SIGKILL."""

    def crash(*_):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(where, name, crash)
        patched.setattr(Path, "unlink", lambda *_, **__: None)
        action()


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_a_commit_that_breaks_off_is_damage_for_no_crash_leaves_one(space, share):
    commit_text(space, "abc")
    path = space.path / "commits" / "00000000.json"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DamagedCacheError, match=r"00000000\.json: not a commit record .* `molsaki cache verify SPACE`"):
        space.commits()


def test_a_claimed_commit_whose_place_cannot_be_taken_leaves_no_claim(tmp_path, monkeypatch):
    refuse_links(monkeypatch)
    space = make_space(tmp_path)

    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output error"):
        patched.setattr(Path, "replace", refuse)
        commit_text(space, "abc")
    assert list((space.path / "commits").iterdir()) == []


def test_nobody_takes_a_name_that_is_claimed(tmp_path, monkeypatch):
    space = make_space(tmp_path)
    claim = space.path / "commits" / "00000000.json"
    claim.touch()
    monkeypatch.setattr(Space, "_next_index", lambda self: 0)
    assert commit_text(space, "by a link").index == 1
    refuse_links(monkeypatch)
    assert commit_text(space, "by a claim").index == 2
    assert claim.read_bytes() == b""


def test_a_spec_that_was_claimed_and_never_filled_is_written_again(tmp_path, monkeypatch):
    refuse_links(monkeypatch)
    space = make_space(tmp_path)
    spec_file = space.path / "spec.json"
    content = spec_file.read_bytes()
    spec_file.write_bytes(b"")
    assert make_space(tmp_path) == space
    assert spec_file.read_bytes() == content


def test_a_spec_that_somebody_else_is_just_writing_is_no_damage(tmp_path, monkeypatch):
    """Without hard links the file is there before it is full; here it is so at the worst moment."""
    refuse_links(monkeypatch)
    content = (make_space(tmp_path / "other").path / "spec.json").read_bytes()
    create = cache.spaces.create_exclusively

    def create_a_moment_too_late(path, _):
        path.write_bytes(b"")
        create(path, content)

    monkeypatch.setattr(cache.spaces, "create_exclusively", create_a_moment_too_late)
    space = make_space(tmp_path)
    assert (space.path / "spec.json").read_bytes() == content


def test_a_space_is_there_once_its_spec_is(tmp_path):
    space = make_space(tmp_path)
    spec_file = space.path / "spec.json"
    assert is_space(space.path)
    spec_file.write_bytes(b"")
    assert not is_space(space.path)
    assert list_spaces(tmp_path) == []
    spec_file.unlink()
    assert not is_space(space.path)
    assert not is_space(tmp_path / "nowhere")


def test_a_spec_that_breaks_off_is_damage_and_not_made_anew(tmp_path):
    spec_file = make_space(tmp_path).path / "spec.json"
    content = spec_file.read_bytes()
    spec_file.write_bytes(content[:-10])
    with pytest.raises(DamagedCacheError, match=r"spec\.json: not a description of a space"):
        make_space(tmp_path)
    assert spec_file.read_bytes() == content[:-10]


def test_a_space_whose_commits_are_gone_is_damage_and_one_without_empty_folders_is_not(tmp_path):
    space = make_space(tmp_path)
    for folder in ("parts", "commits"):
        (space.path / folder).rmdir()
    assert space.commits() == []
    commit_text(make_space(tmp_path), "abc")
    assert len(space.commits()) == 1
    shutil.rmtree(space.path / "commits")
    with pytest.raises(DamagedCacheError, match="commits: missing, while parts/ is not empty"):
        make_space(tmp_path).commits()


def test_every_flipped_bit_of_a_commit_is_detected_or_harmless(tmp_path):
    space = make_space(tmp_path)
    commit = commit_text(space, "abc", dropped={"k": "too long"})
    path = space.path / "commits" / "00000000.json"
    content = path.read_bytes()
    outcomes = []
    for bit in [*range(0, len(content) * 8, 11), *range(len(content) * 8 - 24, len(content) * 8)]:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            outcomes.append(space.commits() == [commit])
        except DamagedCacheError as error:
            outcomes.append(path.name in str(error) and "molsaki cache verify" in str(error))
    assert all(outcomes)


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "", ".", "a\\b"])
def test_a_commit_that_names_a_file_outside_its_part_is_refused(tmp_path, name):
    space = make_space(tmp_path)
    commit = Commit(
        index=0,
        part="00000000-0123456789ab",
        counts={"records": 1},
        dropped={},
        files={name: FileEntry(size=1, sha256="0")},
        note={},
    )
    space.publish(commit)
    with pytest.raises(DamagedCacheError, match="no path inside a part"):
        space.commits()


def test_a_commit_of_a_part_with_a_strange_name_is_refused(tmp_path):
    space = make_space(tmp_path)
    space.publish(Commit(index=0, part="../../etc", counts={"records": 1}, dropped={}, files={}, note={}))
    with pytest.raises(DamagedCacheError, match="no name of a part"):
        space.commits()


def test_missing_and_shortened_files_are_found_by_their_size(space):
    commit = commit_text(space, "abc")
    check_files(space, commit)
    path = space.part_path(commit) / "inner" / "text"
    path.write_text("ab")
    with pytest.raises(DamagedCacheError, match=r"inner/text: 2 bytes, 3 were committed; `molsaki cache verify SPACE`"):
        check_files(space, commit)
    path.unlink()
    with pytest.raises(DamagedCacheError, match="inner/text: missing, 3 bytes were committed"):
        check_files(space, commit)


def test_another_spec_is_an_error_that_names_field_and_both_values(space):
    with pytest.raises(MismatchError) as caught:
        Space.open(space.path, expected={**SPEC, "teacher": {"source": "hub/model", "revision": "def"}})
    assert str(caught.value).splitlines()[1:] == ["  teacher.revision", '    ours:   "def"', '    theirs: "abc"']


def test_a_spec_changed_by_hand_is_an_error_that_names_field_and_both_values(space, tmp_path):
    spec_file = space.path / "spec.json"
    spec_file.write_text(spec_file.read_text().replace("periods", "lines"))
    with pytest.raises(MismatchError, match=r'steps\n    ours:   "periods"\n    theirs: "lines"\n.*fingerprint'):
        make_space(tmp_path)
    with pytest.raises(DamagedCacheError, match="fingerprint"):
        Space.open(space.path)


def test_a_spec_of_no_known_form_is_damage(space):
    up = '{"kind": "attention", "slug": "../up", "fingerprint": "", "spec": {}}\n'
    not_a_number = '{"kind": "attention", "slug": "model", "fingerprint": "", "spec": {"tau": NaN}}\n'
    for content in ("[]\n", "{}\n", "null\n", "\xff", '{"kind": "other"}\n', up, not_a_number, "[" * 100_000):
        (space.path / "spec.json").write_text(content, encoding="latin-1")
        with pytest.raises(DamagedCacheError, match=r"spec\.json"):
            Space.open(space.path)


def test_a_slug_that_is_not_the_folders_is_damage_but_a_folder_may_be_renamed(space):
    spec_file = space.path / "spec.json"
    content = spec_file.read_text()
    spec_file.write_text(content.replace('"slug": "model"', '"slug": "modem"'))
    with pytest.raises(DamagedCacheError, match="slug 'modem', while the folder is called model-"):
        Space.open(space.path)
    spec_file.write_text(content)
    assert Space.open(space.path.rename(space.path.parent / "kept")).slug == "model"


def test_a_folder_that_is_no_space_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="molsaki cache ls"):
        Space.open(tmp_path)


@pytest.mark.parametrize("slug", ["", "../up", "a/b", ".hidden", "ä"])
def test_a_name_that_is_no_plain_folder_name_is_refused(tmp_path, slug):
    with pytest.raises(ConfigError, match="cannot be called"):
        Space.open_or_create(tmp_path, "attention", slug, SPEC)


def test_an_existing_space_opens_where_nothing_may_be_written(space, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "read only")

    for name in ("mkdir", "write_bytes", "write_text"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(os, "link", refuse)
    assert make_space(tmp_path) == space


def test_a_full_disk_leaves_no_commit_behind(tmp_path, monkeypatch):
    space = make_space(tmp_path)
    part = space.new_part()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "fsync", full)
        space.commit(part, counts={"records": 0})
    assert list((space.path / "commits").iterdir()) == []
    assert list((space.path / "parts").iterdir()) == []  # which would keep the disk full
    assert commit_text(space, "after space was made").index == 0


def test_a_part_stays_when_only_the_last_sync_of_its_commit_finds_the_disk_full(tmp_path, monkeypatch):
    space = make_space(tmp_path)

    def full(folder):
        if folder.name == "commits":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(cache.durable, "sync_folder", full)
        commit_text(space, "abc")
    (commit,) = space.commits()
    check_files(space, commit)


def test_an_error_of_a_full_disk_names_the_place(tmp_path):
    space = make_space(tmp_path)
    with pytest.raises(OSError, match=str(space.path)) as caught, space.filling_part():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(space.path)
    assert describe(space).uncommitted_parts == ()


@pytest.mark.parametrize("content", ["NaN\n", '{"checksum": "", "counts": NaN}\n', "[" * 100_000, '{"checksum": 1}\n'])
def test_a_commit_that_no_parser_of_ours_takes_is_damage(space, content):
    (space.path / "commits" / "00000000.json").write_text(content)
    with pytest.raises(DamagedCacheError, match=r"00000000\.json"):
        space.commits()


def commit_many(store: Path, name: str, count: int) -> None:
    space = make_space(store)
    for number in range(count):
        commit_text(space, f"{name} {number}")


@pytest.mark.parametrize("links", [True, False])
def test_processes_that_commit_at_the_same_time_lose_nothing(tmp_path, monkeypatch, links):
    if not links:
        refuse_links(monkeypatch)  # the processes are forked and so inherit it
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=commit_many, args=(tmp_path, name, 25)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    space = make_space(tmp_path)
    commits = space.commits()
    texts = {(space.part_path(commit) / "inner" / "text").read_text() for commit in commits}
    assert [commit.index for commit in commits] == list(range(75))
    assert texts == {f"{name} {number}" for name in "abc" for number in range(25)}


def test_list_and_description_add_up_what_is_committed(tmp_path):
    space = make_space(tmp_path)
    commit_text(space, "abc", dropped={"a": "too long", "b": "too long"}, note={"device": "cpu"})
    commit_text(space, "defg", dropped={"a": "too long", "c": "no critical word"}, note={"device": "cpu"})
    other = Space.open_or_create(tmp_path, "rationales", "model", SPEC)
    first, second = list_spaces(tmp_path)
    assert second == describe(space).summary
    assert (first.kind, first.path, first.records) == ("rationales", other.path, 0)
    assert (second.kind, second.slug, second.fingerprint) == ("attention", "model", fingerprint(SPEC))
    assert (second.records, second.dropped, second.parts, second.bytes) == (2, 3, 2, 7)
    assert describe(space).drop_reasons == {"too long": 2, "no critical word": 1}
    assert describe(space).spec == SPEC
    assert describe(space).notes == ({"device": "cpu"},)


def test_there_are_no_spaces_where_there_is_no_store(tmp_path):
    assert list_spaces(tmp_path / "not yet") == []


def test_a_commit_that_is_withdrawn_while_commits_are_read_is_replaced_by_what_came_for_it(tmp_path, monkeypatch):
    """As `cache verify --repair` does it: the new commit comes first, then the old one goes."""
    space = make_space(tmp_path)
    old = space.path / "commits" / f"{commit_text(space, 'old').index:08d}.json"
    commit_files = Space.commit_files

    def list_and_repair(self):
        listed = commit_files(self)
        if old.exists():
            monkeypatch.setattr(Space, "commit_files", commit_files)
            commit_text(space, "new")
            old.unlink()
        return listed

    monkeypatch.setattr(Space, "commit_files", list_and_repair)
    assert [commit.index for commit in space.commits()] == [1]


def test_a_commit_that_leads_nowhere_is_damage(space):
    (space.path / "commits" / "00000000.json").symlink_to("nowhere")
    with pytest.raises(DamagedCacheError, match="lists commits that are not there"):
        space.commits()
