"""How far a stage is, for the person at the terminal and for the log, with the terminal kept for what we say.

In: the calls of `stages.runtime.progress.Progress`. Out, on stderr: a bar on a terminal; elsewhere a plain line at most
every ten seconds, so that a job's output file stays short; nothing with `--quiet`. Notes also go to the log. Libraries
print bars, hints and logs wherever they like: while a stage works stdout is stderr, and their bars are off where no
person watches.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from stages.runtime.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID
import os
from contextlib import redirect_stdout

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_LINES_OF_JOBS = 60.0
"""Of each of several processes, above the bar that counts what all of them have done."""
QUIET_LIBRARIES = {"TRANSFORMERS_VERBOSITY": "error"}
NO_BARS = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


class QuietProgress(SilentProgress):
    """Shows nothing; notes still reach the log."""

    def note(self, message: str) -> None:
        """Log one line."""
        log.info(message)


class LineProgress:
    """Plain lines for a job's output file, at most one every `seconds_between`.

    The speed is that since the first units came: before them an engine starts or a model loads.
    """

    def __init__(self, seconds_between: float = SECONDS_BETWEEN_LINES, *, logs: bool = True) -> None:
        self._between, self._logs = seconds_between, logs
        self._first: tuple[int, float] | None
        self.start("", 0)

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin `task`; the first line comes when there is something to say."""
        self._task, self._total, self._done = task, total, done
        self._started = self._said = time.monotonic()
        self._first = None
        self._saved: int | None = None

    def advance(self, count: int = 1) -> None:
        """Count units, and say so if the last line is long ago or the task is complete after a while."""
        self._done += count
        now = time.monotonic()
        self._first = self._first or (self._done, now)
        complete = self._done == self._total and self._said > self._started
        if complete or now - self._said >= self._between:
            self._said = now
            click.echo(self._line(now), err=True)

    def saved(self, count: int) -> None:
        """Count units as committed; the next line says how many are."""
        self._saved = (self._saved or 0) + count

    def note(self, message: str) -> None:
        """Say and log one line."""
        if self._logs:
            log.info(message)
        click.echo(message, err=True)

    def _line(self, now: float) -> str:
        share = f" ({self._done / self._total:.0%})" if self._total else ""
        return f"{self._task}: {self._done:,} of {self._total:,}{share}{committed(self._saved)}{self._pace(now)}"

    def _pace(self, now: float) -> str:
        """How fast it goes and how long it will take; nothing before there is more than a first sign."""
        assert self._first is not None
        done, since = self._first
        if self._done == done or now <= since:
            return ""
        speed = (self._done - done) / (now - since)
        return f", {speed:.2g}/s, {duration((self._total - self._done) / speed)} left"


class BarProgress:
    """A bar on the terminal."""

    def __init__(self, bars: "RichProgress", *, logs: bool = True) -> None:
        self._bars, self._logs = bars, logs
        self._current: TaskID | None = None

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Replace the bar by one for `task`."""
        if self._current is not None:
            self._bars.stop_task(self._current)
        self._saved: int | None = None
        self._current = self._bars.add_task(task, total=total, completed=done, saved="")

    def advance(self, count: int = 1) -> None:
        """Move the bar."""
        if self._current is not None:
            self._bars.advance(self._current, count)

    def saved(self, count: int) -> None:
        """Say beside the bar how many units are committed."""
        self._saved = (self._saved or 0) + count
        if self._current is not None:
            self._bars.update(self._current, saved=committed(self._saved))

    def note(self, message: str) -> None:
        """Say one line above the bar, and log it."""
        if self._logs:
            log.info(message)
        self._bars.console.print(message, markup=False, highlight=False)


@contextmanager
def open_progress(
    *, quiet: bool, seconds_between: float = SECONDS_BETWEEN_LINES, logs: bool = True
) -> Iterator[Progress]:
    """The progress that suits where stderr goes; without `logs` its notes are logged by somebody else."""
    if quiet:
        yield QuietProgress() if logs else SilentProgress()
    elif not sys.stderr.isatty():
        yield LineProgress(seconds_between, logs=logs)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
            TextColumn("{task.fields[saved]}"),
        )
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        with RichProgress(*columns, *times, console=Console(stderr=True)) as bars:
            yield BarProgress(bars, logs=logs)


def committed(count: int | None) -> str:
    """What is said of units that are committed; nothing of a task that commits none."""
    return "" if count is None else f", {count:,} committed"


def duration(seconds: float) -> str:
    """`seconds` for people: 45 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def quieten_libraries(*, quiet: bool) -> None:
    """Set what the user has not set; it works only before the libraries are imported."""
    wanted = QUIET_LIBRARIES | (NO_BARS if quiet or not sys.stderr.isatty() else {})
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what is printed to stdout to stderr, that of processes started meanwhile included."""
    sys.stdout.flush()
    before = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(before, 1)
        os.close(before)
