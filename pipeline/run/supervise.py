"""One stage, one process: start it, hand signals on to it, and pass on how it ended.

In: the arguments of a stage's command. Out: its exit code. A process of its own gives back all memory of the GPU at
its end (vLLM keeps its share until then), and a crash in native code does not take the run down with it.

The stage runs in a process group of its own, so that Ctrl-C reaches it once, through us, and not also the engine
processes below it, which would end in the middle of a piece. Its standard input is a pipe that we hold open: should
we be killed, the pipe closes and the stage asks itself to stop (`stop_with_parent`).
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from data.errors import Interrupted
from stages.runtime.progress import StopSignal


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


def stage_command(stage: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a stage; -P keeps the user's own folder named `data` off the import path."""
    return [sys.executable, "-P", "-m", "pipeline", stage, *arguments, "--supervised"]


def stop_with_parent() -> None:
    """Send ourselves SIGTERM when standard input ends, that is, when the process that started us is gone."""

    def wait_for_end() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="stop-with-parent", daemon=True).start()
