"""The teacher's pass over marked texts, with a real model and a real store."""

import errno
import json
import logging
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CTRLConfig,
    CTRLLMHeadModel,
    CTRLTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
)

from cache import open_attention
from cache.certificates import read_certificate
from cache.keys import record_key
from cache.rounding import stored_values
from cache.spaces import Space, describe
from cache.verify import verify
from cache.writer import AttentionWriter
from data.errors import ConfigError, Interrupted, ModelError
from data.marking import mark
from stages.attention import kernels
from stages.attention import stepwise as attention
from stages.attention import write as extraction
from stages.attention.batches import TokenBudget, length_batches
from stages.attention.certify import certify
from stages.attention.spec import attention_slug, attention_spec
from stages.attention.stepwise import stepwise_attention, stepwise_of
from stages.attention.tokens import locate
from stages.attention.write import TOO_LONG, write_attention
from stages.models.identity import identify_model
from stages.models.load import load_teacher
from stages.models.tokenizer import begin_token
from stages.runtime import pieces
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import AttentionSettings, TeacherSettings
from tests.fakes import tiny_model, tiny_model_folder, tiny_tokenizer

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


def test_progress_moves_with_batches_and_says_what_is_committed(teacher: Path, tmp_path: Path):
    class Watched(SilentProgress):
        said: ClassVar[list[str]] = []

        def advance(self, count: int = 1) -> None:
            self.said.append(f"+{count}")

        def saved(self, count: int) -> None:
            self.said.append(f"saved {count}")

    extract(teacher, tmp_path, progress=Watched(), batch_tokens=1, piece=100)
    assert Watched.said == ["saved 0", *["+1"] * len(RECORDS), f"saved {len(RECORDS)}"]


@pytest.mark.parametrize("begins", [True, False])
def test_what_steps_look_at_in_all_is_stored_beside(teacher: Path, tmp_path: Path, begins: bool):
    stored = open_attention(extract(teacher, tmp_path, keep_bits=3, begin_token=begins))
    model, begin = AutoModelForCausalLM.from_pretrained(teacher), begin_token(tiny_tokenizer()) if begins else None
    for record in RECORDS:
        one = locate(tiny_tokenizer(), record, begin=begin)
        (computed,) = stepwise_of(model, [one], TokenBudget(1))
        totals = stored.step_totals(record_key(record))
        np.testing.assert_allclose(totals.receivers(), computed.receivers, rtol=1e-3, atol=1e-6)
        assert (totals.sinks == 0).all()
        assert (totals.special > 0).all() == begins, "its tokenizer adds no token of its own"
        seen = totals.critical + totals.other + totals.special
        np.testing.assert_allclose(seen, np.broadcast_to(one.step_tokens(), (2, one.steps)), rtol=1e-6)
    assert verify(stored.space.path, deep=True).findings == ()


@pytest.mark.parametrize("keep_bits", [None, 4])
@pytest.mark.parametrize("batch_tokens", [16384, 150, 1])
def test_values_are_stored_rounded_as_asked_with_a_certificate_of_what_that_changed(
    batch_tokens: int, keep_bits: int | None, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    computed: list[np.ndarray] = []

    def listen(*arguments, **also):
        found = compute(*arguments, **also)
        computed.extend(one.words for one in found)
        return found

    compute = extraction.stepwise_of
    monkeypatch.setattr(extraction, "stepwise_of", listen)
    store = open_attention(extract(teacher, tmp_path, keep_bits=keep_bits, batch_tokens=batch_tokens))
    commits = store.space.commits()
    assert [commit.counts["records"] for commit in commits] == [4, 4, 1]
    for commit, part, first in zip(commits, store.parts, (0, 4, 8), strict=True):
        piece = computed[first : first + 4]
        for key, exact in zip(part.keys, piece, strict=True):
            expected = exact.astype(np.float16) if keep_bits is None else stored_values(exact, keep_bits)
            np.testing.assert_array_equal(store[key], expected, strict=True)
        assert read_certificate(commit.note["rounding"]) == certify(piece, keep_bits or 10)
    assert len(describe(store.space).certificates) == 1
    assert [sorted(note) for note in describe(store.space).notes] == [["batch_tokens", "kernel", "numcodecs", "zarr"]]


def test_what_is_stored_does_not_depend_on_when_it_is_committed(teacher: Path, tmp_path: Path):
    whole = open_attention(extract(teacher, tmp_path / "whole", piece=4096, batch_tokens=200))
    cut = open_attention(extract(teacher, tmp_path / "cut", piece=2, batch_tokens=200))
    assert (len(whole.parts), len(cut.parts)) == (1, 5)
    assert list(cut) == list(whole)
    for key, block in whole.items():
        np.testing.assert_array_equal(cut[key], block, strict=True)


def test_batches_are_those_of_all_records_by_length(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    batches: list[list[int]] = []

    def listen(model, located, budget, **also):
        batches.append([len(one.ids) for one in located])
        return compute(model, located, budget, **also)

    compute = extraction.stepwise_of
    monkeypatch.setattr(extraction, "stepwise_of", listen)
    extract(teacher, tmp_path, piece=2, batch_tokens=150)
    lengths = sorted((length for batch in batches for length in batch), reverse=True)
    assert batches == [[lengths[i] for i in batch] for batch in length_batches(lengths, 150)]
    assert len(batches) > 2


def test_a_commit_comes_when_the_last_was_long_ago(teacher: Path, tmp_path: Path):
    space = extract(teacher, tmp_path, piece=4096, batch_tokens=1, commit_minutes=1e-9)
    assert [commit.counts["records"] for commit in Space.open(space).commits()] == [1] * len(RECORDS)


def test_a_commit_comes_before_memory_is_full(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stored = open_attention(extract(teacher, tmp_path / "first", piece=4096))
    first = next(iter(stored))
    held = 4 * (stored[first].size + stored.step_totals(first).receivers().size)  # float32 while it is held
    monkeypatch.setattr(pieces, "MOST_HELD_BYTES", held + 1)
    space = extract(teacher, tmp_path / "second", piece=4096, batch_tokens=1)
    counts = [commit.counts["records"] for commit in Space.open(space).commits()]
    assert counts[0] == 2 and sum(counts) == len(RECORDS)
    assert list(open_attention(space)) == list(stored)


def test_an_error_of_the_teacher_leaves_what_was_computed_before(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compute, calls = extraction.stepwise_of, iter(range(9))

    def fail_third(*arguments, **also):
        if next(calls) == 2:
            raise ModelError("no more")
        return compute(*arguments, **also)

    monkeypatch.setattr(extraction, "stepwise_of", fail_third)
    with pytest.raises(ModelError, match="no more"):
        extract(teacher, tmp_path, piece=4096, batch_tokens=1)
    (space,) = (tmp_path / "attention").iterdir()
    assert len(open_attention(space)) == 2


def test_a_rounding_that_does_not_exist_writes_nothing(teacher: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"rounding: expected nothing or bitround with 1 to 10 bits, found"):
        extract(teacher, tmp_path, keep_bits=11)


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


def test_a_signal_while_the_teacher_is_loaded_ends_it_there(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def signalled(*_: object) -> None:
        signal.raise_signal(signal.SIGUSR1)
        pytest.fail("it was loaded to the end")

    monkeypatch.setattr(extraction, "load_whole_teacher", signalled)
    with pytest.raises(Interrupted, match="stopped by SIGUSR1 after saving all that was committed"):
        extract(teacher, tmp_path)
    (space,) = (tmp_path / "attention").iterdir()
    assert not Space.open(space).commits()


def test_a_signal_ends_after_the_batch_and_what_was_computed_is_committed(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compute, calls = extraction.stepwise_of, iter(range(9))

    def signalled(*arguments, **also):
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(*arguments, **also)

    with monkeypatch.context() as patched, pytest.raises(Interrupted, match="stopped by SIGTERM after saving"):
        patched.setattr(extraction, "stepwise_of", signalled)
        extract(teacher, tmp_path, piece=4096, batch_tokens=1)
    (space,) = (tmp_path / "attention").iterdir()
    assert len(open_attention(space)) == 3
    extract(teacher, tmp_path)
    assert len(open_attention(space)) == len(RECORDS)


def test_a_piece_is_written_while_the_next_is_computed(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begun = threading.Semaphore(0)  # one for every batch whose computing has begun
    appended: list[tuple[bool, bool]] = []
    compute, append = extraction.stepwise_of, AttentionWriter.append

    def tell_compute(*arguments, **also):
        begun.release()
        return compute(*arguments, **also)

    def wait_for_compute(*arguments, **note):
        beside = begun.acquire(timeout=60)  # that of its own batch
        if len(appended) < 2:
            beside = begun.acquire(timeout=60)  # that of the next
            begun.release()
        appended.append((threading.current_thread() is threading.main_thread(), beside))
        return append(*arguments, **note)

    monkeypatch.setattr(extraction, "stepwise_of", tell_compute)
    monkeypatch.setattr(AttentionWriter, "append", wait_for_compute)
    assert len(open_attention(extract(teacher, tmp_path, batch_tokens=1))) == len(RECORDS)
    assert appended == [(False, True)] * 3


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_while_writing_ends_the_stage_and_leaves_what_was_committed(
    failing: int, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    append, calls = AttentionWriter.append, iter(range(9))

    def full_disk(*arguments, **note):
        if next(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(*arguments, **note)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(AttentionWriter, "append", full_disk)
        extract(teacher, tmp_path, batch_tokens=1)
    (space,) = (tmp_path / "attention").iterdir()
    assert len(open_attention(space)) == 4 * failing
    assert len(open_attention(extract(teacher, tmp_path))) == len(RECORDS)


def test_out_of_memory_loses_nothing(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    forward = attention.forward

    def small_memory(model, located, **options):
        if len(located) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return forward(model, located, **options)

    expected = open_attention(extract(teacher, tmp_path / "enough"))
    monkeypatch.setattr(attention, "forward", small_memory)
    # Whatever the libraries of earlier tests have done to loggers of this process.
    logger = logging.getLogger("stages.attention.batches")
    monkeypatch.setattr(logger, "disabled", False)
    caplog.set_level(logging.WARNING, logger=logger.name)
    space = extract(teacher, tmp_path / "little")
    stored = open_attention(space)
    assert list(stored) == list(expected)
    for key, block in expected.items():
        np.testing.assert_allclose(stored[key], block, atol=2e-3, rtol=2e-3)
    assert 1 <= sum("out of memory" in message for message in caplog.messages) <= 3  # 9 records, then at most 4, 2, 1
    commits = Space.open(space).commits()
    assert all(commit.note["batch_tokens"] < 16384 for commit in commits)


def test_a_model_that_is_not_like_its_eager_self_writes_nothing(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = kernels.attention_from_log_sum_exp
    monkeypatch.setattr(kernels, "attention_from_log_sum_exp", lambda *call: 1.01 * real(*call))
    with pytest.raises(ModelError, match=r"eager attention by 1\.0%"):
        extract(teacher, tmp_path)
    (space,) = (tmp_path / "attention").iterdir()
    assert not Space.open(space).commits()


def test_says_which_layers_went_block_by_block(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    config = Gemma2Config(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "gemma")
    tiny_tokenizer().save_pretrained(tmp_path / "gemma")
    notes: list[str] = []

    class Listening(SilentProgress):
        def note(self, message: str) -> None:
            notes.append(message)

    with caplog.at_level(logging.INFO):
        space = extract(tmp_path / "gemma", tmp_path, progress=Listening())
    assert any("layers 0-1: block by block" in note for note in notes)
    assert any("layers 0-1: block by block" in message for message in caplog.messages)
    assert {commit.note["kernel"] for commit in Space.open(space).commits()} == {"layers 0-1: block by block"}


def test_a_teacher_spread_by_accelerate_gives_the_same(teacher: Path, tmp_path: Path):
    expected = open_attention(extract(teacher, tmp_path / "one"))
    spread = TeacherSettings(model=str(teacher), dtype="float32", device_map="auto")
    stored = open_attention(extract(teacher, tmp_path / "spread", model=spread))
    for key, block in expected.items():
        np.testing.assert_array_equal(stored[key], block)


def test_layers_that_wait_on_a_disk_give_the_same(teacher: Path, tmp_path: Path):
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {"model.layers.0": "disk", "model.layers.1": "cpu"}
    model = AutoModelForCausalLM.from_pretrained(teacher, device_map=places, offload_folder=tmp_path / "offload")
    assert model.model.layers[0].self_attn.q_proj.weight.device.type == "meta"
    whole = stepwise_attention(AutoModelForCausalLM.from_pretrained(teacher), tiny_tokenizer(), RECORDS)
    for ours, expected in zip(stepwise_attention(model, tiny_tokenizer(), RECORDS), whole, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_the_language_model_head_is_not_kept(teacher: Path):
    body = load_teacher(str(teacher), None, TeacherSettings(model=str(teacher), dtype="float32", device="cpu"))
    assert not any("lm_head" in name for name, _ in body.named_parameters())
    assert not body.training


def test_a_device_and_a_device_map_contradict_each_other(teacher: Path, tmp_path: Path):
    both = TeacherSettings(model=str(teacher), device="cpu", device_map="auto")
    with pytest.raises(ConfigError, match=r"teacher\.device_map"):
        extract(teacher, tmp_path, model=both)


def test_a_device_map_beside_other_processes_is_refused(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match=r"teacher\.device_map: LOCAL_RANK is set"):
        extract(teacher, tmp_path, model=TeacherSettings(model=str(teacher), device_map="auto"))


@pytest.mark.parametrize("given", [{"quant_method": "no-such-method"}, {"load_in_3bit": True}])
def test_a_quantization_that_is_not_known_is_one_clear_error(given: dict, teacher: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"teacher\.quantization"):
        extract(teacher, tmp_path, model=TeacherSettings(model=str(teacher), device="cpu", quantization=given))


def test_a_quantised_checkpoint_is_read_as_transformers_reads_it(tmp_path: Path):
    folder = quantised_folder(tmp_path / "int8")
    settings = TeacherSettings(
        model=str(folder), dtype="float32", device="cpu",
        quantization={"quant_method": "compressed-tensors", "dequantize": True},
    )  # fmt: skip
    stored = open_attention(extract(folder, tmp_path, model=settings))
    exact = open_attention(extract(tiny_model_folder(tmp_path / "exact", "llama", hidden=64), tmp_path))
    differences = [np.abs(stored[key].astype(float) - exact[key]).max() for key in exact]
    assert 1e-4 < max(differences) < 0.1  # rounded to eight bits, and not more


def quantised_folder(path: Path) -> Path:
    """A tiny Llama with weights of eight bits in the format of compressed-tensors."""
    quantization = pytest.importorskip("compressed_tensors.quantization", reason="compressed-tensors comes with vLLM")
    compressors = pytest.importorskip("compressed_tensors.compressors")
    weights = quantization.QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    config = quantization.QuantizationConfig(
        config_groups={"group_0": quantization.QuantizationScheme(targets=["Linear"], weights=weights)},
        ignore=["lm_head"], format="pack-quantized", quant_method="compressed-tensors",
        quantization_status=quantization.QuantizationStatus.FROZEN,
    )  # fmt: skip
    model = tiny_model("llama", hidden=64)
    quantization.apply_quantization_config(model, config)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data = module.weight.abs().amax(1, keepdim=True) / 127
    compressor = compressors.ModelCompressor(quantization_config=config)
    compressor.compress_model(model)
    model.save_pretrained(path)
    compressor.update_config(path)
    tiny_tokenizer().save_pretrained(path)
    return path


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
