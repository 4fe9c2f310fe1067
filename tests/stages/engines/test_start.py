"""An engine that dies is started again, so often and no more, and asked only what was not answered."""

import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from data.errors import ConfigError, EngineError, Interrupted
from stages.engines.contract import TOO_LONG, Answers, Decoding, EngineSetup, Generation
from stages.engines.start import RestartingEngine, open_engine
from stages.runtime.progress import StopSignal
from tests.fakes import ScriptedEngine, tiny_model_folder

PROMPTS = [f"prompt {number}" for number in range(10)]
SHOUTED = [Generation(text=prompt.upper(), finish_reason="stop") for prompt in PROMPTS]


class Starts:
    """Starts engines of which each fails after so many prompts, None never; an error in their place is raised."""

    def __init__(self, *lives: int | Exception | None) -> None:
        self.lives = list(lives)
        self.engines: list[ScriptedEngine] = []

    def __call__(self) -> ScriptedEngine:
        life = self.lives.pop(0)
        if isinstance(life, Exception):
            raise life
        self.engines.append(ScriptedEngine(str.upper, fails_after=life, backwards=True))
        return self.engines[-1]


def setup(restarts: int, notes: list[str] | None = None, stop: StopSignal | None = None) -> EngineSetup:
    return EngineSetup(
        model="teacher",
        revision=None,
        decoding=Decoding(max_tokens=9),
        restarts=restarts,
        note=([] if notes is None else notes).append,
        stop=stop,
    )


def test_only_what_was_not_answered_is_asked_again() -> None:
    starts, notes = Starts(3, 4, None), list[str]()
    with RestartingEngine(starts, setup(2, notes)) as engine:
        assert engine.generate(PROMPTS) == SHOUTED
    assert [len(each.prompts) for each in starts.engines] == [3, 4, 3]
    assert sorted(prompt for each in starts.engines for prompt in each.prompts) == PROMPTS
    assert all(each.closed for each in starts.engines)
    assert notes == [
        "the engine ended (scripted failure after 3 prompts); starting it again, 1 of 2 times, for 7 prompts",
        "the engine ended (scripted failure after 4 prompts); starting it again, 2 of 2 times, for 3 prompts",
    ]


def test_what_dies_again_and_again_ends_with_an_error_and_keeps_what_it_answered() -> None:
    starts, answered = Starts(3, 2, 1, None), list[int]()
    with RestartingEngine(starts, setup(2)) as engine:
        with pytest.raises(EngineError, match=r"failure after 1 prompts; it was started again 2 times, as rationales"):
            answered.extend(place for place, _ in engine.stream(PROMPTS))
        assert sorted(answered) == [4, 5, 6, 7, 8, 9]
    assert all(each.closed for each in starts.engines)


def test_restarts_count_for_all_streams_together() -> None:
    with RestartingEngine(Starts(10, 3, None), setup(1)) as engine:
        assert engine.generate(PROMPTS) == SHOUTED
        assert engine.generate(PROMPTS[:2]) == SHOUTED[:2]
        with pytest.raises(EngineError, match="1 times"):
            engine.generate(PROMPTS)


@pytest.mark.parametrize("error", [EngineError("no start"), ConfigError("memory is not free yet")])
def test_a_restart_that_fails_counts_and_is_an_engine_error(error: Exception) -> None:
    with RestartingEngine(Starts(3, error, None), setup(2)) as engine:
        assert engine.generate(PROMPTS) == SHOUTED
    with pytest.raises(EngineError, match=str(error)), RestartingEngine(Starts(3, error, error), setup(2)) as engine:
        engine.generate(PROMPTS)


def test_a_first_start_that_fails_is_not_tried_again() -> None:
    with pytest.raises(ConfigError, match="no such model"):
        RestartingEngine(Starts(ConfigError("no such model"), None), setup(2))


def test_an_engine_that_a_signal_took_along_is_not_started_again() -> None:
    starts = Starts(3, None)
    with StopSignal() as stop, RestartingEngine(starts, setup(2, stop=stop)) as engine:
        answers = engine.stream(PROMPTS)
        next(answers)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"):
            list(answers)
    assert len(starts.engines) == 1


def test_decoding_is_passed_on_and_a_stream_given_up_is_given_up_below() -> None:
    seen: list[Decoding | None] = []
    given_up: list[bool] = []

    class Watched(ScriptedEngine):
        def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
            seen.append(decoding)
            try:
                yield from super().stream(prompts, decoding)
            finally:
                given_up.append(len(self.prompts) < len(prompts))

    with RestartingEngine(lambda: Watched(str.upper), setup(1)) as engine:
        answers = engine.stream(PROMPTS, Decoding(max_tokens=3))
        next(answers)
        answers.close()
    assert seen == [Decoding(max_tokens=3)] and given_up == [True]


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_goes_on_after_its_process_died_whose_last_words_are_in_the_log_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    folder, notes = tiny_model_folder(tmp_path / "tiny", "llama", hidden=128), list[str]()
    started = EngineSetup(
        model=str(folder),
        revision=None,
        decoding=Decoding(max_tokens=40),
        dtype="float32",
        device="cpu",
        arguments={"hf_overrides": {"max_position_embeddings": 96}, "compilation_config": {"mode": 0}},
        restarts=1,
        note=notes.append,
    )
    prompts = [f"{number}" for number in range(400)]
    caplog.set_level(logging.INFO)
    with open_engine("vllm", started) as engine:
        assert isinstance(engine, RestartingEngine)
        answers = engine.stream(prompts)
        texts = dict([next(answers)])
        for process in engine._engine.processes:  # type: ignore[attr-defined]
            os.kill(process.pid, signal.SIGSEGV)  # of which it writes a page or two
        texts.update(answers)
        assert engine.generate(prompts) == [texts[place] for place in range(len(prompts))]
        assert engine.generate(["x" * 96]) == [TOO_LONG], "nested arguments reach vLLM"
    assert len(notes) == 1 and "vLLM failed" in notes[0]
    assert "Segfault" in caplog.text and "Segfault" not in "".join(capfd.readouterr())
