"""How copying says how far it is: bytes are counted, and whoever counts may end it by raising.

The command line draws a bar and asks in between whether a signal has arrived; everybody else needs neither.
"""

from typing import Protocol


class Meter(Protocol):
    """Receives the advance of a long task."""

    def start(self, task: str, total: int) -> None:
        """Begin a task of `total` units; an earlier task is over."""

    def advance(self, count: int = 1) -> None:
        """Count units as done."""


class Unmetered:
    """A `Meter` that takes no notice."""

    def start(self, task: str, total: int) -> None:
        """Begin a task."""

    def advance(self, count: int = 1) -> None:
        """Count units as done."""
