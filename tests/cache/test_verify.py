"""Every kind of damage is found and named, and repairing keeps exactly what is sound."""

import errno
import json
import multiprocessing
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cache.repair
from cache import examine
from cache.chunked import write_arrays
from cache.fingerprints import fingerprint
from cache.keys import record_key
from cache.layout import ARRAYS, counts_of
from cache.rationales import Attempt, RationaleStore
from cache.reader import AttentionStore, recorded_keys
from cache.repair import WITHDRAWN, repair
from cache.spaces import Space
from cache.verify import Finding, Verification, verify
from cache.writer import AttentionBlock, AttentionWriter, arrays_of
from data.errors import DamagedCacheError, MismatchError
from data.marking import mark
from data.records import Marked
from tests.cache.truth import make_space

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.cache.test_verify"])


def sound_block(number: int, *, layers: int = 2, length: int = 1) -> AttentionBlock:
    """A record as a teacher would give it: no step looks ahead, none gives more than it has."""
    marked = mark(f"Ann has {number} figs. She finds 2.", f"{number} and 2 " * length + f"make {number + 2}.")
    random = np.random.default_rng(number)
    steps, words = len(marked.step_spans), len(marked.critical_spans)
    attention = random.random((layers, steps, words)).astype(np.float32)
    for step, (_, end) in enumerate(marked.step_spans):
        for word, (start, _) in enumerate(marked.critical_spans):
            attention[:, step, word] *= start < end
    return AttentionBlock(
        key=record_key(marked),
        marked=marked,
        attention=attention,
        step_tokens=np.full(steps, words + 1),
    )


def write(space: Space, *numbers: int, **options) -> list[AttentionBlock]:
    blocks = [sound_block(number, **options) for number in numbers]
    AttentionWriter(space).append(blocks)
    return blocks


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return make_space(tmp_path)


def part(space: Space, index: int = 0) -> Path:
    return space.part_path(space.commits()[index])


def commit_arrays(space: Space, arrays, **counts: int):
    """Commit arrays as a writer would that checks nothing."""
    folder = space.new_part()
    write_arrays(folder, arrays)
    return space.commit(folder, counts={**counts_of(arrays), **counts})


def changed(name: str, change, numbers=(1, 2, 3)) -> dict[str, np.ndarray]:
    """Arrays of a part in which one of them was changed before it was written."""
    arrays = arrays_of([sound_block(number) for number in numbers])
    array = arrays[name].copy()
    arrays[name] = replaced if (replaced := change(array)) is not None else array
    return arrays


def flip(path: Path, byte: int = -40) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


def only(verification: Verification) -> Finding:
    (finding,) = verification.findings
    return finding


def assert_holds(space: Space, blocks: list[AttentionBlock]) -> None:
    store = AttentionStore(space)
    assert set(store) == {block.key for block in blocks}
    for block, found in zip(blocks, store.read([block.key for block in blocks]), strict=True):
        np.testing.assert_array_equal(found, block.attention.astype(np.float16))
        assert store.marked(block.key) == block.marked
        np.testing.assert_array_equal(store.step_tokens(block.key), block.step_tokens)


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_space_has_no_findings(space, deep):
    write(space, 1, 2, 3)
    write(space, 4)
    space.commit(None, counts={"records": 0}, dropped={"a" * 64: "too long"})
    found = verify(space.path, deep=deep)
    assert found.findings == ()
    assert (found.commits, found.records, found.kind, found.deep) == (3, 4, "attention", deep)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("damage", "what"),
    [(truncate, "bytes, "), (zero, "SHA-256 "), (flip, "SHA-256 "), (Path.unlink, "missing, ")],
)
@pytest.mark.parametrize("name", ["attention/c/0/0", "key/zarr.json", "zarr.json"])
def test_a_file_that_is_not_what_was_committed_is_named(space, damage, what, name):
    write(space, 1, 2)
    write(space, 3)
    damage(part(space) / name)
    for deep in (False, True):
        found = verify(space.path, deep=deep).findings
        assert found[0].file == f"parts/{part(space).name}/{name}"
        assert what in found[0].what
        assert found[0].records == 2
        assert {finding.part for finding in found} == {part(space).name}


def test_all_damage_is_listed_not_only_the_first(space):
    for number in range(4):
        write(space, number)
    folders = [part(space, index) for index in range(4)]
    (folders[0] / "attention" / "c" / "0" / "0").unlink()
    truncate(folders[0] / "text" / "c" / "0")
    shutil.rmtree(folders[1])
    flip(space.path / "commits" / "00000002.json")
    files = [finding.file for finding in verify(space.path).findings]
    assert files[:2] == [f"parts/{folders[0].name}/{name}" for name in ("attention/c/0/0", "text/c/0")]
    assert sum(file.startswith(f"parts/{folders[1].name}/") for file in files) == 2 * len(ARRAYS) + 1
    assert files[-1] == "commits/00000002.json"


def test_parts_that_were_exchanged_are_found(space):
    write(space, 1)
    write(space, 2)
    first, second = part(space, 0), part(space, 1)
    first.rename(space.path / "between")
    second.rename(first)
    (space.path / "between").rename(second)
    assert {finding.part for finding in verify(space.path).findings} == {first.name, second.name}


VALUES = {
    "negative": ("attention", lambda a: a.__setitem__((0, 1), -0.5), "-0.5, below zero"),
    "not a number": ("attention", lambda a: a.__setitem__((0, 0), np.nan), "not finite"),
    "infinite": ("attention", lambda a: a.__setitem__((0, 0), np.inf), "not finite"),
    "too much": ("attention", lambda a: a.__setitem__((0, 0), 30), "step 0 gives 30 and has 6 tokens"),
    "looks ahead": ("attention", lambda a: a.__setitem__((1, 0), 1e-7), "step 0 looks at word 1, which comes after it"),
    "tokens below zero": ("step_tokens", lambda a: a.__setitem__(1, -1), "-1 tokens in a step"),
    "another key": ("key", lambda a: a.__setitem__((0, 0), a[0, 0] ^ 1), "the hash of its record is"),
    "another text": ("text", lambda a: a.__setitem__(0, ord("B")), "the hash of its record is"),
    "no text": ("text", lambda a: a.__setitem__(0, 0xC3), "not UTF-8"),
    "another span": ("step_spans", lambda a: a.__setitem__((0, 1), 5), "the hash of its record is"),
    "a span outside": ("word_spans", lambda a: a.__setitem__((0, 1), 999), "is no span of a text of"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_record_that_cannot_be_is_found_by_a_deep_look_and_repair_drops_it_alone(space, kind):
    name, change, what = VALUES[kind]
    commit_arrays(space, changed(name, change))
    assert verify(space.path).findings == ()
    found = verify(space.path, deep=True).findings
    assert all(finding.records == len(finding.keys) == 1 for finding in found)
    assert any(
        what in finding.what and finding.file.endswith(f"/{'key' if 'hash' in what else name}") for finding in found
    )
    (done,) = repair(space.path)
    assert (done.file, done.kept, done.recompute) == ("commits/00000000.json", 2, 1)
    assert verify(space.path, deep=True).findings == ()
    assert_holds(space, [sound_block(2), sound_block(3)])


def test_counts_that_are_not_those_of_the_arrays_are_found_and_cost_no_record(space):
    arrays = arrays_of([sound_block(number) for number in (1, 2, 3)])
    commit_arrays(space, arrays, records=2)
    finding = only(verify(space.path))
    assert (finding.file, finding.what) == ("commits/00000000.json", "the arrays hold 3 records, 2 were committed")
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (3, 0)
    assert_holds(space, [sound_block(number) for number in (1, 2, 3)])


def test_offsets_that_do_not_fit_are_found_and_cost_no_record(space):
    commit_arrays(space, changed("cell_offset", lambda a: a.__setitem__(1, 1)))
    assert "does not fit steps and words" in only(verify(space.path, deep=True)).what
    repair(space.path)
    assert_holds(space, [sound_block(number) for number in (1, 2, 3)])


@pytest.mark.parametrize("name", ["steps", "words"])
def test_numbers_of_steps_or_words_that_do_not_fit_are_found(space, name):
    commit_arrays(space, changed(name, lambda a: a.__setitem__(0, a[0] + 1)))
    assert "the arrays hold" in only(verify(space.path, deep=True)).what
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (0, 3)


def test_metadata_that_are_not_ours_are_found_though_their_hashes_are_right(space):
    blocks = [sound_block(1)]
    folder = space.new_part()
    write_arrays(folder, arrays_of(blocks))
    path = folder / "attention" / "zarr.json"
    path.write_text(path.read_text().replace("blosc", "pickle"))
    space.commit(folder, counts=counts_of(arrays_of(blocks)))
    finding = only(verify(space.path))
    assert (finding.file, "unknown codec pickle" in finding.what) == (f"parts/{folder.name}/attention", True)


def test_parts_of_another_number_of_layers_are_dropped(space):
    blocks = write(space, 1, 2)
    write(space, 3, layers=5)
    assert only(verify(space.path)).what == "5 layers, most records of the space have 2"
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (0, 1)
    assert_holds(space, blocks)


def test_a_damaged_chunk_costs_the_records_in_it_and_no_others(space):
    blocks = write(space, *range(40), length=60)
    cells = sum(block.attention[0].size for block in blocks)
    assert cells > 3 * 4096
    path = part(space) / "attention" / "c" / "0" / "0"
    flip(path, path.stat().st_size // 2)
    found = verify(space.path, deep=True).findings
    concerned = found[-1].keys
    assert 0 < len(concerned) < 40
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (40 - len(concerned), len(concerned))
    assert_holds(space, [block for block in blocks if block.key not in concerned])


def test_keys_that_do_not_decode_are_computed_again(space):
    blocks = write(space, 1, 2)
    flip(part(space) / "key" / "c" / "0" / "0")
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (2, 0)
    assert_holds(space, blocks)


@pytest.mark.parametrize("damage", [Path.unlink, zero, truncate, lambda path: path.write_bytes(b"")])
def test_metadata_follow_from_the_counts_and_cost_no_record(space, damage):
    blocks = write(space, 1, 2, 3)
    for path in part(space).rglob("zarr.json"):
        damage(path)
    assert len(verify(space.path, deep=True).findings) == len(ARRAYS) + 1
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (3, 0)
    assert_holds(space, blocks)


def test_every_sampled_bit_is_found_and_no_wrong_record_outlives_repair(space):
    blocks = write(space, *range(4))
    sound = {path: path.read_bytes() for path in space.path.rglob("*") if path.is_file()}
    random = np.random.default_rng(0)
    files = sorted(sound)
    truth = {block.key: block for block in blocks}
    for _ in range(25):
        path = files[random.integers(len(files))]
        damaged = bytearray(sound[path])
        bit = int(random.integers(8 * len(damaged)))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert verify(space.path, deep=True).findings, f"bit {bit} of {path}"
        repair(space.path)
        if (space.path / "spec.json").exists():
            assert verify(space.path, deep=True).findings == ()
            for key, found in AttentionStore(space).items():
                np.testing.assert_array_equal(found, truth[key].attention.astype(np.float16))
        shutil.rmtree(space.path)
        for name, content in sound.items():
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_bytes(content)


@pytest.mark.parametrize("change", [lambda p: flip(p, 30), lambda p: flip(p, -2), lambda p: os.truncate(p, 99), zero])
def test_a_commit_that_proves_nothing_costs_no_record(space, change):
    blocks = [*write(space, 1, 2), *write(space, 3)]
    change(space.path / "commits" / "00000000.json")
    assert only(verify(space.path)).file == "commits/00000000.json"
    done = repair(space.path)
    assert sum(each.kept for each in done) == 2
    assert verify(space.path, deep=True).findings == ()
    assert_holds(space, blocks)
    assert (space.path / WITHDRAWN / "00000000.json").exists()


def test_an_emptied_commit_is_found_once_nobody_can_be_filling_it(space):
    blocks = [*write(space, 1, 2), *write(space, 3)]
    path = space.path / "commits" / "00000000.json"
    path.write_bytes(b"")
    assert verify(space.path).findings == ()
    os.utime(path, (0, 0))
    assert "it counts as absent" in only(verify(space.path)).what
    repair(space.path)
    assert_holds(space, blocks)


def test_commits_that_are_gone_altogether_are_made_again(space):
    blocks = [*write(space, 1, 2), *write(space, 3)]
    shutil.rmtree(space.path / "commits")
    assert only(verify(space.path)).what == "missing, while parts/ holds 2"
    repair(space.path)
    assert_holds(space, blocks)


def test_a_part_that_somebody_is_writing_is_neither_damage_nor_touched(space):
    blocks = write(space, 1, 2)
    (space.new_part() / "half").write_text("being written")
    assert verify(space.path, deep=True).findings == ()
    assert repair(space.path) == []
    assert_holds(space, blocks)


def test_records_dropped_on_purpose_outlive_repair(space):
    AttentionWriter(space).append([sound_block(1), sound_block(2)], {"f" * 64: "too long"})
    (part(space) / "attention" / "c" / "0" / "0").unlink()
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (0, 2)
    store = AttentionStore(space)
    assert (len(store), store.dropped) == (0, {"f" * 64: "too long"})


def test_what_two_jobs_computed_is_not_written_a_third_time(space):
    blocks = write(space, 1, 2, 3)
    write(space, 1, 2)
    (part(space) / "key" / "c" / "0" / "0").unlink()
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (3, 0)
    assert [commit.counts["records"] for commit in space.commits()] == [2, 1]
    assert_holds(space, blocks)


def test_repair_leaves_undamaged_parts_alone_and_the_next_run_fills_the_rest(space):
    blocks = [*write(space, 1, 2), *write(space, 3, 4)]
    untouched = space.commits()[1]
    (part(space) / "attention" / "c" / "0" / "0").unlink()
    repair(space.path)
    assert space.commits()[0] == untouched
    missing = [block for block in blocks if block.key not in recorded_keys(space)]
    assert {block.key for block in missing} == {block.key for block in blocks[:2]}
    AttentionWriter(space).append(missing)
    assert_holds(space, blocks)
    assert repair(space.path) == []


def test_a_reader_that_is_open_keeps_reading_while_a_space_is_repaired(space):
    blocks = write(space, *range(40), length=60)
    store = AttentionStore(space)
    path = part(space) / "attention" / "c" / "0" / "0"
    flip(path, path.stat().st_size // 2)
    lost = set(verify(space.path, deep=True).findings[-1].keys)
    repair(space.path)
    for block in blocks:
        if block.key in lost:
            with pytest.raises(DamagedCacheError):
                store[block.key]
        else:
            np.testing.assert_array_equal(store[block.key], block.attention.astype(np.float16))


class Crash(BaseException):
    pass


@pytest.mark.parametrize("damage", ["part", "commit"])
@pytest.mark.parametrize("step", range(0, 58, 7))  # of 58 that can crash; with damaged commits there are more
def test_a_crash_at_any_step_of_repair_loses_nothing_sound(space, monkeypatch, step, damage):
    AttentionWriter(space).append([sound_block(1), sound_block(2)], {"f" * 64: "too long"})
    commit_arrays(space, changed("attention", lambda a: a.__setitem__((0, 0), -1), (3, 4, 5)))
    if damage == "commit":
        flip(space.path / "commits" / "00000000.json")
    sound = [sound_block(number) for number in (1, 2, 4, 5)]
    calls = iter(range(1000))

    def crashing(function):
        def call(*arguments, **named):
            if next(calls) == step:
                raise Crash
            return function(*arguments, **named)

        return call

    with monkeypatch.context() as patched:
        for name in ("fsync", "link", "rename", "utime", "unlink"):
            patched.setattr(os, name, crashing(getattr(os, name)))
        for name in ("write_arrays", "make_folder", "sync_folder"):
            patched.setattr(cache.repair, name, crashing(getattr(cache.repair, name)))
        with suppress(Crash):
            repair(space.path)
    assert next(calls) > step, "the step was never reached: the test shows nothing"
    repair(space.path)
    assert verify(space.path, deep=True).findings == ()
    assert_holds(space, sound)
    assert damage == "commit" or AttentionStore(space).dropped == {"f" * 64: "too long"}


def test_two_repairs_at_once_end_well(space, monkeypatch):
    blocks = [*write(space, 1, 2), *write(space, 3)]
    (part(space) / "key" / "c" / "0" / "0").unlink()
    survey = cache.repair.look_through

    def after_somebody_else(*arguments):
        found = survey(*arguments)
        monkeypatch.setattr(cache.repair, "look_through", survey)
        repair(space.path)
        return found

    monkeypatch.setattr(cache.repair, "look_through", after_somebody_else)
    assert repair(space.path) == []
    assert_holds(space, blocks)


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("cache.verify.hash_file", PermissionError(errno.EACCES, "Permission denied")),
        ("cache.verify.hash_file", OSError(errno.ESTALE, "Stale file handle")),
        ("cache.layout.read_committed", OSError(errno.EMFILE, "Too many open files")),
        ("cache.parts.examine.decode", MemoryError()),
        ("cache.parts.examine.decode", OSError(errno.EMFILE, "Too many open files")),
    ],
)
def test_a_file_that_cannot_be_read_now_is_no_damage(space, monkeypatch, place, error):
    write(space, 1)

    def refuse(*_):
        raise error

    monkeypatch.setattr(place, refuse)
    with pytest.raises(type(error)):
        repair(space.path)
    assert not (space.path / WITHDRAWN).exists()
    assert len(space.commits()) == 1


def test_a_sector_that_the_disk_cannot_read_is_damage(space, monkeypatch):
    write(space, 1, 2)

    def broken(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("cache.verify.hash_file", broken)
    assert all("Input/output error" in finding.what for finding in verify(space.path).findings)
    assert len(verify(space.path).findings) == 2 * len(ARRAYS) + 1


def test_a_step_may_have_no_tokens_and_then_gives_nothing(space):
    block = sound_block(1)
    tokens, attention = block.step_tokens.copy(), block.attention.copy()
    tokens[1] = 0
    AttentionWriter(space).append([replace(block, step_tokens=tokens)])
    assert only(verify(space.path, deep=True)).what.endswith("has 0 tokens")
    repair(space.path)
    attention[:, 1] = 0
    AttentionWriter(space).append([replace(block, step_tokens=tokens, attention=attention)])
    assert verify(space.path, deep=True).findings == ()


def test_rounding_may_lift_a_sum_a_little(tmp_path):
    block = sound_block(1)
    attention = np.zeros_like(block.attention)
    attention[:, -1, 0] = block.step_tokens[-1] * 1.2
    for rounding, findings in ((None, 1), ({"bitround": 1}, 0)):
        space = Space.open_or_create(tmp_path, "attention", "teacher", {"schema": 1, "rounding": rounding})
        AttentionWriter(space).append([replace(block, attention=attention)])
        assert len(verify(space.path, deep=True).findings) == findings


def write_one_by_one(store: Path, first: int) -> None:
    writer = AttentionWriter(make_space(store))
    for number in range(first, first + 8):
        writer.append([sound_block(number)])


def test_writers_lose_nothing_while_a_space_is_repaired(space, tmp_path):
    blocks = write(space, *range(100, 104))
    writers = [PROCESSES.Process(target=write_one_by_one, args=(tmp_path, first)) for first in (0, 4)]
    for writer in writers:
        writer.start()
    repairs = 0
    while repairs < 3 or any(writer.is_alive() for writer in writers):
        victim = space.part_path(next(commit for commit in space.commits() if commit.counts["records"] == 4))
        (victim / "zarr.json").unlink()
        (done,) = repair(space.path)
        assert (done.kept, done.recompute) == (4, 0)
        repairs += 1
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert verify(space.path, deep=True).findings == ()
    assert_holds(space, [*blocks, *(sound_block(number) for number in range(12))])


def test_another_schema_is_a_mismatch_and_no_damage(space):
    write(space, 1)
    path = space.path / "commits" / "00000000.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    content["schema"] = 99
    path.write_text(json.dumps({**content, "checksum": fingerprint(content)}) + "\n")
    with pytest.raises(MismatchError, match="another version of the schema; a newer molsaki wrote it"):
        repair(space.path)
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"[]\n", b'{"kind": "attention"}\n'])
def test_a_damaged_spec_is_found_and_set_aside_so_that_the_next_run_writes_it(space, tmp_path, content):
    blocks = write(space, 1)
    (space.path / "spec.json").write_bytes(content)
    assert only(verify(space.path)).file == "spec.json"
    (done,) = repair(space.path)
    assert done.file == "spec.json"
    assert_holds(make_space(tmp_path), blocks)


@pytest.fixture
def rationales(tmp_path: Path) -> RationaleStore:
    store = RationaleStore(Space.open_or_create(tmp_path, "rationales", "teacher", {"schema": 1}))
    for number in range(2):
        store.append([attempt(number), replace(attempt(number + 7), outcome="wrong answer")])
    return store


def attempt(number: int, **fields) -> Attempt:
    texts = dict.fromkeys(("question_id", "dataset", "question", "gold", "output", "rationale", "answer"), "x")
    return Attempt(**{"key": f"{number:064x}", "phase": "plain", "outcome": "kept", **texts, **fields})


def test_sound_rationales_have_no_findings(rationales):
    assert verify(rationales.space.path, deep=True).findings == ()


@pytest.mark.parametrize("damage", [truncate, zero, lambda path: flip(path, 60), Path.unlink])
def test_damaged_rationales_are_found_and_dropped(rationales, damage):
    space = rationales.space
    damage(part(space) / "attempts.parquet")
    assert only(verify(space.path)).file == f"parts/{part(space).name}/attempts.parquet"
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (0, 2)
    assert verify(space.path).findings == ()
    assert [key for key, *_ in rationales.attempts()] == [f"{1:064x}", f"{8:064x}"]


def test_rationales_whose_commit_proves_nothing_are_kept(rationales):
    space, before = rationales.space, rationales.attempts()
    flip(space.path / "commits" / "00000000.json", 30)
    assert only(verify(space.path)).file == "commits/00000000.json"
    repair(space.path)
    assert rationales.attempts() == before


def test_a_wrong_key_and_wrong_counts_of_rationales_are_found(rationales):
    rationales.append([attempt(0, key="no key")])
    assert "'no key' is no key" in only(verify(rationales.space.path)).what
    repair(rationales.space.path)
    path = part(rationales.space)
    copied = shutil.copytree(path, path.parent / "00000099-0123456789ab")
    rationales.space.commit(copied, counts={"records": 2, "kept": 2})
    assert only(verify(rationales.space.path)).what == "1 attempts were kept, 2 by the commit"


@pytest.mark.parametrize(
    ("text", "steps", "words", "expected"),
    [
        ("ab 12 cd", [(0, 2)], [(3, 5)], [[True]]),  # white space between the step's end and the word
        ("ab.12 cd", [(0, 3)], [(3, 5)], [[False]]),  # the step's last token may be ".12"
        ("ab 12 cd", [(0, 5)], [(3, 5)], [[False]]),
        ("a 1 b 2 c", [(0, 3), (4, 9)], [(2, 3), (6, 7)], [[False, True], [False, False]]),
    ],
)
def test_a_word_is_later_than_a_step_where_white_space_lies_between(text, steps, words, expected):
    spaces = np.array([place for place, letter in enumerate(text) if letter.isspace()])
    marked = Marked(question="", rationale=text, text=text, step_spans=tuple(steps), critical_spans=tuple(words))
    assert examine._later(marked, spaces).tolist() == expected


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("1 2 3", [(0, 1), (2, 3), (4, 5)], 1),
        ("1,2 3", [(0, 1), (2, 3), (4, 5)], 2),
        ("123", [(0, 1), (1, 2), (2, 3)], 3),
    ],
)
def test_words_without_white_space_between_may_share_a_token(text, words, expected):
    spaces = np.array([place for place, letter in enumerate(text) if letter.isspace()], dtype=np.int64)
    marked = Marked(question="", rationale=text, text=text, step_spans=((0, 1),), critical_spans=tuple(words))
    assert examine._words_in_a_token(marked, spaces) == expected
