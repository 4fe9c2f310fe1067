"""Soft labels written and read: every layout comes back as it was, and what cannot be stored leaves no byte."""

import json
import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import cache.chunked
from cache.keys import hex_keys
from cache.soft_labels.layout import LAYOUTS
from cache.soft_labels.reader import SoftLabelStore, recorded_rows
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Space, describe
from data.errors import ConfigError, DamagedCacheError, MissingRecordsError, ModelError
from tests.cache import truth as attention
from tests.cache.soft_labels.truth import SPECS, C, K, V, assert_same, key, make_block, make_head, make_space

PROCESSES = multiprocessing.get_context("forkserver")
EACH = pytest.mark.parametrize("layout", LAYOUTS)


def write(space: Space, *numbers: int, layout="top") -> list:
    blocks = [make_block(number, layout) for number in numbers]
    SoftLabelWriter(space).append(blocks)
    return blocks


def only_part(space: Space) -> Path:
    return space.part_path(space.commits()[0])


@EACH
def test_records_of_several_parts_come_back(tmp_path, layout):
    space = make_space(tmp_path, layout)
    blocks = [
        *write(space, 1, 2, 3, layout=layout),
        *write(space, 4, layout=layout),
        *write(space, 9, 5, layout=layout),
    ]
    store = SoftLabelStore.open(space.path)
    assert store.layout == layout
    assert list(store) == [block.key for block in blocks]
    for block, found in zip(blocks, store.read([block.key for block in blocks]), strict=True):
        assert_same(found, block)
        assert_same(store[block.key], block)
        assert store.rows_of(block.key) == len(block.ends)
    assert {tuple(sorted(commit.counts)) for commit in space.commits()} == {
        ("records", "rows", "width") if layout == "hidden" else ("k", "records", "rows")
    }


def test_a_part_lies_on_disk_as_the_format_says(tmp_path):
    space = make_space(tmp_path, "top", k=2, vocabulary_size=3)
    ln = np.log(np.array([[1.75, 1 + np.sqrt(0.5) + np.sqrt(0.25) - 0.0]], dtype=np.float64))
    block = replace(
        make_block(1, rows=1),
        ends=np.array([7]),
        log_probability=np.array([-0.5]),
        tokens=np.array([[2, 0]]),
        logits=np.log(np.array([[1.0, 0.5]])),
        log_norms=ln,
    )
    SoftLabelWriter(space).append([block])
    part = zarr.open_group(only_part(space), mode="r", zarr_format=3)
    assert {name: (part[name].dtype.str, part[name].shape) for name in part.array_keys()} == {
        "key": ("|u1", (1, 32)),
        "row_offset": ("<i8", (2,)),
        "end": ("<i4", (1,)),
        "log_probability": ("<f4", (1,)),
        "token": ("<u4", (1, 2)),
        "logit": ("<f2", (1, 2)),
        "log_norm": ("<f4", (1, 2)),
    }
    assert part["row_offset"][:].tolist() == [0, 1]
    assert (part["end"][:].tolist(), part["log_probability"][:].tolist()) == ([7], [-0.5])
    assert part["token"][:].tolist() == [[2, 0]]
    assert part["logit"][:].tolist() == [[0.0, np.float16(np.log(0.5))]]
    assert part["log_norm"][:].tolist() == ln.astype(np.float32).tolist()
    assert space.commits()[0].counts == {"records": 1, "rows": 1, "k": 2}


def test_sampled_tokens_and_counts_lie_as_the_format_says(tmp_path):
    space = make_space(tmp_path, "sampled", draws=5)
    block = replace(
        make_block(1, "sampled", rows=2),
        tokens=np.array([[7, 3, 9], [4, 0, 0]]),
        counts=np.array([[3, 1, 1], [5, 0, 0]]),
    )
    SoftLabelWriter(space).append([block])
    part = zarr.open_group(only_part(space), mode="r", zarr_format=3)
    assert part["token"][:].tolist() == [[7, 3, 9], [4, 0, 0]]
    assert part["count"][:].tolist() == [[3, 1, 1], [5, 0, 0]]
    assert (part["token"].dtype, part["count"].dtype) == (np.uint32, np.uint16)
    assert space.commits()[0].counts == {"records": 1, "rows": 2, "k": 3}


@pytest.mark.parametrize("floats", ["float16", "float32"])
@pytest.mark.parametrize("bias", [None, np.arange(V, dtype=np.float32)])
def test_a_head_is_written_once_and_of_two_the_first_counts(tmp_path, floats, bias):
    space = make_space(tmp_path, "hidden", hidden=floats)
    with pytest.raises(MissingRecordsError, match="no head"):
        SoftLabelStore(space).head()
    block = make_block(1, "hidden")
    SoftLabelWriter(space).append([block])
    commit = SoftLabelWriter(space).append_head(make_head(), bias)
    assert commit is not None and commit.counts == {"records": 0, "vocabulary": V, "width": C}
    assert SoftLabelWriter(space).append_head(make_head(1)) is None
    writer = SoftLabelWriter(space)
    writer.write({"head": make_head(2).astype(floats)}, writer.rows.head)  # as another process does at the same time
    store = SoftLabelStore(space)
    head = store.head()
    np.testing.assert_array_equal(head.weight, make_head().astype(floats), strict=True)
    assert (head.bias is None) is (bias is None)
    if bias is not None:
        np.testing.assert_array_equal(head.bias, bias.astype(floats), strict=True)
    assert list(store) == [block.key] and store[block.key].hidden.dtype == floats
    assert hex_keys(recorded_rows(space)).__next__() == block.key
    assert describe(space).summary.records == 1


def give_head(store: Path, seed: int, barrier) -> None:
    writer = SoftLabelWriter(make_space(store, "hidden"))
    barrier.wait()
    writer.append_head(make_head(seed))


def test_two_processes_that_write_a_head_at_once_leave_one_that_counts(tmp_path):
    barrier = PROCESSES.Barrier(2)
    writers = [PROCESSES.Process(target=give_head, args=(tmp_path, seed, barrier)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    space = make_space(tmp_path, "hidden")
    heads = [commit for commit in space.commits() if "vocabulary" in commit.counts]
    assert len(heads) in (1, 2)
    first = zarr.open_group(space.part_path(heads[0]), mode="r")["head"][...]
    np.testing.assert_array_equal(SoftLabelStore(space).head().weight, first)
    assert SoftLabelWriter(space).append_head(make_head(3)) is None


def test_only_the_layout_hidden_has_a_head(tmp_path):
    with pytest.raises(ValueError, match="a head in a space of the layout top"):
        SoftLabelWriter(make_space(tmp_path)).append_head(make_head())
    space = make_space(tmp_path, "hidden")
    with pytest.raises(ValueError, match=r"a head of shape \(6, 50\), expected \(V, C\) = \(50, 6\)"):
        SoftLabelWriter(space).append_head(make_head().T)
    with pytest.raises(ModelError, match="not finite in float16"):
        SoftLabelWriter(space).append_head(make_head() * 1e6)
    assert space.commits() == []


def test_keys_and_reasons_are_read_without_decoding(tmp_path, monkeypatch):
    space = make_space(tmp_path)
    writer = SoftLabelWriter(space, note={"device": "cpu"})
    writer.append([make_block(1), make_block(2), make_block(1)], {"f" * 64: "too long"}, note={"batch": 3})
    writer.append([], {"e" * 64: "no rows"})
    read = []
    decode = cache.chunked.decode
    monkeypatch.setattr(
        cache.chunked, "decode", lambda array, path, *rows: read.append(path.name) or decode(array, path)
    )
    assert sorted(hex_keys(recorded_rows(space))) == [key(1), key(2)]
    store = SoftLabelStore(space)
    assert store.dropped == {"f" * 64: "too long", "e" * 64: "no rows"}
    assert (len(store), key(2) in store, key(3) in store) == (2, True, False)
    assert not read
    assert space.commits()[0].note["device"] == "cpu" and space.commits()[0].note["batch"] == 3


def test_records_far_apart_are_read_without_what_lies_between(tmp_path, monkeypatch):
    space = make_space(tmp_path)
    blocks = [make_block(number, rows=3000) for number in range(6)]
    SoftLabelWriter(space).append(blocks)
    store, decoded = SoftLabelStore(space), []
    decode = cache.chunked.decode
    monkeypatch.setattr(
        cache.chunked,
        "decode",
        lambda array, path, rows=slice(None): decoded.append((path.name, rows)) or decode(array, path, rows),
    )
    for found, number in zip(store.read([key(5), key(0), key(1), key(5)]), (5, 0, 1, 5), strict=True):
        assert_same(found, blocks[number])
    assert [rows for name, rows in decoded if name == "token"] == [slice(0, 6000), slice(15000, 18000)]


def test_keys_are_given_in_pieces_of_bounded_memory(tmp_path):
    space = make_space(tmp_path)
    write(space, 0, 1, 2, 3)  # rows 1, 2, 3, 4, each 4 + 4 + 4·4 + 4·2 + 8 bytes
    store = SoftLabelStore(space)
    assert store.parts[0].row_bytes == 40
    keys = list(map(key, range(4)))
    assert list(store.within(keys, 120)) == [keys[:2], keys[2:3], keys[3:]]
    assert list(store.within(keys, 10**6)) == [keys]
    assert list(store.within([], 1)) == []


def test_a_store_travels_to_other_processes(tmp_path):
    space = make_space(tmp_path)
    (block,) = write(space, 3)
    assert_same(pickle.loads(pickle.dumps(SoftLabelStore(space)))[block.key], block)


def test_what_is_missing_is_named_with_what_helps(tmp_path):
    space = make_space(tmp_path)
    write(space, 1)
    with pytest.raises(MissingRecordsError, match=r"1 of 2 records are not stored, the first is 0+2; `molsaki soft"):
        SoftLabelStore(space).read([key(1), key(2)])
    with pytest.raises(ConfigError, match="a space of attention, not of soft-labels"):
        SoftLabelStore(attention.make_space(tmp_path))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"layout": "bottom"}, "layout is 'bottom', expected top, sampled, hidden"),
        ({"k": 0}, "k is 0, expected a number from 1 to 50"),
        ({"k": 51}, "k is 51"),
        ({"vocabulary_size": True}, "vocabulary_size is True"),
        ({"layout": "sampled"}, "draws is None, expected a number from 1 to 65,535"),
        ({"layout": "hidden", "hidden": "bfloat16"}, "hidden is 'bfloat16', expected float16 or float32"),
        ({"layout": "hidden", "hidden": "float32"}, "width is None"),
    ],
)
def test_a_spec_that_does_not_say_what_rows_are_is_refused(tmp_path, change, what):
    space = Space.open_or_create(tmp_path, "soft-labels", "teacher", {**SPECS["top"], **change})
    for opened in (SoftLabelWriter, SoftLabelStore, recorded_rows):
        with pytest.raises(ConfigError, match=what):
            opened(space)


def changed(field: str, change, layout="top"):
    block = make_block(4, layout)
    array = np.array(getattr(block, field))
    return replace(block, **{field: replaced if (replaced := change(array)) is not None else array})


def put(place, value):
    return lambda array: array.__setitem__(place, value)


REFUSED = {
    "shape of tokens": ("top", "tokens", lambda a: a[:, :3], r"tokens of shape \(5, 3\), expected \(5, 4\)"),
    "shape of norms": ("top", "log_norms", lambda a: a[:, :1], r"log_norms of shape \(5, 1\), expected \(5, 2\)"),
    "more ends": ("top", "ends", lambda a: np.append(a, 99), r"log_probability of shape \(5,\), expected \(6,\)"),
    "type of tokens": ("top", "tokens", lambda a: a.astype(np.float32), "tokens of type float32, stored as uint32"),
    "negative end": ("top", "ends", put(0, -1), "row 0 of ends: -1, below zero"),
    "falling ends": ("top", "ends", put(4, 0), "row 4 of ends: 0, before the row in front of it ends"),
    "positive": ("top", "log_probability", put(2, 0.1), "row 2 of log_probability: 0.1, above zero"),
    "first logit": ("top", "logits", lambda a: a - 1, "row 0 of logits: the first one is -1, expected 0"),
    "unsorted": ("top", "logits", put((3, 2), -0.001), "row 3 of logits: not from the largest to the smallest"),
    "token outside": ("top", "tokens", put((1, 3), V), "row 1 of tokens: 50 in a vocabulary of 50"),
    "token twice": ("top", "tokens", lambda a: a[:, [0, 1, 1, 2]], "row 0 of tokens: a token that is twice in a row"),
    "token below zero": ("top", "tokens", put((1, 3), -1), "tokens from -1 to [0-9]+ cannot be stored as uint32"),
    "norm below zero": ("top", "log_norms", put((2, 0), -0.5), "row 2 of log_norms: -0.5 at temperature 1"),
    "norm too small": ("top", "log_norms", put((2, 1), 0.2), "row 2 of log_norms: 0.2 at temperature 2"),
    "norm too large": ("top", "log_norms", put((0, 0), 4.0), "row 0 of log_norms: 4 at temperature 1"),
    "hidden given": ("top", "hidden", lambda a: np.zeros((5, C)), "hidden given or missing, against the layout top"),
    "counts missing": ("sampled", "counts", lambda a: None, ""),
    "too few draws": ("sampled", "counts", put((0, 0), 1), "row 0 of counts: "),
    "order of counts": ("sampled", "counts", lambda a: a[:, ::-1].copy(), "row 0 of tokens: a token that was never"),
    "count of nothing": ("sampled", "tokens", put((0, -1), 3), None),
    "width": ("hidden", "hidden", lambda a: a[:, :5], r"hidden of shape \(5, 5\), expected \(5, 6\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(tmp_path, name):
    layout, field, change, what = REFUSED[name]
    space = make_space(tmp_path, layout)
    if name == "counts missing":
        block, what = replace(make_block(4, layout), counts=None), "counts given or missing, against the layout sampled"
    else:
        block = changed(field, change, layout)
    if what is None:  # what stands behind the longest row is not stored at all
        SoftLabelWriter(space).append([block])
        assert_same(SoftLabelStore(space)[block.key], make_block(4, layout))
        return
    with pytest.raises(ValueError, match=f"{block.key}: {what}"):
        SoftLabelWriter(space).append([make_block(2, layout), block])
    assert space.commits() == [] and describe(space).uncommitted_parts == ()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("layout", "field"),
    [("top", "logits"), ("top", "log_norms"), ("sampled", "log_probability"), ("hidden", "hidden")],
)
def test_what_is_not_finite_is_refused(tmp_path, layout, field, value):
    block = changed(field, lambda array: array.__setitem__((-1,) * array.ndim, value), layout)
    with pytest.raises(ModelError, match=rf"{block.key}: {field}: a value that is not finite in float"):
        SoftLabelWriter(make_space(tmp_path, layout)).append([block])


def test_hidden_states_beyond_float16_are_refused_and_float32_holds_them(tmp_path):
    block = changed("hidden", put((0, 0), 1e5), "hidden")
    with pytest.raises(ModelError, match="hidden: a value that is not finite in float16"):
        SoftLabelWriter(make_space(tmp_path, "hidden")).append([block])
    space = make_space(tmp_path, "hidden", hidden="float32")
    SoftLabelWriter(space).append([block])
    np.testing.assert_array_equal(SoftLabelStore(space)[block.key].hidden, block.hidden)


def test_logits_beyond_float16_are_cut_off_at_its_lowest(tmp_path):
    space = make_space(tmp_path, "top", k=3)
    logits = np.array([[0, -1e9, -np.inf]], dtype=np.float32)
    block = replace(make_block(0, rows=1, k=3), logits=logits, log_norms=np.zeros((1, 2)))
    SoftLabelWriter(space).append([block])
    assert SoftLabelStore(space)[block.key].logits.tolist() == [[0, -65504, -65504]]


def test_what_rounding_does_at_zero_is_mended(tmp_path):
    space = make_space(tmp_path, "top", k=1, vocabulary_size=1)
    one = {"tokens": np.zeros((1, 1), int), "logits": np.zeros((1, 1)), "ends": np.zeros(1, int)}
    block = replace(make_block(0, rows=1), **one, log_probability=np.array([1e-6]), log_norms=np.full((1, 2), -1e-6))
    SoftLabelWriter(space).append([block])
    found = SoftLabelStore(space)[block.key]
    assert found.log_probability.tolist() == [0] and found.log_norms.tolist() == [[0, 0]]


def test_a_key_that_is_none_and_too_many_records_are_refused(tmp_path):
    writer = SoftLabelWriter(make_space(tmp_path))
    with pytest.raises(ValueError, match="'abc' is no key"):
        writer.append([replace(make_block(0), key="abc")])
    with pytest.raises(ValueError, match="4097 records for one part, 4096 at most"):
        writer.append([replace(make_block(0), key=key(number)) for number in range(4097)])


def test_long_rows_make_short_chunks(tmp_path):
    vocabulary = 100_000
    space = make_space(tmp_path, "top", k=vocabulary, vocabulary_size=vocabulary)
    logits = -np.arange(vocabulary, dtype=np.float32)[None] / 1e4
    norms = np.log([[np.exp(logits).sum(), np.exp(logits / 2).sum()]])
    block = replace(make_block(0, rows=1), tokens=np.arange(vocabulary)[None], logits=logits, log_norms=norms)
    SoftLabelWriter(space).append([block])
    metadata = json.loads((only_part(space) / "token" / "zarr.json").read_text())
    assert metadata["codecs"][0]["configuration"]["chunk_shape"] == [10, vocabulary]
    np.testing.assert_array_equal(SoftLabelStore(space)[block.key].tokens, block.tokens)


@EACH
@pytest.mark.parametrize("damage", ["truncated", "deleted", "flipped"])
def test_damaged_files_are_found_at_opening_or_reading(tmp_path, layout, damage):
    space = make_space(tmp_path, layout)
    blocks = write(space, 1, 2, layout=layout)
    for name in space.commits()[0].files:
        path = only_part(space) / name
        content = path.read_bytes()
        if damage == "deleted":
            path.unlink()
        else:
            middle = len(content) // 2
            flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            path.write_bytes(content[:-1] if damage == "truncated" else flipped)
        with pytest.raises(DamagedCacheError, match=name.partition("/")[0]):
            SoftLabelStore(space).read([block.key for block in blocks])
        path.write_bytes(content)
    SoftLabelStore(space).read([block.key for block in blocks])


def test_a_part_of_another_layout_or_size_is_damage(tmp_path):
    small = make_space(tmp_path / "a", "top", k=3)
    SoftLabelWriter(small).append([make_block(1, k=3)])
    for layout, what in (
        ("top", "3 rank, 4 by spec.json"),
        ("sampled", "does not count|not among"),
        ("hidden", "width"),
    ):
        space = make_space(tmp_path / layout, layout)
        (commit,) = small.commits()
        small.part_path(commit).rename(space.path / "parts" / commit.part)
        space.publish(commit)
        with pytest.raises(DamagedCacheError, match=what):
            SoftLabelStore(space)
        space.part_path(commit).rename(small.part_path(commit))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m["codecs"][0]["configuration"]["codecs"].append({"name": "numcodecs.pickle"}), "unknown codec"),
        (lambda m: m.update(zarr_format=2), "zarr format 2"),
        (lambda m: m.update(data_type="float64"), "data_type is float64, expected float16"),
    ],
)
def test_foreign_metadata_are_refused_before_anything_is_decoded(tmp_path, change, what):
    space = make_space(tmp_path)
    writer = SoftLabelWriter(space)
    arrays = writer.arrays_of([make_block(1)])
    part = space.new_part()
    cache.chunked.write_arrays(part, arrays, writer.layout)
    path = part / "logit" / "zarr.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))
    space.commit(part, counts={"records": 1, "rows": 2, "k": K})
    with pytest.raises(DamagedCacheError, match=what):
        SoftLabelStore(space)


def test_every_spec_here_is_one_that_writers_take(tmp_path):
    for layout in SPECS:
        assert SoftLabelWriter(make_space(tmp_path, layout)).rows.layout == layout
