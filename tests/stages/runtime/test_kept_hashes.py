"""Hashes kept between processes are those of the files as they are now, whatever was done to the files since."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.fingerprints import hash_file, hash_folder
from stages.runtime import kept_hashes
from stages.runtime.kept_hashes import LEAST, kept_hash

CONTENT = bytes(range(256)) * (LEAST // 256 + 1)
OTHER = CONTENT[::-1]


@pytest.fixture
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, with files that were written just now held to be settled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(kept_hashes, "SETTLED_SECONDS", -1.0)
    return tmp_path / "user" / "molsaki" / "hashes"


@pytest.fixture
def another_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], tuple[str, list[Path]]]:
    """Ask as a process would that has hashed nothing yet: the hash, and the files that were read for it."""

    def ask(path: Path) -> tuple[str, list[Path]]:
        kept_hashes._hash.cache_clear()
        read: list[Path] = []

        def reading(file: Path) -> str:
            read.append(file)
            return hash_file(file)

        monkeypatch.setattr(kept_hashes, "hash_file", reading)
        return kept_hash(path), read

    return ask


Ask = Callable[[Path], tuple[str, list[Path]]]


def written(path: Path, content: bytes = CONTENT) -> Path:
    path.write_bytes(content)
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_second_process_reads_nothing(tmp_path: Path, user_cache: Path, another_process: Ask) -> None:
    file = written(tmp_path / "model.safetensors")
    assert another_process(file) == (sha256(CONTENT), [file])
    assert another_process(file) == (sha256(CONTENT), [])
    assert len([*user_cache.iterdir()]) == 1


def test_one_process_reads_a_file_once(tmp_path: Path, user_cache: Path, another_process: Ask) -> None:
    file = written(tmp_path / "small", b"few")
    _, read = another_process(file)
    assert kept_hash(file) == sha256(b"few")
    assert read == [file]
    assert not user_cache.exists()


def in_place(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(OTHER)


def in_place_with_its_time_put_back(file: Path) -> None:
    before = file.stat()
    in_place(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def by_a_rename(file: Path) -> None:
    before = file.stat()
    draft = written(file.with_name("draft"), OTHER)
    os.utime(draft, ns=(before.st_atime_ns, before.st_mtime_ns))
    draft.replace(file)


def shorter(file: Path) -> None:
    file.write_bytes(OTHER[:-1])


@pytest.mark.parametrize("change", [in_place, in_place_with_its_time_put_back, by_a_rename, shorter])
def test_a_changed_file_is_read(
    change: Callable[[Path], None], tmp_path: Path, user_cache: Path, another_process: Ask
) -> None:
    file = written(tmp_path / "model.safetensors")
    another_process(file)
    change(file)
    found, read = another_process(file)
    assert found == sha256(file.read_bytes()) != sha256(CONTENT)
    assert read == [file]
    assert another_process(file) == (found, [])


def test_a_file_that_was_just_written_is_not_kept(
    tmp_path: Path, user_cache: Path, another_process: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_hashes, "SETTLED_SECONDS", 10.0)
    file = written(tmp_path / "model.safetensors")
    another_process(file)
    assert another_process(file) == (sha256(CONTENT), [file])
    assert not user_cache.exists()


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "model.safetensors")

    def read_too_late(path: Path) -> str:
        found = hash_file(path)
        in_place(path)
        return found

    monkeypatch.setattr(kept_hashes, "hash_file", read_too_late)
    kept_hash(file)
    assert not user_cache.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"state": []}', b"\xff\xfe"])
def test_what_cannot_be_read_of_it_is_made_again(
    content: bytes, tmp_path: Path, user_cache: Path, another_process: Ask
) -> None:
    file = written(tmp_path / "model.safetensors")
    another_process(file)
    (kept,) = user_cache.iterdir()
    kept.write_bytes(content)
    assert another_process(file) == (sha256(CONTENT), [file])
    assert another_process(file) == (sha256(CONTENT), [])


def test_no_place_to_write_costs_time_only(tmp_path: Path, user_cache: Path, another_process: Ask) -> None:
    user_cache.parent.mkdir(parents=True)
    user_cache.write_text("a file where the folder would be", encoding="utf-8")
    file = written(tmp_path / "model.safetensors")
    assert another_process(file) == (sha256(CONTENT), [file])
    assert another_process(file) == (sha256(CONTENT), [file])


def test_links_share_what_is_kept_of_a_file(tmp_path: Path, user_cache: Path, another_process: Ask) -> None:
    file = written(tmp_path / "blob")
    link = tmp_path / "model.safetensors"
    link.symlink_to(file)
    another_process(file)
    assert another_process(link) == (sha256(CONTENT), [])


def test_a_folder_hashes_as_without_anything_kept(tmp_path: Path, user_cache: Path) -> None:
    written(tmp_path / "a.safetensors")
    written(tmp_path / "config.json", b"{}")
    patterns = ("*.safetensors", "*.json")
    assert hash_folder(tmp_path, patterns, kept_hash) == hash_folder(tmp_path, patterns)


def test_the_error_of_a_missing_file_is_the_systems(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        kept_hash(tmp_path / "none")
