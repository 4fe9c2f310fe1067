"""The methods that `molsaki bench attention` compares compute the same, and a method that does not is noticed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from data.errors import ConfigError, MismatchError
from stages.attention.tokens import Located
from stages.bench import attention as bench_attention
from stages.bench.attention import (
    METHODS,
    SVAMP,
    AttentionJob,
    Method,
    Text,
    check_text,
    compare,
    made_up_records,
    measure_peak,
    measure_times,
)
from stages.toy.random_llama import Shape, check_shape
from tests.fakes import POSITIONS, tiny_model_folder

ALL: tuple[Method, ...] = ("forward", "molsaki", "output_attentions", "one-by-one")
TINY = AttentionJob(
    model=None,
    shape=Shape(layers=2, width=32, heads=4, kv_heads=2),
    texts=(Text(tokens=48, steps=3, words=5), Text(tokens=31, steps=4, words=7), Text(tokens=20, steps=1, words=2)),
    methods=ALL,
    repeats=4,
    batch_tokens=100,
    device="cpu",
    dtype="float32",
    threads=None,
)
Wrong = Callable[[torch.Tensor], torch.Tensor]


def break_method(monkeypatch: pytest.MonkeyPatch, method: Method, wrong: Wrong) -> None:
    """Let a method return something else than it has computed."""
    right = METHODS[method].run

    def run(model: PreTrainedModel, records: Sequence[Located]) -> torch.Tensor:
        return wrong(right(model, records))

    monkeypatch.setitem(METHODS, method, replace(METHODS[method], run=run))


def run_out_of_memory(monkeypatch: pytest.MonkeyPatch, method: Method, error: Exception) -> None:
    def run(model: PreTrainedModel, records: Sequence[Located]) -> torch.Tensor:
        raise error

    monkeypatch.setitem(METHODS, method, replace(METHODS[method], run=run))


def test_methods_agree_and_take_part_in_their_rounds() -> None:
    ran = []
    times = measure_times(TINY, after_each=lambda: ran.append(1))
    assert list(times.rounds) == list(ALL)
    taken = {method: [seconds is not None for seconds in rounds] for method, rounds in times.rounds.items()}
    assert taken["forward"] == taken["molsaki"] == [True] * 4
    assert taken["output_attentions"] == taken["one-by-one"] == [True, True, True, False]
    assert all(seconds is None or seconds > 0 for rounds in times.rounds.values() for seconds in rounds)
    assert len(ran) == 4 + (4 + 4 + 3 + 3)
    assert times.differences.keys() == {"molsaki", "one-by-one"}
    assert max(times.differences.values()) < 1e-5
    assert (times.setting.device, times.setting.layers, times.setting.kv_heads) == ("cpu", 2, 2)


def test_methods_agree_in_half_precision_as_far_as_rounding_allows() -> None:
    times = measure_times(replace(TINY, dtype="bfloat16", repeats=1))
    assert 0 < times.differences["molsaki"] < 0.2


def test_attention_of_the_random_model_is_uneven_enough_to_tell_methods_apart() -> None:
    job = replace(TINY, shape=Shape(layers=2, width=256, heads=4, kv_heads=4))
    model, records = bench_attention._prepare(job)
    blocks = bench_attention._work("output_attentions", model, records, 100)
    model.base_model.set_attn_implementation("eager")
    attention_LSK = blocks()[0]
    words_of_one_token = attention_LSK[..., ::2]
    assert words_of_one_token.max() > 3 * words_of_one_token.mean()


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros_like, lambda a: 1.05 * a, lambda a: a.roll(1, dims=-1), lambda a: a.roll(1, dims=1), lambda a: a / 0],
    ids=["zeros", "five percent more", "other words", "other layers", "not finite"],
)
@pytest.mark.parametrize("method", ["molsaki", "output_attentions", "one-by-one"])
def test_a_method_that_computes_something_else_is_noticed(
    monkeypatch: pytest.MonkeyPatch, method: Method, wrong: Wrong
) -> None:
    break_method(monkeypatch, method, wrong)
    with pytest.raises(MismatchError, match=r"record \d: layer"):
        measure_times(TINY)


def test_a_wrong_method_is_noticed_in_half_precision_too(monkeypatch: pytest.MonkeyPatch) -> None:
    break_method(monkeypatch, "molsaki", torch.zeros_like)
    with pytest.raises(MismatchError, match="molsaki against output_attentions"):
        measure_times(replace(TINY, dtype="bfloat16"))


def test_a_small_difference_is_reported_and_one_above_a_thousandth_a_token_is_an_error() -> None:
    (record,) = made_up_records([Text(tokens=8, steps=2, words=1)], 10)
    theirs = {0: np.array([[[0.5], [3.0]]], dtype=np.float32)}

    def ours(difference: float) -> dict[Method, dict[int, np.ndarray]]:
        changed = theirs[0] + np.array([[[0.0], [difference]]], dtype=np.float32)
        return {"molsaki": {0: changed}, "output_attentions": theirs}

    assert compare(ours(0.003), [record], "float32")["molsaki"] == pytest.approx(0.003, rel=1e-3)
    with pytest.raises(MismatchError, match=r"layer 0, step 1, word 0: 3\.0045 against 3, at most 0\.004 apart"):
        compare(ours(0.0045), [record], "float32")


def test_without_an_eager_method_there_is_nothing_to_compare_with() -> None:
    times = measure_times(replace(TINY, methods=("forward", "molsaki"), repeats=1))
    assert times.differences == {}
    assert set(times.rounds) == {"forward", "molsaki"}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_method_that_runs_out_of_memory_is_left_out_and_the_next_one_is_the_reference(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run_out_of_memory(monkeypatch, "output_attentions", error)
    times = measure_times(replace(TINY, repeats=1))
    assert set(times.rounds) == {"forward", "molsaki", "one-by-one"}
    assert set(times.differences) == {"molsaki"}
    assert measure_peak(replace(TINY, methods=("output_attentions",))) is None


def test_another_error_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    run_out_of_memory(monkeypatch, "molsaki", RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        measure_times(TINY)


@pytest.mark.parametrize("method", ALL)
def test_peak_memory_is_above_that_of_the_loaded_model(method: Method) -> None:
    memory = measure_peak(replace(TINY, methods=(method,)))
    assert memory is not None
    assert 0 < memory.baseline_bytes <= memory.peak_bytes


def test_a_model_from_a_folder_is_measured_in_its_own_shape(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path, "gpt2", layers=3)
    times = measure_times(replace(TINY, model=str(folder), repeats=1))
    assert (times.setting.layers, times.setting.width, times.setting.kv_heads) == (3, 32, 4)
    assert times.differences["molsaki"] < 1e-5


def test_texts_longer_than_the_model_knows_positions_for_are_refused(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path, "gpt2")
    with pytest.raises(ConfigError, match=f"knows positions for {POSITIONS}"):
        measure_times(replace(TINY, model=str(folder), texts=(Text(tokens=POSITIONS + 1, steps=1, words=1),)))


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        measure_peak(replace(TINY, model=str(tmp_path / "missing"), methods=("forward",)))


def test_number_of_threads_is_that_of_the_job() -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            assert measure_times(replace(TINY, threads=threads, repeats=1)).setting.threads == threads
    finally:
        torch.set_num_threads(before)


@given(tokens=st.integers(1, 200), steps=st.integers(1, 20), words=st.integers(1, 40))
def test_made_up_records_have_their_steps_and_words_all_over_the_text(tokens: int, steps: int, words: int) -> None:
    text = Text(tokens=tokens, steps=steps, words=words)
    if tokens < max(steps, 2 * words):
        with pytest.raises(ConfigError, match=f"a text of {tokens} tokens"):
            check_text(text)
        return
    check_text(text)
    (record,) = made_up_records([text], 10)
    assert len(record.ids) == tokens
    assert (record.step_tokens() > 0).all()
    assert record.step_tokens().sum() == tokens
    assert len(record.step_tokens()) == steps
    covered = np.concatenate(record.tokens_of_word)
    assert len(record.tokens_of_word) == words
    assert {len(word) for word in record.tokens_of_word} <= {1, 2}
    assert len(set(covered.tolist())) == len(covered)
    assert covered.max() < tokens
    assert covered.max() >= tokens - 2 * (tokens / words)


def test_the_svamp_mix_is_a_valid_one() -> None:
    for text in SVAMP:
        check_text(text)
    assert [text.tokens for text in SVAMP] == sorted(text.tokens for text in SVAMP)


@pytest.mark.parametrize(("width", "expected"), [(512, 1408), (4096, 10944), (192, 512)])
def test_feed_forward_part_is_as_wide_as_llama_s(width: int, expected: int) -> None:
    assert Shape(layers=1, width=width, heads=4, kv_heads=4).feed_forward == expected


@pytest.mark.parametrize(
    ("width", "heads", "kv_heads", "named"),
    [(30, 4, 4, "--width 30"), (36, 12, 12, "--width 36"), (32, 4, 3, "--kv-heads 3"), (32, 4, 8, "--kv-heads 8")],
)
def test_a_shape_that_no_model_has_is_refused(width: int, heads: int, kv_heads: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check_shape(Shape(layers=1, width=width, heads=heads, kv_heads=kv_heads))


@pytest.mark.gpu
def test_methods_agree_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    job = replace(TINY, device="cuda", dtype="bfloat16", repeats=1)
    assert measure_times(job).differences["molsaki"] < 0.2
    memory = measure_peak(replace(job, methods=("output_attentions",)))
    assert memory is not None
    assert 0 < memory.baseline_bytes < memory.peak_bytes
