"""The clock and the account of memory that benchmarks rest on. Nothing here waits for real time to pass."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stages.bench import measure
from stages.bench.measure import (
    bytes_in_use,
    clock,
    fastest,
    median,
    median_ratio,
    peak_bytes,
    spread_rounds,
    take_turns,
)
from stages.runtime.device import unless_out_of_memory

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
MEASURES_AN_ALLOCATION = """
import json, numpy, torch
from stages.bench.measure import bytes_in_use, measure_memory
cpu = torch.device("cpu")
found = measure_memory(lambda: numpy.ones(25_000_000), cpu)
print(json.dumps([found.baseline_bytes, found.peak_bytes, bytes_in_use(cpu)]))
"""


class Seconds:
    """A clock that only works themselves move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    seconds = Seconds()
    monkeypatch.setattr(measure.time, "perf_counter", seconds)
    return seconds


def raises(error: Exception) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


def test_peak_memory_sees_what_was_allocated_and_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURES_AN_ALLOCATION], cwd=ROOT, capture_output=True, text=True, check=True
    )
    baseline, peak, afterwards = json.loads(done.stdout)
    assert 195e6 < peak - baseline < 240e6
    assert afterwards - baseline < 40e6


def test_peak_is_at_least_what_is_in_use() -> None:
    assert 10e6 < bytes_in_use(CPU) <= peak_bytes(CPU)


def test_a_work_takes_what_the_clock_says(time: Seconds) -> None:
    time.spend(5)
    assert clock(lambda: time.spend(3), CPU) == 3


def test_works_take_turns_and_every_second_round_goes_backwards(time: Seconds) -> None:
    order: list[str] = []
    seconds = take_turns(
        {"a": lambda: time.spend(1), "b": lambda: time.spend(2), "c": lambda: time.spend(4)},
        rounds_of={"a": (0, 1, 2), "b": (0, 1, 2), "c": (0, 2)},
        device=CPU,
        before_each=order.append,
    )
    assert order == ["a", "b", "c", "b", "a", "a", "b", "c"]
    assert seconds == {"a": (1, 1, 1), "b": (2, 2, 2), "c": (4, None, 4)}


def test_what_is_done_between_works_is_not_timed(time: Seconds) -> None:
    seconds = take_turns(
        {"a": lambda: time.spend(1)},
        rounds_of={"a": (0, 1)},
        device=CPU,
        before_each=lambda _: time.spend(100),
        after_each=lambda: time.spend(1000),
    )
    assert seconds == {"a": (1, 1)}
    assert time.now == 2202


def test_a_work_that_runs_out_of_memory_is_left_out_and_the_others_go_on(time: Seconds) -> None:
    ran: list[str] = []
    seconds = take_turns(
        {"large": raises(torch.OutOfMemoryError("no")), "small": lambda: time.spend(1)},
        rounds_of={"large": (0, 1), "small": (0, 1)},
        device=CPU,
        before_each=ran.append,
    )
    assert seconds == {"small": (1, 1)}
    assert ran == ["large", "small", "small"]


def test_no_works_take_no_rounds() -> None:
    assert take_turns({}, rounds_of={}, device=CPU) == {}


def test_an_error_of_another_kind_is_no_matter_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"):
        unless_out_of_memory(raises(RuntimeError("shapes differ")))
    with pytest.raises(KeyError):
        take_turns({"a": raises(KeyError("x"))}, rounds_of={"a": (0,)}, device=CPU)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_every_way_of_running_out_of_memory_is_known(error: Exception) -> None:
    assert unless_out_of_memory(raises(error)) is None


def test_the_host_s_end_of_memory_is_known_by_what_torch_really_raises() -> None:
    assert unless_out_of_memory(lambda: torch.empty(2**46)) is None
    assert unless_out_of_memory(lambda: torch.ones(2)) is not None


@pytest.mark.parametrize(
    ("repeats", "most", "rounds"),
    [(5, 3, (0, 1, 3)), (10, 3, (0, 3, 6)), (2, 3, (0, 1)), (1, 3, (0,)), (4, 4, (0, 1, 2, 3))],
)
def test_few_rounds_are_spread_over_many(repeats: int, most: int, rounds: tuple[int, ...]) -> None:
    assert spread_rounds(repeats, most) == rounds


def test_median_and_fastest_are_over_the_rounds_that_there_were() -> None:
    assert median((3.0, None, 1.0, 8.0)) == 3.0
    assert fastest((3.0, None, 1.0, 8.0)) == 1.0


def test_ratio_is_the_median_of_the_ratios_of_shared_rounds() -> None:
    # Round by round 1/2, 4/2 and 9/3; the second round has no partner. Medians of each side would give 4/2.5.
    assert median_ratio((1.0, 7.0, 4.0, 9.0), (2.0, None, 2.0, 3.0)) == 2.0
    assert median_ratio((1.0, None), (None, 2.0)) is None
