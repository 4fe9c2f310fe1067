"""The engine for many machines: Ray Data's vLLM processor, on a Ray cluster or on one that is started on this machine.

The stage stays one process and is Ray's driver. It makes token ids of the prompts, as every engine does, hands them out
in batches, and yields what comes back while the rest is still being computed. vLLM runs in actors of Ray, as many as
`rationales.ray_replicas` says and the cluster has room for. Which of them answers a prompt changes nothing: ids, seeds
and stop strings are those of `kinds.vllm`. Where an engine or its node is lost, Ray asks its batches elsewhere.

Ray's processor does not say why a text has ended, nor how long a prompt may be. The reason follows from the last token
and from the stop string, which is therefore kept in the text until here; window and end tokens are those of vLLM, which
a task on the cluster is asked for before anything else. Each stream starts its engines anew, since actors of Ray Data
live as long as the data set that they work on.
"""

import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, TypeAlias

import pyarrow as pa

from data.errors import ConfigError, EngineError, Interrupted, MolsakiError, first_line
from stages.engines.contract import (
    TOO_LONG,
    WATCH_SECONDS,
    Answer,
    Answers,
    Decoding,
    Engine,
    EngineSetup,
    Generation,
    answered,
    next_answer,
)
from stages.engines.kinds.vllm import ENVIRONMENT, refused, sampling_arguments, vllm_arguments
from stages.models.tokenizer import encode, end_tokens, load_tokenizer
from stages.runtime.packages import needed
from stages.runtime.progress import StopSignal
from stages.runtime.sockets import short_temporary_folder, socket_folder

MISSING_THERE = "vLLM is not installed on the Ray cluster, whose nodes need the packages of this environment"
ROOM_SECONDS = 300.0
"""How long a cluster may take to make room for one engine: its nodes may have to be started first."""
CONNECT_SECONDS = 10.0
"""How long a cluster may take to accept a connection."""
LITTLE = 0.01
"""Share of a processor that Ray sets aside for a task that only passes rows on."""
PASSING_ON = 2
"""Such tasks at a time, before the engines and behind them: each has a process, and Ray would start one a batch."""
ENGINE_STAGE = "vLLMEngineStage"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ENABLE_AUTO_CONNECT": "0"}
"""Nothing is sent anywhere; what Ray's C++ takes for errors is not shown, those of its Python say more; and a thread
that still waits for rows of a cluster that was left starts no other one."""
ROWS = "ray-rows"
"""Name of the threads that fetch rows."""
THREAD_SECONDS = 120
"""How long such a thread may take to notice that nobody wants its rows: until a batch comes, and so an engine is up."""
ANSWER = ("place", "generated_text", "generated_tokens", "num_input_tokens")


Asked: TypeAlias = tuple[str, Decoding]
"""A prompt and how to answer it."""


@dataclass(frozen=True, kw_only=True)
class _Model:
    """What vLLM says of the model on the cluster: its window, and how the tokens read that end a text."""

    window: int
    ends: Mapping[int, str]
    on_cpu: bool


class RayEngine(Engine):
    """vLLM on a Ray cluster, which is left, or ended where it was started here, when the engine is closed."""

    def __init__(self, setup: EngineSetup) -> None:
        self._setup = setup
        self._rows: _Rows | None = None
        self._joined = _join(setup)
        try:
            self._tokenizer = load_tokenizer(setup.model, setup.revision, trust_remote_code=setup.trust_remote_code)
            self._resources = _require_room(setup)
            # Neither a signal's handler nor the terminal can be sent to another process.
            sent = replace(setup, stop=None, note=_nothing)
            self._model: _Model = _run_there(_look, sent, resources=self._resources, stop=setup.stop)
        except BaseException:
            self.close()
            raise

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer every prompt; a batch's answers come together."""
        yield from self.stream_each([(prompt, decoding or self._setup.decoding) for prompt in prompts])

    def stream_each(self, requests: Sequence[Asked]) -> Answers:
        """Answer requests of several kinds in one stream, and so with engines that start once."""
        batches: list[pa.Table] = []
        for start in range(0, len(requests), self._setup.cluster.batch):
            batch = requests[start : start + self._setup.cluster.batch]
            prompts = [prompt for prompt, _ in batch]
            encoded = encode(self._tokenizer, prompts, adds_special_tokens=self._setup.adds_special_tokens)
            rows = list(zip(range(start, start + len(batch)), encoded, batch, strict=True))
            yield from ((place, TOO_LONG) for place, ids, _ in rows if len(ids) >= self._model.window)
            if fitting := [_row(*row) for row in rows if len(row[1]) < self._model.window]:
                batches.append(pa.Table.from_pylist(fitting, schema=SCHEMA))  # Ray hands it out as a whole
        if batches:
            yield from self._answers(batches, lambda row: _generation(row, requests[row["place"]][1], self._model))

    def close(self) -> None:
        """Leave the cluster; one that was started here ends, with all of its processes."""
        if self._rows is not None:
            self._rows.end()
        if self._joined:
            import ray

            self._joined = False
            _wait_for_threads()
            ray.shutdown()

    def _answers(self, batches: Sequence[pa.Table], read: Callable[[Mapping[str, Any]], Generation]) -> Answers:
        rows = self._rows = _Rows(lambda: self._processed(batches), read)
        waiting = partial(next_answer, rows.answers, self._setup.stop)
        try:
            yield from answered("Ray", sum(batch.num_rows for batch in batches), waiting, _reason)
        finally:
            rows.end()

    def _processed(self, batches: Sequence[pa.Table]) -> Any:
        """The data set of answers, which Ray computes as it is read."""
        import ray.data
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        _quieten()  # what has just been imported as well
        on_gpu = "GPU" in self._resources
        arguments = vllm_arguments(self._setup, eager=self._model.on_cpu)
        config = vLLMEngineProcessorConfig(
            model_source=self._setup.model,
            engine_kwargs={name: value for name, value in arguments.items() if name != "model"},
            concurrency=self._setup.cluster.replicas,
            batch_size=self._setup.cluster.batch,
            # Its own way is a GPU for each of an engine's workers.
            placement_group_config=None if on_gpu else {"bundle_per_worker": dict(self._resources)},
            log_engine_metrics=False,
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
        )
        passing_on = {"num_cpus": LITTLE, "compute": ray.data.TaskPoolStrategy(size=PASSING_ON)}
        processor = build_processor(
            config,
            postprocess=_what_counts,
            preprocess_map_kwargs=passing_on,
            postprocess_map_kwargs=passing_on,
        )
        processor.get_stage_by_name(ENGINE_STAGE).map_batches_kwargs.update(
            max_restarts=self._setup.restarts, max_task_retries=self._setup.restarts
        )
        return processor(ray.data.from_arrow(list(batches)))


class _Rows:
    """The rows of a data set as they come, fetched by a thread, so that a signal need not wait for the next one."""

    def __init__(self, dataset: Callable[[], Any], read: Callable[[Mapping[str, Any]], Generation]) -> None:
        self._dataset = dataset
        self._read = read
        self.answers: SimpleQueue[Answer | BaseException] = SimpleQueue()
        self._ending = Event()
        self._thread = Thread(target=self._work, name=ROWS, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Want no more rows: the thread gives up the data set, and with it the engines, as soon as Ray lets it."""
        self._ending.set()

    def _work(self) -> None:
        try:
            # A batch is passed on when it is there, without waiting for another one.
            for batch in self._dataset().iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in batch.to_pylist():
                    self.answers.put((row["place"], self._read(row)))
                if self._ending.is_set():
                    return
            self.answers.put(RuntimeError("it took the batches for done"))
        except BaseException as error:  # it is raised again by whoever waits for an answer
            self.answers.put(error)


def _wait_for_threads() -> None:
    """Let no thread speak to Ray any more: its core ends the whole process where one does after it was shut down."""
    until = time.monotonic() + THREAD_SECONDS
    for thread in threading.enumerate():
        if thread.name == ROWS:
            thread.join(max(0.0, until - time.monotonic()))


SAMPLING = {
    "max_tokens": pa.int64(),
    "temperature": pa.float64(),
    "top_p": pa.float64(),
    "seed": pa.int64(),
    "stop": pa.list_(pa.string()),
    "include_stop_str_in_output": pa.bool_(),
}
SCHEMA = pa.schema(
    {"place": pa.int64(), "tokenized_prompt": pa.list_(pa.int32()), "sampling_params": pa.struct(SAMPLING)}
)
"""The columns that Ray's processor reads, under the names that it has for them, and the place in the prompts."""


def _row(place: int, ids: Sequence[int], request: Asked) -> dict[str, Any]:
    return {"place": place, "tokenized_prompt": ids, "sampling_params": _sampling(*request)}


def _sampling(prompt: str, decoding: Decoding) -> dict[str, Any]:
    # Nothing is left out of some rows: on the way to vLLM, numbers beside a gap become floats.
    return {
        "top_p": 1.0,
        "seed": 0,
        **sampling_arguments(decoding, prompt),
        "include_stop_str_in_output": bool(decoding.stop),
    }


def _what_counts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What goes back to the stage, of all that the processor says about a prompt."""
    return {name: row[name] for name in ANSWER}


def _generation(row: Mapping[str, Any], decoding: Decoding, model: _Model) -> Generation:
    """Tell from tokens and text why a text has ended; of stop strings that end alike vLLM takes the first one.

    Raises `EngineError` where it can have been for none of the reasons.
    """
    text, tokens = row["generated_text"], row["generated_tokens"]
    for stop in decoding.stop:
        if text.endswith(stop):
            return Generation(text=text.removesuffix(stop), finish_reason="stop")
    if tokens and tokens[-1] in model.ends:
        # With its stop string a text also keeps its end token, if that is one that can be read.
        visible = model.ends[tokens[-1]] if decoding.stop else ""
        return Generation(text=text.removesuffix(visible), finish_reason="stop")
    if len(tokens) == decoding.max_tokens or row["num_input_tokens"] + len(tokens) >= model.window:
        return Generation(text=text, finish_reason="length")
    raise EngineError(f"vLLM ended a text after {len(tokens)} tokens, neither at its end nor at a limit")


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
        import ray.data
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
        f"no Ray cluster answers at {address} ({first_line(error)}); correct rationales.ray_address or RAY_ADDRESS, "
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
    """Leave the terminal to the stage: what Ray says is in its folder of logs.

    Handlers are told, for Ray sets the levels of its loggers anew whenever it is asked to begin. One that collects
    messages in memory is not Ray's: whoever put it there, as pytest does, has it at other loggers as well.
    """
    import ray.data

    # Modules of ray.llm that are imported later open the terminal for themselves unless their parent has a handler.
    logging.getLogger("ray.llm").addHandler(logging.NullHandler())
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "ray"]:
        for handler in logging.getLogger(name).handlers:
            if not isinstance(handler, logging.StreamHandler) or isinstance(handler, logging.FileHandler):
                continue
            if not isinstance(handler.stream, StringIO):
                handler.setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _require_room(setup: EngineSetup) -> dict[str, float]:
    """What Ray sets aside for one engine; raises `EngineError` where the cluster has not that much to give."""
    import ray

    there = ray.cluster_resources()
    on_gpu = setup.device == "cuda" or (setup.device == "auto" and there.get("GPU", 0) > 0)
    resources: dict[str, float] = {"GPU": 1} if on_gpu else {"CPU": 1}
    # On a cluster of our own nothing is ever added, and nobody else is at work.
    if _address(setup) == "local" and any(there.get(name, 0) < amount for name, amount in resources.items()):
        raise EngineError(_no_room(resources))
    _run_there(_nothing, resources=resources, stop=setup.stop, seconds=ROOM_SECONDS)
    return resources


def _nothing(*_: object) -> None:
    """A task that shows there is room for it, and a note where nobody sits at the terminal."""


def _no_room(resources: Mapping[str, float]) -> str:
    import ray

    wanted = " and ".join(f"{amount:g} {name}" for name, amount in resources.items())
    there, free = ray.cluster_resources(), ray.available_resources()
    found = ", ".join(f"{there.get(name, 0):g} {name}, {free.get(name, 0):g} of them free" for name in ("GPU", "CPU"))
    return f"the Ray cluster has no room for an engine, which needs {wanted}; found {found} (teacher.device says which)"


def _look(setup: EngineSetup) -> _Model:
    """Ask vLLM about the model, on a node; raises `ConfigError` for a model or argument that it refuses."""
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(f"{MISSING_THERE} ({first_line(error)})") from error
    on_cpu = bool(current_platform.is_cpu())
    if setup.device == "cuda" and on_cpu:
        raise ConfigError("teacher.device: `cuda` was asked for, but vLLM runs on the CPU there; use `auto` or `cpu`")
    try:
        model = AsyncEngineArgs(**vllm_arguments(setup, eager=on_cpu)).create_model_config()
    except Exception as error:  # of a wrong argument, whatever vLLM meets first
        raise refused(setup, error) from error
    tokenizer = load_tokenizer(setup.model, setup.revision, trust_remote_code=setup.trust_remote_code)
    ends = end_tokens(model.try_get_generation_config().get("eos_token_id"), tokenizer.eos_token_id)
    readable = {end: str(tokenizer.decode([end], skip_special_tokens=True)) for end in ends}
    return _Model(window=int(model.max_model_len), ends=readable, on_cpu=on_cpu)


def _run_there(
    task: Callable[..., Any],
    *arguments: object,
    resources: Mapping[str, float],
    stop: StopSignal | None,
    seconds: float = math.inf,
) -> Any:
    """Run a function on a node with room for an engine; raises its error, or `EngineError` after `seconds`."""
    import ray

    remote = ray.remote(num_cpus=resources.get("CPU", 0), num_gpus=resources.get("GPU", 0))
    running = remote(task).remote(*arguments)
    deadline = time.monotonic() + seconds
    while not ray.wait([running], timeout=WATCH_SECONDS)[0]:
        if stop is not None:
            stop.check("what was answered before")
        if time.monotonic() > deadline:
            raise EngineError(_no_room(resources))
    try:
        return ray.get(running)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, MolsakiError):
            raise cause from error
        raise EngineError(f"the Ray cluster cannot run what it was given ({_reason(error)})") from error


def _address(setup: EngineSetup) -> str:
    return setup.cluster.address or os.environ.get("RAY_ADDRESS") or "local"


def _reason(error: BaseException) -> str:
    """What happened where the work was done, of an error that begins with where that was."""
    cause = getattr(error, "cause", None) or error.__cause__
    return first_line(error) if cause is None else _reason(cause)


ENGINE = RayEngine
