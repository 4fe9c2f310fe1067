"""Signals before a stage can look for them and after its work is done, which would end the process by themselves.

SIGUSR1, which batch systems send when the time of a job is nearly over, kills a process that has not said what becomes
of it. Loading a stage takes seconds, and so does ending it.
"""

import signal
from types import FrameType

_arrived: list[signal.Signals] = []


def remember_signals() -> None:
    """Keep SIGUSR1 for the stage that is about to be loaded; a command without stage ignores it."""
    signal.signal(signal.SIGUSR1, _remember)


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
