"""The teacher's pass over rationales, with a real model and a real store; and the one it shares with its attention."""

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from cache import open_attention
from cache.keys import record_key
from cache.soft_labels.reader import SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Space, space_path
from cache.verify import verify
from cache.writer import AttentionWriter
from data.errors import Interrupted
from data.marking import mark
from stages.attention.batches import TokenBudget
from stages.attention.spec import attention_slug, attention_spec
from stages.attention.write import TOO_LONG, write_attention
from stages.models.identity import identify_model
from stages.models.tokenizer import begin_token
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import AttentionSettings, SoftLabelSettings, TeacherSettings
from stages.soft_labels.spec import soft_label_slug, soft_label_spec
from stages.soft_labels.teacher import TeacherPass, teacher_texts
from stages.soft_labels.write import BesideAttention, keeping_of, write_soft_labels
from tests.fakes import tiny_model_folder, tiny_tokenizer

RECORDS = [
    mark(f"Tom has {n} pens and {n + 1} cards.", f"{n} + {n + 1} = {2 * n + 1}." * (1 + n % 3)) for n in range(9)
]
KEYS = [record_key(record) for record in RECORDS]
TOP = SoftLabelSettings(layout="top", k=5, piece=4)
ARRAYS = ("ends", "log_probability", "tokens", "logits", "log_norms", "counts", "hidden")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("teacher"), "qwen2")


class Parts:
    """What a pass needs of one teacher and one store."""

    def __init__(self, teacher: Path, store: Path, settings: SoftLabelSettings) -> None:
        self.model = TeacherSettings(model=str(teacher), dtype="float32", device="cpu")
        self.identity, self.settings, self.store = identify_model(str(teacher), None), settings, store
        spec = soft_label_spec(self.identity, self.model, settings)
        self.space = Space.open_or_create(store, "soft-labels", soft_label_slug(self.identity, settings), spec)

    def open(self) -> SoftLabelStore:
        return SoftLabelStore(self.space)

    def known(self) -> set[str]:
        return {*self.open(), *self.open().dropped}

    def write(self, records=RECORDS, *, progress: SilentProgress | None = None) -> SoftLabelStore:
        with StopSignal() as stop:
            write_soft_labels(
                records, SoftLabelWriter(self.space), self.known(), self.model, self.settings,
                identity=self.identity, progress=progress or SilentProgress(), stop=stop,
            )  # fmt: skip
        return self.open()

    def with_attention(self, attention: AttentionSettings, records=RECORDS) -> SoftLabelStore:
        spec = attention_spec(self.identity, self.model, attention)
        space = Space.open_or_create(self.store, "attention", attention_slug(self.identity, attention), spec)
        beside = BesideAttention(SoftLabelWriter(self.space), self.known(), self.model, self.settings)
        stored = open_attention(space.path)
        with StopSignal() as stop:
            write_attention(
                records, AttentionWriter(space), {*stored, *stored.dropped}, self.model, attention,
                identity=self.identity, progress=SilentProgress(), stop=stop, beside=beside,
            )  # fmt: skip
        return self.open()


@pytest.mark.parametrize("layout", ["top", "sampled", "hidden"])
@pytest.mark.parametrize("context", ["student", "plain"])
def test_every_record_is_stored_as_computed(teacher: Path, tmp_path: Path, layout: str, context: str):
    settings = replace(TOP, layout=layout, context=context, begin_token=True)
    parts = Parts(teacher, tmp_path, settings)
    stored = parts.write()
    assert set(stored) == set(KEYS)
    assert [len(part) for part in stored.parts] == [4, 4, 1]
    tokenizer = tiny_tokenizer()
    begin = begin_token(tokenizer) if context == "plain" else None
    asked = TeacherPass(AutoModelForCausalLM.from_pretrained(teacher), keeping_of(settings, parts.model))
    texts = teacher_texts(tokenizer, dict(zip(KEYS, RECORDS, strict=True)), context=context, begin=begin)
    for block in asked.blocks(texts, TokenBudget(1)):
        same(stored[block.key], block)
    assert stored.has_head is (layout == "hidden")
    if layout == "hidden":
        assert np.array_equal(stored.head().weight, asked.head.weight.numpy())
    assert not verify(parts.space.path, deep=True).findings


def same(found, expected) -> None:
    for name in ARRAYS:
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if name in ("tokens", "counts", "ends"):
            assert other is None or np.array_equal(one, other), name
        elif other is not None:
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


def test_what_is_there_is_not_computed_again_and_what_is_new_is_added(teacher: Path, tmp_path: Path, monkeypatch):
    parts = Parts(teacher, tmp_path, TOP)
    parts.write(RECORDS[:5])
    seen: list[str] = []
    blocks = TeacherPass.blocks
    monkeypatch.setattr(
        TeacherPass,
        "blocks",
        lambda self, texts, budget: seen.extend(t.key for t in texts) or blocks(self, texts, budget),
    )
    assert set(parts.write()) == set(KEYS) and sorted(seen) == sorted(KEYS[5:])
    monkeypatch.setattr("stages.soft_labels.write.load_whole_teacher", None)  # whoever calls it fails
    parts.write()


def test_a_text_that_is_too_long_is_dropped_and_counted(teacher: Path, tmp_path: Path):
    lengths = [len(tiny_tokenizer()(f"explain: {one.question}\n{one.rationale}")["input_ids"]) for one in RECORDS]
    parts = Parts(teacher, tmp_path, replace(TOP, max_length=sorted(lengths)[5]))
    stored = parts.write()
    too_long = {key for key, length in zip(KEYS, lengths, strict=True) if length > sorted(lengths)[5]}
    assert too_long and stored.dropped == dict.fromkeys(too_long, TOO_LONG)
    assert set(stored) == set(KEYS) - too_long


def test_a_signal_while_the_teacher_is_loaded_ends_it_there(teacher: Path, tmp_path: Path, monkeypatch):
    def signalled(*_: object) -> None:
        signal.raise_signal(signal.SIGUSR1)
        pytest.fail("it was loaded to the end")

    monkeypatch.setattr("stages.soft_labels.write.load_whole_teacher", signalled)
    with pytest.raises(Interrupted, match="stopped by SIGUSR1 after saving all that was committed"):
        Parts(teacher, tmp_path, TOP).write()


def test_a_signal_keeps_what_was_computed(teacher: Path, tmp_path: Path):
    class Stopping(SilentProgress):
        def advance(self, count: int = 1) -> None:
            signal.raise_signal(signal.SIGTERM)

    parts = Parts(teacher, tmp_path, replace(TOP, batch_tokens=1, piece=100))
    with pytest.raises(Interrupted, match="the soft labels computed so far"):
        parts.write(progress=Stopping())
    assert len(parts.open()) == 1
    assert set(parts.write()) == set(KEYS)


@pytest.mark.parametrize("layout", ["top", "sampled", "hidden"])
@pytest.mark.parametrize("begins", [True, False])
def test_one_pass_gives_attention_and_the_same_rows_as_a_pass_of_their_own(
    teacher: Path, tmp_path: Path, layout: str, begins: bool
):
    settings = replace(TOP, layout=layout, context="plain", begin_token=begins)
    alone = Parts(teacher, tmp_path / "alone", settings).write()
    parts = Parts(teacher, tmp_path / "together", settings)
    attention = AttentionSettings(begin_token=begins, piece=4, batch_tokens=120)
    together = parts.with_attention(attention)
    assert set(together) == set(KEYS)
    for key in KEYS:
        same(together[key], alone[key])
    assert not verify(parts.space.path, deep=True).findings
    (space,) = (tmp_path / "together" / "attention").iterdir()
    assert set(open_attention(space)) == set(KEYS)


def test_attention_is_the_same_with_somebody_beside_it(teacher: Path, tmp_path: Path):
    attention = AttentionSettings(piece=4)
    parts = Parts(teacher, tmp_path / "beside", replace(TOP, context="plain", begin_token=True))
    parts.with_attention(attention)
    spec = attention_spec(parts.identity, parts.model, attention)
    plain = Space.open_or_create(tmp_path / "plain", "attention", attention_slug(parts.identity, attention), spec)
    with StopSignal() as stop:
        write_attention(
            RECORDS, AttentionWriter(plain), set(), parts.model, attention,
            identity=parts.identity, progress=SilentProgress(), stop=stop,
        )  # fmt: skip
    one = open_attention(space_path(tmp_path / "beside", "attention", attention_slug(parts.identity, attention), spec))
    other = open_attention(plain.path)
    assert all(np.array_equal(one[key], other[key]) for key in KEYS)


def test_what_the_pass_leaves_out_is_left_to_a_pass_of_its_own(teacher: Path, tmp_path: Path):
    """Rows that are there, records whose attention is there, and texts too long for soft labels alone."""
    longest = max(len(tiny_tokenizer()(one.text)["input_ids"]) for one in RECORDS)
    settings = replace(TOP, context="plain", begin_token=False, max_length=longest - 1)
    attention = AttentionSettings(begin_token=False, piece=4)
    parts = Parts(teacher, tmp_path, settings)
    parts.with_attention(attention, RECORDS[:2])
    first = parts.write(RECORDS[2:4])
    assert set(first) == set(KEYS[:4])
    commits = len(parts.space.commits())
    together = parts.with_attention(attention, RECORDS)
    assert set(together) < set(KEYS) and not together.dropped
    assert sum(map(len, together.parts)) == len(together), "none is written twice"
    assert len(parts.space.commits()) > commits
    last = parts.write()
    assert {*last, *last.dropped} == set(KEYS) and last.dropped


def test_a_teacher_whose_logits_are_more_than_a_matrix_has_a_pass_of_its_own(
    teacher: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("stages.soft_labels.write.ends_at_its_head", lambda model: False)
    parts = Parts(teacher, tmp_path, replace(TOP, context="plain", begin_token=True))
    assert not parts.with_attention(AttentionSettings(piece=4))
    assert set(parts.write()) == set(KEYS)
