"""Sockets of processes below a short path, wherever temporary files go.

The path of a Unix socket has at most 107 bytes, and Python's `multiprocessing`, vLLM and Ray put theirs below `TMPDIR`,
which batch systems like to make long. Then vLLM and Ray do not start, and a worker that loads batches for training says
why and waits for ever. CPython 3.14 falls back on the system's folder (gh-93852), for its own sockets alone.
"""

import multiprocessing.util
import os
import tempfile

LONGEST = 107 - len("/ray/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store")
"""Bytes of a folder's path below which all of them can have a socket; Ray's have the longest names."""
SHORT = ("/tmp", "/var/tmp")  # noqa: S108 (made there by mkdtemp, or by vLLM and Ray themselves)
VARIABLES = ("VLLM_RPC_BASE_PATH", "RAY_TMPDIR")


def keep_sockets_short() -> None:
    """Call before processes are started: where `TMPDIR` is too long, sockets go below the system's folder instead.

    Everything else that is temporary, and a place that the environment names for them, stays as it is.
    """
    usual = tempfile.gettempdir()
    short = next((folder for folder in SHORT if os.access(folder, os.W_OK | os.X_OK)), None)
    if short is None or len(os.fsencode(usual)) <= LONGEST:
        return
    for name in VARIABLES:
        os.environ.setdefault(name, short)
    tempfile.tempdir = short
    try:
        multiprocessing.util.get_temp_dir()  # makes a folder the first time, for this process and those it spawns
    finally:
        tempfile.tempdir = usual
