"""One stage, one process: start it, hand signals on to it, and pass on how it ended.

In: the arguments of a stage's command. Out: its exit code. A process of its own gives back all memory of the GPU at
its end (vLLM keeps its share until then), and a crash in native code does not take the run down with it.

The stage runs in a process group of its own, so that Ctrl-C reaches it once, through us, and not also the engine
processes below it, which would end in the middle of a piece. Its standard input is a pipe that we hold open: should
we be killed, the pipe closes and the stage asks itself to stop (`stop_with_parent`). A process that works on the
students of many points leaves a small file for the one that waits for it (`Failures`), there also when it was killed.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import IO, TypeAlias

from cache.durable import replace_file
from data.errors import EngineError, Interrupted
from pipeline.console.exits import complain
from stages.runtime.progress import StopSignal, interrupted

Process: TypeAlias = subprocess.Popen[bytes]
LOOKS_PER_SECOND = 10
SECONDS_ALONE = 5.0
"""What the others get once one has failed: mostly they fail of the same, and the first one has to say so."""
SECONDS_TO_END = 20.0
"""What they get when they have been asked to end. They wait for the one that failed; nothing they did is lost."""


class ForwardingStop(StopSignal):
    """Remembers a signal and hands it on to the stage that is running."""

    def __init__(self) -> None:
        super().__init__()
        self._stage: Process | None = None

    def run(self, command: Sequence[str]) -> int:
        """Run `command` to its end and return its exit code; 75 if it ended by the signal, before it could say so."""
        self.check("everything that was committed")
        with subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0) as stage:  # noqa: S603  our own command
            self._stage = stage
            if self.received is not None:  # arrived while the process was being started
                stage.send_signal(self.received)
            code = stage.wait()
        self._stage = None
        if self.received is None or code != -self.received:
            return code
        complain(str(interrupted(self.received.name, "all that was committed")))
        return Interrupted.exit_code

    def _remember(self, number: int, frame: FrameType | None) -> None:
        super()._remember(number, frame)
        if self._stage is not None:
            self._stage.send_signal(number)


@dataclass(kw_only=True)
class Failures:
    """What failed of the points in a process: errors by name, and the point that it is at."""

    failed: dict[str, str] = field(default_factory=dict)
    at: str | None = None
    path: Path | None = None

    def reach(self, point: str | None) -> None:
        """Save that `point` is next for the process that waits, which wants to know also if this one is killed."""
        self.at = point
        if self.path is not None:
            replace_file(self.path, json.dumps({"failed": self.failed, "at": self.at}).encode())

    @classmethod
    def read(cls, path: Path) -> "Failures":
        """Read what a process has reported; empty where it has not come to that."""
        if not path.exists():
            return cls()
        return cls(**json.loads(path.read_text(encoding="utf-8")))


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


def run_together(command: Sequence[str], count: int, stop: StopSignal) -> int:
    """Run `command` in `count` processes; 0 where all ended well, 75 where they stopped, else the first failure's code.

    Raises `EngineError` where a signal from elsewhere has ended one of them.
    """
    with ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) if rank else None for rank in range(count)]
        port = _free_port()
        started = [stack.enter_context(_start(command, rank, count, port, said[rank])) for rank in range(count)]
        try:
            failed = _wait(started, stop)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()
        if failed is None:
            return max(process.returncode for process in started)
        rank, code = started.index(failed), failed.returncode
        _show(said[rank], started[0])
        if code < 0:
            ended = f"process {rank + 1} of {count} was ended by {signal.Signals(-code).name}"
            raise EngineError(f"{ended}; run the same command to go on")
        return code


def run_side_by_side(
    commands: Sequence[Sequence[str]],
    said: Sequence[FileIO],
    environment: Mapping[str, str],
    stop: StopSignal,
    *,
    together: bool,
    watch: Callable[[], object],
) -> list[int]:
    """Run several commands to their ends and return their exit codes; what they write to stderr goes into `said`.

    `watch` is called at every look at them. With `together`, the first that fails lets the others end as well.
    """
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(  # noqa: S603  our own command
                    command, env={**environment, **os.environ}, stdin=subprocess.PIPE, stderr=file, process_group=0
                )
            )
            for command, file in zip(commands, said, strict=True)
        ]
        try:
            _wait(started, stop, together=together, watch=watch)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()
            watch()
        return [process.returncode for process in started]


def _start(command: Sequence[str], rank: int, count: int, port: int, said: IO[bytes] | None) -> Process:
    """Start one of several; what it writes to stderr goes into `said`, to ours where there is none."""
    environment = {
        "OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // count, 1)),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # or every process warns that all weights were in use
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return subprocess.Popen(  # noqa: S603  our own command
        command, env=environment, stdin=subprocess.PIPE, stderr=said, process_group=0
    )


def _wait(
    started: Sequence[Process],
    stop: StopSignal,
    *,
    together: bool = True,
    watch: Callable[[], object] = lambda: None,
) -> Process | None:
    """Wait for all; return the first that failed, having given the others a moment to end where they are `together`."""
    handed_on = False
    while running := [process for process in started if process.poll() is None]:
        watch()
        failed = _first_failed(started) if together else None
        if failed is not None:
            _end(running)
            return failed
        if stop.received is not None and not handed_on:
            handed_on = True
            for process in running:
                process.send_signal(stop.received)
        time.sleep(1 / LOOKS_PER_SECOND)
    return _first_failed(started)


def _first_failed(started: Sequence[Process]) -> Process | None:
    well = {None, 0, Interrupted.exit_code}
    return next((process for process in started if process.poll() not in well), None)


def _end(running: Sequence[Process]) -> None:
    _wait_at_most(SECONDS_ALONE, running)
    for process in running:
        process.terminate()
    _wait_at_most(SECONDS_TO_END, running)


def _wait_at_most(seconds: float, running: Sequence[Process]) -> None:
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in running) and time.monotonic() < deadline:
        time.sleep(1 / LOOKS_PER_SECOND)


def _show(said: IO[bytes] | None, first: Process) -> None:
    """Show what a process said before it failed, unless the first one has failed as well and said so itself."""
    if said is not None and first.returncode <= 0:
        said.seek(0)
        sys.stderr.write(said.read().decode(errors="replace"))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
