"""Where sockets between processes go: below a short path, wherever temporary files go, and away when the process ends.

The path of a Unix socket has at most 107 bytes, and Python's `multiprocessing`, vLLM and Ray put theirs below `TMPDIR`,
which batch systems like to make long. Then vLLM and Ray do not start, and a worker that loads batches for training says
why and waits for ever. CPython 3.14 falls back on the system's folder (gh-93852), for its own sockets alone. vLLM 0.32
besides leaves seven sockets there whenever an engine has been used (findings/vllm_leaves_its_sockets.sh).
"""

import multiprocessing.util
import os
import tempfile

LONGEST = 107 - len("/ray/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store")
"""Bytes of a folder's path below which all of them can have a socket; Ray's have the longest names."""
SHORT = ("/tmp", "/var/tmp")  # noqa: S108 (made there by mkdtemp, or by Ray itself)


def short_temporary_folder() -> str:
    """Where temporary files go, or, if that is too long for sockets, the system's folder."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= LONGEST:
        return usual
    return next((folder for folder in SHORT if os.access(folder, os.W_OK | os.X_OK)), usual)


def socket_folder() -> str:
    """A folder of this process and those it spawns, made the first time; it goes when this process ends.

    Call it before processes are started: `multiprocessing` has its sockets there from then on. Everything else that is
    temporary stays where it was.
    """
    usual = tempfile.gettempdir()
    tempfile.tempdir = short_temporary_folder()
    try:
        return multiprocessing.util.get_temp_dir()
    finally:
        tempfile.tempdir = usual
