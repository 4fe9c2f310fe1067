"""The engine for real work: vLLM, on a GPU or on a CPU, behind the same import.

vLLM runs the model in a process of its own and gives its memory back only when the process that started it ends, so a
stage that uses it is a process by itself. It reads some of its settings from the environment when it is imported: this
module sets defaults there before that, and never overrides what is set.

Where that process is killed from outside (memory limits do so), vLLM's offline client waits for an answer for ever.
The requests therefore go through in a thread, and this module watches the process meanwhile. Where this process is
killed, vLLM's would stay: `vllm_guard` ends it.
"""

import logging
import math
import multiprocessing
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, TypeAlias

from data.errors import ConfigError, EngineError, MolsakiError, first_line
from stages.engines.contract import (
    TOO_LONG,
    WATCH_SECONDS,
    Answer,
    Answers,
    Decoding,
    Engine,
    EngineArguments,
    EngineSetup,
    FinishReason,
    Generation,
    answered,
    next_answer,
    positive_argument,
    prompt_seed,
)
from stages.engines.vllm_guard import start_guard
from stages.engines.vllm_output import LEVEL, QUIET, VllmOutput, vllm_errors_to_log
from stages.engines.vllm_processes import starting_soon
from stages.models.tokenizer import encode, load_tokenizer, needs_trust, untrusted
from stages.runtime.imports import importing
from stages.runtime.packages import needed
from stages.runtime.progress import StopSignal
from stages.runtime.shard import local_rank
from stages.runtime.sockets import socket_folder

log = logging.getLogger(__name__)

ENVIRONMENT = {
    LEVEL: QUIET,
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # What torch and Python say in its processes about deprecations, missing Triton and memory binding is no news, nor
    # that shared memory which vLLM leaves behind is cleaned up.
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore::UserWarning:multiprocessing.resource_tracker",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_LOGS": "-all",
}
"""Defaults: quiet, 1 GiB for keys and values on a CPU, and nothing is sent anywhere."""
ON_FEW_CORES = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
"""vLLM leaves one core of a CPU to its scheduler; of two that is half, and answers take 1.6 times as long."""
FEW = 2
WITH_EXTENSION = {"VLLM_USE_V2_MODEL_RUNNER": "0"}
"""What extensions of ours know: where the first of vLLM's two runners keeps its requests. Where there is Triton, 0.32
and 0.33 take the second one by default."""
SPREADING = ("tensor_parallel_size", "pipeline_parallel_size")
"""Arguments that multiply the GPUs of one engine."""
ENCODED_TOGETHER = 256
"""Prompts that become tokens at once."""
ON_THE_WAY = 4
"""Requests that vLLM is given beyond an answer, in multiples of those that it computes at a time: where all of these
end in one step, as many have to be waiting, and the thread that brings more may be late by a step or two."""
Request: TypeAlias = tuple[int, Sequence[int] | None, Any]
"""Place of a prompt, its tokens (None where they are too many), and vLLM's sampling parameters."""
FINISHED: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}


class VllmEngine(Engine):
    """`vllm.LLM` with prefix caching, so that the worked examples in front of every prompt are read once.

    `llm` is for benchmarks as well, while no stream runs.
    """

    reloads = True

    def __init__(self, setup: EngineSetup) -> None:
        self.setup = setup
        self.llm: Any = None
        self._requests: _Requests | None = None
        before = set(multiprocessing.active_children())
        self._guard, self._output = start_guard(), VllmOutput()
        try:
            stopping = nullcontext() if setup.stop is None else setup.stop.at_once("what was answered before")
            with stopping, self._output.captured():
                self.llm = _start(setup, self._output)
            self.processes = [each for each in multiprocessing.active_children() if each not in before]
            self.llm.get_tokenizer()  # raises where the arguments leave it out, without which there is no text
            # Prompts become tokens by the one that everything else uses; vLLM takes Mistral's own where there is one.
            self._tokenizer = load_tokenizer(setup.model, setup.revision, trust_remote_code=setup.trust_remote_code)
            self._window = int(self.llm.llm_engine.model_config.max_model_len)
        except MolsakiError:
            self.close()
            raise
        except Exception as error:  # of an argument that makes no tokenizer, for example
            self.close()
            raise refused(setup, error) from error

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer every prompt as its request ends; all of them share the prefix cache and fill vLLM's batches."""
        yield from self._answers(self._asked(prompts, decoding or self.setup.decoding), len(prompts))

    def read(self, texts: Sequence[Sequence[int]], asked: Sequence[Mapping[str, Any]]) -> Answers:
        """Let vLLM read texts, token ids each and shorter than its window, whole and in one go.

        `asked` (names and plain values) travels with each to the workers. No prefix is taken from the cache, and no
        more texts are on the way than one step of the engine has room for, so that it cuts none.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        requests = (
            (
                place,
                ids,
                SamplingParams(
                    max_tokens=1,
                    temperature=0.0,
                    detokenize=False,
                    skip_reading_prefix_cache=True,
                    extra_args=dict(also),
                    output_kind=RequestOutputKind.FINAL_ONLY,
                ),
            )
            for place, (ids, also) in enumerate(zip(texts, asked, strict=True))
        )
        yield from self._answers(requests, len(texts), tokens_at_once=self.tokens_at_once)

    @property
    def tokens_at_once(self) -> int:
        """Most tokens that one step of the engine computes."""
        return int(self.llm.llm_engine.vllm_config.scheduler_config.max_num_batched_tokens)

    @property
    def window(self) -> int:
        """Most tokens of a text, prompt and answer together."""
        return self._window

    def ask_workers(self, method: str) -> list[Any]:
        """Call a method of `EngineSetup.extension` in each worker; no stream may run."""
        with failing_as(f"vLLM's workers do not do {method}"):
            return list(self.llm.collective_rpc(method))

    def _answers(self, asked: Iterator[Request], count: int, tokens_at_once: int | None = None) -> Answers:
        requests = self._requests = _Requests(
            self.llm.llm_engine,
            asked,
            processes=self.processes,
            stop=self.setup.stop,
            tokens_at_once=tokens_at_once,
        )
        try:
            yield from answered("vLLM", count, requests.answer)
        finally:
            requests.end()

    def reload(self, model: str) -> None:
        """Let vLLM read other weights, and forget what it has computed with the old ones."""
        with failing_as("vLLM takes no other weights"):
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": model})
            self.llm.reset_prefix_cache()

    def log_probabilities(self, ids: Sequence[int]) -> list[float]:
        """What vLLM's own log-probabilities of a prompt say; it ends each of them with a token of its own."""
        from vllm import SamplingParams

        asked = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        with failing_as("vLLM tells no log-probabilities"):
            (output,) = self.llm.generate({"prompt_token_ids": list(ids)}, asked, use_tqdm=False)
        return [float(one[token].logprob) for token, one in zip(ids[1:], output.prompt_logprobs[1:], strict=True)]

    def close(self) -> None:
        """End vLLM's process, and put what it wrote into the log; waiting for it lets that be all it has to say."""
        if self._requests is not None:
            self._requests.end()
        llm, self.llm = self.llm, None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
        self._guard.terminate()
        self._guard.wait()
        self._output.log(log)
        self._output.close()

    def _asked(self, prompts: Sequence[str], decoding: Decoding) -> Iterator["Request"]:
        """The prompts as vLLM wants them, made as they are needed."""
        for start in range(0, len(prompts), ENCODED_TOGETHER):
            some = prompts[start : start + ENCODED_TOGETHER]
            encoded = encode(self._tokenizer, some, adds_special_tokens=self.setup.adds_special_tokens)
            for place, (prompt, ids) in enumerate(zip(some, encoded, strict=True), start):
                fitting = ids if len(ids) < self._window else None
                yield place, fitting, sampling_parameters(sampling_arguments(decoding, prompt))


@contextmanager
def failing_as(what: str) -> Iterator[None]:
    """Let what vLLM raises inside be an `EngineError` that says what failed."""
    try:
        yield
    except Exception as error:
        raise EngineError(f"{what}: {first_line(error)}") from error


class _Requests:
    """One stream of requests through vLLM: a thread of its own puts them in and takes the answers out.

    Until it has ended, nobody else may speak to the engine, which knows nothing of threads. Requests on the way and
    answers that nobody has fetched yet are limited together, so that memory does not grow with the number of prompts;
    with `tokens_at_once` those on the way have no more tokens than that.
    """

    def __init__(
        self,
        engine: Any,
        asked: Iterator[Request],
        *,
        processes: Sequence[BaseProcess],
        stop: StopSignal | None,
        tokens_at_once: int | None = None,
    ) -> None:
        self._engine = engine
        self._asked = asked
        self._tokens_at_once = tokens_at_once
        self._waiting: Request | None = None
        self._tokens: dict[str, int] = {}
        self._processes = processes
        self._stop = stop
        self._slots = Semaphore(ON_THE_WAY * int(engine.vllm_config.scheduler_config.max_num_seqs))
        self._names = count()
        self._running: dict[str, int] = {}
        self._ended: list[BaseProcess] = []
        self._answers: SimpleQueue[Answer | BaseException] = SimpleQueue()
        self._ending = Event()
        self._thread = Thread(target=self._work, name="vllm-requests", daemon=True)
        self._thread.start()

    def answer(self) -> Answer:
        """Wait for the next answer.

        Raises what vLLM raised, `RuntimeError` if a process of it has ended, and `Interrupted` after a signal.
        """
        answer = next_answer(self._answers, self._stop, self._watch)
        self._slots.release()
        return answer

    def end(self) -> None:
        """Give up what is still on the way; the engine can be used again afterwards, if its processes are alive."""
        self._ending.set()
        while self._thread.is_alive() and all(process.is_alive() for process in self._processes):
            self._thread.join(WATCH_SECONDS)

    def _watch(self) -> None:
        if self._ended:  # for a while, in which vLLM, that knows better why, has not said so itself
            raise RuntimeError(f"its process {self._ended[0].name} ended with exit code {self._ended[0].exitcode}")
        self._ended = [each for each in self._processes if not each.is_alive()]

    def _work(self) -> None:
        try:
            more = True
            while (more or self._running) and not self._ending.is_set():
                more = more and self._put_in()
                self._take_out()
            self._engine.abort_request(list(self._running))
        except BaseException as error:  # it is raised again by whoever waits for an answer
            self._answers.put(error)

    def _put_in(self) -> bool:
        """Ask while there is room for it, and say whether there may be more to ask."""
        while self._slots.acquire(timeout=0 if self._running else WATCH_SECONDS):
            request, self._waiting = self._waiting or next(self._asked, None), None
            if request is None:
                return False
            place, ids, sampling = request
            if ids is None:
                self._answers.put((place, TOO_LONG))
                continue
            if not self._has_room(len(ids)):
                self._waiting = request
                self._slots.release()
                return True
            name = str(next(self._names))
            self._running[name], self._tokens[name] = place, len(ids)
            (rendered,) = self._engine.renderer.render_cmpl([{"prompt_token_ids": list(ids)}])
            self._engine.add_request(name, rendered, sampling)
        return True

    def _has_room(self, tokens: int) -> bool:
        most = self._tokens_at_once
        return most is None or not self._tokens or sum(self._tokens.values()) + tokens <= most

    def _take_out(self) -> None:
        """Pass on what has ended after one more step."""
        for output in self._engine.step() if self._running else ():
            if output.finished:
                del self._tokens[output.request_id]
                self._answers.put((self._running.pop(output.request_id), generation_of(output.outputs[0])))


def sampling_parameters(arguments: Mapping[str, Any]) -> Any:
    """What vLLM takes with a prompt; only the whole text is of use here."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(**arguments, output_kind=RequestOutputKind.FINAL_ONLY)


def sampling_arguments(decoding: Decoding, prompt: str) -> dict[str, Any]:
    """The names that vLLM has for these settings; a greedy request takes neither seed nor nucleus."""
    common = {"max_tokens": decoding.max_tokens, "temperature": decoding.temperature, "stop": list(decoding.stop)}
    if decoding.temperature == 0:
        return common
    return {**common, "top_p": decoding.top_p, "seed": prompt_seed(decoding.seed, prompt)}


def generation_of(output: Any) -> Generation:
    """What vLLM says of a text that has ended; `EngineError` for a reason that is none of ours."""
    if output.finish_reason not in FINISHED:
        raise EngineError(f"vLLM ended a text for the reason {output.finish_reason!r}, expected one of stop and length")
    return Generation(text=output.text, finish_reason=FINISHED[output.finish_reason])


def import_vllm(setup: EngineSetup) -> bool:
    """Import vLLM with our defaults in the environment, and say whether it runs on the CPU here.

    Raises `ConfigError` where it is not installed, or where it has no GPU and is asked for one.
    """
    few = len(os.sched_getaffinity(0)) <= FEW
    wanted = ENVIRONMENT | (ON_FEW_CORES if few else {}) | ({} if setup.extension is None else WITH_EXTENSION)
    for name, value in {**wanted, "VLLM_RPC_BASE_PATH": socket_folder()}.items():
        os.environ.setdefault(name, value)
    with needed("vllm", "rationales.engine"), importing():
        from vllm import LLM  # noqa: F401  with which nearly all of it is loaded
        from vllm.platforms import current_platform
    vllm_errors_to_log()
    on_cpu = bool(current_platform.is_cpu())
    if setup.device == "cuda" and on_cpu:
        raise ConfigError("teacher.device: `cuda` was asked for, but vLLM runs on the CPU here; use `auto` or `cpu`")
    return on_cpu


def _start(setup: EngineSetup, output: VllmOutput) -> Any:
    on_cpu = import_vllm(setup)
    from vllm import LLM

    if not on_cpu:
        take_own_gpus(setup.arguments, os.environ)
    with starting_soon(on_cpu=on_cpu), failing_to_start(setup, output):
        return LLM(**vllm_arguments(setup, eager=on_cpu))


@contextmanager
def failing_to_start(setup: EngineSetup, output: VllmOutput) -> Iterator[None]:
    """Let what vLLM raises inside be an `EngineError`, with what its processes wrote, or a `ConfigError`."""
    try:
        yield
    except MolsakiError:
        raise
    except RuntimeError as error:
        reason = output.cause() or first_line(error)
        raise EngineError(f"vLLM does not start with model {setup.model}: {reason}") from error
    except Exception as error:  # TypeError, ValueError, OSError, …: of a wrong argument whatever it meets first
        raise refused(setup, error) from error


def take_own_gpus(arguments: EngineArguments, environment: MutableMapping[str, str]) -> None:
    """Let vLLM, which takes the first GPUs that it sees, see only those of this process where `LOCAL_RANK` tells which.

    An engine that spreads a model over n GPUs gets n. `LOCAL_RANK` is taken away: of the GPUs that are left, all are
    this process's own. Raises `ConfigError` where there are not as many.
    """
    rank = local_rank(environment)
    if rank is None:
        return
    each = math.prod(positive_argument(arguments, name) or 1 for name in SPREADING)
    own = range(rank * each, (rank + 1) * each)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    names = list(map(str, own)) if visible is None else [name.strip() for name in visible.split(",") if name.strip()]
    if visible is not None and own.stop > len(names):
        raise ConfigError(
            f"LOCAL_RANK={rank} in the environment picks GPU {', '.join(map(str, own))}, counted from 0, but "
            f"CUDA_VISIBLE_DEVICES shows {len(names)}: start no more processes than there are GPUs for, or unset "
            "LOCAL_RANK where each process sees its own GPUs only"
        )
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(names if visible is None else names[own.start : own.stop])
    del environment["LOCAL_RANK"]


def refused(setup: EngineSetup, error: Exception) -> ConfigError:
    """What a user is told of a model or an argument that vLLM does not take."""
    if needs_trust(error) and not setup.trust_remote_code:
        return ConfigError(untrusted(setup.model))
    return ConfigError(f"vLLM refuses model {setup.model} or its engine_arguments: {_complaint(error)}")


def _complaint(error: Exception) -> str:
    """What is wrong; the errors of those who check types begin with a line that does not say it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    counts = "validation error" in first_line(error).lower() and len(lines) > 1
    return ": ".join(lines[1:3]) if counts else first_line(error)


def vllm_arguments(setup: EngineSetup, *, eager: bool) -> EngineArguments:
    """What vLLM is started with, here and on a cluster; on a CPU compiling a model takes longer than most runs."""
    revision = {} if setup.revision is None else {"revision": setup.revision, "tokenizer_revision": setup.revision}
    return {
        "model": setup.model,
        **revision,
        "dtype": setup.dtype,
        "seed": setup.decoding.seed,
        "trust_remote_code": setup.trust_remote_code,
        "enable_prefix_caching": True,
        "enforce_eager": eager,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **({} if setup.extension is None else {"worker_extension_cls": setup.extension}),
        **setup.arguments,
    }


ENGINE = VllmEngine
RESTARTS = True
