"""A small process beside vLLM's that ends them where the one that started them is gone.

vLLM's process does not notice that its parent was killed: it stays, and keeps its share of the GPU's memory, in which
the next run finds no room. In: the process that is guarded, as an argument. Out: nothing; while that process lives, its
children and theirs are looked up once a second, and when it is gone, those that are left are asked to end, then killed.

It runs this file by itself, with no package and no output, so that it costs little and nobody waits for it.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS, END_SECONDS = 1.0, 5.0


def start_guard() -> "subprocess.Popen[bytes]":
    """Guard this process; whoever starts a guard ends it when there is nothing left to guard."""
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(  # noqa: S603  our own command
        command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
    )


def children_of(parent: int) -> set[int]:
    """The processes that `parent` has started, as Linux lists them; empty where it does not."""
    # psutil would know as well, but lies in site-packages, which this process goes without to be small and up at once.
    found: set[int] = set()
    for listed in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):  # that thread has just ended
            found.update(map(int, listed.read_text().split()))
    return found


def below(parent: int) -> set[int]:
    """Its children, theirs, and so on; but for this process."""
    children = children_of(parent) - {os.getpid()}
    return children.union(*map(below, children))


def guard(parent: int) -> None:
    """Wait until `parent` is gone, and end what it left."""
    children: set[int] = set()
    while True:
        found = below(parent)
        if os.getppid() != parent:
            break
        children = found
        time.sleep(LOOK_SECONDS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, number)
        time.sleep(END_SECONDS)


if __name__ == "__main__":
    guard(int(sys.argv[1]))
