"""What a store survives; `make faults` does the same with 200 kills and 1,000 flipped bits."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import cache.parts.reader
from benchmarks.faults.damage import DAMAGES, damage_files, flip_bits, make_sample
from benchmarks.faults.full_disk import fill_disk
from benchmarks.faults.full_disk_command import fill_disk_by_command
from benchmarks.faults.kills import Kills, kill_round, kill_writers
from benchmarks.faults.records import KINDS, Difference, compare
from benchmarks.faults.side_by_side import change_clocks, read_beside_writers, stop_writers, write_the_same
from cache.chunked import decode
from cache.reader import AttentionStore
from cache.spaces import describe
from data.errors import DamagedCacheError

EACH = pytest.mark.parametrize("kind", sorted(KINDS))
OF_ARRAYS = pytest.mark.parametrize("kind", ["attention", "soft-labels"])


@OF_ARRAYS
def test_killed_writers_lose_nothing_that_was_committed(tmp_path, kind):
    kills = kill_writers(kind, tmp_path / "links", 8, seed=1)
    assert kills.kills == 8 and kills.acknowledged > 10 and kills.inside_an_append > 0, kills
    assert (kills.lost, kills.wrong, kills.missing_after_finishing) == (0, 0, 0)


def test_killed_writers_lose_nothing_where_there_are_no_hard_links(tmp_path):
    total = Kills()
    kill_round("rationales", tmp_path, 5, 2, total, lambda: None, hard_links=False)
    assert total.kills == 5 and total.acknowledged > 10, total
    assert (total.lost, total.wrong, total.missing_after_finishing) == (0, 0, 0)


@EACH
def test_a_flipped_bit_anywhere_is_detected_or_harmless(tmp_path, kind):
    damage = flip_bits(make_sample(kind, tmp_path, parts=2), 60, seed=3)
    assert damage.problems == []
    assert damage.outcomes["detected"] > 50


@EACH
def test_damage_to_any_file_is_detected_and_only_a_commit_that_is_gone_hides_its_part(tmp_path, kind):
    sample = make_sample(kind, tmp_path, parts=1)
    damage = damage_files(sample, sample.files)
    assert damage.problems == []
    commits = len(list((sample.space.path / "commits").iterdir()))
    assert damage.outcomes["hidden"] == 2 * commits  # deleted, and emptied
    assert damage.outcomes["detected"] >= len(DAMAGES) * len(sample.files) - 4 * commits - 1


@EACH
def test_a_full_disk_is_an_error_that_names_it_and_nothing_is_lost(tmp_path, kind):
    full = fill_disk(kind, tmp_path, pages=5)
    if full.skipped:
        pytest.skip(full.skipped)
    assert full.problems == []
    assert full.refused >= 3 and full.commits_before > 3
    assert (full.lost, full.wrong) == (0, 0)


@pytest.mark.slow
def test_the_command_line_says_which_disk_is_full_and_goes_on_after_space_was_made(tmp_path):
    full = fill_disk_by_command(tmp_path)
    if full.skipped:
        pytest.skip(full.skipped)
    assert full.problems == []
    assert full.refused == 2
    assert (full.lost, full.wrong) == (0, 0)


@OF_ARRAYS
def test_a_reader_beside_writers_sees_whole_records_and_what_it_opened_stays(tmp_path, kind):
    check = read_beside_writers(kind, tmp_path / "store", appends=4, seed=4)
    assert check.problems == []
    assert check.tries >= 3


@OF_ARRAYS
def test_the_same_records_by_two_writers_at_once_are_served_once(tmp_path, kind):
    assert write_the_same(kind, tmp_path / "store", appends=4, seed=5).problems == []


@OF_ARRAYS
def test_a_writer_that_is_asked_to_stop_finishes_its_part(tmp_path, kind):
    check = stop_writers(kind, tmp_path / "store", stops=2, seed=6)
    assert check.problems == []


@EACH
def test_clocks_and_host_names_have_no_influence(tmp_path, kind):
    assert change_clocks(kind, tmp_path, seed=7).problems == []


@EACH
def test_the_comparison_with_the_truth_finds_what_is_missing_and_what_is_wrong(tmp_path, kind):
    records = KINDS[kind]
    space = records.open(tmp_path)
    records.append(space, [1, 2, 3])
    found, truth = records.read(space), records.truth([1, 2, 3, 4])
    assert compare(found, records.truth([1, 2, 3]), truth) == Difference(missing=0, wrong=0)
    assert compare(found, truth, truth) == Difference(missing=1, wrong=0)
    name = next(iter(found))
    assert compare({**found, name: records.truth([4])}, truth, truth) == Difference(missing=1, wrong=1)
    assert compare({**found, "unknown": None}, truth, truth).wrong == 1


def test_unprotected_attention_would_be_found_wrong(tmp_path, monkeypatch):
    """The harness sees a wrong record when nothing protects it: as if decoding forgot to look at checksums."""
    sample = make_sample("attention", tmp_path, parts=1)
    decode = AttentionStore.read

    def disturbed(self, keys):
        blocks = decode(self, keys)
        blocks[0] = np.nextafter(blocks[0], np.float16(9))
        return blocks

    monkeypatch.setattr(AttentionStore, "read", disturbed)
    assert sample.outcome() == ("wrong", "1 records")


def test_a_shard_that_goes_away_between_the_check_and_reading_is_no_fill_value(tmp_path, monkeypatch):
    sample = make_sample("attention", tmp_path, parts=1)
    monkeypatch.setattr(cache.parts.reader, "check_files", lambda *_, **__: None)
    for name in ("attention", "steps"):
        store = AttentionStore(sample.space)
        (shard,) = (path for path in (store.parts[0].folder / name).rglob("*") if path.name == "0" and path.is_file())
        content = shard.read_bytes()
        shard.unlink()
        with pytest.raises(DamagedCacheError, match=f"{name}: does not decode .*No such file"):
            store.read(list(store))
        shard.write_bytes(content)


def test_an_array_whose_folder_is_a_file_or_gone_is_damage(tmp_path):
    sample = make_sample("attention", tmp_path, parts=1)
    folder = AttentionStore(sample.space).parts[0].folder / "attention"
    store = AttentionStore(sample.space)
    shutil.rmtree(folder)
    for _ in ("gone", "a file"):
        with pytest.raises(DamagedCacheError, match=r"attention/.*: missing"):
            AttentionStore(sample.space)
        with pytest.raises(DamagedCacheError, match=r"attention/.*: missing"):
            store.read(list(store))
        folder.write_text("in the way")


def test_what_lies_in_claimed_commits_is_the_next_runs_work(tmp_path):
    sample = make_sample("attention", tmp_path, parts=2)
    records = KINDS["attention"]
    (sample.space.path / "commits" / "00000000.json").write_bytes(b"")
    assert sample.outcome()[0] == "hidden"
    assert len(describe(sample.space).uncommitted_parts) == 1
    records.append(sample.space, [0, 1, 2, 3])
    assert sample.outcome() == ("harmless", "")


def test_a_disk_that_does_not_give_a_file_is_damage_and_what_the_user_may_not_read_is_not(tmp_path, monkeypatch):
    sample = make_sample("attention", tmp_path, parts=1)
    read_bytes = Path.read_bytes
    number = errno.EIO

    def fail(path):
        if path.name == "zarr.json":
            raise OSError(number, os.strerror(number), str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DamagedCacheError, match=r"zarr\.json: cannot be read \(Input/output error\)"):
        AttentionStore(sample.space)
    number = errno.EACCES
    with pytest.raises(PermissionError):
        AttentionStore(sample.space)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
def test_trouble_of_the_machine_is_not_taken_for_damage(tmp_path, error):
    class Array:
        def __getitem__(self, rows):
            raise error

    with pytest.raises(type(error)) as caught:
        decode(Array(), tmp_path)
    assert caught.value is error


@pytest.mark.parametrize("error", [IndexError("x"), OverflowError("x"), AttributeError("x"), OSError(errno.EIO, "x")])
def test_whatever_a_library_raises_over_foreign_bytes_is_damage(tmp_path, error):
    class Array:
        def __getitem__(self, rows):
            raise error

    with pytest.raises(DamagedCacheError, match=r"does not decode .*`molsaki cache verify SPACE`"):
        decode(Array(), tmp_path)
