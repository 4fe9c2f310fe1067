"""Committing what comes in one by one: items enter as they are finished and are written in pieces.

A piece is written when it is full, or when the last one was long ago; and whatever ends the work, what was gathered is
written. Nothing is taken in while a piece is being written, so that a process that is killed loses one piece at most;
an engine is not held up by it, for it has answers waiting and works on in threads or processes of its own.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")
Written = TypeVar("Written")


class Gathering(Generic[Item, Written]):
    """Gathers items and lets `write` have them in pieces; `written` holds what it returned for each."""

    def __init__(self, write: Callable[[Sequence[Item]], Written], *, piece: int, minutes: float) -> None:
        self.written: list[Written] = []
        self._write = write
        self._piece = piece
        self._minutes = minutes
        self._items: list[Item] = []
        self._began = time.monotonic()

    def add(self, item: Item) -> None:
        """Take an item, and write what is due."""
        self._items.append(item)
        if len(self._items) >= self._piece or (time.monotonic() - self._began) / 60 >= self._minutes:
            self.finish()

    def finish(self) -> None:
        """Write everything that was gathered; what cannot be written is given up, and made by the next run."""
        items, self._items = self._items, []
        if items:
            self.written.append(self._write(items))
        self._began = time.monotonic()


@contextmanager
def gathering(
    write: Callable[[Sequence[Item]], Written], *, piece: int, minutes: float
) -> Iterator[Gathering[Item, Written]]:
    """Whatever ends the work inside, what was gathered is written on leaving; not so where writing itself fails."""
    found = Gathering(write, piece=piece, minutes=minutes)
    try:
        yield found
    finally:
        found.finish()
