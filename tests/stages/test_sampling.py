"""Samples of the teacher's stages against the stages themselves, on tiny models; and the formulas that reckon up."""

from pathlib import Path

import numpy as np
import pytest

import stages.sampling as sampling
from cache.fingerprints import SCHEMA_VERSION
from cache.rationales import RationaleStore
from cache.spaces import Space
from cache.writer import AttentionWriter
from data.marking import mark
from data.records import Question
from stages.attention.write import write_attention
from stages.models.identity import identify_model
from stages.runtime.progress import SilentProgress, StopSignal
from stages.sampling import _line, expected_longest, padded_step, sample_attention, sample_rationales, spread
from stages.settings import AttentionSettings, RationaleSettings, TeacherSettings
from tests.fakes import ScriptedEngine, tiny_model_folder

RECORDS = [
    mark(f"Ann has {n} figs and 3 pens. " * (1 + n % 5), f"{n} and 3 make {n + 3}. The answer is {n + 3}.")
    for n in range(10, 50)
]
QUESTIONS = [
    Question(id=f"q{n}", dataset="t", text=f"Ann has {n} figs." * (1 + n % 7), answer=str(n), answer_kind="number")
    for n in range(60)
]


def attention_writer(store: Path) -> AttentionWriter:
    spec = {"schema": SCHEMA_VERSION, "rounding": None}
    return AttentionWriter(Space.open_or_create(store, "attention", "t", spec))  # type: ignore[arg-type]


def stored_bytes(space: Path) -> int:
    folders = (space / "parts", space / "commits")
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def test_sample_of_attention_tells_the_size_of_the_whole(tmp_path: Path) -> None:
    identity = identify_model(str(tiny_model_folder(tmp_path / "teacher", "llama")), None)
    teacher = TeacherSettings(model=identity.path, dtype="float32", device="cpu")
    settings = AttentionSettings(batch_tokens=1500)
    sampled = attention_writer(tmp_path / "sampled")
    sample = sample_attention(
        RECORDS[:20], sampled, teacher, settings,
        identity=identity, total=len(RECORDS), seconds=5, progress=SilentProgress(),
    )  # fmt: skip
    whole = attention_writer(tmp_path / "whole")
    with StopSignal() as stop:
        write_attention(
            RECORDS, whole, set(), teacher, settings, identity=identity, progress=SilentProgress(), stop=stop
        )
    assert sample.units == 40 and 0 < sample.sampled <= 20
    assert sample.bytes == pytest.approx(stored_bytes(whole.space.path), rel=0.25)
    assert 0 < sample.once_seconds < sample.seconds < 60
    assert sample.cpu_seconds > 0


def test_records_that_are_too_long_are_not_counted(tmp_path: Path) -> None:
    identity = identify_model(str(tiny_model_folder(tmp_path / "teacher", "llama")), None)
    teacher = TeacherSettings(model=identity.path, dtype="float32", device="cpu")
    long = [mark(f"Ann has {n} figs. " * 100, "She has 3. The answer is 3.") for n in range(10)]
    sample = sample_attention(
        [*long, *RECORDS[:10]], attention_writer(tmp_path / "store"), teacher, AttentionSettings(max_length=400),
        identity=identity, total=20, seconds=1, progress=SilentProgress(),
    )  # fmt: skip
    assert sample.units == 10


def test_sample_of_rationales_counts_second_prompts_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer is wrong, and each question is asked again."""
    engine = ScriptedEngine(lambda prompt: "No idea. The answer is 999.")
    monkeypatch.setattr(sampling, "open_engine", lambda name, setup: engine)
    identity = identify_model(str(tiny_model_folder(tmp_path / "teacher", "llama")), None)
    space = Space.open_or_create(tmp_path / "store", "rationales", "t", {"schema": SCHEMA_VERSION})
    sample = sample_rationales(
        QUESTIONS, RationaleStore(space), TeacherSettings(model=identity.path),
        RationaleSettings(engine="transformers", shots=0, piece=40),
        identity=identity, seconds=10, progress=SilentProgress(),
    )  # fmt: skip
    assert sample.units == 60 and sample.sampled == 57  # one to warm up, 16, a whole piece
    assert sample.assumptions == ("100% of the questions are asked again with the answer shown",)
    assert len(engine.prompts) == 2 * 57 and engine.closed
    assert sample.bytes > sum(commit.bytes for commit in space.commits()) / 2


def test_line_through_two_points_adds_up_start_and_slope() -> None:
    points = [(10, np.array([3.0, 1.0])), (30, np.array([5.0, 3.0]))]  # 2 + 0.1 n, 0 + 0.1 n
    assert _line(points, [50.0, 50.0, 20.0]).tolist() == pytest.approx([6 + 12, 12])


def test_line_never_falls_and_never_begins_below_zero() -> None:
    assert _line([(10, np.array([4.0, 1.0])), (20, np.array([3.0, 4.0]))], [40.0]).tolist() == pytest.approx([3.0, 8.0])


def test_line_through_one_point_is_in_proportion() -> None:
    assert _line([(4, np.array([2.0, 1.0]))], [10.0]).tolist() == pytest.approx([5.0, 2.5])


def test_spread_holds_the_first_and_the_last() -> None:
    assert spread(10, 3) == [0, 4, 9]
    assert spread(2, 5) == [0, 1] and spread(1, 5) == [0] and spread(0, 5) == []


def test_expected_longest_grows_with_the_rows() -> None:
    lengths = list(range(1, 101))
    assert expected_longest(lengths, 1) == pytest.approx(51, abs=1)
    assert expected_longest(lengths, 50) in {99, 100}


def test_padded_step_is_the_longest_of_a_batch() -> None:
    assert padded_step([7, 7, 7], 2) == 7
    assert padded_step([0, 10], 1) == pytest.approx(5, abs=1)
    assert padded_step([0, 10], 2) == pytest.approx(7.5, abs=1)
