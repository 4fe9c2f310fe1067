"""How requests go through vLLM's engine, held against a scripted one that computes nothing."""

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from data.errors import Interrupted
from stages.engines_vllm import ON_THE_WAY, _Request, _Requests
from stages.progress import StopSignal

BATCH = 4


@dataclass
class ScriptedCore:
    """Looks like vLLM's `LLMEngine`: all requests of a batch end in one step, the last one first."""

    fails_after_steps: int | None = None
    hangs_after_steps: int | None = None
    waiting: deque[str] = field(default_factory=deque)
    aborted: list[str] = field(default_factory=list)
    most_waiting: int = 0
    batches: list[int] = field(default_factory=list)
    vllm_config: Any = field(
        default_factory=lambda: SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=BATCH))
    )

    @property
    def renderer(self) -> Any:
        return SimpleNamespace(render_cmpl=lambda prompts: prompts)

    def add_request(self, name: str, prompt: object, params: object) -> None:
        self.waiting.append(name)
        self.most_waiting = max(self.most_waiting, len(self.waiting))

    def step(self) -> list[Any]:
        if len(self.batches) == self.fails_after_steps:
            raise RuntimeError("scripted end")
        if len(self.batches) == self.hangs_after_steps:
            Event().wait()
        names = [self.waiting.popleft() for _ in range(min(BATCH, len(self.waiting)))]
        self.batches.append(len(names))
        return [self._output(name) for name in reversed(names)]

    def abort_request(self, names: Sequence[str]) -> None:
        self.aborted.extend(names)

    def _output(self, name: str) -> Any:
        return SimpleNamespace(
            request_id=name, finished=True, outputs=[SimpleNamespace(text=f"text {name}", finish_reason="stop")]
        )


def requests(core: ScriptedCore, count: int, *, too_long: int = -1, stop: StopSignal | None = None) -> _Requests:
    return _Requests(core, asked(count, too_long), processes=(), stop=stop)


def asked(count: int, too_long: int = -1) -> Iterator[_Request]:
    for place in range(count):
        yield _Request(place=place, ids=None if place == too_long else [place], sampling=None)


def test_every_request_is_answered_once_and_first_batches_are_full() -> None:
    core = ScriptedCore()
    going = requests(core, 101, too_long=50)
    answers = [going.answer() for _ in range(101)]
    going.end()
    assert sorted(place for place, _ in answers) == list(range(101))
    assert [generation.finish_reason for place, generation in answers if place == 50] == ["too_long"]
    assert core.batches[: ON_THE_WAY - 1] == (ON_THE_WAY - 1) * [BATCH] and sum(core.batches) == 100
    assert core.most_waiting <= ON_THE_WAY * BATCH and not core.aborted


def test_answers_that_nobody_fetches_hold_back_what_is_asked() -> None:
    core, made = ScriptedCore(), asked(1000)
    going = _Requests(core, made, processes=(), stop=None)
    going.answer()
    going._thread.join(0.5)
    assert sum(core.batches) + len(core.waiting) == ON_THE_WAY * BATCH + 1
    going.end()
    assert not going._thread.is_alive()
    assert next(made).place == ON_THE_WAY * BATCH + 1


def test_what_vllm_raises_comes_after_what_it_answered() -> None:
    going = requests(ScriptedCore(fails_after_steps=2), 100)
    assert len({going.answer()[0] for _ in range(2 * BATCH)}) == 2 * BATCH
    with pytest.raises(RuntimeError, match="scripted end"):
        going.answer()


def test_ending_gives_up_what_is_on_the_way() -> None:
    core = ScriptedCore()
    going = requests(core, 1000)
    going.answer()
    going.end()
    assert not going._thread.is_alive()
    assert set(core.aborted) == set(core.waiting)


def test_a_signal_ends_the_waiting_for_an_answer_that_does_not_come() -> None:
    with StopSignal() as stop:
        going = requests(ScriptedCore(hangs_after_steps=1), 100, stop=stop)
        for _ in range(BATCH):
            going.answer()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"):
            going.answer()
