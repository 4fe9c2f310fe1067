"""`engine: ray` on a cluster of this machine alone, without a GPU: it answers what the other engines answer.

Two engines answer, of three that are asked for. What they say to calls like those of the contract (test_contract.py) is
compared with what the engine of transformers says, for a model some of whose texts end by themselves.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Thread, Timer
from typing import TypeAlias

import psutil
import pytest

from data.errors import ConfigError, EngineError, Interrupted
from stages.engines.contract import Cluster, Decoding, Engine, EngineSetup, Generation
from stages.engines.kinds.ray import RayEngine, VllmActor, _needs, _options
from stages.engines.start import open_engine
from stages.runtime.progress import StopSignal
from tests.fakes import ending_model_folder, tiny_model_folder
from tests.stages.engines.test_contract import GREEDY, PROMPTS, SAMPLED, WINDOW

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]
ENGINE_PROCESS = "ray::VllmActor"
ASKED_FOR = 3
Calls: TypeAlias = dict[str, tuple[list[str], Decoding]]


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
        cluster=Cluster(batch=4, replicas=ASKED_FOR),
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
    """One Ray, of two processors, and two engines for all tests that kill none."""
    with open_engine("ray", setup) as engine:
        assert isinstance(engine, RayEngine)
        yield engine


@pytest.fixture(scope="module")
def calls(transformers: Engine) -> Calls:
    """Calls, each with what it is about."""
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
    """What Ray's engines answer to all calls."""
    return {name: ray.generate(prompts, decoding) for name, (prompts, decoding) in calls.items()}


def engine_processes() -> list[psutil.Process]:
    """The processes below this one in which Ray runs an engine; vLLM's own, which one of them forks, is none."""
    named = {process.pid: process for process in psutil.Process().children(recursive=True) if _is_engine(process)}
    return [process for process in named.values() if process.ppid() not in named]


def _is_engine(process: psutil.Process) -> bool:
    return process.is_running() and ENGINE_PROCESS in " ".join(_command(process))


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_what_an_engine_is_spread_over_is_set_aside_together(setup: EngineSetup) -> None:
    """In a Ray that is told of four GPUs, where there is none."""
    import ray as library
    from ray.util import placement_group_table

    gpus = replace(setup, device="auto", arguments={"tensor_parallel_size": 2, "pipeline_parallel_size": 2})
    library.init(address="local", num_cpus=8, num_gpus=4, include_dashboard=False, log_to_driver=False)
    try:
        assert _needs(gpus) == ("GPU", 4)
        assert _options(gpus, ("GPU", 1)) == {"num_gpus": 1}
        by_itself = replace(gpus, arguments={**gpus.arguments, "distributed_executor_backend": "mp"})
        assert _options(by_itself, ("GPU", 4)) == {"num_gpus": 4}
        spread = _options(gpus, ("GPU", 4))
        assert (spread["num_gpus"], spread["num_cpus"]) == (0, 1)
        (group,) = placement_group_table().values()
        assert list(group["bundles"].values()) == 4 * [{"GPU": 1.0, "CPU": 1.0}]
        assert library.get(library.remote(lambda: 5).options(**spread).remote(), timeout=60) == 5, "it has no room"
        assert _needs(replace(gpus, device="cpu")) == ("CPU", 4)
        with pytest.raises(EngineError, match="needs 8 GPU; found 4 GPU"):
            _needs(replace(gpus, arguments={"tensor_parallel_size": 8}))
    finally:
        library.shutdown()


def test_an_argument_that_vllm_does_not_know_is_a_configuration_error(setup: EngineSetup) -> None:
    with pytest.raises(ConfigError) as caught:
        open_engine("ray", replace(setup, arguments={"no_such_argument": 1}))
    assert "no_such_argument" in str(caught.value) and "\n" not in str(caught.value)


def test_a_signal_ends_a_start_that_takes_long(setup: EngineSetup) -> None:
    """Sent as soon as there is a process for the engine, in which vLLM is still to be loaded."""

    def end() -> None:
        while not engine_processes():
            time.sleep(0.2)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    sent: list[float] = []
    with StopSignal() as stop:
        Thread(target=end, daemon=True).start()
        with pytest.raises(Interrupted, match="SIGTERM"):
            open_engine("ray", replace(setup, stop=stop))
        assert time.monotonic() - sent[0] < 30
    assert not engine_processes()


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


def test_engines_stay_from_one_stream_to_the_next_as_many_as_there_is_room_for(
    ray: RayEngine, answers: dict[str, list[Generation]]
) -> None:
    import ray as library

    before = {process.pid for process in engine_processes()}
    assert len(before) == min(ASKED_FOR, library.cluster_resources()["CPU"])
    assert ray.generate(PROMPTS) == answers["plain"]
    assert {process.pid for process in engine_processes()} == before


def test_no_prompts_need_no_answer(ray: RayEngine) -> None:
    assert ray.generate([]) == []
    assert ray.generate(["x" * WINDOW])[0].finish_reason == "too_long"


def test_a_cluster_without_a_gpu_has_no_room_for_an_engine_on_one(ray: RayEngine, setup: EngineSetup) -> None:
    with pytest.raises(EngineError, match=r"no room for an engine, which needs 1 GPU; found 0 GPU"):
        open_engine("ray", replace(setup, device="cuda"))


def unfinished(ray: RayEngine) -> int:
    """Texts that the engines still have to compute."""
    import ray as library

    calls = [placed.actor.__ray_call__.remote(_unfinished) for placed in ray._engines._up]
    return int(sum(library.get(calls)))


def _unfinished(actor: VllmActor) -> int:
    return int(actor._engine.get_num_unfinished_requests())


def test_a_stream_that_is_given_up_is_not_computed_to_its_end(
    ray: RayEngine, answers: dict[str, list[Generation]]
) -> None:
    """Shown while nothing is computed at all, so that no text can have come to its end."""
    below = [child for engine in engine_processes() for child in engine.children(recursive=True)]
    computing = [process for process in below if "VLLM::Worker" in " ".join(_command(process))]
    assert computing
    try:
        with closing(ray.stream(10_000 * PROMPTS, Decoding(max_tokens=WINDOW))) as stream:
            next(stream)
            for process in computing:
                process.suspend()
            assert unfinished(ray) > 100
        until = time.monotonic() + 30
        while unfinished(ray):
            assert time.monotonic() < until
            time.sleep(0.2)
    finally:
        for process in computing:
            process.resume()
    assert ray.generate(PROMPTS) == answers["plain"]


def test_a_signal_ends_the_waiting_for_answers(
    ray: RayEngine, setup: EngineSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of engines that say nothing any more."""
    engines = engine_processes()
    with StopSignal() as stop:
        monkeypatch.setattr(ray._engines, "_setup", replace(setup, stop=stop))
        for engine in engines:
            engine.suspend()
        Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        began = time.monotonic()
        try:
            with pytest.raises(Interrupted, match="SIGTERM"):
                ray.generate(PROMPTS)
        finally:
            for engine in engines:
                engine.resume()
        assert time.monotonic() - began < 15


def test_an_engine_that_dies_is_started_again_and_leaves_nothing(
    ray: RayEngine,
    setup: EngineSetup,
    transformers: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What it had goes to the others meanwhile; the one that had no room yet may be up before its successor."""
    notes: list[str] = []
    monkeypatch.setattr(ray._engines, "_setup", replace(setup, note=notes.append))
    expected = transformers.generate(PROMPTS)
    processes: list[psutil.Process] = []
    places = []
    for place, generation in ray.stream(100 * PROMPTS):
        if not processes:
            process = engine_processes()[0]
            processes = [process, *process.children(recursive=True)]
            process.kill()
        assert generation == expected[place % len(PROMPTS)]
        places.append(place)
    assert sorted(places) == list(range(100 * len(PROMPTS)))
    assert len(processes) > 2, "vLLM's processes are below Ray's"
    assert psutil.wait_procs(processes, timeout=30)[1] == []
    (note,) = notes
    assert re.fullmatch(r"an engine on the Ray cluster ended \(.+\); starting it again, 1 of 1 times", note)
    assert capsys.readouterr() == ("", ""), "Ray says of a dead actor what nobody asked for"


def test_an_engine_that_dies_too_often_is_an_engine_error(
    ray: RayEngine, setup: EngineSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last of the tests with these engines, of which vLLM's processes are killed, and not those of Ray."""
    monkeypatch.setattr(ray._engines, "_setup", replace(setup, restarts=0))
    answered = 0
    with pytest.raises(EngineError, match=r"Ray failed with [0-9,]+ prompts unanswered") as caught:
        for _ in ray.stream(400 * PROMPTS):
            answered += 1
            if answered == 1:
                for process in engine_processes():
                    for below in process.children(recursive=True):
                        below.kill()
    assert 0 < answered < 400 * len(PROMPTS) and "\n" not in str(caught.value)


def test_a_cluster_is_left_and_nothing_stays(ray: RayEngine) -> None:
    import ray as library

    below = psutil.Process().children(recursive=True)
    ours = [process for process in below if "ray" in " ".join(_command(process))]
    assert ours
    ray.close()
    assert not library.is_initialized()
    with pytest.raises(EngineError, match="no engine is left"):
        ray.generate(PROMPTS)
    assert not library.is_initialized()
    assert psutil.wait_procs(ours, timeout=60)[1] == []
