"""Files and their place in memory: a folder enters, its size leaves, or its files leave the system's page cache.

Without root, pages of one file can be given up (`posix_fadvise`), while the system still knows names and places of the
files: what is read afterwards is cold in content, not in metadata. Pages that are not on disk yet stay.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CAN_DROP = hasattr(os, "posix_fadvise")
BLOCK_BYTES = 512
"""Unit of `st_blocks`, whatever the blocks of the file system are."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What lies below a folder: files, their bytes, and the bytes that the file system keeps for them."""

    files: int
    bytes: int
    allocated_bytes: int


def size_of(path: Path) -> Size:
    """Add up the files below a folder, or take a single file."""
    found = [file.stat() for file in _files(path)]
    return Size(
        files=len(found),
        bytes=sum(one.st_size for one in found),
        allocated_bytes=BLOCK_BYTES * sum(one.st_blocks for one in found),
    )


def drop(path: Path) -> bool:
    """Give up the cached pages of all files below `path`; False where the system has no such call."""
    if not CAN_DROP:
        return False
    for file in _files(path):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def warm(path: Path) -> None:
    """Read all files below `path` once."""
    for file in _files(path):
        file.read_bytes()


def _files(path: Path) -> Iterator[Path]:
    return (file for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file())
