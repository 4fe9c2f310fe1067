"""The steps that `molsaki bench train` compares compute the same losses, and a method that does not is noticed."""

from dataclasses import replace

import pytest
import torch

from data.errors import ConfigError, MismatchError
from stages.bench import train as bench_train
from stages.bench.train import METHODS, OutputAttentions, TrainJob, check_job, measure_peak, measure_times
from stages.toy.random_llama import Shape

TINY = TrainJob(
    shape=Shape(layers=2, width=32, heads=4, kv_heads=2),
    vocabulary=50,
    length=30,
    steps=3,
    words=5,
    records=3,
    methods=METHODS,
    repeats=2,
    gradient_checkpointing=False,
    device="cpu",
    dtype="float32",
    threads=None,
)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_of_all_methods_agree(checkpointing: bool):
    student = bench_train._Student(replace(TINY, gradient_checkpointing=checkpointing))
    losses = {}
    for method in METHODS:
        student.set_kernel(method)
        losses[method] = student.losses(method)
    for name in ("L_pre", "L_exp", "L_att", "loss"):
        torch.testing.assert_close(losses["molsaki"][name], losses["output_attentions"][name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses["dss"]["L_exp"], losses["molsaki"]["L_exp"], rtol=1e-5, atol=1e-6)
    assert "L_att" not in losses["dss"]


def test_every_method_is_timed_in_every_round_and_said_to_agree():
    ended: list[int] = []
    times = measure_times(TINY, after_each=lambda: ended.append(1))
    assert list(times.rounds) == list(METHODS)
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in times.rounds.values())
    assert times.differences.keys() == {"molsaki"} and times.differences["molsaki"] < 1e-4
    assert (times.setting.layers, times.setting.width) == (2, 32)
    assert len(ended) == 3 * len(METHODS), "a step of each to warm up, and two rounds"


def test_a_method_that_computes_something_else_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch):
    right = OutputAttentions.losses
    monkeypatch.setattr(
        OutputAttentions,
        "losses",
        lambda self, step: {name: 1.1 * loss for name, loss in right(self, step).items()},
    )
    with pytest.raises(MismatchError, match="differ by 9"):
        measure_times(TINY)


def test_without_eager_attention_there_is_nothing_to_compare_with():
    times = measure_times(replace(TINY, methods=("dss", "molsaki")))
    assert times.differences == {}
    assert list(times.rounds) == ["dss", "molsaki"]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_method_that_does_not_fit_is_left_out(error: BaseException, monkeypatch: pytest.MonkeyPatch):
    def no_room(self: OutputAttentions, step: object) -> dict[str, torch.Tensor]:
        raise error

    monkeypatch.setattr(OutputAttentions, "losses", no_room)
    times = measure_times(TINY)
    assert list(times.rounds) == ["dss", "molsaki", "soft-labels"]
    assert measure_peak(replace(TINY, methods=("output_attentions",))) is None


def test_peak_memory_is_more_than_there_was_before():
    memory = measure_peak(replace(TINY, methods=("molsaki",)))
    assert memory is not None and memory.peak_bytes >= memory.baseline_bytes > 0


def test_texts_too_short_for_their_words_are_refused():
    with pytest.raises(ConfigError, match="5 words of up to two tokens"):
        check_job(replace(TINY, length=9))
    with pytest.raises(ConfigError, match="too short for a question and an answer"):
        check_job(replace(TINY, length=6, steps=1, words=1))
