"""The engine for many machines: vLLM in actors of a Ray cluster, or of one that is started on this machine.

The stage stays one process and is Ray's driver. It makes token ids of the prompts, as every engine does, hands them out
in batches, and yields what comes back while the rest is still being computed. Actors are as many as
`rationales.ray_replicas` says and the cluster has room for; they stay until the engine is closed, and one that starts
later than the first joins in. Which of them answers a prompt changes nothing: ids, seeds and stop strings are those of
`kinds.vllm`. Where an engine or its node is lost, its batches go to the others, and another one is started.
"""

import asyncio
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import chain, count
from typing import Any, TypeAlias

from data.errors import EngineError, Interrupted, MolsakiError, first_line
from stages.engines.contract import (
    TOO_LONG,
    WATCH_SECONDS,
    Answers,
    Decoding,
    Engine,
    EngineSetup,
    Generation,
    answered,
    positive_argument,
)
from stages.engines.kinds.vllm import (
    ENVIRONMENT,
    SPREADING,
    failing_to_start,
    generation_of,
    import_vllm,
    sampling_arguments,
    sampling_parameters,
    vllm_arguments,
)
from stages.engines.vllm_guard import start_guard
from stages.engines.vllm_output import VllmOutput, vllm_errors_to_log
from stages.engines.vllm_processes import starting_soon
from stages.models.tokenizer import encode, load_tokenizer
from stages.runtime.imports import importing
from stages.runtime.packages import needed
from stages.runtime.progress import StopSignal
from stages.runtime.sockets import short_temporary_folder, socket_folder

MISSING_THERE = "vLLM is not installed on the Ray cluster, whose nodes need the packages of this environment"
ROOM_SECONDS = 300.0
"""How long a cluster may take to make room for one engine: its nodes may have to be started first."""
CONNECT_SECONDS = 10.0
"""How long a cluster may take to accept a connection."""
END_SECONDS, END_SOON_SECONDS = 10.0, 2.0
"""How long engines may take to end, and how long after a signal."""
AHEAD = 2
"""Prompts that an engine is given, in multiples of those that it computes at a time: as many wait as are computed."""
SPREAD_BY = "distributed_executor_backend"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
}
"""Nothing is sent anywhere, and of errors those are shown that the stage raises: not what Ray's C++ takes for some, nor
the same one for each batch."""

Asked: TypeAlias = tuple[Sequence[int], Mapping[str, Any]]
"""Token ids of a prompt, and vLLM's names for how to answer it."""


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """What is asked together, by its place in the prompts, and the places of those that are too long to be asked."""

    asked: Mapping[int, Asked]
    too_long: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class About:
    """What an engine says of itself: most tokens of a text, and most texts that it computes at a time."""

    window: int
    at_once: int


class EngineEndedError(EngineError):
    """vLLM's process has ended, and with it all use of the actor that had started it."""


class VllmActor:
    """vLLM in a process of Ray's, which computes several batches at a time.

    It starts by a call, not in the constructor: of an error there Ray keeps the words only.
    """

    def __init__(self, setup: EngineSetup) -> None:
        self._setup = setup
        self._engine: Any = None
        self._output, self._passed_on = VllmOutput(), False
        self._names = count()

    async def here(self) -> None:
        """Say that there is room for this one."""

    async def start(self) -> About:
        """Start vLLM; raises `ConfigError` for a model or an argument that it refuses, and `EngineError`."""
        try:
            self._engine = _start(self._setup, self._output)
        except Exception:
            self._pass_on()
            raise
        config = self._engine.vllm_config
        return About(window=int(config.model_config.max_model_len), at_once=int(config.scheduler_config.max_num_seqs))

    async def end(self) -> None:
        """End vLLM's processes and this one, which then tidies up behind itself."""
        import ray

        if self._engine is not None:
            self._engine.shutdown()
        self._pass_on()
        ray.actor.exit_actor()

    async def answer(self, batch: Sequence[Asked]) -> list[Generation]:
        """Answer prompts, all of them together with those of other batches; raises `EngineEndedError`."""
        return list(await asyncio.gather(*(self._one(ids, sampling) for ids, sampling in batch)))

    async def _one(self, ids: Sequence[int], sampling: Mapping[str, Any]) -> Generation:
        from vllm.v1.engine.exceptions import EngineDeadError

        prompt, name = {"prompt_token_ids": list(ids)}, str(next(self._names))
        try:
            async for output in self._engine.generate(prompt, sampling_parameters(sampling), name):
                if output.finished:
                    return generation_of(output.outputs[0])
        except EngineDeadError as error:
            self._pass_on()
            raise EngineEndedError(self._output.cause() or first_line(error)) from error
        raise EngineError("vLLM gave a text up before its end")

    def _pass_on(self) -> None:
        """Put what vLLM's processes wrote, once, where Ray keeps the words of this one."""
        if not self._passed_on:
            self._passed_on = True
            sys.stderr.write(f"{self._output.said()}\n")
            sys.stderr.flush()


def _start(setup: EngineSetup, output: VllmOutput) -> Any:
    if find_spec("vllm") is None:
        raise EngineError(MISSING_THERE)
    on_cpu = import_vllm(setup)
    with importing():
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

    start_guard()  # it ends with this process, as what it guards has to
    with starting_soon(on_cpu=on_cpu), output.captured(), failing_to_start(setup, output):
        engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**_arguments(setup, on_cpu=on_cpu)))
    vllm_errors_to_log()  # it has set its loggers up anew, with what was captured
    return engine


def _arguments(setup: EngineSetup, *, on_cpu: bool) -> dict[str, Any]:
    """What vLLM is started with; over several GPUs it is spread by Ray, which may have them on several nodes."""
    spread = {SPREAD_BY: "ray"} if not on_cpu and _processors(setup) > 1 else {}
    return {**spread, **vllm_arguments(setup, eager=on_cpu)}


def _processors(setup: EngineSetup) -> int:
    """GPUs, or without any processors, of one engine."""
    return math.prod(positive_argument(setup.arguments, name) or 1 for name in SPREADING)


class RayEngine(Engine):
    """vLLM on a Ray cluster, which is left, or ended where it was started here, when the engine is closed."""

    def __init__(self, setup: EngineSetup) -> None:
        self._setup = setup
        self._joined = _join(setup)
        self._engines = _Engines(setup)
        try:
            self._tokenizer = load_tokenizer(setup.model, setup.revision, trust_remote_code=setup.trust_remote_code)
            self._engines.start()
        except BaseException:
            self.close()
            raise

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer every prompt; a batch's answers come together."""
        batches = self._batches(prompts, decoding or self._setup.decoding)
        with closing(self._answers(batches)) as answers:
            yield from answered("Ray", len(prompts), lambda: next(answers), _reason)

    def close(self) -> None:
        """End the engines and leave the cluster; one that was started here ends, with all of its processes."""
        import ray

        try:
            self._engines.end()
        finally:
            if self._joined:
                self._joined = False
                ray.shutdown()

    def _batches(self, prompts: Sequence[str], decoding: Decoding) -> Iterator[_Batch]:
        """The prompts, made into tokens as they are needed."""
        for start in range(0, len(prompts), self._setup.cluster.batch):
            some = prompts[start : start + self._setup.cluster.batch]
            encoded = encode(self._tokenizer, some, adds_special_tokens=self._setup.adds_special_tokens)
            rows = [
                (place, list(ids), sampling_arguments(decoding, prompt))
                for place, (ids, prompt) in enumerate(zip(encoded, some, strict=True), start)
            ]
            window = self._engines.about.window
            yield _Batch(
                asked={place: (ids, sampling) for place, ids, sampling in rows if len(ids) < window},
                too_long=[place for place, ids, _ in rows if len(ids) >= window],
            )

    def _answers(self, batches: Iterator[_Batch]) -> Answers:
        """Keep all engines busy, and yield what comes back; what one that dies had is asked again."""
        import ray

        running: dict[Any, tuple[_Placed, _Batch]] = {}
        try:
            while True:
                free = self._engines.free(running.values())
                batch = None if free is None else next(batches, None)
                if free is not None and batch is not None:
                    yield from ((place, TOO_LONG) for place in batch.too_long)
                    if batch.asked:
                        running[free.actor.answer.remote(list(batch.asked.values()))] = free, batch
                    continue
                if free is not None and not running:
                    return
                for call in self._engines.ended(running):
                    placed, batch = running.pop(call)
                    generations = self._engines.result(placed, call)
                    if generations is None:
                        batches = chain([_Batch(asked=batch.asked)], batches)
                    else:
                        yield from zip(batch.asked, generations, strict=True)
        finally:
            for call in running:
                ray.cancel(call)


@dataclass(eq=False, kw_only=True)
class _Placed:
    """An actor, what Ray sets aside for it, and how many before it have died in its place."""

    actor: Any
    options: Mapping[str, Any]
    died: int


class _TooOftenError(Exception):
    """An engine has died more often than it is started again."""


class _Engines:
    """The engines on the cluster: those that are up, and those that Ray has no room for yet or that still start."""

    def __init__(self, setup: EngineSetup) -> None:
        self._setup = setup
        self._known: list[About] = []
        self._up: list[_Placed] = []
        self._starting: dict[Any, _Placed] = {}

    @property
    def about(self) -> About:
        """What holds for each that has started, on whatever node."""
        return About(
            window=min(about.window for about in self._known), at_once=min(about.at_once for about in self._known)
        )

    def start(self) -> None:
        """Ask for all of them, and wait for the first.

        Raises `EngineError` where the cluster has no room for any, or where none starts.
        """
        import ray

        needs = _needs(self._setup)
        here = [self._place(_options(self._setup, needs), died=0) for _ in range(self._setup.cluster.replicas)]
        if not self._first(here, ROOM_SECONDS):
            raise EngineError(_no_room(needs))
        try:
            while not self._up:
                self.ended(())
        except (_TooOftenError, ray.exceptions.RayError) as error:
            raise EngineError(f"no engine starts on the Ray cluster ({_reason(error)})") from error

    def end(self) -> None:
        """End them all: those that are up by themselves, if they do so soon, and others as they are."""
        import ray

        stopped = self._setup.stop is not None and self._setup.stop.received is not None
        if ending := [placed.actor.end.remote() for placed in self._up]:
            ray.wait(ending, num_returns=len(ending), timeout=END_SOON_SECONDS if stopped else END_SECONDS)
        for placed in [*self._up, *self._starting.values()]:
            ray.kill(placed.actor)
            if (spread := placed.options.get("scheduling_strategy")) is not None:
                ray.util.remove_placement_group(spread.placement_group)
        self._up, self._starting = [], {}

    def free(self, busy: Iterable[tuple[_Placed, _Batch]]) -> _Placed | None:
        """The engine with the fewest batches; None where all of them have as many as they are given, or none is up."""
        if not self._up:
            return None
        batches = Counter(placed for placed, _ in busy)
        least = min(self._up, key=lambda placed: batches[placed])
        most = max(2, math.ceil(AHEAD * self.about.at_once / self._setup.cluster.batch))
        return least if batches[least] < most else None

    def ended(self, calls: Iterable[Any]) -> list[Any]:
        """Wait for one of these calls to end, or for another engine to be up.

        Raises `Interrupted` after a signal, and `EngineError` where nothing is there to wait for.
        """
        waiting = [*calls, *self._starting]
        if not waiting:
            raise EngineError("no engine is left on the Ray cluster")
        ended = self._first(waiting)
        for call in [call for call in ended if call in self._starting]:
            ended.remove(call)
            placed = self._starting.pop(call)
            self._up.append(placed)  # unless that has failed, of which the result says more
            if (about := self.result(placed, call, starting=True)) is not None:
                self._known.append(about)
        return ended

    def result(self, placed: _Placed, call: Any, *, starting: bool = False) -> Any:
        """What a call of an engine has come to; None where the engine is no more, and another one starts instead.

        Raises our own errors as they were raised there, Ray's for others, and `_TooOftenError`.
        """
        import ray

        try:
            return ray.get(call)
        except ray.exceptions.RayTaskError as error:
            lost = error
            # Where none has started yet, the next would fail alike.
            if not isinstance(error.cause, EngineEndedError) and not (starting and self._known):
                if isinstance(error.cause, MolsakiError):
                    raise error.cause from error
                raise
        except ray.exceptions.RayError as error:  # its process or its node is gone
            lost = error
        if placed in self._up:
            self._up.remove(placed)
            self._replace(placed, lost)
        return None

    def _replace(self, placed: _Placed, error: Exception) -> None:
        """Start an engine in the place of one that has died."""
        import ray

        ray.kill(placed.actor)  # one that cannot be reached may live
        if placed.died >= self._setup.restarts:
            raise _TooOftenError from error
        self._setup.note(
            f"an engine on the Ray cluster ended ({_reason(error)}); starting it again, {placed.died + 1} of "
            f"{self._setup.restarts} times"
        )
        self._place(placed.options, died=placed.died + 1)

    def _place(self, options: Mapping[str, Any], *, died: int) -> Any:
        """Ask Ray for an engine; the call that is returned ends when there is room for it."""
        import ray

        # Neither a signal's handler nor the terminal can be sent to another process.
        sent = replace(self._setup, stop=None, note=_nothing)
        actor = ray.remote(VllmActor).options(**options).remote(sent)
        here = actor.here.remote()
        self._starting[actor.start.remote()] = _Placed(actor=actor, options=options, died=died)
        return here

    def _first(self, calls: Sequence[Any], seconds: float = math.inf) -> list[Any]:
        """Wait for one of these calls to end, for so long; those that have."""
        import ray

        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if ended := ray.wait(calls, timeout=WATCH_SECONDS)[0]:
                return list(ended)
            if self._setup.stop is not None:
                self._setup.stop.check("what was answered before")
        return []


# The cluster ------------------------------------------------------------------------------------------------------


def _join(setup: EngineSetup) -> bool:
    """Connect to the cluster, or start one here; False where this process is connected already.

    Raises `EngineError` where Ray is not installed, does not start, or does not answer at the address.
    """
    below = {"RAY_TMPDIR": short_temporary_folder(), "VLLM_RPC_BASE_PATH": socket_folder()}
    for name, value in {**QUIET, **below}.items():
        os.environ.setdefault(name, value)
    with needed("ray", "rationales.engine", EngineError):
        import ray
    if ray.is_initialized():
        return False
    address = _address(setup)
    _require_listener(address)
    with _own_signal_handlers():
        try:
            ray.init(
                address=address,
                runtime_env={"env_vars": {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}},
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except SystemExit as error:  # Ray's handler for SIGTERM, while it begins
            ray.shutdown()
            raise Interrupted("stopped by SIGTERM before anything was asked; run the same command to go on") from error
        except Exception as error:  # ConnectionError, RuntimeError, ValueError, …: Ray has no error for it
            if address == "local":
                raise EngineError(f"Ray does not start on this machine ({first_line(error)})") from error
            raise EngineError(_no_cluster(address, error)) from error
    _quieten()
    return True


def _require_listener(address: str) -> None:
    """See whether anybody listens at host:port; Ray itself would try for longer than ten minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:  # nobody there, no port, no name
        raise EngineError(_no_cluster(address, error)) from error


def _no_cluster(address: str, error: BaseException) -> str:
    return (
        f"no Ray cluster answers at {address} ({_reason(error)}); correct rationales.ray_address or RAY_ADDRESS, "
        "or set neither to start Ray on this machine"
    )


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep the handlers of signals, of which Ray takes SIGTERM for itself when it begins."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in StopSignal.SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _quieten() -> None:
    """Leave stdout to the stage: Ray writes there of actors that die, whatever `log_to_driver` says.

    Ray 2.60.0 has no setting for that. What it says is in its logs.
    """
    from ray._private import worker

    worker._worker_logs_enabled = False


def _needs(setup: EngineSetup) -> tuple[str, int]:
    """What one engine computes on, under Ray's name for it; `EngineError` where the cluster never has that much."""
    import ray

    there = ray.cluster_resources()
    on_gpu = setup.device == "cuda" or (setup.device == "auto" and there.get("GPU", 0) > 0)
    needs = ("GPU" if on_gpu else "CPU", _processors(setup))
    # On a cluster of our own nothing is ever added, and nobody else is at work.
    if _address(setup) == "local" and there.get(needs[0], 0) < needs[1]:
        raise EngineError(_no_room(needs))
    return needs


def _options(setup: EngineSetup, needs: tuple[str, int]) -> dict[str, Any]:
    """What Ray sets aside for one engine."""
    kind, number = needs
    if kind == "CPU":
        return {"num_cpus": number}
    if number == 1 or setup.arguments.get(SPREAD_BY, "ray") != "ray":
        return {"num_gpus": number}
    return {"num_cpus": 1, "num_gpus": 0, "scheduling_strategy": _spread(number)}


def _spread(gpus: int) -> Any:
    """Set aside so many GPUs, on one node if they are there, for the processes that vLLM asks Ray for."""
    from ray.util import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    together = placement_group([{"GPU": 1, "CPU": 1}] * gpus, strategy="PACK")
    return PlacementGroupSchedulingStrategy(together, placement_group_capture_child_tasks=True)


def _nothing(_: str) -> None:
    """A note where nobody sits at the terminal."""


def _no_room(needs: tuple[str, int]) -> str:
    import ray

    there, free = ray.cluster_resources(), ray.available_resources()
    found = ", ".join(f"{there.get(name, 0):g} {name}, {free.get(name, 0):g} of them free" for name in ("GPU", "CPU"))
    return (
        f"the Ray cluster has no room for an engine, which needs {needs[1]} {needs[0]}; found {found} "
        "(teacher.device says which)"
    )


def _address(setup: EngineSetup) -> str:
    return setup.cluster.address or os.environ.get("RAY_ADDRESS") or "local"


def _reason(error: BaseException) -> str:
    """What happened where the work was done, of an error that begins with where that was."""
    cause = getattr(error, "cause", None) or error.__cause__
    return first_line(error) if cause is None else _reason(cause)


ENGINE = RayEngine
