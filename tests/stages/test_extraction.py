"""The teacher's pass over marked texts, with a real model and a real store."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, CTRLConfig, CTRLLMHeadModel, CTRLTokenizer

from cache import open_attention
from cache.keys import record_key
from cache.spaces import Space
from cache.writer import AttentionWriter
from data.errors import ConfigError, Interrupted, ModelError
from data.marking import mark
from stages.attention import stepwise_attention
from stages.extraction import TOO_LONG, write_attention
from stages.models import identify_model
from stages.progress import SilentProgress, StopSignal
from stages.settings import AttentionSettings, TeacherSettings
from stages.specs import attention_slug, attention_spec
from tests.fakes import tiny_model_folder, tiny_tokenizer

RECORDS = [
    mark(f"Tom has {n} pens and {n + 1} cards.", f"{n} + {n + 1} = {2 * n + 1}." * (1 + n % 3)) for n in range(9)
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("teacher"), "qwen2")


def extract(
    teacher: Path,
    store: Path,
    records=RECORDS,
    *,
    progress: SilentProgress | None = None,
    model: TeacherSettings | None = None,
    **settings,
) -> Path:
    """Write what is missing and return the space's folder."""
    model = model or TeacherSettings(model=str(teacher), dtype="float32", device="cpu")
    chosen = AttentionSettings(**{"piece": 4, **settings})
    identity = identify_model(model.model, None)
    space = Space.open_or_create(
        store, "attention", attention_slug(identity, chosen), attention_spec(identity, model, chosen)
    )
    known = set(open_attention(space.path)) | set(open_attention(space.path).dropped) if space.commits() else set()
    with StopSignal() as stop:
        write_attention(
            records, AttentionWriter(space), known, model, chosen,
            identity=identity, progress=progress or SilentProgress(), stop=stop,
        )  # fmt: skip
    return space.path


def test_every_record_is_stored_as_computed(teacher: Path, tmp_path: Path):
    stored = open_attention(extract(teacher, tmp_path))
    model = AutoModelForCausalLM.from_pretrained(teacher)
    computed = stepwise_attention(model, tiny_tokenizer(), RECORDS)
    assert set(stored) == {record_key(record) for record in RECORDS}
    for record, block in zip(RECORDS, computed, strict=True):
        np.testing.assert_allclose(stored[record_key(record)], block, rtol=1e-3, atol=1e-6)
        assert stored.marked(record_key(record)) == record


def test_only_what_is_missing_is_computed(teacher: Path, tmp_path: Path):
    space = extract(teacher, tmp_path, RECORDS[:6])
    before = {commit.index for commit in Space.open(space).commits()}
    extract(teacher, tmp_path, RECORDS)
    new = [commit for commit in Space.open(space).commits() if commit.index not in before]
    assert [commit.counts["records"] for commit in new] == [3]
    extract(teacher, tmp_path, RECORDS)
    assert len(Space.open(space).commits()) == len(before) + len(new)


def test_a_finished_space_loads_no_model(teacher: Path, tmp_path: Path):
    moved = shutil.copytree(teacher, tmp_path / "teacher")
    extract(moved, tmp_path)
    identity = identify_model(str(moved), None)
    shutil.rmtree(moved)
    with StopSignal() as stop:
        write_attention(
            RECORDS, None, {record_key(record) for record in RECORDS},
            TeacherSettings(model=str(moved)), AttentionSettings(),
            identity=identity, progress=SilentProgress(), stop=stop,
        )  # fmt: skip


def test_records_that_are_too_long_are_dropped_with_their_reason_and_not_tried_again(teacher: Path, tmp_path: Path):
    longest = max(RECORDS, key=lambda record: len(record.text))
    space = extract(teacher, tmp_path, max_length=len(longest.text) - 1)
    stored = open_attention(space)
    too_long = [record for record in RECORDS if len(record.text) == len(longest.text)]
    assert stored.dropped == {record_key(record): TOO_LONG for record in too_long}
    assert len(stored) == len(RECORDS) - len(too_long)
    commits = len(Space.open(space).commits())
    extract(teacher, tmp_path, max_length=len(longest.text) - 1)
    assert len(Space.open(space).commits()) == commits


def test_a_signal_ends_after_committing_the_piece(teacher: Path, tmp_path: Path):
    class Term(SilentProgress):
        def advance(self, count: int = 1) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        extract(teacher, tmp_path, progress=Term())
    (space,) = (tmp_path / "attention").iterdir()
    assert len(open_attention(space)) == 4
    extract(teacher, tmp_path)
    assert len(open_attention(space)) == len(RECORDS)


def test_bfloat16_comes_close_to_float32(teacher: Path, tmp_path: Path):
    half = TeacherSettings(model=str(teacher), dtype="bfloat16", device="cpu")
    low = open_attention(extract(teacher, tmp_path, model=half))
    exact = open_attention(extract(teacher, tmp_path))
    assert low.keys() == exact.keys()
    for key in exact:
        difference = np.abs(low[key].astype(np.float64) - exact[key]).max()
        assert difference <= 2e-2 * exact[key].max()


def test_a_teacher_s_tokenizer_without_offsets_is_refused(tmp_path: Path):
    (tmp_path / "vocab.json").write_text(json.dumps({"<unk>": 0, "a": 1, "b": 2}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    config = CTRLConfig(vocab_size=3, n_embd=8, dff=8, n_layer=1, n_head=2)
    CTRLLMHeadModel(config).save_pretrained(tmp_path / "slow")
    tokenizer.save_pretrained(tmp_path / "slow")
    with pytest.raises(ModelError, match="character offsets"):
        extract(tmp_path / "slow", tmp_path)


def test_a_broken_tokenizer_file_is_one_clear_error(teacher: Path, tmp_path: Path):
    folder = shutil.copytree(teacher, tmp_path / "broken")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="tokenizer cannot be loaded"):
        extract(folder, tmp_path)


def test_cuda_where_there_is_none_is_refused(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="cuda"):
        extract(teacher, tmp_path, model=TeacherSettings(model=str(teacher), dtype="float32", device="cuda"))
