"""Soft labels handed on and taken in: they come back as they were, and nothing of strangers is believed."""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

import cache
import cache.exchange.chosen
from cache.exchange.bounds import shard_file
from cache.exchange.exporting import export_space
from cache.exchange.importing import import_space
from cache.layout import ArrayLayout
from cache.soft_labels.layout import LAYOUTS, SoftLabelLayout, rows_spec
from cache.soft_labels.reader import SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Space, list_spaces
from cache.verify import verify
from data.errors import DamagedCacheError, MismatchError, MissingRecordsError
from tests.cache.exchange.test_hostile_archives import (
    FILES,
    change_commit,
    change_file,
    everything,
    files_of,
    part_of,
    refuse_tar,
    with_crc,
)
from tests.cache.soft_labels.truth import SPECS, V, assert_same, key, make_block, make_head, make_space

EACH = pytest.mark.parametrize("layout", LAYOUTS)


def write(store: Path, layout: SoftLabelLayout, *parts: range, head: int | None = 0) -> Space:
    space = make_space(store, layout)
    for numbers in parts:
        SoftLabelWriter(space).append([make_block(number, layout) for number in numbers])
    if layout == "hidden" and head is not None:
        SoftLabelWriter(space).append_head(make_head(head), make_head(head)[:, 0])
    return space


def assert_holds(folder: Path, layout: SoftLabelLayout, numbers) -> None:
    store = SoftLabelStore.open(folder)
    assert sorted(store) == [key(number) for number in numbers]
    for number, found in zip(numbers, store.read([key(number) for number in numbers]), strict=True):
        assert_same(found, make_block(number, layout))
    if layout == "hidden":
        np.testing.assert_array_equal(store.head().weight, make_head().astype(np.float16))
        np.testing.assert_array_equal(store.head().bias, make_head()[:, 0].astype(np.float16))
    assert verify(folder, deep=True).findings == ()


@EACH
@pytest.mark.parametrize("address", ["out", "out.tar"])
def test_what_was_exported_comes_back_equal(tmp_path, layout, address):
    space = write(tmp_path / "ours", layout, range(3), range(3, 5))
    exported = export_space(space, str(tmp_path / address))
    assert (exported.kind, exported.records) == ("soft-labels", 5)
    imported = import_space(str(tmp_path / address), tmp_path / "theirs")
    assert (imported.records, imported.known, imported.parts) == (5, 0, 2 + (layout == "hidden"))
    assert_holds(imported.path, layout, range(5))
    again = import_space(str(tmp_path / address), tmp_path / "theirs")
    assert (again.records, again.known, again.parts) == (0, 5, 0)
    assert [found.kind for found in list_spaces(tmp_path / "theirs")] == ["soft-labels"]


def test_an_address_is_read_as_if_it_were_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    export_space(write(tmp_path / "ours", "hidden", range(3)), str(tmp_path / "out.tar"))
    assert_holds(cache.open_soft_labels(str(tmp_path / "out.tar")).space.path, "hidden", range(3))


@EACH
def test_two_stores_of_one_fingerprint_merge(tmp_path, layout):
    export_space(write(tmp_path / "a", layout, range(3)), str(tmp_path / "out"))
    ours = write(tmp_path / "b", layout, range(2, 4), head=None)
    imported = import_space(str(tmp_path / "out"), tmp_path / "b")
    assert (imported.path, imported.records, imported.known) == (ours.path, 2, 1)
    assert_holds(ours.path, layout, range(4))


def test_a_head_that_is_there_stays(tmp_path):
    export_space(write(tmp_path / "a", "hidden", range(3), head=7), str(tmp_path / "out"))
    ours = write(tmp_path / "b", "hidden", range(2))
    assert import_space(str(tmp_path / "out"), tmp_path / "b").records == 1
    assert_holds(ours.path, "hidden", range(3))
    assert sum("vocabulary" in commit.counts for commit in ours.commits()) == 1


@EACH
def test_chosen_records_are_exported_with_the_head(tmp_path, layout, monkeypatch):
    monkeypatch.setattr(cache.exchange.chosen, "MOST_BYTES", 100)
    space = write(tmp_path / "ours", layout, range(3), range(3, 6))
    chosen = [key(number) for number in (1, 4, 5)]
    exported = export_space(space, str(tmp_path / "out"), keys=chosen)
    assert exported.records == 3
    assert export_space(space, str(tmp_path / "out"), keys=chosen).written == 0  # the same choice is the same export
    imported = import_space(str(tmp_path / "out"), tmp_path / "theirs")
    assert_holds(imported.path, layout, (1, 4, 5))
    assert all(commit.counts["records"] <= 2 for commit in Space.open(imported.path).commits())
    with pytest.raises(MissingRecordsError, match="1 of 2 records are not stored"):
        export_space(space, str(tmp_path / "more"), keys=[key(1), key(9)])


@EACH
def test_the_code_of_the_card_reads_the_export_with_zarr_alone(tmp_path, layout, monkeypatch):
    space = write(tmp_path / "ours", layout, range(3))
    export_space(space, str(tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| records | 3 in " in card and "soft-labels" in card
    monkeypatch.chdir(tmp_path / "out")
    found: dict[str, object] = {"zarr": zarr}
    exec(card.split("```python\n")[1].split("```")[0], found)
    assert found["key"] in {key(number) for number in range(3)}
    expected = dict(cache.open_soft_labels(space.path)[found["key"]].arrays())
    assert found["rows"].keys() == expected.keys()
    for name, rows in found["rows"].items():
        np.testing.assert_array_equal(rows, expected[name])


@pytest.fixture(params=LAYOUTS)
def layout(request) -> SoftLabelLayout:
    return request.param


@pytest.fixture
def files(tmp_path_factory, layout) -> FILES:
    """The files of a sound export: one part, and for hidden states the head in another one."""
    folder = tmp_path_factory.mktemp("sound")
    return files_of(write(folder / "store", layout, range(4)), folder / "out")


@pytest.fixture
def place(tmp_path, layout) -> Iterator[Path]:
    """A folder with a store that holds one record already; afterwards all is as it was."""
    write(tmp_path / "store", layout, range(9, 10), head=None)
    before = everything(tmp_path)
    yield tmp_path
    (tmp_path / "hostile.tar").unlink(missing_ok=True)
    assert everything(tmp_path) == before


def arrays(layout: SoftLabelLayout) -> dict[str, ArrayLayout]:
    return dict(rows_spec(SPECS[layout]).parts.arrays)


def test_a_file_more_or_one_less_is_refused(place, files):
    name = f"{part_of(files)}/evil/zarr.json"
    refuse_tar(place, {**files, name: b"{}"}, DamagedCacheError, "no commit lists this file")
    listed = change_commit(
        {**files, name: b"{}"},
        lambda commit: commit["files"].update({"evil/zarr.json": {"size": 2, "sha256": "0" * 64}}),
    )
    refuse_tar(place, listed, DamagedCacheError, "is no file of a part of soft-labels, or is missing there")
    del files[f"{part_of(files)}/end/zarr.json"]
    refuse_tar(place, files, DamagedCacheError, "missing")


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"records": 0}, "0 records, expected 1 to 4,096"),
        ({"records": 4097}, "4,097 records, expected 1 to 4,096"),
        ({"rows": 3}, "3 rows, expected 4 to"),
        ({"rows": 1 << 40}, "expected 4 to"),
        ({"cells": 1}, "count 'cells' is unknown or missing"),
    ],
)
def test_counts_beyond_all_bounds_are_refused(place, files, counts, line):
    refuse_tar(place, change_commit(files, lambda commit: commit["counts"].update(counts)), DamagedCacheError, line)


def test_a_width_that_is_not_the_specs_is_refused(place, files, layout):
    count, said = ("width", "7 width, 6 by spec.json") if layout == "hidden" else ("k", "rank")
    changed = change_commit(files, lambda commit: commit["counts"].update({count: 7}))
    refuse_tar(place, changed, DamagedCacheError, said if layout != "sampled" else "shape is")


def test_every_chunk_that_claims_to_be_larger_is_refused_before_it_is_decoded(place, files, layout, monkeypatch):
    monkeypatch.setattr("cache.chunked.decode", lambda *_: pytest.fail("decoded"))
    for name in arrays(layout):
        file = shard_file(name, rows_spec(SPECS[layout]).parts)
        shard = files[f"{part_of(files)}/{file}"]
        start, length = struct.unpack("<QQ", shard[-20:-4])
        chunk = bytearray(shard[start : start + length - 4])
        struct.pack_into("<I", chunk, 4, 1 << 31)
        evil = change_file(files, file, with_crc(bytes(chunk)) + shard[-20:])
        refuse_tar(place, evil, DamagedCacheError, "a chunk claims to be 2,147,483,648 bytes")


CHANGES: dict[str, tuple[Callable[[dict], object], str]] = {
    "codec": (lambda m: m["codecs"][0]["configuration"]["codecs"].append({"name": "gzip"}), "unknown codec gzip"),
    "type": (lambda m: m.update(data_type="float64"), "data_type is float64"),
    "format": (lambda m: m.update(zarr_format=2), "zarr format 2"),
    "grid": (lambda m: m["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(0, 1 << 30), "chunk_grid is"),
    "chunk": (lambda m: m["codecs"][0]["configuration"]["chunk_shape"].__setitem__(0, 8), "chunk_shape is"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_metadata_that_are_not_ours_are_refused(place, files, layout, name):
    change, line = CHANGES[name]
    for array in arrays(layout):
        content = json.loads(files[f"{part_of(files)}/{array}/zarr.json"])
        change(content)
        evil = change_file(files, f"{array}/zarr.json", json.dumps(content).encode())
        refuse_tar(place, evil, DamagedCacheError, line)


def test_rows_that_cannot_be_are_refused(tmp_path, layout):
    """Decodable, with hashes that fit, and still no soft labels."""
    space = write(tmp_path / "theirs", layout, range(2))
    writer = SoftLabelWriter(space)
    arrays = writer.arrays_of([make_block(7, layout)])
    arrays["log_probability"] += 30
    writer.write(arrays, writer.layout)
    export_space(space, str(tmp_path / "out"))
    with pytest.raises(DamagedCacheError, match=r"log_probability: .* above zero"):
        import_space(str(tmp_path / "out"), tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("spec", [{"layout": "other"}, {"layout": "top", "vocabulary_size": V}, {}])
def test_a_spec_that_says_nothing_of_rows_is_refused(tmp_path, spec):
    space = Space.open_or_create(tmp_path / "theirs", "soft-labels", "teacher", {"schema": 1, **spec})
    shutil.copytree(space.path, tmp_path / "out")
    with pytest.raises(DamagedCacheError, match=r"spec\.json: soft labels: "):
        import_space(str(tmp_path / "out"), tmp_path / "store")


def test_a_space_of_another_spec_is_refused(tmp_path):
    export_space(write(tmp_path / "a", "top", range(2)), str(tmp_path / "out"))
    with pytest.raises(MismatchError, match="holds another space"):
        export_space(write(tmp_path / "b", "sampled", range(2)), str(tmp_path / "out"))
