"""Sizes of folders, and giving up what is cached of their files."""

from pathlib import Path

import pytest

from stages.bench import measure
from stages.bench.measure import Size, drop, size_of, warm


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "one").write_bytes(b"1" * 1000)
    (tmp_path / "inner" / "deep" / "two").write_bytes(b"2" * 24)
    return tmp_path


def test_bytes_and_files_of_all_folders_below_are_added_up(folder: Path):
    found = size_of(folder)
    assert (found.files, found.bytes) == (2, 1024)
    assert found.allocated_bytes == 512 * sum(
        path.stat().st_blocks for path in (folder / "one", folder / "inner/deep/two")
    )


def test_a_single_file_counts_as_one(folder: Path):
    assert size_of(folder / "one").files == 1
    assert size_of(folder / "one").bytes == 1000


def test_nothing_is_in_a_folder_without_files(tmp_path: Path):
    assert size_of(tmp_path) == Size(files=0, bytes=0, allocated_bytes=0)


def test_dropping_and_warming_leave_the_files_as_they_are(folder: Path):
    assert drop(folder) is measure.CAN_DROP
    warm(folder)
    assert (folder / "one").read_bytes() == b"1" * 1000
    assert size_of(folder).files == 2


def test_every_file_below_is_dropped(folder: Path, monkeypatch: pytest.MonkeyPatch):
    dropped: list[tuple[int, int, int]] = []
    monkeypatch.setattr(measure, "CAN_DROP", True)

    def advise(_file: int, start: int, length: int, advice: int) -> None:
        dropped.append((start, length, advice))

    monkeypatch.setattr("os.posix_fadvise", advise, raising=False)
    monkeypatch.setattr("os.POSIX_FADV_DONTNEED", 4, raising=False)
    assert drop(folder)
    assert dropped == [(0, 0, 4)] * 2


def test_a_system_without_the_call_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "CAN_DROP", False)
    assert drop(folder) is False
