"""What vLLM's processes print: to the log, not to the terminal.

vLLM's processes inherit standard output and error of the one that starts them, and where an engine dies or waits too
long they write tracebacks of dozens of lines there. In: what starts them, inside `captured`. Out: a file that has no
name, whose end `said` returns, and whose last error `cause` knows.
"""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from tempfile import TemporaryFile
from typing import TextIO

KEPT_BYTES = 1 << 16
ERROR = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception|Interrupt): .+)$")
LEVEL, QUIET = "VLLM_LOGGING_LEVEL", "ERROR"
"""Whoever sets another level wants to see what vLLM says."""
OUTPUT, ERRORS = 1, 2


class VllmOutput:
    """The file; where the environment asks vLLM to talk, nothing is taken from the terminal."""

    def __init__(self) -> None:
        self._wanted = _is_wanted()
        self._file = TemporaryFile()  # noqa: SIM115  it lives as long as what writes to it

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Processes that are started inside write to the file for as long as they live; what this one prints does not.

        Only `sys.stdout` and `sys.stderr` of this process still reach the terminal meanwhile.
        """
        if self._wanted:
            yield
            return
        with ExitStack() as undo:
            for number, stream, redirect in (
                (OUTPUT, sys.stdout, redirect_stdout),
                (ERRORS, sys.stderr, redirect_stderr),
            ):
                stream.flush()
                before = os.dup(number)
                undo.callback(os.close, before)
                undo.callback(os.dup2, before, number)
                if _number(stream) in (OUTPUT, ERRORS):
                    visible = os.fdopen(os.dup(stream.fileno()), "w", buffering=1, errors="replace")
                    undo.enter_context(redirect(undo.enter_context(visible)))
            for number in (OUTPUT, ERRORS):
                os.dup2(self._file.fileno(), number)
            yield

    def log(self, to: logging.Logger) -> None:
        """Put what was written, if anything, into a log."""
        if text := self.said():
            to.info("vLLM's processes wrote:\n%s", text)

    def said(self) -> str:
        """The last 64 KiB of what was written."""
        size = os.fstat(self._file.fileno()).st_size
        return os.pread(self._file.fileno(), KEPT_BYTES, max(0, size - KEPT_BYTES)).decode(errors="replace").strip()

    def cause(self) -> str | None:
        """The last line that names an error which is not about another process's."""
        found = [match[1] for line in self.said().splitlines() if (match := ERROR.search(line))]
        return next((line for line in reversed(found) if "root cause" not in line), None)

    def close(self) -> None:
        """Give the file up."""
        self._file.close()


def vllm_errors_to_log() -> None:
    """Let what vLLM says in this process go where all messages go; called once it is imported."""
    if _is_wanted():
        return
    logger = logging.getLogger("vllm")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(QUIET)


def _is_wanted() -> bool:
    return os.environ.get(LEVEL, QUIET) != QUIET


def _number(stream: TextIO) -> int | None:
    with suppress(OSError, AttributeError, ValueError):  # what stands in for a stream has no number
        return stream.fileno()
    return None
