"""One stage, one process: start it, hand signals on to it, and pass on how it ended.

In: the arguments of a stage's command. Out: its exit code. A process of its own gives back all memory of the GPU at
its end (vLLM keeps its share until then), and a crash in native code does not take the run down with it.

The stage runs in a process group of its own, so that Ctrl-C reaches it once, through us, and not also the engine
processes below it, which would end in the middle of a piece. Its standard input is a pipe that we hold open: should
we be killed, the pipe closes and the stage asks itself to stop (`stop_with_parent`).
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import IO

from data.errors import EngineError, Interrupted
from stages.runtime.progress import StopSignal

LOOKS_PER_SECOND = 10
SECONDS_ALONE = 5.0
"""What the others get once one has failed: mostly they fail of the same, and the first one has to say so."""
SECONDS_TO_END = 20.0
"""What they get when they have been asked to end. They wait for the one that failed; nothing they did is lost."""


class ForwardingStop(StopSignal):
    """Remembers a signal and hands it on to the stage that is running."""

    def __init__(self) -> None:
        super().__init__()
        self._stage: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str]) -> int:
        """Run `command` to its end and return its exit code; 75 if it ended by the signal that was forwarded."""
        self.check("everything that was committed")
        with subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0) as stage:  # noqa: S603  our own command
            self._stage = stage
            if self.received is not None:  # arrived while the process was being started
                stage.send_signal(self.received)
            code = stage.wait()
        self._stage = None
        return Interrupted.exit_code if self.received is not None and code == -self.received else code

    def _remember(self, number: int, frame: FrameType | None) -> None:
        super()._remember(number, frame)
        if self._stage is not None:
            self._stage.send_signal(number)


def our_command(name: str, *arguments: object) -> list[str]:
    """The command line of one of ours; -P keeps the user's own folder named `data` off the import path."""
    return [sys.executable, "-P", "-m", "pipeline", name, *map(str, arguments)]


def stage_command(stage: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a stage that stops where we end."""
    return [*our_command(stage, *arguments), "--supervised"]


def stop_with_parent() -> None:
    """Send ourselves SIGTERM when standard input ends, that is, when the process that started us is gone."""

    def wait_for_end() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="stop-with-parent", daemon=True).start()


@dataclass(frozen=True, kw_only=True)
class _Started:
    process: subprocess.Popen[bytes]
    said: IO[bytes] | None
    """What it wrote to stderr; None where that went to ours."""


def run_together(command: Sequence[str], count: int, stop: StopSignal) -> int:
    """Run `command` in `count` processes; 0 where all ended well, 75 where they stopped, else the first failure's code.

    Raises `EngineError` where a signal from elsewhere has ended one of them.
    """
    with ExitStack() as stack:
        port = _free_port()
        started = [_start(command, rank, count, port, stack) for rank in range(count)]
        try:
            failed = _wait(started, stop)
        finally:
            for each in started:
                if each.process.poll() is None:
                    each.process.kill()
                each.process.wait()
        if failed is None:
            return max(each.process.returncode for each in started)
        _show(failed, started[0])
        code = failed.process.returncode
        if code < 0:
            raise EngineError(
                f"process {started.index(failed) + 1} of {count} was ended by {signal.Signals(-code).name}; "
                "run the same command to go on"
            )
        return code


def _start(command: Sequence[str], rank: int, count: int, port: int, stack: ExitStack) -> _Started:
    threads = str(max((os.cpu_count() or 1) // count, 1))
    environment = {
        "OMP_NUM_THREADS": threads,
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # or every process warns that all weights were in use
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    said = None if rank == 0 else stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  the stack closes it
    process = stack.enter_context(
        subprocess.Popen(  # noqa: S603  our own command
            command, env=environment, stdin=subprocess.PIPE, stderr=said, process_group=0
        )
    )
    return _Started(process=process, said=said)


def _wait(started: Sequence[_Started], stop: StopSignal) -> _Started | None:
    """Wait for all; return the first that failed, having given the others a moment to end."""
    handed_on = False
    while running := [each for each in started if each.process.poll() is None]:
        failed = _first_failed(started)
        if failed is not None:
            _end(running)
            return failed
        if stop.received is not None and not handed_on:
            handed_on = True
            for each in running:
                each.process.send_signal(stop.received)
        time.sleep(1 / LOOKS_PER_SECOND)
    return _first_failed(started)


def _first_failed(started: Sequence[_Started]) -> _Started | None:
    well = {None, 0, Interrupted.exit_code}
    return next((each for each in started if each.process.poll() not in well), None)


def _end(running: Sequence[_Started]) -> None:
    _wait_at_most(SECONDS_ALONE, running)
    for each in running:
        each.process.terminate()
    _wait_at_most(SECONDS_TO_END, running)


def _wait_at_most(seconds: float, running: Sequence[_Started]) -> None:
    deadline = time.monotonic() + seconds
    while any(each.process.poll() is None for each in running) and time.monotonic() < deadline:
        time.sleep(1 / LOOKS_PER_SECOND)


def _show(failed: _Started, first: _Started) -> None:
    """Show what a process said before it failed, unless the first one has failed as well and said so itself."""
    if failed.said is not None and first.process.returncode <= 0:
        failed.said.seek(0)
        sys.stderr.write(failed.said.read().decode(errors="replace"))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
