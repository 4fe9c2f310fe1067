"""Stored attention beside what the teacher gives now, with a real model and a real store."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.reader import AttentionStore
from cache.repair import repair
from cache.spaces import Space
from cache.verify import verify
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import DamagedCacheError, MismatchError, MissingRecordsError
from data.marking import mark
from stages.attention.against_teacher import drift_from_teacher, evenly, expected_drift
from stages.attention.spec import attention_spec
from stages.attention.write import write_attention
from stages.models.identity import identify_model
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import AttentionSettings, TeacherSettings
from tests.fakes import tiny_model_folder

RECORDS = [
    mark(f"Tom has {n} pens and {n + 1} cards.", f"{n} + {n + 1} = {2 * n + 1}." * (1 + n % 3)) for n in range(9)
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("teacher"), "qwen2")


def extract(teacher: Path, store: Path, **options) -> Space:
    """Write what is missing and return the space."""
    model = TeacherSettings(model=str(teacher), dtype=options.pop("dtype", "float32"), device="cpu")
    settings = AttentionSettings(piece=4, **options)
    identity = identify_model(model.model, None)
    space = Space.open_or_create(store, "attention", "teacher", attention_spec(identity, model, settings))
    found = AttentionStore(space)
    with StopSignal() as stop:
        write_attention(
            RECORDS, AttentionWriter(space), set(found) | found.dropped.keys(), model, settings,
            identity=identity, progress=SilentProgress(), stop=stop,
        )  # fmt: skip
    return space


def drift(space: Space, teacher: Path, count: int = 5):
    return drift_from_teacher(AttentionStore(space), str(teacher), count, device="cpu", progress=SilentProgress())


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"keep_bits": 3}])
def test_what_a_teacher_gave_passes_a_deep_look_and_comes_out_again(teacher: Path, tmp_path: Path, options):
    space = extract(teacher, tmp_path, **options)
    assert verify(space.path, deep=True).findings == ()
    found = drift(space, teacher)
    found.check()
    assert found.records == 5
    assert 0 <= found.mean <= found.largest <= found.expected
    assert found.key in set(AttentionStore(space))


def test_float32_stored_as_float16_is_as_far_off_as_its_last_bit(teacher: Path, tmp_path: Path):
    found = drift(extract(teacher, tmp_path), teacher, 9)
    assert found.records == 9
    assert 1e-5 < found.largest < 2**-11
    assert found.expected == 1e-3 + 2**-11


def test_expected_drift_grows_with_what_rounding_takes():
    assert expected_drift("bfloat16", {"rounding": {"bitround": 3}}) == 0.1 + 2**-4


@pytest.mark.parametrize("change", [lambda a: a * 1.02, lambda a: a * 0])
def test_numbers_that_are_not_the_teachers_are_found(teacher: Path, tmp_path: Path, change):
    space = extract(teacher, tmp_path)
    store = AttentionStore(space)
    (victim,) = evenly(list(store), 1)
    blocks = [
        AttentionBlock(
            key=key,
            marked=store.marked(key),
            attention=change(store[key].astype(np.float32)) if key == victim else store[key],
            step_tokens=store.step_tokens(key),
        )
        for key in store
    ]
    other = Space.open_or_create(tmp_path / "other", "attention", "teacher", space.spec)
    AttentionWriter(other).append(blocks)
    assert verify(other.path, deep=True).findings == ()
    found = drift(other, teacher)
    assert found.key == victim
    with pytest.raises(DamagedCacheError, match=f"{victim}: stored attention is"):
        found.check()


def test_other_numbers_of_tokens_are_found(teacher: Path, tmp_path: Path):
    space = extract(teacher, tmp_path)
    store = AttentionStore(space)
    key = next(iter(store))
    block = AttentionBlock(
        key=key, marked=store.marked(key), attention=store[key], step_tokens=store.step_tokens(key) + 1
    )
    other = Space.open_or_create(tmp_path / "other", "attention", "teacher", space.spec)
    AttentionWriter(other).append([block])
    with pytest.raises(DamagedCacheError, match="other numbers of tokens"):
        drift(other, teacher)


def test_another_teacher_is_a_mismatch_that_names_field_and_both_values(teacher: Path, tmp_path: Path):
    space = extract(teacher, tmp_path)
    other = tiny_model_folder(tmp_path / "other", "qwen2", seed=1)
    with pytest.raises(MismatchError, match=r"model\n    ours:   \"sha256:.*\n    theirs: \"sha256:"):
        drift(space, other)


def test_other_rules_are_a_mismatch(teacher: Path, tmp_path: Path):
    spec = {**extract(teacher, tmp_path).spec, "rules": 99}
    other = Space.open_or_create(tmp_path / "other", "attention", "teacher", spec)
    AttentionWriter(other).append([])
    with pytest.raises(MissingRecordsError):
        drift(other, teacher)
    store = AttentionStore(extract(teacher, tmp_path))
    store.space = replace(store.space, spec=spec)
    with pytest.raises(MismatchError, match="rules"):
        drift_from_teacher(store, str(teacher), 1, device="cpu", progress=SilentProgress())


@pytest.mark.parametrize("marking", [{}, {"marking": 99}])
def test_a_store_of_other_marking_rules_can_be_read_and_compared(
    teacher: Path, tmp_path: Path, marking: dict[str, int]
):
    """Its records hold their own steps and critical words; a run of these rules has a store of its own."""
    space = extract(teacher, tmp_path / "now")
    spec = {name: value for name, value in space.spec.items() if name != "marking"} | marking
    other = Space.open_or_create(tmp_path / "other", "attention", "teacher", spec)
    store = AttentionStore(space)
    AttentionWriter(other).append(
        [
            AttentionBlock(key=key, marked=store.marked(key), attention=store[key], step_tokens=store.step_tokens(key))
            for key in store
        ]
    )
    assert other.fingerprint != space.fingerprint
    assert verify(other.path, deep=True).findings == ()
    drift(other, teacher).check()


def test_records_lie_evenly_and_are_the_same_each_time():
    keys = [str(number) for number in range(100)]
    assert evenly(keys, 5) == ["0", "25", "50", "74", "99"]
    assert evenly(keys[:3], 10) == keys[:3]
    assert evenly(keys, 1) == ["0"]


def test_after_repair_extraction_computes_just_what_was_dropped(teacher: Path, tmp_path: Path):
    space = extract(teacher, tmp_path)
    before = {key: value.copy() for key, value in AttentionStore(space).items()}
    first = AttentionStore(space).parts[0]
    (first.folder / "attention" / "c" / "0" / "0").unlink()
    (done,) = repair(space.path)
    assert (done.kept, done.recompute) == (0, 4)
    commits = len(space.commits())
    extract(teacher, tmp_path)
    assert [commit.counts["records"] for commit in space.commits()[commits:]] == [4]
    after = AttentionStore(space)
    assert after.keys() == before.keys()
    for key, value in before.items():
        np.testing.assert_allclose(after[key], value, rtol=1e-3, atol=1e-6)
