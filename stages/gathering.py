"""Committing what comes in one by one: items enter as they are finished, pieces of them are written meanwhile.

A piece is written in a thread of its own, one at a time, so that whoever brings the items is not held up by it. It is
written when it is full, or when the last one was long ago; and whatever ends the work, what was gathered is written.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")
Written = TypeVar("Written")


class Gathering(Generic[Item, Written]):
    """Gathers items and hands them to `write` in pieces; `written` holds what it returned for each."""

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Written],
        thread: ThreadPoolExecutor,
        *,
        piece: int,
        minutes: float,
    ) -> None:
        self.written: list[Written] = []
        self._write = write
        self._thread = thread
        self._piece = piece
        self._minutes = minutes
        self._items: list[Item] = []
        self._began = time.monotonic()
        self._pending: Future[Written] | None = None

    def add(self, item: Item) -> None:
        """Take an item, and hand over what is due; raises the error of an earlier piece."""
        self._items.append(item)
        if len(self._items) >= self._piece or (time.monotonic() - self._began) / 60 >= self._minutes:
            self._hand_over()

    def finish(self) -> None:
        """Hand over everything that was gathered, and wait until it is written."""
        if self._items:
            self._hand_over()
        self._wait()

    def _hand_over(self) -> None:
        """Hand over one piece; waits for the one before, whose error it raises."""
        self._wait()
        items, self._items = self._items, []
        self._pending = self._thread.submit(self._write, items)
        self._began = time.monotonic()

    def _wait(self) -> None:
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            self.written.append(pending.result())
        except Exception:
            self._items = []  # what cannot be written now is made by the next run
            raise


@contextmanager
def gathering(
    write: Callable[[Sequence[Item]], Written], *, piece: int, minutes: float
) -> Iterator[Gathering[Item, Written]]:
    """Whatever ends the work inside, what was gathered is written on leaving; not so where writing itself fails."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="write") as thread:
        found = Gathering(write, thread, piece=piece, minutes=minutes)
        try:
            yield found
        finally:
            found.finish()
