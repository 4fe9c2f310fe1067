"""A real model's own words, which no test has made up: asked by vLLM, judged, and found again."""

from collections import Counter
from pathlib import Path

import pytest

from cache.rationales import KEPT, RationaleStore
from cache.spaces import Space
from data.marking import mark
from data.records import Question
from stages.models.identity import identify_model
from stages.rationales.judge import CUT_OFF, EMPTY, NOT_FOUND, RESTATES, WRONG
from stages.rationales.spec import rationale_slug, rationale_spec
from stages.rationales.write import kept_rationales, write_rationales
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import RationaleSettings, TeacherSettings
from tests.real.conftest import RecordProperty, first_of_each, report

pytestmark = [pytest.mark.real, pytest.mark.vllm, pytest.mark.slow]
MAX_TOKENS = 64


@pytest.mark.timeout(900)
def test_every_rationale_is_judged(
    real_folder: Path,
    questions: dict[str, list[Question]],
    tmp_path: Path,
    record_property: RecordProperty,
) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    asked = first_of_each(questions, 4)
    teacher = TeacherSettings(model=str(real_folder), dtype="float32", device="cpu")
    settings = RationaleSettings(
        max_tokens=MAX_TOKENS, second_phase=False, engine_arguments={"max_model_len": 2048, "max_num_seqs": 8}
    )
    identity = identify_model(str(real_folder), None)
    spec = rationale_spec(identity, teacher, settings)
    store = RationaleStore(Space.open_or_create(tmp_path, "rationales", rationale_slug(identity, settings), spec))
    with StopSignal() as stop:
        summary = write_rationales(
            asked, store, teacher, settings, identity=identity, progress=SilentProgress(), stop=stop
        )
    assert summary.asked == len(asked) == 8
    attempts = list(store.attempts().values())
    outcomes = Counter(attempt.outcome for attempt in attempts)
    assert outcomes.total() == 8 and outcomes.keys() <= {KEPT, WRONG, NOT_FOUND, CUT_OFF, EMPTY, RESTATES}
    assert sum(bool(attempt.output.strip()) for attempt in attempts) >= 7
    assert summary.kept == outcomes[KEPT] and summary.dropped == outcomes - Counter({KEPT: outcomes[KEPT]})
    kept = kept_rationales(asked, store, settings)
    assert len(kept) == summary.kept
    for rationale in kept:
        record = mark(rationale.question.text, rationale.text)
        assert record.step_spans and record.critical_spans
    report(record_property, outcomes)
