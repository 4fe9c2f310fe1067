"""Folders that a user names and that cannot be written: a line that says which and why, instead of the system's error.

In: what is done with a folder. Out: `ConfigError` where the system refuses it; a full disk stays what it is, for the
command line has a line of its own for that.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.durable import DISK_FULL
from data.errors import ConfigError, MolsakiError


@contextmanager
def folder_of(name: str, remedy: str) -> Iterator[None]:
    """Say that the folder called `name` cannot be written, and the `remedy`, where the system refuses it inside."""
    try:
        yield
    except MolsakiError:
        raise
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise ConfigError(
            f"{name} cannot be written ({error.strerror or error}: {error.filename}); {remedy}"
        ) from error


def require_writable(folder: Path) -> None:
    """Raise `OSError` where nothing can be written into a folder that is there."""
    if not os.access(folder, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
