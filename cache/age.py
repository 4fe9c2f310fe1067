"""How old a file is, by the clock of the file system that it lies on: a path enters, seconds leave.

Machines that share a file system disagree about the time, so the age is the difference to a file made just now.
"""

import errno
import time
from pathlib import Path

from cache.durable import temporary_file

CANNOT_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}

ABANDONED_SECONDS = 86400.0
"""Nobody who lives writes nothing for a day: imports and exports then remove what a killed one has left."""


def now(folder: Path) -> float:
    """Return the time as the file system of `folder` sees it; this machine's time where nothing can be written."""
    try:
        with temporary_file(folder, b"") as path:
            return path.stat().st_mtime
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        return time.time()


def age(path: Path) -> float:
    """Return how many seconds ago a file was last written to."""
    return now(path.parent) - path.stat().st_mtime


def newest(path: Path) -> float:
    """Return the latest time at which a file or folder, or anything below it, was written to."""
    times = [path.lstat().st_mtime]
    for below in path.rglob("*"):
        try:
            times.append(below.lstat().st_mtime)
        except FileNotFoundError:  # a writer's temporary file, gone since the folder was listed
            continue
    return max(times)
