import errno
import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import cache
from cache.layout import ARRAYS, counts_of
from cache.reader import AttentionStore, recorded_keys
from cache.spaces import Space, describe
from cache.writer import AttentionBlock, AttentionWriter, arrays_of
from data.errors import ConfigError, DamagedCacheError, MissingRecordsError
from tests.cache.truth import make_block, make_space, stored

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cache-format.md"


@pytest.fixture
def space(tmp_path) -> Space:
    return make_space(tmp_path)


def write(space: Space, *numbers: int, **options) -> list[AttentionBlock]:
    blocks = [make_block(number, **options) for number in numbers]
    AttentionWriter(space).append(blocks)
    return blocks


def only_part(space: Space) -> Path:
    return space.part_path(space.commits()[0])


def assert_holds(store: AttentionStore, blocks: list[AttentionBlock]) -> None:
    assert list(store) == [block.key for block in blocks]
    for block, read in zip(blocks, store.read([block.key for block in blocks]), strict=True):
        assert read.dtype == np.float16
        np.testing.assert_array_equal(read, stored(block), strict=True)
        np.testing.assert_array_equal(store[block.key], read, strict=True)
        assert store.marked(block.key) == block.marked
        np.testing.assert_array_equal(store.step_tokens(block.key), block.step_tokens)


def test_a_part_lies_on_disk_as_the_format_says(space):
    block = make_block(1, layers=2, steps=1, words=2)
    block = replace(block, attention=np.array([[[0.5, 0.25]], [[1.0, 0.0]]]), step_tokens=np.array([7]))
    AttentionWriter(space).append([block])
    part = zarr.open_group(only_part(space), mode="r", zarr_format=3)
    assert part["attention"][:].tolist() == [[0.5, 1.0], [0.25, 0.0]]
    assert part["cell_offset"][:].tolist() == [0, 2]
    assert (part["steps"][:].tolist(), part["words"][:].tolist()) == ([1], [2])
    assert part["step_tokens"][:].tolist() == [7]
    assert part["step_spans"][:].tolist() == [[0, 1]]
    assert part["word_spans"][:].tolist() == [[0, 2], [2, 4]]
    assert part["key"][:].tobytes().hex() == block.key
    assert part["text"][:].tobytes() == "Wie groß ist 1?".encode() + b"\xff" + "So groß wie 1.".encode() + b"\xff"
    assert sorted(part.array_keys()) == sorted(ARRAYS)


def test_chunks_shards_codecs_and_fill_value_are_those_of_the_format(space):
    write(space, *range(3))
    metadata = json.loads((only_part(space) / "attention" / "zarr.json").read_text())
    (sharding,) = metadata["codecs"]
    assert metadata["zarr_format"] == 3
    assert metadata["fill_value"] == "NaN"
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [4096, 2]
    assert metadata["dimension_names"] == ["cell", "layer"]
    assert sharding["name"] == "sharding_indexed"
    assert sharding["configuration"]["chunk_shape"] == [4096, 2]
    to_bytes, blosc, crc32c = sharding["configuration"]["codecs"]
    assert (to_bytes["name"], blosc["name"], crc32c["name"]) == ("bytes", "blosc", "crc32c")
    settings = blosc["configuration"]
    assert (settings["cname"], settings["clevel"], settings["shuffle"]) == ("zstd", 3, "bitshuffle")


def test_a_part_is_written_where_there_are_no_hard_links(tmp_path, monkeypatch):
    written = only_part_files(write_space(tmp_path / "links"))
    monkeypatch.setattr(os, "link", no_hard_links)
    space = write_space(tmp_path / "no links")
    assert only_part_files(space) == written
    assert_holds(AttentionStore(space), [make_block(1), make_block(2)])


def no_hard_links(source, target):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def write_space(store: Path) -> Space:
    space = make_space(store)
    write(space, 1, 2)
    return space


def only_part_files(space: Space) -> dict[str, bytes]:
    part = only_part(space)
    return {path.relative_to(part).as_posix(): path.read_bytes() for path in part.rglob("*") if path.is_file()}


def test_a_part_is_one_shard_per_array_however_many_chunks_it_has(space):
    blocks = write(space, *range(4), steps=40, words=40)
    files = [name for name in space.commits()[0].files if name.startswith("attention/")]
    assert files == ["attention/c/0/0", "attention/zarr.json"]
    assert len(space.commits()[0].files) == 2 * len(ARRAYS) + 1
    assert_holds(AttentionStore(space), blocks)


def test_records_of_several_parts_come_back_bit_for_bit(space):
    blocks = [*write(space, 1, 2, 3), *write(space, 4, steps=1, words=1), *write(space, 5, 6, steps=4, words=7)]
    assert_holds(AttentionStore.open(space.path), blocks)


@given(
    layers=st.integers(1, 4),
    shapes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5),
    data=st.data(),
)
@hypothesis_settings(max_examples=8, deadline=None)
def test_any_shapes_and_float16_values_come_back_bit_for_bit(tmp_path_factory, layers, shapes, data):
    space = make_space(tmp_path_factory.mktemp("store"))
    values = st.floats(width=16, allow_nan=False, allow_infinity=False)
    blocks = []
    for number, (steps, words) in enumerate(shapes):
        block = make_block(number, layers=layers, steps=steps, words=words)
        few = data.draw(st.lists(values, min_size=1, max_size=4))
        blocks.append(replace(block, attention=np.resize(np.array(few, dtype=np.float64), block.attention.shape)))
    AttentionWriter(space).append(blocks)
    store = AttentionStore(space)
    assert_holds(store, blocks)
    for block in blocks:
        assert store[block.key].tobytes() == stored(block).tobytes()  # the sign of zero included


def test_a_batch_is_read_in_the_order_asked_for_with_repetitions_decoding_each_part_once(space, monkeypatch):
    blocks = [*write(space, 0, 1, 2), *write(space, 3, 4, 5)]
    store = AttentionStore(space)
    decoded = []
    read = cache.reader.AttentionPart.read
    monkeypatch.setattr(cache.reader.AttentionPart, "read", lambda part, rows: decoded.append(rows) or read(part, rows))
    order = [5, 0, 2, 3, 5, 1]
    for number, found in zip(order, store.read([blocks[number].key for number in order]), strict=True):
        np.testing.assert_array_equal(found, stored(blocks[number]))
    assert decoded == [[2, 0], [0, 2, 1]]
    assert store.read([]) == []


def test_reading_what_is_not_stored_says_how_many_and_what_helps(space):
    (block,) = write(space, 1)
    store = AttentionStore(space)
    with pytest.raises(MissingRecordsError, match=r"2 of 3 records are not stored.*molsaki attention"):
        store.read(["0" * 64, block.key, "1" * 64])
    with pytest.raises(KeyError):
        store["0" * 64]
    assert "0" * 64 not in store
    assert block.key in store


def test_a_record_that_two_jobs_computed_is_served_once(space):
    first = write(space, 1, 2)
    write(space, 2, 3)
    store = AttentionStore(space)
    assert list(store) == [first[0].key, first[1].key, make_block(3).key]
    assert len(store) == len(store.to_pandas()) == 3
    assert store.to_pandas().part.tolist() == [store.parts[0].folder.name] * 2 + [store.parts[1].folder.name]


def test_a_record_given_twice_is_stored_once(space):
    write(space, 1, 2, 1)
    assert space.commits()[0].counts["records"] == 2


def test_keys_and_dropped_records_are_read_without_decoding_attention(space, monkeypatch):
    blocks = [make_block(1), make_block(2)]
    AttentionWriter(space).append(blocks, dropped={"f" * 64: "no critical word"})
    AttentionWriter(space).append([], dropped={"e" * 64: "too long"})
    read = []
    decode = cache.chunked.decode
    monkeypatch.setattr(
        cache.chunked, "decode", lambda array, path, *rows: read.append(path.name) or decode(array, path)
    )
    assert recorded_keys(space) == {block.key for block in blocks}
    store = AttentionStore(space)
    assert store.dropped == {"f" * 64: "no critical word", "e" * 64: "too long"}
    assert set(store.keys()) == {block.key for block in blocks}
    assert not read
    assert describe(space).drop_reasons == {"no critical word": 1, "too long": 1}
    assert (describe(space).summary.records, describe(space).summary.parts) == (2, 1)


def test_an_open_store_does_not_change_and_a_new_one_sees_new_commits(space):
    first = write(space, 1)
    store = AttentionStore(space)
    second = write(space, 2)
    assert_holds(store, first)
    assert_holds(AttentionStore(space), first + second)


def test_a_part_without_commit_is_not_served(space):
    blocks = write(space, 1)
    shutil.copytree(only_part(space), space.new_part(), dirs_exist_ok=True)
    assert_holds(AttentionStore(space), blocks)
    assert len(describe(space).uncommitted_parts) == 1


def test_an_empty_store_has_no_layers_to_tell_of(space):
    store = AttentionStore(space)
    assert len(store) == 0
    assert store.to_pandas().columns.tolist() == ["key", "question", "rationale", "steps", "words", "part"]
    with pytest.raises(MissingRecordsError, match="molsaki attention"):
        _ = store.layers


def test_open_attention_opens_a_folder(space):
    blocks = write(space, 1, 2)
    store = cache.open_attention(str(space.path))
    assert store.layers == 2
    assert_holds(store, blocks)
    row = store.to_pandas().iloc[1]
    assert (row.key, row.question, row.rationale) == (blocks[1].key, "Wie groß ist 2?", "So groß wie 2.")
    assert (row.steps, row.words, row.part) == (3, 2, only_part(space).name)


def test_a_store_travels_to_other_processes(space):
    blocks = write(space, 1, 2)
    assert_holds(pickle.loads(pickle.dumps(AttentionStore(space))), blocks)


def test_a_space_of_rationales_is_not_opened_as_attention(tmp_path):
    space = Space.open_or_create(tmp_path, "rationales", "teacher", {"schema": 1})
    with pytest.raises(ConfigError, match="a space of rationales, not of attention"):
        AttentionStore.open(space.path)


def refused(space: Space, block: AttentionBlock, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AttentionWriter(space).append([make_block(0), block])
    assert space.commits() == []
    assert describe(space).uncommitted_parts == ()


@pytest.mark.parametrize("value", [65520.0, -1e30, np.inf, np.nan])
def test_a_value_that_float16_cannot_hold_is_refused(space, value):
    block = make_block(1)
    block.attention[1, 2, 1] = value
    refused(space, block, r"cannot be stored, float16 ends at 65504")


def test_shapes_that_do_not_fit_the_record_are_refused(space):
    block = make_block(1)
    refused(space, replace(block, attention=block.attention[:, :2]), r"shape \(2, 2, 2\), expected .* \(2, 3, 2\)")
    refused(space, replace(block, attention=block.attention[:1]), r"shape \(1, 3, 2\), expected .* \(2, 3, 2\)")
    refused(space, replace(block, step_tokens=block.step_tokens[:2]), "token counts for 3 steps")
    empty = replace(block, marked=replace(block.marked, critical_spans=()), attention=np.zeros((2, 3, 0)))
    refused(space, empty, "each from 1")


def test_a_key_or_text_that_is_not_the_records_own_is_refused(space):
    block = make_block(1)
    refused(space, replace(block, key="0" * 64), f"the key of this record is {block.key}")
    refused(space, replace(block, marked=replace(block.marked, text="another")), "not question, line break, rationale")


def test_more_records_than_a_part_may_have_are_refused(space):
    block = make_block(1)
    many = [replace(block, key=f"{number:064x}") for number in range(4097)]
    with pytest.raises(ValueError, match="4097 records for one part, 4096 at most"):
        AttentionWriter(space).append(many)


def test_a_text_that_is_no_unicode_is_refused(space):
    marked = replace(make_block(1).marked, question="\ud800", text="\ud800\nSo groß wie 1.")
    block = replace(make_block(1), marked=marked, key=cache.writer.record_key(marked))
    refused(space, block, "a text is no Unicode")


@pytest.mark.parametrize(
    "name", ["zarr.json", *(f"{array}/zarr.json" for array in ARRAYS), "text/c/0", "attention/c/0/0"]
)
def test_truncated_and_deleted_files_are_found_at_opening(space, name):
    write(space, 1, 2)
    path = only_part(space) / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        DamagedCacheError, match=rf"{name}: \d+ bytes, \d+ were committed; `molsaki cache verify SPACE`"
    ):
        AttentionStore.open(space.path)
    path.unlink()
    with pytest.raises(DamagedCacheError, match=rf"{name}: missing, \d+ bytes were committed"):
        AttentionStore.open(space.path)
    with pytest.raises(DamagedCacheError, match=name):
        recorded_keys(space)


def test_a_file_deleted_after_opening_is_found_at_reading(space):
    blocks = write(space, 1)
    store = AttentionStore(space)
    assert_holds(store, blocks)
    (only_part(space) / "attention" / "c" / "0" / "0").unlink()
    with pytest.raises(DamagedCacheError, match="attention/c/0/0: missing"):
        store[blocks[0].key]


def test_a_missing_part_is_found_at_opening(space):
    write(space, 1)
    shutil.rmtree(only_part(space))
    with pytest.raises(DamagedCacheError, match="missing"):
        AttentionStore.open(space.path)


def test_flipped_bits_are_detected_or_harmless(space):
    blocks = write(space, 1, 2)
    random = np.random.default_rng(0)
    detected = 0
    for name in space.commits()[0].files:
        path = only_part(space) / name
        content = path.read_bytes()
        for bit in random.integers(0, 8 * len(content), 4):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            try:
                assert_holds(AttentionStore.open(space.path), blocks)
            except DamagedCacheError:
                detected += 1
        path.write_bytes(content)
    assert detected > 0.9 * 4 * 19  # nearly all; a flip in a byte that nothing refers to harms nothing
    assert_holds(AttentionStore.open(space.path), blocks)


def commit_changed(space: Space, name: str, change) -> None:
    """Commit a part in which one metadata file is not ours, as a hostile or foreign store could."""
    arrays = arrays_of([make_block(1)])
    part = space.new_part()
    cache.chunked.write_arrays(part, arrays)
    metadata = json.loads((part / name).read_text())
    change(metadata)
    (part / name).write_text(json.dumps(metadata))
    space.commit(part, counts=counts_of(arrays))


def test_an_unknown_codec_is_refused_before_anything_is_decoded(space):
    def change(metadata):
        metadata["codecs"][0]["configuration"]["codecs"].append({"name": "numcodecs.pickle"})

    commit_changed(space, "attention/zarr.json", change)
    with pytest.raises(
        DamagedCacheError, match=r"attention/zarr.json: unknown codec numcodecs\.pickle; only blosc, bytes"
    ):
        AttentionStore(space)


@pytest.mark.parametrize("codecs", [None, "zstd", ["numcodecs.pickle"], [{"name": "gzip"}], [{}]])
def test_codecs_of_any_other_form_are_refused(space, codecs):
    commit_changed(space, "key/zarr.json", lambda metadata: metadata.update(codecs=codecs))
    with pytest.raises(DamagedCacheError, match="unknown codec"):
        AttentionStore(space)


@pytest.mark.parametrize(
    ("field", "value"),
    [("shape", [7, 2]), ("data_type", "float64"), ("dimension_names", None), ("node_type", "group")],
)
def test_metadata_that_do_not_fit_the_commit_are_refused(space, field, value):
    commit_changed(space, "attention/zarr.json", lambda metadata: metadata.update({field: value}))
    with pytest.raises(DamagedCacheError, match=f"attention/zarr.json: {field} is"):
        AttentionStore(space)


def test_zarr_format_2_is_refused(space):
    part = space.new_part()
    group = zarr.create_group(part, zarr_format=2)
    for name, content in arrays_of([make_block(1)]).items():
        group.create_array(name, data=content)
    space.commit(part, counts=counts_of(arrays_of([make_block(1)])))
    with pytest.raises(DamagedCacheError, match="not a zarr v3 part"):
        AttentionStore(space)


def test_metadata_that_say_format_2_are_refused(space):
    commit_changed(space, "steps/zarr.json", lambda metadata: metadata.update(zarr_format=2))
    with pytest.raises(DamagedCacheError, match="zarr format 2, only format 3 is read"):
        AttentionStore(space)


def test_parts_of_different_depth_are_damage(space):
    write(space, 1, layers=2)
    write(space, 2, layers=3)
    with pytest.raises(DamagedCacheError, match=r"parts of \[2, 3\] layers"):
        AttentionStore(space)


@pytest.mark.parametrize("engine", ["open_zarr", "open_dataset"])
def test_xarray_opens_a_part(space, engine):
    (block,) = write(space, 1)
    if engine == "open_zarr":
        dataset = xarray.open_zarr(only_part(space), consolidated=False)
    else:
        dataset = xarray.open_dataset(only_part(space), engine="zarr", consolidated=False)
    assert dataset.attention.dims == ("cell", "layer")
    assert dict(dataset.sizes)["record"] == 1
    np.testing.assert_array_equal(dataset.attention.values.T.reshape(2, 3, 2), stored(block))
    assert dataset.step_tokens.values.tolist() == block.step_tokens.tolist()


def test_the_documents_own_code_reads_a_store_with_zarr_alone(space):
    blocks = [*write(space, 1, 2), *write(space, 3, steps=1, words=5), *write(space, 2)]
    AttentionWriter(space).append([], dropped={"0" * 64: "too long"})
    snippet = DOCUMENT.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert "cache." not in snippet
    (line,) = (line for line in snippet.splitlines() if line.startswith("space = "))
    found: dict[str, dict] = {}
    exec(snippet.replace(line, f"space = Path({str(space.path)!r})"), found)
    assert list(found["records"]) == [block.key for block in blocks[:3]]
    for block in blocks[:3]:
        record = found["records"][block.key]
        np.testing.assert_array_equal(record["attention"], stored(block), strict=True)
        assert (record["question"], record["rationale"]) == (block.marked.question, block.marked.rationale)
        assert record["step_spans"].tolist() == [list(span) for span in block.marked.step_spans]
        assert record["critical_spans"].tolist() == [list(span) for span in block.marked.critical_spans]
        assert record["step_tokens"].tolist() == block.step_tokens.tolist()
