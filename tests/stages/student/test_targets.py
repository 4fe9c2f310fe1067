"""Targets of a store: those that mixing each record by itself gives, kept for the next student."""

from pathlib import Path

import numpy as np
import pytest

from cache.reader import AttentionStore
from cache.writer import AttentionWriter
from stages.mixture import mixed_targets
from stages.runtime.progress import SilentProgress
from stages.student import targets
from stages.student.targets import TeacherTargets, chosen_layers_rule, mixture_rule
from tests.cache.truth import make_block, make_space


@pytest.fixture
def store(tmp_path: Path) -> AttentionStore:
    space = make_space(tmp_path)
    for first in (0, 5):
        blocks = [make_block(first + n, layers=4, steps=1 + n, words=1 + n % 3) for n in range(5)]
        AttentionWriter(space).append(blocks)
    return AttentionStore(space)


@pytest.mark.parametrize("tau", [0.1, 2.0])
def test_targets_of_a_store_are_those_of_its_records(store: AttentionStore, tau: float):
    found = TeacherTargets(store).get(list(store), mixture_rule(tau), SilentProgress())
    assert len(found) == 10
    for key in store:
        (alone,) = mixed_targets([store[key]], tau)
        np.testing.assert_allclose(found[key].attention, alone.attention, rtol=1e-5)
        np.testing.assert_allclose(found[key].layer_weights, alone.layer_weights, rtol=1e-5)


def test_targets_are_mixed_once_for_each_temperature(store: AttentionStore, monkeypatch: pytest.MonkeyPatch):
    first = TeacherTargets(store).get(list(store), mixture_rule(0.1), SilentProgress())
    with monkeypatch.context() as patched:
        patched.setattr(targets, "mixed_targets", None)
        second = TeacherTargets(store).get(list(store), mixture_rule(0.1), SilentProgress())
        with pytest.raises(TypeError):
            TeacherTargets(store).get(list(store), mixture_rule(0.2), SilentProgress())
    for key in store:
        np.testing.assert_array_equal(first[key].attention, second[key].attention, strict=True)


def test_progress_counts_the_records(store: AttentionStore):
    told: list[object] = []

    class Listening(SilentProgress):
        def start(self, task: str, total: int) -> None:
            told.append((task, total))

        def advance(self, count: int = 1) -> None:
            told.append(count)

    TeacherTargets(store).get(list(store), mixture_rule(0.1), Listening())
    assert told == [("targets", 10), 5, 5]


def test_chosen_layers_are_kept_as_they_are_one_after_another(store: AttentionStore):
    found = TeacherTargets(store).get(list(store), chosen_layers_rule([3, 1]), SilentProgress())
    for key in store:
        np.testing.assert_array_equal(found[key].attention, store[key][[3, 1]].astype(np.float32), strict=True)
        assert found[key].layer_weights.tolist() == [0, 0.5, 0, 0.5]
