"""Several processes of one machine that share out the students of a run: `molsaki run --jobs N`.

In: the students that are missing, and how many processes. Out: each student is taken by one of them, as it becomes
free, so that a point whose students take long keeps no process waiting. Cores are shared out by OMP_NUM_THREADS, GPUs
in turn, and of a GPU's memory each process that computes there may take an equal part.

What a process says is written into a file of its own, and shown above one bar by the process that waits.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path

from stages.runtime.progress import Progress

DONE = ".done"


@dataclass(kw_only=True)
class Claim:
    """A student as one process sees it: whether it is this process's to work on, and whether there was work."""

    mine: bool
    had_work: bool = True


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Files in a folder that say which process has taken which student; None for a process that shares with nobody."""

    folder: Path | None = None

    @contextmanager
    def of(self, point: str, seed: int) -> Iterator[Claim]:
        """A student, whose the first process is that asks for it.

        It counts as done when what is made inside has ended, unless whoever makes it says that there was no work.
        """
        found = Claim(mine=True)
        if self.folder is None:
            yield found
            return
        name = hashlib.sha256(f"{point}\n{seed}".encode()).hexdigest()
        claim = self.folder / name
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            yield Claim(mine=False)
            return
        yield found
        if found.had_work:
            claim.with_suffix(DONE).touch()


class Watch:
    """Shows what several processes say, and how many students are done, at every look."""

    def __init__(self, progress: Progress, task: str, total: int, folder: Path, said: Sequence[BufferedReader]) -> None:
        self._progress, self._folder, self._said = progress, folder, said
        self._done, self._unfinished = 0, [b""] * len(said)
        progress.start(task, total)

    def __call__(self) -> None:
        """Show what has come since the last look; lines that are not complete wait for the next one."""
        for number, file in enumerate(self._said):
            *lines, self._unfinished[number] = (self._unfinished[number] + file.read()).split(b"\n")
            for line in lines:
                self._progress.note(line.decode(errors="replace"))
        done = sum(1 for _ in self._folder.glob(f"*{DONE}"))
        if done > self._done:
            self._progress.advance(done - self._done)
            self._done = done


@contextmanager
def said_by(folder: Path, count: int) -> Iterator[tuple[list[FileIO], list[BufferedReader]]]:
    """Files that processes write what they say into, and the same to read from."""
    with ExitStack() as stack:
        paths = [folder / f"said-{number}" for number in range(1, count + 1)]
        written = [stack.enter_context(path.open("ab", buffering=0)) for path in paths]
        yield written, [stack.enter_context(path.open("rb")) for path in paths]


def threads_each(count: int) -> str:
    """Threads of each of so many processes, for OMP_NUM_THREADS: the cores that this process may use, shared out."""
    return str(max(1, len(os.sched_getaffinity(0)) // count))
