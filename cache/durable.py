"""Writing that survives a crash: bytes enter, a complete and durable file leaves, or none.

`create_exclusively` is the one primitive that all commits rest on: of any number of processes that create the same
path, exactly one succeeds, and nobody ever sees half of the file. Errors of the file system name the file that they
happened at, so that whoever meets a full disk knows which one. Machines that share a file system disagree about the
time, so the age of a file is the difference to one made just now.
"""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EMLINK}
"""What file systems answer that have no hard links: FAT, some FUSE and network mounts, object stores."""

NO_FOLDER_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What file systems answer on which a folder cannot be synced; they offer nothing better."""

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
"""No space left, for everybody or for this user."""

CANNOT_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS, *DISK_FULL}

ABANDONED_SECONDS = 86400.0
"""Nobody who lives writes nothing for a day: imports and exports then remove what a killed one has left."""


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Let an `OSError` of the system that does not say at which file it happened say `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def sync_file(path: Path) -> None:
    """Return once the file's content is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with errors_name(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Return once the folder's list of names is on disk."""
    try:
        sync_file(path)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each durable before the next one is made in it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def create_exclusively(path: Path, content: bytes) -> None:
    """Create `path` with `content`, durably; raises `FileExistsError` when somebody else was first.

    The file appears complete, by a hard link from a temporary one. Where there are no hard links an empty file is
    created exclusively, as a claim, and the temporary one then takes its place: a crash in between leaves it empty, so
    that a file with anything in it was complete once (`cache.commits` relies on that).
    """
    with temporary_file(path.parent, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # A network file system that repeats a request after a lost answer reports our own link as foreign.
            if not path.samefile(temporary):
                raise
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            _claim_and_replace(path, temporary)
        sync_folder(path.parent)


def _claim_and_replace(path: Path, temporary: Path) -> None:
    path.touch(exist_ok=False)  # nobody else takes this name any more, by a link or by a claim
    try:
        temporary.replace(path)
    except OSError:
        path.unlink(missing_ok=True)  # still our empty claim
        raise


def replace_file(path: Path, content: bytes) -> None:
    """Let `path` hold `content` at once: whoever reads it, however many write it, finds one of them in full."""
    with appearing(path) as file:
        file.write(content)


@contextmanager
def appearing(path: Path, begin: str = "") -> Iterator[BinaryIO]:
    """Give a file to fill that takes the name `path` when it is whole and on disk, and none if an error comes first.

    Until then its name begins with a dot and `begin`.
    """
    temporary = path.with_name(f".{begin}{secrets.token_hex(8)}.tmp")
    try:
        with errors_name(path), _new_synced(temporary) as file:
            yield file
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_file(folder: Path, content: bytes) -> Iterator[Path]:
    """Give a synced file with `content` under a name that nobody else uses, and remove that name afterwards."""
    path = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        with errors_name(path), _new_synced(path) as file:
            file.write(content)
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _new_synced(path: Path) -> Iterator[BinaryIO]:
    # A full disk may speak up only on closing; the caller removes what was written until then.
    with path.open("x+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


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
        with suppress(FileNotFoundError):  # a writer's temporary file, gone since the folder was listed
            times.append(below.lstat().st_mtime)
    return max(times)
