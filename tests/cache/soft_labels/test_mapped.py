"""The memory map of soft labels: what was written, decoded once, shared, and made again where it is not whole."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import cache.derived
import cache.soft_labels.mapped
from cache.gc import leftovers_of_store
from cache.soft_labels.layout import LAYOUTS
from cache.soft_labels.mapped import mapped_soft_labels, rows_path
from cache.soft_labels.reader import SoftLabelPart, SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Space
from data.errors import MissingRecordsError
from tests.cache.soft_labels.truth import assert_same, key, make_block, make_head, make_space

NUMBERS = (1, 2, 3, 9)


def write(space: Space, layout="top") -> None:
    writer = SoftLabelWriter(space)
    writer.append([make_block(number, layout) for number in (1, 2, 3)])
    if layout == "hidden":
        writer.append_head(make_head())
    writer.append([make_block(number, layout) for number in (9, 2)])  # 2 lies in both parts


def never(*_: object) -> None:
    raise AssertionError("decoded again what is there")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bytes_at_a_time", [1 << 26, 16])
def test_every_record_is_mapped_as_it_is_stored(tmp_path, monkeypatch, layout, bytes_at_a_time):
    monkeypatch.setattr(cache.soft_labels.mapped, "MOST_BYTES", bytes_at_a_time)
    space = make_space(tmp_path, layout)
    write(space, layout)
    done: list[int] = []
    store = SoftLabelStore(space)
    found = mapped_soft_labels(store, done.append)
    assert list(found) == list(store) == list(map(key, NUMBERS)) and len(found) == 4
    assert done == [3, 2]
    for number in NUMBERS:
        assert_same(found[key(number)], make_block(number, layout))
        assert all(array.base is not None for _, array in found[key(number)].arrays())
    assert key(5) not in found and key(9) in found
    with pytest.raises(KeyError):
        found[key(5)]
    assert list((tmp_path / "rows").iterdir()) == [rows_path(store)]


def test_it_is_decoded_once_and_what_is_new_is_added(tmp_path, monkeypatch):
    space = make_space(tmp_path)
    write(space)
    mapped_soft_labels(SoftLabelStore(space))
    with monkeypatch.context() as patched:
        patched.setattr(cache.soft_labels.mapped, "_pieces", never)
        assert_same(mapped_soft_labels(SoftLabelStore(space))[key(1)], make_block(1))
    SoftLabelWriter(space).append([make_block(7)])
    decoded: list[str] = []
    read = SoftLabelPart.read_rows
    monkeypatch.setattr(
        SoftLabelPart, "read_rows", lambda part, *rows: decoded.append(part.folder.name) or read(part, *rows)
    )
    found = mapped_soft_labels(SoftLabelStore(space))
    assert set(decoded) == {space.commits()[-1].part}
    for number in (*NUMBERS, 7):
        assert_same(found[key(number)], make_block(number))


@pytest.mark.parametrize("place", [3, 70, -1])
def test_a_damaged_file_is_made_again(tmp_path, place):
    space = make_space(tmp_path)
    write(space)
    mapped_soft_labels(SoftLabelStore(space))
    path = rows_path(SoftLabelStore(space))
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert_same(mapped_soft_labels(SoftLabelStore(space))[key(9)], make_block(9))
    assert path.read_bytes() != bytes(content)


def test_where_nothing_may_be_written_it_is_a_file_without_a_name(tmp_path, monkeypatch):
    space = make_space(tmp_path)
    write(space)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache.derived, "make_folder", refuse)
    assert_same(mapped_soft_labels(SoftLabelStore(space))[key(2)], make_block(2))
    assert not (tmp_path / "rows").exists()


def test_an_export_outside_of_a_store_is_mapped_without_a_file_beside_it(tmp_path):
    space = make_space(tmp_path / "store")
    write(space)
    shutil.copytree(space.path, tmp_path / "elsewhere" / "copy")
    store = SoftLabelStore.open(tmp_path / "elsewhere" / "copy")
    assert rows_path(store) is None
    assert_same(mapped_soft_labels(store)[key(3)], make_block(3))
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["copy"]


def test_writing_to_what_was_mapped_does_not_reach_the_file(tmp_path):
    space = make_space(tmp_path)
    write(space)
    mapped_soft_labels(SoftLabelStore(space))[key(1)].logits[:] = -1
    np.testing.assert_array_equal(
        mapped_soft_labels(SoftLabelStore(space))[key(1)].logits, make_block(1).logits.astype(np.float16)
    )


def test_a_store_without_records_has_nothing_to_map(tmp_path):
    space = make_space(tmp_path, "hidden")
    SoftLabelWriter(space).append_head(make_head())
    with pytest.raises(MissingRecordsError, match="no soft labels yet"):
        mapped_soft_labels(SoftLabelStore(space))


def test_the_rows_of_a_space_that_is_gone_are_left_over(tmp_path):
    space = make_space(tmp_path)
    write(space)
    mapped_soft_labels(SoftLabelStore(space))
    path = rows_path(SoftLabelStore(space))
    assert [left.path for left in leftovers_of_store(tmp_path, older_than=0)] == []
    shutil.rmtree(space.path)
    (left,) = leftovers_of_store(tmp_path, older_than=0)
    assert (left.path, left.what) == (path, "rows of a space that is gone")


def test_processes_share_the_file(tmp_path):
    space = make_space(tmp_path)
    write(space)
    mapped_soft_labels(SoftLabelStore(space))
    inode = rows_path(SoftLabelStore(space)).stat().st_ino
    mapped_soft_labels(SoftLabelStore.open(space.path))
    assert rows_path(SoftLabelStore(space)).stat().st_ino == inode
