"""How requests go through vLLM's engine, held against a scripted one that computes nothing."""

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Event, Timer
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from data.errors import ConfigError, EngineError, Interrupted
from stages.engines.contract import Decoding, EngineSetup
from stages.engines.kinds.vllm import (
    ON_THE_WAY,
    Request,
    VllmEngine,
    _Requests,
    generation_of,
    sampling_arguments,
    take_own_gpus,
)
from stages.runtime.progress import StopSignal

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


def asked(count: int, too_long: int = -1) -> Iterator[Request]:
    for place in range(count):
        yield place, None if place == too_long else [place], None


def test_a_sampled_prompt_has_its_own_seed_and_a_greedy_one_none() -> None:
    sampled = Decoding(max_tokens=8, temperature=1.0, top_p=0.9, seed=3)
    seeds = [sampling_arguments(sampled, prompt)["seed"] for prompt in ("a", "b", "a")]
    assert seeds[0] == seeds[2] != seeds[1]
    greedy = sampling_arguments(Decoding(max_tokens=8, stop=("Q:",)), "a")
    assert greedy == {"max_tokens": 8, "temperature": 0.0, "stop": ["Q:"]}


def test_a_text_that_ended_for_no_reason_of_ours_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="for the reason 'abort'"):
        generation_of(SimpleNamespace(text="abc", finish_reason="abort"))


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
    assert next(made)[0] == ON_THE_WAY * BATCH + 1


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


SETUP = EngineSetup(model="teacher", revision=None, decoding=Decoding(max_tokens=9))


def scripted_vllm(monkeypatch: pytest.MonkeyPatch, start: Callable[[], Any], *, on_cpu: bool = False) -> None:
    """A package `vllm` whose `LLM` is what `start` makes."""
    vllm, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    vllm.LLM = lambda **_: start()  # type: ignore[attr-defined]
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: on_cpu)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)


def failing(error: Exception) -> Callable[[], Any]:
    def start() -> Any:
        raise error

    return start


class StrictDataclassFieldValidationError(Exception):
    """As transformers checks a configuration's types, which is none of Python's own errors."""


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (TypeError("no such argument"), ConfigError, "no such argument"),
        (AttributeError("'str' object has no attribute 'items'"), ConfigError, "no attribute 'items'"),
        (
            StrictDataclassFieldValidationError("Validation error for field 'rope':\n    TypeError: expected int"),
            ConfigError,
            "engine_arguments: TypeError: expected int",
        ),
        (RuntimeError("no GPU is free"), EngineError, "does not start with model teacher: no GPU is free"),
    ],
)
def test_whatever_vllm_raises_at_its_start_is_one_of_our_errors(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], said: str
) -> None:
    scripted_vllm(monkeypatch, failing(error))
    with pytest.raises(kind, match=said):
        VllmEngine(SETUP)


def test_a_model_whose_tokenizer_was_not_wanted_is_refused_and_vllm_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    core = SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda: ended.append(True)))
    llm = SimpleNamespace(llm_engine=core, get_tokenizer=failing(ValueError("skip_tokenizer_init is set")))
    scripted_vllm(monkeypatch, lambda: llm)
    with pytest.raises(ConfigError, match="skip_tokenizer_init is set"):
        VllmEngine(SETUP)
    assert ended == [True]


def test_a_signal_ends_a_start_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_vllm(monkeypatch, lambda: time.sleep(60))
    with StopSignal() as stop:
        timer = Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        begun = time.monotonic()
        with pytest.raises(Interrupted, match="SIGTERM"):
            VllmEngine(replace(SETUP, stop=stop))
        assert time.monotonic() - begun < 10
        timer.join()


@pytest.mark.parametrize(
    ("variables", "arguments", "visible"),
    [
        ({}, {}, None),
        ({"CUDA_VISIBLE_DEVICES": "4,5"}, {}, "4,5"),
        ({"LOCAL_RANK": "0"}, {}, "0"),
        ({"LOCAL_RANK": "3"}, {}, "3"),
        ({"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "4, 7"}, {}, "7"),
        ({"LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": "GPU-ab,GPU-cd"}, {}, "GPU-ab"),
        ({"LOCAL_RANK": "1"}, {"tensor_parallel_size": 2}, "2,3"),
        (
            {"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "7,6,5,4,3,2,1,0"},
            {"tensor_parallel_size": 2, "pipeline_parallel_size": 2},
            "3,2,1,0",
        ),
    ],
)
def test_each_process_of_torchrun_sees_its_own_gpus(
    variables: dict[str, str], arguments: dict[str, Any], visible: str | None
) -> None:
    environment = dict(variables)
    for _ in range(2):  # an engine that is started again finds the same
        take_own_gpus(arguments, environment)
        assert environment == ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})


@pytest.mark.parametrize("visible", ["", "0", "0,1,2"])
def test_fewer_gpus_than_processes_take_are_refused(visible: str) -> None:
    with pytest.raises(ConfigError, match=r"LOCAL_RANK=1 .* GPU 2, 3, .* CUDA_VISIBLE_DEVICES shows"):
        take_own_gpus({"tensor_parallel_size": 2}, {"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": visible})


@pytest.mark.parametrize(("on_cpu", "visible"), [(False, "5"), (True, "")])
def test_vllm_is_started_with_the_gpus_of_this_process(
    monkeypatch: pytest.MonkeyPatch, on_cpu: bool, visible: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "" if on_cpu else "4,5")
    seen: list[str] = []

    def start() -> Any:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        raise RuntimeError("that was enough")

    scripted_vllm(monkeypatch, start, on_cpu=on_cpu)
    with pytest.raises(EngineError):
        VllmEngine(SETUP)
    assert seen == [visible]


@pytest.mark.parametrize(
    ("extension", "before", "expected"), [(None, None, None), ("one.Extension", None, "0"), ("one.Extension", "1", "1")]
)
def test_workers_that_watch_layers_have_the_runner_that_tells_whose_tokens_they_are(
    monkeypatch: pytest.MonkeyPatch, extension: str | None, before: str | None, expected: str | None
) -> None:
    name = "VLLM_USE_V2_MODEL_RUNNER"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    seen: list[str | None] = []

    def start() -> Any:
        seen.append(os.environ.get(name))
        raise RuntimeError("that was enough")

    scripted_vllm(monkeypatch, start)
    with pytest.raises(EngineError):
        VllmEngine(replace(SETUP, extension=extension))
    assert seen == [expected]
