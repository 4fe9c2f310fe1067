"""How a stage says how far it is, and how it learns that it has to stop.

A stage reports through `Progress`, which the command line draws and tests leave silent, and asks `StopSignal` between
pieces whether SIGTERM, SIGINT or SIGUSR1 has arrived. It then commits what it has and raises `Interrupted`.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol, Self

from cache.exchange.metering import Meter, Unmetered
from data.errors import Interrupted
from stages.runtime.early import take_arrived

COMMITTED = "all that was committed"
"""What is safe wherever nothing was begun."""
TARGETS, TEXTS, SOFT_LABELS = "targets", "texts", "soft labels"
"""The tasks of putting together what training aims at, and what it reads, once before it."""
PREPARING = frozenset({TARGETS, TEXTS, SOFT_LABELS})
"""Whoever measures counts these as loading."""


class Progress(Meter, Protocol):
    """Receives the advance of one stage."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task of `total` units, `done` of them by an earlier process; an earlier task is over.

        What the task needs is loaded by then, so that time from here on grows with the units.
        """

    def saved(self, count: int) -> None:
        """Say that so many more units of the task are committed, of those done; 0 says that units will be."""

    def note(self, message: str) -> None:
        """Say one line that also belongs into the log."""


class SilentProgress(Unmetered):
    """A `Progress` that shows nothing."""

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task."""

    def saved(self, count: int) -> None:
        """Count units as committed."""

    def note(self, message: str) -> None:
        """Take a line."""


class StopSignal:
    """Remembers a signal that asks to stop, while it is entered as a context; restores the old handlers on leaving."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._saved: str | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        self.received = take_arrived()
        for number in self.SIGNALS:
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if self._saved is not None:
            saved, self._saved = self._saved, None
            self.check(saved)

    @contextmanager
    def at_once(self, saved: str) -> Iterator[None]:
        """Let a signal end what is done inside, wherever it is: work that cannot look itself, with nothing to save."""
        self.check(saved)
        self._saved = saved
        try:
            yield
        finally:
            self._saved = None

    def check(self, saved: str) -> None:
        """Raise `Interrupted` if a signal has arrived; `saved` says what is safe by now."""
        if self.received is not None:
            raise interrupted(self.received.name, saved)


def interrupted(cause: str, saved: str) -> Interrupted:
    """What a stage ends with that was asked to stop."""
    return Interrupted(f"stopped by {cause} after saving {saved}; run the same command to go on")
