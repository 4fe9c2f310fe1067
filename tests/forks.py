"""`molsaki` in processes forked from one that has loaded the libraries: importing them takes longer than most tests.

In: the arguments of a command, a folder, the environment. Out: a process with what tests use of `subprocess.Popen`:
a number, signals, an exit code, pipes. The stages that it starts are forked as well. What is tested about the start
itself (what is imported, how much memory it takes, the installed script) starts Python instead.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import IO, Any, Self

from pipeline.console.progress import NO_BARS, QUIET_LIBRARIES
from pipeline.run import processes

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable, "-P", "-m", "pipeline"]
"""The beginning of a command that is forked instead."""
LOADED = (
    "peft",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "pipeline.cli.run",
    "pipeline.run.execute",
    "stages.attention.write",
    "stages.engines.kinds.transformers",
    "stages.evaluation",
    "stages.likelihood",
    "stages.rationales.write",
    "stages.student.train",
)
NUMBER, REQUEST = 20, 1 << 17
"""Most bytes of a process number or an exit code, and of arguments with an environment."""
Where = int | IO[Any] | None
"""As `subprocess` has it: a file, PIPE, DEVNULL, or None for that of this process."""


class Molsaki:
    """A command in a process and a process group of its own."""

    address: str | None = None
    """Where to ask for a process, in one that was itself forked."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Where = None,
        stdout: Where = None,
        stderr: Where = None,
    ) -> None:
        self.returncode: int | None = None
        ends = [_ends(number, where) for number, where in enumerate((stdin, stdout, stderr))]
        self.stdin, self.stdout, self.stderr = (ours for ours, _, _ in ends)
        request = [list(arguments), str(cwd or Path.cwd()), dict(os.environ if env is None else env)]
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.connect(self.address or _server())
        socket.send_fds(self._server, [json.dumps(request).encode()], [theirs for _, theirs, _ in ends])
        for _, theirs, is_new in ends:
            if is_new:
                os.close(theirs)
        self.pid = int(self._server.recv(NUMBER))

    def poll(self) -> int | None:
        """The exit code, if there is one yet."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, when there is one."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("molsaki", timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has written to pipes, when it has ended."""
        said = {stream: b"" for stream in (self.stdout, self.stderr) if stream is not None}
        left = set(said)
        while left:
            ready = select.select(left, [], [], timeout)[0]
            if not ready:
                raise subprocess.TimeoutExpired("molsaki", timeout or 0)
            for stream in ready:
                part = os.read(stream.fileno(), 1 << 16)
                said[stream] += part
                left -= set() if part else {stream}
        self.wait(timeout)
        out, error = (said[stream].decode() if stream else "" for stream in (self.stdout, self.stderr))
        self._close()
        return out, error

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._server], [], [], timeout)[0]:
            self.returncode = int(self._server.recv(NUMBER))
            self._server.close()
        return self.returncode

    def _close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self.wait()


def _ends(number: int, where: Where) -> tuple[IO[bytes] | None, int, bool]:
    """Our end of a standard stream, theirs, and whether theirs was made here."""
    if where is None:
        return None, number, False
    if where == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR), True
    if where != subprocess.PIPE:
        return None, where if isinstance(where, int) else where.fileno(), False
    reading, writing = os.pipe()
    return (os.fdopen(reading, "rb"), writing, True) if number else (os.fdopen(writing, "wb"), reading, True)


def run(arguments: Sequence[str], folder: Path, seconds: float = 500) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    with Molsaki(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, error = process.communicate(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(list(arguments), process.wait(), out, error)


# The process that is forked ---------------------------------------------------------------------------------------


@cache
def _server() -> str:
    """Start it, once; its address. It ends with this process, which holds its standard input open."""
    folder = TemporaryDirectory(prefix="forks-")
    address = str(Path(folder.name) / "socket")
    # What libraries read when they are imported, which is before a command can set it.
    environment = {**os.environ, **QUIET_LIBRARIES, **NO_BARS}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forks", address],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    for end in (folder.cleanup, process.wait, process.stdout.close, process.stdin.close):
        atexit.register(end)  # the last one first
    assert process.stdout.readline() == b"ready\n", "the process to be forked has not started"
    return address


def _serve(address: str) -> None:
    """Load the libraries and fork for all who ask; returns at the end of standard input, and in what is forked."""
    for module in LOADED:
        import_module(module)
    gc.freeze()  # memory that is left alone is shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who look after another one
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        os.write(1, b"ready\n")
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                break
            connection.close()
        else:
            return
    request, files, _, _ = socket.recv_fds(connection, REQUEST, 3)
    child = os.fork()
    if child:
        _look_after(child, connection, files)
    connection.close()
    Molsaki.address = address
    _become(*json.loads(request), files)


def _look_after(child: int, connection: socket.socket, files: Sequence[int]) -> None:
    """Tell who asked the number of the process, and when it has ended how; then end as well."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for file in (*range(3), *files):
        os.close(file)
    with suppress(OSError):  # it has done so itself and is through already
        os.setpgid(child, child)
    with suppress(BrokenPipeError):
        connection.send(str(child).encode())
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def _become(arguments: Sequence[str], folder: str, environment: Mapping[str, str], files: Sequence[int]) -> None:
    """Be the process of a command, as if it had been started by itself."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    processes.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": _start})  # type: ignore[attr-defined]
    sys.argv = ["molsaki", *arguments]
    runpy.run_module("pipeline", run_name="__main__", alter_sys=True)


def _start(command: Sequence[str], **options: Any) -> Any:
    """Start a process, by forking where the command is one of ours."""
    if list(command[: len(PYTHON)]) != PYTHON:
        return subprocess.Popen(command, **options)
    del options["process_group"]
    return Molsaki(command[len(PYTHON) :], **options)


if __name__ == "__main__":
    _serve(sys.argv[1])
