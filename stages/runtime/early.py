"""Signals before a stage can look for them and after its work is done, which would end the process by themselves.

SIGUSR1, which batch systems send when the time of a job is nearly over, kills a process that has not said what becomes
of it. Loading a stage takes seconds, and so does ending it. SIGINT, as Control-C sends it, is a traceback until
somebody can catch it.
"""

import os
import signal
from types import FrameType

STOPPED = "stopped; run the same command to go on"
STOPPED_LINE = f"error: {STOPPED}\n".encode()
STOPPED_CODE = 75
"""What is said of an interrupt that finds nothing to save, and the exit code; what else says so is not loaded yet."""
_arrived: list[signal.Signals] = []


class Stopped(KeyboardInterrupt):
    """Control-C. `python -m` ends by the signal where one of Python's own came through `exec`, whoever caught it."""


def remember_signals() -> None:
    """Keep SIGUSR1 for the stage that is about to be loaded; a command without stage ignores it."""
    signal.signal(signal.SIGUSR1, _remember)


def end_while_loading() -> None:
    """Let SIGINT end the process at once, with a line: nothing has begun. Where it is ignored, it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_stopped() -> None:
    """Let SIGINT raise `Stopped` from now on, where it would end the process."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, _raise)


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, STOPPED_LINE)
    os._exit(STOPPED_CODE)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def _remember(number: int, _frame: FrameType | None) -> None:
    _arrived.append(signal.Signals(number))


def take_arrived() -> signal.Signals | None:
    """The signal that came before, once."""
    found = _arrived[-1] if _arrived else None
    _arrived.clear()
    return found


def ignore_signals() -> None:
    """Let no request to stop end this process any more: what it had to do is done, it only has to end."""
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
