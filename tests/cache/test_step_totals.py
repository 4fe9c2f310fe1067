"""What steps look at in all: stored beside attention or not, read, judged, repaired, handed on."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from cache.chunked import write_arrays
from cache.exchange.exporting import export_space
from cache.exchange.importing import import_space
from cache.keys import record_key
from cache.layout import ARRAYS, LAYOUTS, MAY_HOLD, counts_of
from cache.reader import AttentionStore, recorded_keys
from cache.repair import repair
from cache.spaces import Space
from cache.step_totals import RECEIVERS, step_totals
from cache.verify import verify
from cache.writer import AttentionBlock, AttentionWriter, arrays_of
from data.errors import DamagedCacheError, MissingRecordsError, ModelError
from data.records import Marked
from tests.cache.test_verify import commit_arrays, flip, only, part, sound_block
from tests.cache.truth import SPEC, make_space

NAME = "step_attention"


def told_block(number: int, *, layers: int = 2, length: int = 1) -> AttentionBlock:
    """A record as a teacher would give it, with what its steps look at in all; no two words share a token."""
    block = sound_block(number, layers=layers, length=length)
    critical = block.attention.sum(axis=2)
    left = np.maximum(block.step_tokens - critical, 0)
    receivers = np.stack([np.zeros_like(left), 0.5 * left, 0.25 * left], axis=-1).astype(np.float32)
    return dataclasses.replace(block, receivers=receivers)


def write(space: Space, *numbers: int, **options: int) -> list[AttentionBlock]:
    blocks = [told_block(number, **options) for number in numbers]
    AttentionWriter(space).append(blocks)
    return blocks


def write_untold(space: Space, *numbers: int) -> list[AttentionBlock]:
    """Blocks of a part as the first versions wrote them."""
    blocks = [sound_block(number) for number in numbers]
    AttentionWriter(space).append(blocks)
    return blocks


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return make_space(tmp_path / "store")


def assert_tells(store: AttentionStore, blocks: list[AttentionBlock]) -> None:
    for block, found in zip(blocks, store.read_totals([block.key for block in blocks]), strict=True):
        assert (found is None) == (block.receivers is None)
        if found is not None and block.receivers is not None:
            np.testing.assert_array_equal(found.receivers(), block.receivers.astype(np.float16))
            np.testing.assert_array_equal(found.tokens, block.step_tokens)
            single = store[block.key].sum(axis=2, dtype=np.float64)
            np.testing.assert_array_equal(found.critical, np.maximum(single - found.overlap, 0))
            one = store.step_totals(block.key)
            np.testing.assert_array_equal(one.receivers(), found.receivers())


def test_totals_by_hand():
    # One layer, two steps, two words; a quarter of the first step's attention to them went to a token of both.
    attention = np.array([[[0.75, 0.5], [0.25, 0.0]]], dtype=np.float16)
    stored = np.array([[[0.25, 2.0, 0.5], [0.0, 0.0, 0.0]]], dtype=np.float16)
    totals = step_totals(attention, stored, np.array([5, 1]))
    assert totals.critical.tolist() == [[1.0, 0.25]]
    assert totals.overlap.tolist() == [[0.25, 0.0]]
    assert totals.special.tolist() == [[2.0, 0.0]]
    assert totals.sinks.tolist() == [[0.5, 0.0]]
    assert totals.other.tolist() == [[1.5, 0.75]]
    assert totals.receivers().tolist() == stored.tolist()


def test_what_rounding_leaves_below_nothing_is_nothing():
    attention, stored = np.array([[[2.0]]], dtype=np.float16), np.array([[[0.0, 1.001, 0.0]]], dtype=np.float16)
    assert step_totals(attention, stored, np.array([3])).other.tolist() == [[0.0]]
    shared = np.array([[[3.0, 0.0, 0.0]]], dtype=np.float16)
    assert step_totals(attention, shared, np.array([3])).critical.tolist() == [[0.0]]


def test_totals_lie_on_disk_as_the_format_says(space):
    (block,) = write(space, 1)
    group = zarr.open_group(part(space), mode="r", zarr_format=3)
    assert sorted(group.array_keys()) == sorted(LAYOUTS)
    array = group[NAME]
    steps = len(block.marked.step_spans)
    assert (array.shape, array.dtype, array.metadata.dimension_names) == (
        (steps, 3, 2), np.float16, ("step", "receiver", "layer"),
    )  # fmt: skip
    assert np.isnan(array.fill_value)
    assert RECEIVERS == ("overlap", "special", "sinks")
    np.testing.assert_array_equal(array[:], np.moveaxis(block.receivers, 0, -1).astype(np.float16))
    assert len(space.commits()[0].files) == 2 * len(LAYOUTS) + 1
    assert space.commits()[0].counts.keys() == {"records", "cells", "layers", "steps", "words", "text_bytes"}


def test_totals_of_several_parts_come_back_in_the_order_asked_for(space):
    blocks = [*write(space, 1, 2, 3), *write(space, 4), *write(space, 5, 6, length=9)]
    assert_tells(AttentionStore(space), blocks)
    assert_tells(AttentionStore(space), [blocks[i] for i in (4, 0, 5, 0, 2, 3)])
    assert AttentionStore(space).read_totals([]) == []


def test_totals_are_not_rounded_with_the_attention(tmp_path):
    space = Space.open_or_create(tmp_path, "attention", "rounded", {**SPEC, "rounding": {"bitround": 2}})
    blocks = write(space, 1, 2)
    store = AttentionStore(space)
    assert_tells(store, blocks)
    assert (store[blocks[0].key] != blocks[0].attention.astype(np.float16)).any()
    assert verify(space.path, deep=True).findings == ()


def test_parts_with_and_without_totals_lie_side_by_side(space):
    old, new = write_untold(space, 1, 2), write(space, 3)
    store = AttentionStore(space)
    assert [part.has_totals for part in store.parts] == [False, True]
    assert_tells(store, [*old, *new])
    assert len(space.commits()[0].files) == 2 * len(ARRAYS) + 1
    for deep in (False, True):
        assert verify(space.path, deep=deep).findings == ()
    with pytest.raises(MissingRecordsError, match=rf"{old[0].key} is stored without.*`molsaki attention CONFIG --tot"):
        store.step_totals(old[0].key)
    assert recorded_keys(space) == {block.key for block in [*old, *new]}
    assert recorded_keys(space, with_totals=True) == {new[0].key}
    assert store.to_pandas().columns.tolist() == ["key", "question", "rationale", "steps", "words", "part"]


def test_a_later_part_may_tell_of_a_record_that_an_earlier_one_holds(space):
    write_untold(space, 1, 2)
    (told,) = write(space, 2)
    store = AttentionStore(space)
    assert len(store) == 2
    assert store.to_pandas().part.nunique() == 1  # attention is that of the first part, as always
    assert_tells(store, [sound_block(1), told])
    assert recorded_keys(space, with_totals=True) == {told.key}


def test_blocks_of_a_part_have_all_their_totals_or_none(space):
    with pytest.raises(ValueError, match=r"receivers of shape None, expected \(L, S, 3\) in all blocks of a part"):
        AttentionWriter(space).append([told_block(1), sound_block(2)])
    with pytest.raises(ValueError, match=r"receivers of shape \(2, \d, 3\), expected"):
        AttentionWriter(space).append([sound_block(1), told_block(2)])
    block = told_block(1)
    with pytest.raises(ValueError, match=r"receivers of shape \(1, \d, 3\)"):
        AttentionWriter(space).append([dataclasses.replace(block, receivers=block.receivers[:1])])
    assert space.commits() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 70000.0])
def test_totals_that_float16_cannot_hold_are_refused(space, value):
    block = told_block(1)
    block.receivers[0, 0, 1] = value
    with pytest.raises(ModelError, match="cannot be stored, float16 ends at 65504"):
        AttentionWriter(space).append([block])


@pytest.mark.parametrize("name", [f"{NAME}/zarr.json", f"{NAME}/c/0/0/0"])
def test_damaged_totals_are_found_at_opening(space, name):
    write(space, 1)
    path = part(space) / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedCacheError, match=rf"{name}: \d+ bytes, \d+ were committed"):
        AttentionStore(space)
    path.unlink()
    with pytest.raises(DamagedCacheError, match=f"{name}: missing"):
        AttentionStore(space)


def test_totals_that_go_away_after_opening_are_found_at_reading(space):
    blocks = write(space, 1)
    store = AttentionStore(space)
    (part(space) / NAME / "c/0/0/0").unlink()
    with pytest.raises(DamagedCacheError, match=f"{NAME}/c/0/0/0: missing"):
        store.step_totals(blocks[0].key)


def test_metadata_of_another_shape_are_refused(space):
    arrays = arrays_of([told_block(1)])
    folder = space.new_part()
    write_arrays(folder, {**arrays, NAME: arrays[NAME][:, :2]})
    space.commit(folder, counts=counts_of(arrays))
    with pytest.raises(DamagedCacheError, match=rf"{NAME}/zarr\.json: shape is"):
        AttentionStore(space)


def changed(change, numbers=(1, 2, 3)) -> dict[str, np.ndarray]:
    arrays = arrays_of([told_block(number) for number in numbers])
    arrays[NAME] = arrays[NAME].copy()
    change(arrays[NAME])
    return arrays


IMPOSSIBLE = {
    "negative": (lambda a: a.__setitem__((0, 2, 0), -0.5), "-0.5, below zero"),
    "not a number": (lambda a: a.__setitem__((0, 0, 0), np.nan), "not finite"),
    "infinite": (lambda a: a.__setitem__((0, 2, 1), np.inf), "not finite"),
    "more than all": (lambda a: a.__setitem__((0, 1, 0), 9), "in all and has 6 tokens"),
    "words that cannot share a token": (lambda a: a.__setitem__((0, 0, 0), 0.01), "to several words at once"),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_totals_that_cannot_be_are_found_by_a_deep_look_and_repair_drops_that_record_alone(space, kind):
    change, what = IMPOSSIBLE[kind]
    commit_arrays(space, changed(change))
    assert verify(space.path).findings == ()
    finding = only(verify(space.path, deep=True))
    assert what in finding.what
    assert (finding.file.rpartition("/")[2], finding.records, finding.keys) == (NAME, 1, (told_block(1).key,))
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (2, 1)
    assert verify(space.path, deep=True).findings == ()
    assert_tells(AttentionStore(space), [told_block(2), told_block(3)])


def test_words_share_at_most_what_all_but_one_of_them_receive(space):
    text = "1,2 figs.\nSo 1."
    marked = Marked(
        question="1,2 figs.", rationale="So 1.", text=text, step_spans=((0, 9), (10, 15)),
        critical_spans=((0, 1), (2, 3)),
    )  # fmt: skip
    single = np.array([[[1.0, 0.5], [0.0, 0.0]]], dtype=np.float32)
    base = dataclasses.replace(
        sound_block(1), key=record_key(marked), marked=marked, attention=single, step_tokens=np.array([4, 2])
    )
    for overlap, is_sound in ((0.0, True), (0.25, True), (0.5, True), (0.51, False), (1.0, False)):
        receivers = np.array([[[overlap, 0.0, 0.0], [0.0, 1.0, 0.0]]], dtype=np.float32)
        AttentionWriter(space).append([dataclasses.replace(base, receivers=receivers)])
        assert (verify(space.path, deep=True).findings == ()) is is_sound, overlap
        shutil.rmtree(space.path)
        space = Space.open_or_create(space.path.parent.parent, "attention", "teacher", SPEC)


@pytest.mark.parametrize("keep_bits", [1, 3, 7, 10])
def test_rounded_attention_is_no_contradiction(tmp_path, keep_bits):
    rounding = {"rounding": {"bitround": keep_bits}}
    space = Space.open_or_create(tmp_path, "attention", "rounded", {**SPEC, **rounding})
    blocks = [told_block(number, length=20) for number in range(20)]
    small = []
    for number, block in enumerate(blocks):  # down to where float16 has steps of one size only
        factor = np.float32(10.0 ** -(number % 7))
        attention = block.attention * factor
        receivers = block.receivers.copy()
        receivers[..., 2] = block.step_tokens - attention.sum(axis=2) - receivers[..., 1]  # all that there is
        small.append(dataclasses.replace(block, attention=attention, receivers=np.maximum(receivers, 0)))
    AttentionWriter(space).append(small)
    assert verify(space.path, deep=True).findings == ()


def test_repair_of_other_damage_keeps_totals(space):
    blocks = write(space, 1, 2, 3)
    flip(part(space) / "key" / "c" / "0" / "0")
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (3, 0)
    assert_tells(AttentionStore(space), blocks)


def test_metadata_of_totals_follow_from_the_counts(space):
    blocks = write(space, 1, 2)
    (part(space) / NAME / "zarr.json").unlink()
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (2, 0)
    assert_tells(AttentionStore(space), blocks)


@pytest.mark.parametrize("damage", [Path.unlink, flip])
def test_records_whose_totals_are_lost_are_computed_again(space, damage):
    write(space, 1, 2)
    damage(part(space) / NAME / "c/0/0/0")
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (0, 2)
    assert recorded_keys(space) == set()


def test_a_part_that_no_commit_names_is_taken_for_what_it_holds(space):
    blocks = write(space, 1, 2)
    old = write_untold(space, 3)
    shutil.rmtree(space.path / "commits")
    repair(space.path)
    assert_tells(AttentionStore(space), [*blocks, *old])


def test_a_whole_space_travels_with_its_totals(space, tmp_path):
    blocks = [*write_untold(space, 1), *write(space, 2, 3)]
    for target in ("folder", "space.tar"):
        export_space(space, str(tmp_path / target))
        import_space(str(tmp_path / target), tmp_path / f"other {target}")
        (found,) = (tmp_path / f"other {target}" / "attention").iterdir()
        assert_tells(AttentionStore.open(found), blocks)


def test_chosen_records_travel_with_their_totals(space, tmp_path):
    blocks = [*write(space, 1), *write_untold(space, 2), *write(space, 3, 4)]
    chosen = [blocks[number] for number in (3, 1, 0)]
    export_space(space, str(tmp_path / "some"), keys=[block.key for block in chosen])
    store = AttentionStore.open(tmp_path / "some")
    assert set(store) == {block.key for block in chosen}
    assert_tells(store, chosen)
    assert verify(tmp_path / "some", deep=True).findings == ()


def test_stores_with_and_without_totals_merge(space, tmp_path):
    blocks = [*write(space, 1, 2), *write_untold(space, 3)]
    other = make_space(tmp_path / "other")
    write_untold(other, 4)
    assert import_space(str(space.path), tmp_path / "other").records == 3
    assert_tells(AttentionStore(other), [*blocks, sound_block(4)])


def test_an_import_takes_all_files_of_the_totals_or_none(space, tmp_path):
    arrays = arrays_of([told_block(1)])
    folder = space.new_part()
    write_arrays(folder, arrays)
    (folder / NAME / "c/0/0/0").unlink()
    space.commit(folder, counts=counts_of(arrays))
    with pytest.raises(DamagedCacheError, match=f"'{NAME}/c/0/0/0' is no file of a part of attention, or is missing"):
        import_space(str(space.path), tmp_path / "other")
    assert list(MAY_HOLD) == [NAME]
