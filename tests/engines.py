"""The engines that one contract holds for, each opened on the same model: a new one is a line in `ENGINES`.

`openai` is the real thing: vLLM's server in a process of its own, on 127.0.0.1, with a key. `ray` is a cluster of this
machine alone; what is its own is in test_ray_cluster.py.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from stages.engines.contract import Engine, EngineSetup
from stages.engines.openai_server import Server
from stages.engines.start import open_engine

NEEDS_VLLM = pytest.mark.vllm
ENGINES: list[Any] = [
    "transformers",
    pytest.param("vllm", marks=NEEDS_VLLM),
    pytest.param("openai", marks=NEEDS_VLLM),
    pytest.param("ray", marks=[NEEDS_VLLM, pytest.mark.slow, pytest.mark.timeout(1800)]),
]
STARTED = ENGINES[:2]
"""Those that load the model themselves, when they are opened."""
KEY, SERVED = "a-key-for-tests", "the-teacher"
START_SECONDS = 400


def require(name: str) -> None:
    """Skip the test where what an engine needs is not installed."""
    if name != "transformers":
        pytest.importorskip("vllm", reason="vLLM is not installed")
    if name == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")


@contextmanager
def opened(name: str, setup: EngineSetup) -> Iterator[Engine]:
    """The engine of that name with the model of `setup`, and the server that it needs; skips what is not installed."""
    require(name)
    if name == "openai":
        with vllm_server(setup) as address:
            server = Server(address=address, model=SERVED, renamed=True)
            with open_engine("openai", replace(setup, server=server)) as engine:
                yield engine
    else:
        if name == "ray":
            # On a CPU vLLM 0.32.0 dies of a sampled prompt that it reads in parts: all have room in one step.
            setup = replace(setup, arguments={**setup.arguments, "max_num_batched_tokens": 1 << 14})
        with open_engine(name, setup) as engine:  # type: ignore[arg-type]
            yield engine


@contextmanager
def vllm_server(setup: EngineSetup) -> Iterator[str]:
    """vLLM's own server with the model of `setup`; its address, with the key for it in the environment."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", setup.model, "--dtype", setup.dtype),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", SERVED, "--enforce-eager"),
        *("--max-model-len", str(setup.arguments["max_model_len"])),
    ]
    quiet = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment = {**os.environ, **quiet, "VLLM_API_KEY": KEY}
    address = f"http://127.0.0.1:{port}/v1"
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        log = Path(folder) / "server.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, process_group=0)
        try:
            _wait(process, address, log)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            finally:
                _kill_group(process.pid)


def _wait(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    opener = build_opener(ProxyHandler({}))
    request = Request(f"{address}/models", headers={"authorization": f"Bearer {KEY}"})
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            opener.open(request, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"vLLM's server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _kill_group(group: int) -> None:
    """End what is left of the server's processes."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
