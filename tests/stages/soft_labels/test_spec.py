"""What soft labels in a store depend on, what they take, and how those of one store are told from others."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import open_soft_labels
from cache.fingerprints import fingerprint
from cache.keys import record_key
from cache.soft_labels.reader import SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Space
from data.errors import ConfigError, Interrupted, ModelError
from data.marking import mark
from data.records import Marked
from stages.attention.write import TOO_LONG
from stages.models.identity import identify_model
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import SoftLabelSettings, TeacherSettings
from stages.soft_labels.spec import soft_label_bytes, soft_label_slug, soft_label_spec
from stages.soft_labels.write import write_soft_labels
from tests.fakes import tiny_model_folder

RECORDS = [
    mark(f"Tom has {n} pens and {n + 1} cards.", f"{n} + {n + 1} = {2 * n + 1}. " * (1 + n % 3)) for n in range(9)
]
TOP = {"layout": "top", "k": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("teacher"), "llama", adds_begin=True)


def extract(
    folder: Path,
    store: Path,
    records: Sequence[Marked] = RECORDS,
    *,
    progress: SilentProgress | None = None,
    dtype: Any = "float32",
    **settings: Any,
) -> SoftLabelStore:
    """Write what is missing, and open all."""
    teacher = TeacherSettings(model=str(folder), dtype=dtype, device="cpu")
    chosen = SoftLabelSettings(**{"piece": 4, **TOP, **settings})
    identity = identify_model(str(folder), None)
    space = Space.open_or_create(
        store, "soft-labels", soft_label_slug(identity, chosen), soft_label_spec(identity, teacher, chosen)
    )
    stored = SoftLabelStore(space) if space.commits() else None
    known = set() if stored is None else {*stored, *stored.dropped}
    with StopSignal() as stop:
        write_soft_labels(
            records, SoftLabelWriter(space), known, teacher, chosen,
            identity=identity, progress=progress or SilentProgress(), stop=stop,
        )  # fmt: skip
    return SoftLabelStore(space)


class Stopping(SilentProgress):
    """Asks to stop once so many records are done."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, count: int = 1) -> None:
        self.left -= count
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)


def test_a_record_that_occurs_twice_is_computed_once(folder: Path, tmp_path: Path) -> None:
    assert len(extract(folder, tmp_path, [*RECORDS, *RECORDS])) == 9


@pytest.mark.parametrize("layout", ["top", "hidden"])
def test_too_long_records_are_dropped_once_for_all(folder: Path, tmp_path: Path, layout: Any) -> None:
    texts = [f"explain: {record.question}\n{record.rationale}" for record in RECORDS]
    lengths = sorted(len(text) + 1 for text in texts)  # bytes, and the begin token
    stored = extract(folder, tmp_path, layout=layout, max_length=lengths[5])
    assert len(stored) == 6 and set(stored.dropped.values()) == {TOO_LONG} and len(stored.dropped) == 3
    again = extract(folder, tmp_path, layout=layout, max_length=lengths[5])
    assert len(again.space.commits()) == len(stored.space.commits())
    everything = extract(folder, tmp_path / "none", layout=layout, max_length=1)
    assert len(everything) == 0 and len(everything.dropped) == 9


def test_the_head_is_stored_once_before_the_first_state(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        extract(folder, tmp_path, layout="hidden", progress=Stopping(1), batch_tokens=1)
    stored = extract(folder, tmp_path, layout="hidden")
    parts = [commit for commit in stored.space.commits() if "vocabulary" in commit.counts]
    assert len(parts) == 1 and stored.head().weight.shape == (259, 32) and stored.head().weight.dtype == np.float32
    assert open_soft_labels(stored.space.path).keys() == set(stored)


def test_states_and_head_have_the_precision_of_the_teacher(folder: Path, tmp_path: Path) -> None:
    stored = extract(folder, tmp_path, layout="hidden", dtype="bfloat16")
    assert stored.head().weight.dtype == np.float16 and stored[record_key(RECORDS[0])].hidden.dtype == np.float16


@pytest.mark.parametrize(
    "changes",
    [{"k": 9}, {"layout": "hidden"}, {"layout": "sampled"}, {"context": "plain"}, {"max_length": 100}],
)
def test_what_changes_rows_separates_their_stores(folder: Path, changes: dict[str, Any]) -> None:
    assert _fingerprint(folder, **changes) != _fingerprint(folder)


@pytest.mark.parametrize("changes", [{"batch_tokens": 7}, {"piece": 7}, {"commit_minutes": 1}, {"seed": 3}])
def test_what_does_not_change_rows_leaves_them_in_one_store(folder: Path, changes: dict[str, Any]) -> None:
    assert _fingerprint(folder, **changes) == _fingerprint(folder)


def test_the_seed_counts_where_it_draws(folder: Path) -> None:
    assert _fingerprint(folder, layout="sampled", seed=3) != _fingerprint(folder, layout="sampled")


def test_more_tokens_than_the_teacher_knows_are_refused(folder: Path) -> None:
    assert _fingerprint(folder, k=259) != _fingerprint(folder, layout="sampled", k=300)
    with pytest.raises(ConfigError, match=r"soft_labels\.k: expected at most 259, the tokens that .* knows, found 260"):
        _fingerprint(folder, k=260)


def test_bytes_by_hand() -> None:
    hidden = soft_label_bytes(SoftLabelSettings(layout="hidden"), 32, 259, 4)
    assert (hidden.row, hidden.head, hidden.mapped) == (32 * 4 + 14, 32 * 4 * 259, 32 * 4 + 8)
    top = soft_label_bytes(SoftLabelSettings(layout="top", k=64), 32, 50, 4)
    assert (top.row, top.head, top.mapped) == (pytest.approx(3.3 * 50 + 14), 0, 6 * 50 + 16)


def test_a_teacher_whose_head_cannot_be_stored_is_refused_before_anything_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_head(_: object) -> None:
        raise ModelError("its head is no plain matrix")

    monkeypatch.setattr("stages.soft_labels.teacher.head_of", no_head)
    with pytest.raises(ModelError, match="no plain matrix"):
        extract(folder, tmp_path, layout="hidden")
    (space,) = (tmp_path / "soft-labels").iterdir()
    assert not Space.open(space).commits() and len(extract(folder, tmp_path)) == 9


def _fingerprint(folder: Path, **changes: Any) -> str:
    teacher = TeacherSettings(model=str(folder), dtype="float32", device="cpu")
    return fingerprint(
        soft_label_spec(identify_model(str(folder), None), teacher, SoftLabelSettings(**{**TOP, **changes}))
    )
