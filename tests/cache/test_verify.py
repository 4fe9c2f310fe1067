"""Every kind of damage is found and named, and repairing keeps exactly what is sound."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cache.repair
from cache.keys import record_key
from cache.layout import ARRAYS, counts_of, write_arrays
from cache.rationales import Attempt, RationaleStore
from cache.reader import AttentionStore, recorded_keys
from cache.repair import WITHDRAWN, repair
from cache.spaces import Space
from cache.verify import Finding, Verification, verify
from cache.writer import AttentionBlock, AttentionWriter, _arrays_of
from data.errors import DamagedCacheError, MismatchError
from data.marking import mark
from data.records import Marked
from tests.cache.truth import make_space

STEPS = 3


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
    arrays = _arrays_of([sound_block(number) for number in numbers])
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
    [(truncate, "bytes, "), (zero, "SHA-256 "), (flip, "SHA-256 "), (Path.unlink, "missing, "), (os.remove, "missing")],
)
@pytest.mark.parametrize("name", ["attention/c/0/0", "text/c/0", "key/zarr.json", "zarr.json"])
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
    assert any(what in finding.what and finding.file.endswith(f"/{'key' if 'hash' in what else name}") for finding in found)
    (done,) = repair(space.path)
    assert (done.file, done.kept, done.recompute) == ("commits/00000000.json", 2, 1)
    assert verify(space.path, deep=True).findings == ()
    assert_holds(space, [sound_block(2), sound_block(3)])
