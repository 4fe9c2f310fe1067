"""Committing what comes in one by one: items enter as they are finished and are written in pieces.

A piece is written when it is full, or large, or when the last one was long ago; and whatever ends the work, what was
gathered is written. A process that is killed loses what it has gathered and one piece more at most. Where answers come
from elsewhere, from engines that work on in threads or processes of their own, nothing is taken in while a piece is
being written; what is computed here goes on meanwhile, and the piece is written in a thread.
"""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

from stages.settings import AttentionSettings, SoftLabelSettings

Item = TypeVar("Item")
Written = TypeVar("Written")
MOST_HELD_BYTES = 512 << 20
"""Arrays at which a piece is written although it could have more of them; as much again is being written meanwhile."""


class Gathering(Generic[Item, Written]):
    """Gathers items and lets `write` have them in pieces; `written` holds what it returned for each.

    A context: whatever ends the work inside, what was gathered is written on leaving; not so where writing itself
    fails. `write` may be replaced meanwhile; a piece is written by what it was when the piece was full. With
    `in_thread` pieces are written in one, one at a time, and an error is raised with the next piece. `done` is told how
    many items are written.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Written],
        *,
        piece: int,
        minutes: float,
        most_bytes: int = sys.maxsize,
        size: Callable[[Item], int] = lambda _: 0,
        done: Callable[[int], None] = lambda _: None,
        in_thread: bool = False,
    ) -> None:
        self.write, self.written = write, list[Written]()
        self._piece, self._minutes, self._most_bytes = piece, minutes, most_bytes
        self._size, self._done, self._in_thread = size, done, in_thread
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write")
        self._items, self._bytes = list[Item](), 0
        self._pending: tuple[Future[Written], int] | None = None
        self._began = time.monotonic()

    def add(self, item: Item) -> None:
        """Take an item, and write what is due."""
        self._items.append(item)
        self._bytes += self._size(item)
        minutes = (time.monotonic() - self._began) / 60
        if len(self._items) >= self._piece or self._bytes >= self._most_bytes or minutes >= self._minutes:
            self._hand_over()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write everything that was gathered; what cannot be written is given up, and made by the next run."""
        with self._thread:
            self._hand_over()
            self._wait()

    def _hand_over(self) -> None:
        self._wait()
        items, self._items, self._bytes = self._items, [], 0
        if items and self._in_thread:
            self._pending = self._thread.submit(self.write, items), len(items)
        elif items:
            self.written.append(self.write(items))
            self._done(len(items))
        self._began = time.monotonic()

    def _wait(self) -> None:
        """Wait for the piece that is being written."""
        if self._pending is not None:
            (future, count), self._pending = self._pending, None
            try:
                self.written.append(future.result())
            except Exception:
                self._items, self._bytes = [], 0
                raise
            self._done(count)


def gathering_blocks(
    write: Callable[[Sequence[Item]], Written],
    settings: AttentionSettings | SoftLabelSettings,
    done: Callable[[int], None],
) -> Gathering[Item, Written]:
    """Gather blocks of arrays, which are written in a thread; the key of a record that has none takes no room."""
    return Gathering(
        write,
        piece=settings.piece,
        minutes=settings.commit_minutes,
        most_bytes=MOST_HELD_BYTES,
        size=lambda item: getattr(item, "nbytes", 0),
        done=done,
        in_thread=True,
    )
