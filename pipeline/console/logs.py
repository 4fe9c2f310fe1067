"""The log file of a run: one JSON object a line, appended by every process that works on it.

In: standard `logging` records, warnings and tracebacks. Out: `runs/<name>/log.jsonl`. The terminal gets one line for
an error; what a maintainer needs to understand it lies here.

A line is one write to a file that is open for appending, so processes of one machine do not mix theirs. Network file
systems do not append atomically between machines: a shard therefore writes to a file of its own (`log-2-of-8.jsonl`).
"""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from cache.spaces import default_store
from data.errors import Interrupted

ROOMS = frozenset({"pipeline", "stages", "cache", "data"})
log = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """One record as one line of JSON, with the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Render `record`; a line break inside it stays inside its JSON string."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class LogFile(logging.FileHandler):
    """Appends to a log file; where the disk is full, the work goes on without. `trouble` is its first error."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self.trouble: OSError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Append a line, or remember why not."""
        try:
            super().emit(record)
        except OSError as error:  # from opening the file
            self.trouble = self.trouble or error

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        """Remember an error of the file system instead of printing its traceback."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.trouble = self.trouble or error
        else:
            super().handleError(record)

    def close(self) -> None:
        """Close the file; what it could not write before, it cannot now."""
        try:
            super().close()
        except OSError as error:
            self.trouble = self.trouble or error


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append what our rooms say, and the warnings of libraries, to `path` while the context lasts.

    A log that cannot be written neither stops the work nor hides its errors: work that ends well ends with a warning.
    """
    with _appending(path) as handler:
        yield
    if handler.trouble is not None:
        click.echo(f"warning: {path}: the log is incomplete ({handler.trouble})", err=True)


@contextmanager
def _appending(path: Path) -> Iterator[LogFile]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = LogFile(path)
    handler.setFormatter(JsonLines())
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.partition(".")[0] in ROOMS)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO))
    logging.captureWarnings(True)
    try:
        yield handler
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()


def record_exception(path: Path, error: BaseException) -> None:
    """Append `error` with its traceback to the log at `path`; raises `OSError` where the log cannot be written.

    A signal that was asked for is no error, and where it came is of no interest.
    """
    with _appending(path) as handler:
        if isinstance(error, Interrupted):
            log.warning("%s", error)
        else:
            log.error("%s: %s", type(error).__name__, error, exc_info=error)
    if handler.trouble is not None:
        raise handler.trouble


def log_without_run() -> Path:
    """Where a failure is written down before the run's folder is known."""
    return default_store() / f"log-{os.getuid() if hasattr(os, 'getuid') else 'user'}.jsonl"
