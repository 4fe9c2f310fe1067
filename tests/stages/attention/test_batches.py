"""Batches under a budget: every text once, little padding, and going on when memory runs out."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.errors import ModelError
from stages.attention.batches import TokenBudget, compute_in_batches, length_batches

LENGTHS = [5, 30, 12, 7, 22, 9, 41, 16]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_batches_hold_each_index_once_and_keep_the_budget(lengths: list[int], budget: int):
    batches = length_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget


def test_longest_texts_come_first():
    assert length_batches([3, 9, 4], 8) == [[1], [2, 0]]


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Share of the batches' tokens that is padding."""
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths) / padded if padded else 0.0


def test_padding_by_hand():
    assert padding_share([10, 6, 4], [[0, 1], [2]]) == pytest.approx(4 / 24)
    assert padding_share([], []) == 0


@pytest.mark.parametrize("batch_tokens", [2048, 16384, 65536])
def test_padding_stays_under_a_tenth_on_the_lengths_of_svamp_and_gsm8k(batch_tokens: int, benchmark_data: Path):
    svamp = _lines(benchmark_data / "palm_rationales" / "svamp_palm_joined.jsonl")
    gsm8k = _lines(benchmark_data / "gsm8k" / "train.jsonl")
    texts = [f"{one['question']} {one['palm_rationale']}" for one in svamp]
    texts += [f"{one['question']} {one['answer']}" for one in gsm8k]
    # Words and signs, about the tokens of a large vocabulary; the longest first, as records come in pieces of 512.
    lengths = sorted((len(re.findall(r"\w+|[^\w\s]", text)) for text in texts), reverse=True)
    assert len(lengths) == 8473
    pieces = [lengths[first : first + 512] for first in range(0, len(lengths), 512)]
    padded = sum(sum(piece) / (1 - padding_share(piece, length_batches(piece, batch_tokens))) for piece in pieces)
    assert 1 - sum(lengths) / padded < 0.10


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Machine:
    """Computes twice the index, and runs out of memory above `tokens` tokens in a batch."""

    def __init__(self, tokens: int, error: BaseException | None = None) -> None:
        self.tokens = tokens
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        self.tried: list[int] = []
        self.done: list[int] = []

    def __call__(self, batch: list[int]) -> list[int]:
        size = max(LENGTHS[i] for i in batch) * len(batch)
        self.tried.append(size)
        if size > self.tokens:
            raise self.error
        self.done += batch
        return [2 * i for i in batch]


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried …"),
    MemoryError("Unable to allocate 4.00 GiB"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_halves_the_budget_and_loses_nothing(error: Exception, caplog: pytest.LogCaptureFixture):
    machine, budget = Machine(50, error), TokenBudget(200)
    with caplog.at_level(logging.WARNING):
        results = compute_in_batches(LENGTHS, budget, machine)
    assert results == [2 * i for i in range(len(LENGTHS))]
    assert sorted(machine.done) == list(range(len(LENGTHS)))  # nothing twice
    assert budget.tokens <= 50
    too_large = [size for size in machine.tried if size > 50]
    assert len(caplog.messages) == len(too_large) <= 3
    assert "164 tokens in a batch: going on with 82" in caplog.messages[0]


def test_a_smaller_budget_stays_for_what_comes_later(caplog: pytest.LogCaptureFixture):
    budget = TokenBudget(200)
    compute_in_batches(LENGTHS, budget, Machine(50))
    caplog.clear()
    again = Machine(50)
    compute_in_batches(LENGTHS, budget, again)
    assert max(again.tried) <= 50
    assert not caplog.messages


def test_a_single_text_that_does_not_fit_is_one_clear_error():
    with pytest.raises(ModelError, match=r"41 tokens alone.*attention\.max_length"):
        compute_in_batches(LENGTHS, TokenBudget(200), Machine(40))


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes do not match"):
        compute_in_batches(LENGTHS, TokenBudget(200), Machine(50, RuntimeError("shapes do not match")))
