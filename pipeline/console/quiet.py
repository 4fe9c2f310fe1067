"""Keeping the terminal for what we say: libraries print bars, hints and logs wherever they like.

In: nothing. Out: while a stage works stdout is stderr, so that tables and JSON are all that reaches stdout; bars of
libraries are off where no person watches.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

QUIET_LIBRARIES = {"TRANSFORMERS_VERBOSITY": "error"}
NO_BARS = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


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
