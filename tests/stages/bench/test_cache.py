"""What `molsaki bench cache` writes and reads, and that its ways of keeping records hold the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache import open_attention
from cache.layout import MAX_RECORDS
from cache.verify import verify
from data.errors import MismatchError
from stages.bench import cache as bench_cache
from stages.bench.cache import (
    METHODS,
    MOST_ROUNDS,
    CacheJob,
    made_up_blocks,
    measure_cold,
    measure_reading,
    measure_writing,
)
from stages.bench.index import IndexJob, open_index, write_index
from stages.bench.measure import rounds_of


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheJob:
    monkeypatch.setattr(bench_cache, "PATTERNS", 5)
    monkeypatch.setattr(bench_cache, "COMPARED", 20)
    (tmp_path / "bench").mkdir()
    return CacheJob(folder=tmp_path / "bench", records=24, layers=3, repeats=2, reads=7, teacher=None)


def test_records_are_all_different_and_the_same_every_time(job: CacheJob):
    blocks, again = made_up_blocks(job), made_up_blocks(job)
    assert len({block.key for block in blocks}) == 24
    for block, other in zip(blocks, again, strict=True):
        assert block.key == other.key
        np.testing.assert_array_equal(block.attention, other.attention, strict=True)
        np.testing.assert_array_equal(block.receivers, other.receivers, strict=True)
    values = np.concatenate([block.attention[block.attention > 0].ravel() for block in blocks])
    assert len(np.unique(values)) > 0.98 * len(values)


def test_what_is_varied_keeps_shape_and_zeros_and_changes_by_about_a_tenth(job: CacheJob):
    (first, *_), source = made_up_blocks(job), np.random.default_rng(0)
    varied = bench_cache._varied(first, first.marked, source)
    assert varied.attention.dtype == np.float32 and varied.attention.shape == first.attention.shape
    np.testing.assert_array_equal(varied.attention == 0, first.attention == 0)
    assert (first.attention == 0).any()
    logs = np.log(varied.attention[first.attention > 0] / first.attention[first.attention > 0])
    assert logs.std() == pytest.approx(0.1, rel=0.2) and abs(logs.mean()) < 0.03
    there = first.receivers > 0
    np.testing.assert_array_equal(varied.receivers > 0, there)
    assert (varied.receivers[there] != first.receivers[there]).all()


def test_steps_look_at_a_begin_token_and_at_no_sinks(job: CacheJob):
    for block in made_up_blocks(job):
        _, special, sinks = np.moveaxis(block.receivers, -1, 0)
        assert (special > 0).all() and not sinks.any()


def test_files_hold_what_the_store_holds_in_numbers(job: CacheJob):
    measure_writing(job)
    store = open_attention(bench_cache._space(job))
    for key, words in store.items():
        both = torch.load(job.folder / "torch-save-float16" / f"{key}.pt").numpy()
        np.testing.assert_array_equal(both[..., :-3], words)
        np.testing.assert_array_equal(both[..., -3:], store.step_totals(key).receivers())


def test_bytes_files_and_rounds_of_each_method_are_told(job: CacheJob):
    advanced: list[int] = []
    written = measure_writing(job, after_each=lambda: advanced.append(1))
    assert len(advanced) == 1 + 2 * len(METHODS)
    assert {method: len(rounds) for method, rounds in written.rounds.items()} == dict.fromkeys(METHODS, 2)
    assert all(seconds and seconds > 0 for rounds in written.rounds.values() for seconds in rounds)
    assert {method: size.files for method, size in written.sizes.items()} == {
        "store": 23, "memory-map": 1, "torch-save": 24, "torch-save-float16": 24,
    }  # fmt: skip
    values, sums = written.setting.values, written.setting.sums
    store = open_attention(bench_cache._space(job))
    assert values == sum(block.size for block in store.values())
    assert sums == sum(3 * block.shape[0] * block.shape[1] for block in store.values())
    assert written.sizes["torch-save"].bytes - written.sizes["torch-save-float16"].bytes == pytest.approx(
        2 * (values + sums), rel=0.1
    )
    assert (written.setting.records, written.setting.layers, written.setting.teacher) == (24, 3, "random")


def test_the_store_that_is_measured_is_sound(job: CacheJob):
    measure_writing(job)
    assert not verify(bench_cache._space(job)).findings


def test_files_are_as_small_as_torch_makes_them(job: CacheJob):
    """A view of a batch would drag the whole batch into every file."""
    measure_writing(job)
    for path in (job.folder / "torch-save").iterdir():
        tensor = torch.load(path)
        assert tensor.dtype == torch.float32
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_each_method_reads_in_its_rounds(job: CacheJob):
    measure_writing(job)
    advanced: list[int] = []
    times = measure_reading(job, after_each=lambda: advanced.append(1))
    assert {method: len([s for s in rounds if s]) for method, rounds in times.reads.items()} == dict.fromkeys(
        METHODS, 2
    )
    epochs = {method: len([seconds for seconds in rounds if seconds]) for method, rounds in times.epochs.items()}
    assert epochs == {"store": 1, "memory-map": 2, "torch-save": 2, "torch-save-float16": 2}
    assert len(advanced) == 8 + 7


@pytest.mark.parametrize("method", METHODS)
def test_a_cold_epoch_opens_and_reads_all(method: bench_cache.Method, job: CacheJob):
    measure_writing(job)
    found = measure_cold(job, method)
    assert found.open_seconds > 0 and found.epoch_seconds > 0
    assert 0 < found.baseline_bytes <= found.peak_bytes


def test_a_pass_reads_so_many_records_and_others_the_next_time():
    read: list[str] = []
    passes = bench_cache._Passes(lambda key: read.append(key) or torch.zeros(0), [str(n) for n in range(50)], 20)
    for _ in range(2):
        passes.shuffle()
        passes()
    assert len(read) == 40
    assert len(set(read[:20])) == len(set(read[20:])) == 20
    assert read[:20] != read[20:]


def test_a_method_that_gives_something_else_is_found_before_anything_is_timed(job: CacheJob):
    measure_writing(job)
    path = sorted((job.folder / "torch-save-float16").iterdir())[3]
    torch.save(torch.load(path) * 1.01, path)
    with pytest.raises(MismatchError, match=f"torch-save-float16: record {path.stem} is not what"):
        measure_reading(replace(job, reads=1))


def test_a_missing_file_is_found_before_anything_is_timed(job: CacheJob):
    measure_writing(job)
    next((job.folder / "torch-save").iterdir()).unlink()
    with pytest.raises(MismatchError, match="torch-save: 23 records, 24 are in the store"):
        measure_reading(job)


def test_epochs_of_the_store_are_in_one_round_only():
    assert [len(rounds) for rounds in rounds_of(METHODS, 5, MOST_ROUNDS).values()] == [1, 5, 5, 5]


def test_an_index_of_many_records_is_written_in_full_parts_and_opened(tmp_path: Path):
    job = IndexJob(folder=tmp_path, records=MAX_RECORDS + 10)
    assert job.parts == 2
    advanced: list[int] = []
    path = write_index(job, after_each=lambda: advanced.append(1))
    assert len(advanced) == 2
    assert [len(part) for part in open_attention(path).parts] == [MAX_RECORDS, 10]
    assert open_attention(path).step_totals(next(iter(open_attention(path)))).special.tolist() == [[0.0]]
    opened = open_index(job)
    assert opened.records == MAX_RECORDS + 10
    assert opened.open_seconds > 0 and 0 < opened.baseline_bytes <= opened.peak_bytes
