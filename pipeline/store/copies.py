"""Exports and imports as the command line runs them: with a bar, and ended by a signal at a safe place.

In: a space or an address. Out: what `cache.exchange` says of it. A signal arrives between two blocks that are
copied, so that nothing half written keeps its name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.exchange.chosen import read_keys
from cache.exchange.exporting import Exported, export_space
from cache.exchange.importing import Imported, import_space
from cache.exchange.metering import Meter
from pipeline.console.progress import open_progress
from pipeline.store.spaces import find_space
from stages.runtime.progress import Progress, StopSignal


class StoppingMeter:
    """Moves the bar, and raises `Interrupted` where a signal has asked to stop."""

    def __init__(self, progress: Progress, stop: StopSignal, saved: str) -> None:
        self._progress = progress
        self._stop = stop
        self._saved = saved

    def start(self, task: str, total: int) -> None:
        """Begin a task."""
        self._progress.start(task, total)

    def advance(self, count: int = 1) -> None:
        """Count bytes, and see whether to go on."""
        self._progress.advance(count)
        self._stop.check(self._saved)


def run_export(space: str, store: Path, target: str, *, keys: Path | None, quiet: bool) -> Exported:
    """Hand a space on."""
    chosen = None if keys is None else read_keys(keys)
    found = find_space(space, store)
    saved = "nothing, for a tar file is written as a whole" if target.endswith(".tar") else "the files exported so far"
    with _meter(saved, quiet=quiet) as meter:
        return export_space(found, target, keys=chosen, meter=meter)


def run_import(source: str, store: Path, *, quiet: bool) -> Imported:
    """Take a space in."""
    with _meter("nothing, the store is as it was", quiet=quiet) as meter:
        return import_space(source, store, meter=meter)


@contextmanager
def _meter(saved: str, *, quiet: bool) -> Iterator[Meter]:
    with StopSignal() as stop, open_progress(quiet=quiet) as progress:
        yield StoppingMeter(progress, stop, saved)
