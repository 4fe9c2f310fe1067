"""Files made of a store that are never the only copy: what is in them enters, a memory map that proved itself leaves.

    <store>/<folder>/<space>-<first 16 digits of a fingerprint>.<suffix>

The first line is canonical JSON, padded with blanks to a multiple of 64 bytes with its line break: what the file was
made of, and a list of the sections behind it, each with the CRC-32 of its bytes. Sections follow one another without a
gap. A file appears complete and durable, by a rename, and is never changed; one that is damaged or was made of
something else is no file, and is made again. Proving one reads it once and keeps nothing of it in memory; what is
mapped is shared by all processes that map it.
"""

import errno
import fcntl
import json
import logging
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from cache.durable import appearing, make_folder
from cache.fingerprints import JSON, Spec, canonical, fingerprint, hash_folder
from cache.spaces import Space

log = logging.getLogger(__name__)

DERIVED: Mapping[str, str] = {"targets": "attention", "texts": "rationales", "rows": "soft-labels"}
"""The folders of such files in a store, and of which kind of spaces they are made."""
ALIGNMENT = 64
BLOCK = 1 << 20
"""Bytes that are read at a time to prove a file."""
NOT_OURS_TO_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS}

Section = Mapping[str, Any]  # JSON as it was read
"""What the first line says of some bytes."""


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A kind of file: `head` is what it is made of, `listed` the name of its sections' list, `size` a section's bytes.

    `size` raises `ValueError`, `KeyError`, `TypeError` or `OverflowError` for what is no section of this kind. With
    `proves_entries` a checksum is of the section's entry in the list, as canonical JSON, and then of its bytes.
    """

    head: Spec
    listed: str
    size: Callable[[Section], int]
    proves_entries: bool = False

    def sum_before(self, section: Section) -> int:
        """What the checksum of a section is before any of its bytes."""
        return zlib.crc32(canonical(section)) if self.proves_entries else 0

    def read(self, path: Path | None) -> "MappedFile | None":
        """Map the file at `path`; None where there is none, or none that is whole and made of `head`."""
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                found = self.mapped(file)
                if found is None:
                    file.seek(0)
                    self._complain(path, file.readline())
        except FileNotFoundError:
            return None
        return found

    def mapped(self, file: IO[bytes]) -> "MappedFile | None":
        """Map an open file whose first line, made anew from what is in it, is just the line that it begins with."""
        file.seek(0)
        line = file.readline()
        sections = self._sections_in(line)
        sizes = [self.size(section) for section in sections]
        if not sections or os.fstat(file.fileno()).st_size != len(line) + sum(sizes):
            return None
        begun = map(self.sum_before, sections)
        if line != self.line(sections, [_checksum(file, *each) for each in zip(sizes, begun, strict=True)]):
            return None
        # Copy on write: torch wants arrays that it could write to, and nobody's writing may reach the file.
        content = np.memmap(file, dtype=np.uint8, mode="c", offset=len(line)) if sum(sizes) else np.empty(0, np.uint8)
        return MappedFile(sections=sections, content=np.asarray(content))

    def line(self, sections: Sequence[Section], sums: Sequence[int]) -> bytes:
        """The first line; as long for any sums."""
        listed: list[JSON] = [{**one, "crc32": f"{value:08x}"} for one, value in zip(sections, sums, strict=True)]
        content = canonical({**self.head, self.listed: listed})
        return content + b" " * (-(len(content) + 1) % ALIGNMENT) + b"\n"

    def _complain(self, path: Path, line: bytes) -> None:
        """Say why a file is none; one that another version of ours made is nobody's fault."""
        try:
            made = json.loads(line)
            another = {name: made.get(name) for name in self.head} != self.head
        except (ValueError, AttributeError, RecursionError):
            another = False
        if another:
            log.info("%s: made by another version; it is made again from the store", path)
        else:
            log.warning("%s: damaged; it is made again from the store", path)

    def _sections_in(self, line: bytes) -> list[Section]:
        """The sections that a first line tells of; none where it is no such line."""
        try:
            listed = json.loads(line)[self.listed]
            found: list[Section] = [{name: one[name] for name in one if name != "crc32"} for one in listed]
            return found if all(self.size(one) >= 0 for one in found) else []
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return []


@dataclass(frozen=True, kw_only=True, eq=False)
class MappedFile:
    """A file that has proved itself: its sections, and the bytes of all of them."""

    sections: Sequence[Section]
    content: npt.NDArray[np.uint8]


def made_of_sections(
    kind: Derived,
    path: Path | None,
    sections: Sequence[Section],
    make: Callable[[int], Iterable[npt.NDArray[Any]]],
    done: Callable[[int], object] | None = None,
) -> MappedFile:
    """Map the file of these sections; where it is not there, `make` gives the bytes of a section, piece by piece.

    Sections that an earlier file at `path` holds are copied. `done` hears of the numbers of those that are written.
    Where there is no path, or none that may be written to, the file is a nameless temporary one. Of several processes
    that need the same file one makes it, and the others map what it has made.
    """
    found = kind.read(path)
    if found is None or found.sections != sections:
        with one_at_a_time(path):
            found = kind.read(path)
            if found is None or found.sections != sections:
                with file_to_fill(path) as file:
                    _fill(file, kind, sections, _earlier(kind, found), make, done)
                    found = kind.mapped(file)
    assert found is not None and found.sections == sections, f"{path}: not what was written"
    return found


def _earlier(kind: Derived, found: MappedFile | None) -> dict[bytes, npt.NDArray[np.uint8]]:
    """What an earlier file holds of each section, by what its first line says of it."""
    if found is None:
        return {}
    ends = list(accumulate(map(kind.size, found.sections)))
    return dict(zip(map(canonical, found.sections), np.split(found.content, ends[:-1]), strict=True))


def _fill(
    file: IO[bytes],
    kind: Derived,
    sections: Sequence[Section],
    earlier: Mapping[bytes, npt.NDArray[np.uint8]],
    make: Callable[[int], Iterable[npt.NDArray[Any]]],
    done: Callable[[int], object] | None,
) -> None:
    file.write(kind.line(sections, [0] * len(sections)))
    sums = []
    for number, section in enumerate(sections):
        value, there = kind.sum_before(section), earlier.get(canonical(section))
        left = kind.size(section)
        for piece in make(number) if there is None else [there]:
            file.write(piece.data)
            value, left = zlib.crc32(piece.data, value), left - piece.nbytes
        assert left == 0, f"{left} bytes of section {number} are missing"
        sums.append(value)
        if done is not None:
            done(number)
    file.seek(0)
    file.write(kind.line(sections, sums))


def derived_path(space: Space, folder: str, of: Spec, suffix: str) -> Path | None:
    """Return where a file made of a space lies; None for a space outside of a store, such as an export."""
    if space.path.parent.name != space.kind:
        return None
    return space.path.parent.parent / folder / f"{space.path.name}-{fingerprint(of)[:16]}.{suffix}"


def code_version(*patterns: str) -> str:
    """Return a hash of those of our own files, below the root of the rooms, that say what a derived file holds.

    What somebody changes there makes the file anew, whether or not it changes what is in it. Python is part of it: it
    says which characters are letters and blanks.
    """
    root = Path(__file__).resolve().parents[1]
    return fingerprint([hash_folder(root, patterns), f"{sys.version_info[0]}.{sys.version_info[1]}"])


@contextmanager
def file_to_fill(path: Path | None) -> Iterator[IO[bytes]]:
    """Give a file that takes the name `path` once it is full; a nameless one where nothing may be written there."""
    with ExitStack() as stack:
        yield _beside(path, stack) or stack.enter_context(tempfile.TemporaryFile())


@contextmanager
def one_at_a_time(path: Path | None) -> Iterator[None]:
    """Inside, no other process makes a file of this folder: where several need the same one, the others wait for it.

    Where nothing may be written, or the file system has no locks, each makes its own, of which one stays.
    """
    with ExitStack() as stack:
        if path is not None:
            try:
                make_folder(path.parent)
                folder = os.open(path.parent, os.O_RDONLY)
                stack.callback(os.close, folder)
                fcntl.flock(folder, fcntl.LOCK_EX)
            except OSError as error:
                log.info("%s: no lock (%s)", path.parent, error.strerror)
        yield


def _beside(path: Path | None, stack: ExitStack) -> IO[bytes] | None:
    """Open the file that takes the name `path`; None where nothing may be written there."""
    if path is None:
        return None
    try:
        make_folder(path.parent)
        return stack.enter_context(appearing(path))
    except OSError as error:
        if error.errno not in NOT_OURS_TO_WRITE:
            raise
        log.info("%s: cannot be written (%s); this process keeps a copy of its own", path, error.strerror)
        return None


def _checksum(file: IO[bytes], size: int, value: int) -> int:
    """CRC-32 `value` continued by the next `size` bytes, of which one block at a time is in memory."""
    while size > 0 and (block := file.read(min(size, BLOCK))):
        value, size = zlib.crc32(block, value), size - len(block)
    return value
