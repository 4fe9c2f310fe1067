"""`engine: ray` on a cluster of this machine alone, without a GPU: it answers what the other engines answer.

Each stream starts vLLM anew, which takes half a minute or more, so the calls of the engines' contract (test_engines.py)
are made in one, and compared with what the engine of transformers, which is held to the contract, says to each.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from data.errors import ConfigError, EngineError, Interrupted
from stages.engines.contract import Cluster, Engine, EngineSetup, Generation
from stages.engines.kinds.ray import ROWS, RayEngine
from stages.engines.start import open_engine
from stages.runtime.progress import StopSignal
from tests.engines import Calls, all_answers
from tests.fakes import ending_model_folder, tiny_model_folder
from tests.stages.engines.test_contract import GREEDY, PROMPTS, SAMPLED, WINDOW

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]
ENGINE_PROCESS = "ray::MapWorker(MapBatches(vLLMEngineStageUDF))"


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> EngineSetup:
    """For a model some of whose texts end by themselves."""
    folder = tmp_path_factory.mktemp("models")
    plain = EngineSetup(
        model=str(tiny_model_folder(folder / "tiny", "llama", hidden=128)),
        revision=None,
        decoding=GREEDY,
        dtype="float32",
        device="cpu",
        arguments={"max_model_len": WINDOW},
        restarts=1,
        cluster=Cluster(batch=4),
    )
    with open_engine("transformers", plain) as engine:
        (first,) = engine.generate(PROMPTS[:1])
    ending = ending_model_folder(folder / "ending", Path(plain.model), first.text[10])
    return replace(plain, model=str(ending))


@pytest.fixture(scope="module")
def transformers(setup: EngineSetup) -> Iterator[Engine]:
    with open_engine("transformers", setup) as engine:
        yield engine


@pytest.fixture(scope="module")
def ray(setup: EngineSetup) -> Iterator[RayEngine]:
    """One Ray for all tests of this file; streams share nothing else."""
    with open_engine("ray", setup) as engine:
        assert isinstance(engine, RayEngine)
        yield engine


@pytest.fixture(scope="module")
def calls(transformers: Engine) -> Calls:
    """Greedy calls, each with what it is about."""
    text = transformers.generate(PROMPTS[1:2])[0].text
    return {
        "plain": (PROMPTS, GREEDY),
        "a stop string": (PROMPTS, replace(GREEDY, stop=("\n\n", text[5:7]))),
        "of several stop strings the one that ends first": (
            PROMPTS,
            replace(GREEDY, stop=(text[7:9], text[4:6], text[5])),
        ),
        "a stop string in the prompt": (PROMPTS[:1], replace(GREEDY, stop=("apples", "A:"))),
        "prompts that are too long": (["x" * WINDOW, PROMPTS[0], "x" * (3 * WINDOW)], GREEDY),
        "a text that ends where the window does": (["x" * (WINDOW - 5), "x" * (WINDOW - 1)], GREEDY),
        "equal prompts": ([PROMPTS[2], *reversed(PROMPTS), PROMPTS[2]], GREEDY),
        "shorter texts": (PROMPTS, replace(GREEDY, max_tokens=11)),
        "sampled": (PROMPTS, SAMPLED),
        "one of the sampled by itself": (PROMPTS[4:5], SAMPLED),
        "sampled with another seed": (PROMPTS, replace(SAMPLED, seed=4)),
    }


@pytest.fixture(scope="module")
def answers(ray: RayEngine, calls: Calls) -> dict[str, list[Generation]]:
    """What one stream of Ray answers to all calls."""
    return all_answers(ray, calls)


def test_greedy_answers_are_those_of_transformers(
    answers: dict[str, list[Generation]], calls: Calls, transformers: Engine
) -> None:
    for name, (prompts, decoding) in calls.items():
        if decoding.temperature == 0:
            assert answers[name] == transformers.generate(prompts, decoding), name
    reasons = {generation.finish_reason for some in answers.values() for generation in some}
    assert reasons == {"stop", "length", "too_long"}
    assert {generation.finish_reason for generation in answers["plain"]} == {"stop", "length"}, "nothing ends by itself"


def test_sampling_is_repeatable_and_depends_on_no_other_prompt(answers: dict[str, list[Generation]]) -> None:
    assert answers["one of the sampled by itself"] == answers["sampled"][4:5]
    assert answers["sampled"] != answers["plain"]
    assert answers["sampled with another seed"] != answers["sampled"]


def test_no_prompts_start_nothing(ray: RayEngine) -> None:
    assert ray.generate([]) == []
    assert ray.generate(["x" * WINDOW])[0].finish_reason == "too_long"


def test_an_argument_that_vllm_does_not_know_is_a_configuration_error(ray: RayEngine, setup: EngineSetup) -> None:
    with pytest.raises(ConfigError) as caught:
        open_engine("ray", replace(setup, arguments={"no_such_argument": 1}))
    assert "no_such_argument" in str(caught.value) and "\n" not in str(caught.value)


def test_a_cluster_without_a_gpu_has_no_room_for_an_engine_on_one(ray: RayEngine, setup: EngineSetup) -> None:
    with pytest.raises(EngineError, match=r"no room for an engine, which needs 1 GPU; found 0 GPU"):
        open_engine("ray", replace(setup, device="cuda"))


def engine_processes() -> list[psutil.Process]:
    """The processes below this one in which Ray runs an engine."""
    below = psutil.Process().children(recursive=True)
    return [each for each in below if each.is_running() and ENGINE_PROCESS in " ".join(_command(each))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_an_engine_that_dies_is_started_again_and_a_stream_given_up_leaves_ray_usable(
    ray: RayEngine, transformers: Engine
) -> None:
    expected = [generation.text for generation in transformers.generate(PROMPTS)]
    with closing(ray.stream(200 * PROMPTS)) as stream:
        place, generation = next(stream)
        assert generation.text == expected[place % len(PROMPTS)]
        (process,) = engine_processes()
        process.kill()
        for _ in range(300):
            place, generation = next(stream)
            assert generation.text == expected[place % len(PROMPTS)]


def test_an_engine_that_dies_too_often_is_an_engine_error(
    ray: RayEngine, setup: EngineSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "_setup", replace(setup, restarts=0))
    answered = 0
    with pytest.raises(EngineError, match=r"Ray failed with [0-9,]+ prompts unanswered") as caught:
        for _ in ray.stream(400 * PROMPTS):
            answered += 1
            if answered == 1:
                for process in engine_processes():
                    process.kill()
    assert 0 < answered < 400 * len(PROMPTS) and "\n" not in str(caught.value)


def test_a_signal_ends_the_waiting(ray: RayEngine, setup: EngineSetup) -> None:
    with StopSignal() as stop, open_engine("ray", replace(setup, stop=stop)) as engine:
        threading.Timer(3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        began = time.monotonic()
        with pytest.raises(Interrupted, match="SIGTERM"):
            engine.generate(PROMPTS)
        assert time.monotonic() - began < 15


def test_a_cluster_is_left_when_nothing_waits_for_it_any_more(ray: RayEngine) -> None:
    """Last of this file: the stream that the signal above has ended may still be waiting for its first row."""
    import ray as library

    ray.close()
    assert not [thread for thread in threading.enumerate() if thread.name == ROWS]
    assert not library.is_initialized()
