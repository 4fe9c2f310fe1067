"""Every kind of damage to soft labels is found and named, and repairing keeps exactly what is sound."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cache.chunked
from cache.gc import leftovers, remove
from cache.layout import counts_of
from cache.repair import repair
from cache.soft_labels.layout import LAYOUTS
from cache.soft_labels.reader import SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Space
from cache.verify import Finding, verify
from data.errors import MissingRecordsError
from tests.cache.soft_labels.truth import K, V, assert_same, key, make_block, make_head, make_space

EACH = pytest.mark.parametrize("layout", LAYOUTS)


def write(space: Space, *numbers: int, layout="top", **options) -> list:
    blocks = [make_block(number, layout, **options) for number in numbers]
    SoftLabelWriter(space).append(blocks)
    return blocks


def part(space: Space, index: int = 0) -> Path:
    return space.part_path(space.commits()[index])


def commit_changed(space: Space, name: str, change, layout="top", numbers=(1, 2, 3), **counts) -> None:
    """Commit a part as a writer would that checks nothing; one of its arrays was changed before it was written."""
    writer = SoftLabelWriter(space)
    arrays = writer.arrays_of([make_block(number, layout) for number in numbers])
    array = arrays[name].copy()
    arrays[name] = replaced if (replaced := change(array)) is not None else array
    folder = space.new_part()
    cache.chunked.write_arrays(folder, arrays, writer.layout)
    space.commit(folder, counts={**counts_of(arrays, writer.layout), **counts})


def flip(path: Path, byte: int = -40) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def only(space: Space, *, deep: bool = False) -> Finding:
    (finding,) = verify(space.path, deep=deep).findings
    return finding


def assert_holds(space: Space, numbers, layout="top") -> None:
    store = SoftLabelStore(space)
    assert set(store) == set(map(key, numbers))
    for number, found in zip(numbers, store.read(list(map(key, numbers))), strict=True):
        assert_same(found, make_block(number, layout))


@EACH
@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_space_has_no_findings(tmp_path, layout, deep):
    space = make_space(tmp_path, layout)
    write(space, 1, 2, 3, layout=layout)
    write(space, 4, layout=layout)
    space.commit(None, counts={"records": 0}, dropped={"a" * 64: "too long"})
    if layout == "hidden":
        SoftLabelWriter(space).append_head(make_head(), make_head()[:, 0])
    found = verify(space.path, deep=deep)
    assert found.findings == ()
    assert (found.commits, found.records, found.kind) == (3 + (layout == "hidden"), 4, "soft-labels")


@EACH
@pytest.mark.parametrize(
    ("damage", "what"),
    [(truncate, "bytes, "), (zero, "SHA-256 "), (flip, "SHA-256 "), (Path.unlink, "missing, ")],
)
def test_every_file_that_is_not_what_was_committed_is_named(tmp_path, layout, damage, what):
    space = make_space(tmp_path, layout)
    write(space, 1, 2, layout=layout)
    if layout == "hidden":
        SoftLabelWriter(space).append_head(make_head(), make_head()[:, 0])
    for commit in space.commits():
        for name in commit.files:
            path = space.part_path(commit) / name
            content = path.read_bytes()
            damage(path)
            for deep in (False, True):
                found = verify(space.path, deep=deep).findings
                assert found[0].file == f"parts/{commit.part}/{name}" and what in found[0].what
                assert found[0].records == commit.counts["records"]
            path.write_bytes(content)
    assert verify(space.path, deep=True).findings == ()


def put(place, value):
    return lambda array: array.__setitem__(place, value)


# Records 1, 2 and 3 have 2, 3 and 4 rows: row 0 is of the first one.
IMPOSSIBLE = {
    "end below zero": ("top", "end", put(0, -1), "-1, below zero"),
    "end before": ("top", "end", put(0, 99), "before the row in front"),
    "probability": ("top", "log_probability", put(0, 0.5), "0.5, above zero"),
    "no probability": ("top", "log_probability", put(1, np.nan), "nan, not finite"),
    "first logit": ("top", "logit", put((0, 0), -0.25), "the first one is -0.25, expected 0"),
    "order": ("top", "logit", put((1, 3), 0), "not from the largest to the smallest"),
    "no logit": ("top", "logit", put((1, 3), -np.inf), "a value that is not finite"),
    "token outside": ("top", "token", put((0, 2), V), f"50 in a vocabulary of {V}"),
    "token twice": ("top", "token", lambda a: a.__setitem__((0, 2), a[0, 1]), "a token that is twice in a row"),
    "norm below": ("top", "log_norm", put((0, 0), -0.1), "-0.1 at temperature 1"),
    "norm above": ("top", "log_norm", put((1, 1), np.log(V) + 0.1), "at temperature 2, while"),
    "no norm": ("top", "log_norm", put((1, 1), np.nan), "nan at temperature 2, not finite"),
    "sum of counts": (
        "sampled",
        "count",
        lambda a: a.__setitem__((0, 0), a[0, 0] + 1),
        "21 draws in a row",
    ),
    "order of counts": ("sampled", "count", lambda a: a.__setitem__(0, a[0, ::-1].copy()), "by how often"),
    "drawn twice": ("sampled", "token", lambda a: a.__setitem__((0, 1), a[0, 0]), "a token that is twice in a row"),
    "drawn outside": ("sampled", "token", put((1, 0), 1 << 31), f"2147483648 in a vocabulary of {V}"),
    "hidden": ("hidden", "hidden", put((1, 2), np.inf), "a value that is not finite"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_record_that_cannot_be_is_found_by_a_deep_look_and_repair_drops_it_alone(tmp_path, name):
    layout, array, change, what = IMPOSSIBLE[name]
    space = make_space(tmp_path, layout)
    commit_changed(space, array, change, layout)
    assert verify(space.path).findings == ()
    found = verify(space.path, deep=True).findings
    assert all(finding.keys == (key(1),) and finding.records == 1 for finding in found)
    assert any(what in finding.what and finding.file.endswith(f"/{array}") for finding in found)
    (done,) = repair(space.path)
    assert (done.file, done.kept, done.recompute) == ("commits/00000000.json", 2, 1)
    assert verify(space.path, deep=True).findings == ()
    assert_holds(space, (2, 3), layout)


OFFSETS = {
    "first": (put(0, 1), "from 1 to 9, expected 0 to 9"),
    "last": (put(3, 8), "from 0 to 8, expected 0 to 9"),
    "empty": (put(1, 5), "a record without rows"),
}


@pytest.mark.parametrize("name", OFFSETS)
def test_offsets_that_are_none_cost_the_part(tmp_path, name):
    change, what = OFFSETS[name]
    space = make_space(tmp_path)
    commit_changed(space, "row_offset", change)
    assert what in only(space, deep=True).what
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (0, 3)


def test_counts_that_are_not_those_of_the_arrays_are_found_and_cost_no_record(tmp_path):
    space = make_space(tmp_path)
    commit_changed(space, "end", lambda a: a, records=2)
    assert only(space).what == "the arrays hold 3 records, 2 were committed"
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (3, 0)
    assert_holds(space, (1, 2, 3))


def test_rows_of_another_k_than_the_spec_says_are_found_and_dropped(tmp_path):
    other = make_space(tmp_path / "other", "top", k=3)
    write(other, 1, k=3)
    space = make_space(tmp_path)
    write(space, 2)
    shutil.copytree(part(other), space.path / "parts" / "00000007-0123456789ab")
    space.commit(space.path / "parts" / "00000007-0123456789ab", counts={"records": 1, "rows": 2, "k": 3})
    found = verify(space.path).findings
    assert any("3 rank, 4 by spec.json" in finding.what for finding in found)
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (0, 1)
    assert_holds(space, (2,))


def test_a_damaged_chunk_costs_the_records_in_it_and_no_others(tmp_path):
    space = make_space(tmp_path)
    write(space, *range(8), rows=1500)
    path = part(space) / "logit" / "c" / "0" / "0"
    flip(path, path.stat().st_size // 2)
    concerned = verify(space.path, deep=True).findings[-1].keys
    assert 0 < len(concerned) < 8
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (8 - len(concerned), len(concerned))
    store = SoftLabelStore(space)
    for number in range(8):
        if key(number) not in concerned:
            assert_same(store[key(number)], make_block(number, rows=1500))
    assert len(store) == done.kept


@EACH
@pytest.mark.parametrize("damage", [Path.unlink, zero, truncate, lambda path: path.write_bytes(b"")])
def test_metadata_follow_from_the_counts_and_cost_no_record(tmp_path, layout, damage):
    space = make_space(tmp_path, layout)
    write(space, 1, 2, layout=layout)
    if layout == "hidden":
        SoftLabelWriter(space).append_head(make_head(), make_head()[:, 0])
    for path in (space.path / "parts").rglob("zarr.json"):
        damage(path)
    done = repair(space.path)
    assert sum(each.kept for each in done) == 2
    assert verify(space.path, deep=True).findings == ()
    assert_holds(space, (1, 2), layout)
    if layout == "hidden":
        head = SoftLabelStore(space).head()
        np.testing.assert_array_equal(head.weight, make_head().astype(np.float16))
        np.testing.assert_array_equal(head.bias, make_head()[:, 0].astype(np.float16))


@pytest.mark.parametrize("name", ["head", "head_bias"])
def test_a_head_is_whole_or_asked_for_again(tmp_path, name):
    space = make_space(tmp_path, "hidden")
    writer = SoftLabelWriter(space)
    writer.append_head(make_head(), make_head()[:, 0])
    write(space, 1, layout="hidden")
    (path,) = (path for path in (part(space) / name / "c").rglob("*") if path.is_file())
    flip(path)
    assert len(verify(space.path).findings) == 1
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (0, 0)
    assert_holds(space, (1,), "hidden")
    with pytest.raises(MissingRecordsError):
        SoftLabelStore(space).head()
    assert writer.append_head(make_head()) is not None
    assert SoftLabelStore(space).head().bias is None


@EACH
@pytest.mark.parametrize("change", [lambda path: flip(path, 30), lambda path: os.truncate(path, 99), zero])
def test_a_commit_that_proves_nothing_costs_no_record(tmp_path, layout, change):
    space = make_space(tmp_path, layout)
    write(space, 1, 2, layout=layout)
    if layout == "hidden":
        SoftLabelWriter(space).append_head(make_head())
    for path in list((space.path / "commits").iterdir()):
        change(path)
    repair(space.path)
    assert verify(space.path, deep=True).findings == ()
    assert_holds(space, (1, 2), layout)
    if layout == "hidden":
        np.testing.assert_array_equal(SoftLabelStore(space).head().weight, make_head().astype(np.float16))


@EACH
def test_a_damaged_spec_costs_nothing_but_itself(tmp_path, layout):
    options = {"hidden": "float32"} if layout == "hidden" else {}
    space = make_space(tmp_path, layout, **options)
    write(space, 1, 2, layout=layout)
    if layout == "hidden":
        SoftLabelWriter(space).append_head(make_head())
    flip(space.path / "spec.json", 150)
    assert [finding.file for finding in verify(space.path, deep=True).findings] == ["spec.json"]
    assert [done.file for done in repair(space.path)] == ["spec.json"]
    space = make_space(tmp_path, layout, **options)
    assert verify(space.path, deep=True).findings == ()
    assert set(SoftLabelStore(space)) == {key(1), key(2)}


def test_keys_that_do_not_decode_cost_the_part(tmp_path):
    space = make_space(tmp_path)
    write(space, 1, 2)
    write(space, 3)
    flip(part(space) / "key" / "c" / "0" / "0")
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (0, 2)
    assert_holds(space, (3,))


def test_records_dropped_on_purpose_outlive_repair_and_the_old_part_goes_in_the_end(tmp_path):
    space = make_space(tmp_path)
    SoftLabelWriter(space).append([make_block(1), make_block(2)], {"f" * 64: "too long"})
    old = part(space)
    flip(old / "key" / "zarr.json")
    repair(space.path)
    assert SoftLabelStore(space).dropped == {"f" * 64: "too long"}
    assert_holds(space, (1, 2))
    assert old.exists()
    assert list(remove(space, leftovers(space, older_than=0))) and not old.exists()
    assert_holds(space, (1, 2))


@EACH
def test_every_sampled_bit_is_found_and_no_wrong_record_outlives_repair(tmp_path, layout):
    space = make_space(tmp_path, layout)
    write(space, *range(4), layout=layout)
    if layout == "hidden":
        SoftLabelWriter(space).append_head(make_head())
    sound = {path: path.read_bytes() for path in space.path.rglob("*") if path.is_file()}
    random, files = np.random.default_rng(0), sorted(sound)
    for _ in range(15):
        path = files[random.integers(len(files))]
        damaged = bytearray(sound[path])
        bit = int(random.integers(8 * len(damaged)))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert verify(space.path, deep=True).findings, f"bit {bit} of {path}"
        repair(space.path)
        if (space.path / "spec.json").exists():
            assert verify(space.path, deep=True).findings == ()
            for own, found in SoftLabelStore(space).items():
                assert_same(found, make_block(int(own, 16), layout))
        shutil.rmtree(space.path)
        for name, content in sound.items():
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_bytes(content)


def test_a_hostile_codec_is_named_and_nothing_of_it_decoded(tmp_path):
    space = make_space(tmp_path)
    writer = SoftLabelWriter(space)
    arrays = writer.arrays_of([make_block(1)])
    folder = space.new_part()
    cache.chunked.write_arrays(folder, arrays, writer.layout)
    path = folder / "token" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["codecs"] = [{"name": "numcodecs.pickle"}]
    path.write_text(json.dumps(metadata))
    space.commit(folder, counts={"records": 1, "rows": 2, "k": K})
    assert "unknown codec numcodecs.pickle" in only(space).what
    assert "unknown codec numcodecs.pickle" in only(space, deep=True).what


def test_what_rounding_to_float16_does_is_within_the_bounds(tmp_path):
    """Logits far below the first are stored with an error that their exponential hardly sees."""
    space = make_space(tmp_path, "top", k=V)
    blocks = []
    for number, scale in enumerate((0.01, 1, 30, 3000)):
        logits = scale * np.random.default_rng(number).standard_normal((40, V))
        logits -= logits.max(axis=1, keepdims=True)
        tokens = np.argsort(-logits, axis=1)
        norms = np.stack([np.log(np.exp(logits / t).sum(axis=1)) for t in (1, 2)], axis=1)
        block = make_block(number, rows=40)
        ordered = np.take_along_axis(logits, tokens, axis=1)
        blocks.append(replace(block, tokens=tokens, logits=ordered, log_norms=norms))
    SoftLabelWriter(space).append(blocks)
    assert verify(space.path, deep=True).findings == ()
