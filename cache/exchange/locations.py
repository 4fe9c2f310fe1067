"""Where spaces are taken from and handed on to: a folder, a tar file, or an address that fsspec knows.

In: an address. Out: a `Source` that lists files and gives their bytes, or a `Target` that takes them. A folder is a
file system with a root, on this machine and elsewhere, and names are relative to it. Names from outside are only looked
up here and never written to; see `cache.exchange.incoming` for what is believed of them.
"""

import os
import re
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeAlias

from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from cache.durable import ABANDONED_SECONDS, age, appearing, make_folder
from cache.exchange.addresses import TAR, is_tar, of_the_web, shown
from cache.exchange.archive import Member, read_members
from cache.exchange.metering import Meter, Unmetered
from cache.exchange.remote import Below, Readable, appearing_elsewhere, file_system, is_file, reading
from cache.fingerprints import READ_SIZE
from cache.spaces import SPEC_FILE
from data.errors import ConfigError, DamagedCacheError

TEMPORARY = re.compile(r"[.-][0-9a-f]{16}\.tmp$")
"""Ends the names of files that are on their way to their own."""
README_FILE = "README.md"
"""The card, which an export has beside its spec."""
OF_A_STORE = (SPEC_FILE, README_FILE, "commits", "parts")
"""What is looked at where other things may lie beside a space. Commits come before parts, so that the parts of every
commit that is found are there."""
HIDDEN, UNFINISHED, NOTHING = (re.compile(pattern) for pattern in (r"(^|/)\.[^/]*$", r"\.tmp$", r"(?!)"))
"""What is passed over: beside a space in a store, where an export is written that may be killed, and elsewhere."""


class PlainFiles(LocalFileSystem):
    """Files of this machine: fsspec's own class follows links, passes over what it cannot list, and writes in place."""

    def find(self, path: str, **_: Any) -> dict[str, Any]:
        """Return what lies at or below `path`: links as such, and nothing where a writer has just taken it away."""
        found: dict[str, Any] = {}
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                for below in sorted(Path(path).iterdir()):
                    found |= self.find(str(below))
            else:
                kind = "file" if stat.S_ISREG(status.st_mode) else "other"
                found[path] = {"type": kind, "size": status.st_size, "islink": stat.S_ISLNK(status.st_mode)}
        return found

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
        """Open a file to read; a link put there meanwhile is not followed, and a pipe not waited for."""
        assert mode == "rb", f"{path}: files are written by `put_file` alone"
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")

    def put_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy a file, under its name only when it is whole and on disk."""
        with Path(path1).open("rb") as content, _new_file(Path(path2)) as file:
            shutil.copyfileobj(content, file)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A space in a folder of this machine or below an address, as its user calls it; everything in it may be a lie.

    `alone` says that nothing but the space belongs there; a store's own folder also has other things. In both may lie
    parts not yet committed, which are being written, or were when a writer or an export was killed.
    """

    address: str
    files: DirFileSystem
    alone: bool
    passed_over: re.Pattern[str] = NOTHING
    growing: ClassVar[bool] = True

    def sizes(self) -> Mapping[str, int]:
        """Return the size of every file by its name; raises `DamagedCacheError` for a link, or no plain file."""
        listed: dict[str, Any] = {}
        with suppress(FileNotFoundError):
            for name in [""] if self.alone else OF_A_STORE:
                listed |= self.files.find(name, detail=True)
        if "" in listed:
            raise ConfigError(f"{self.address}: is a file; name a folder, or a file that ends in {TAR}")
        return {name: self._size(name, found) for name, found in listed.items() if not self.passed_over.search(name)}

    def _size(self, name: str, entry: Mapping[str, Any]) -> int:
        if entry.get("type") != "file" or entry.get("islink") or not isinstance(entry.get("size"), int):
            kind = "a symbolic link" if entry.get("islink") else "no plain file of a known size"
            raise DamagedCacheError(f"{self.address}: {name!r} is {kind}; only plain files are taken")
        return int(entry["size"])

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes of a file that `sizes` has listed, and never more."""
        with closing(self.files.open(name, "rb")) as file:
            yield from _at_most(file, size)

    def write(self, name: str, content: Path) -> None:
        """Write one file; nobody sees half of it where the place allows that."""
        self.files.put_file(str(content), name)


@dataclass(frozen=True, kw_only=True)
class TarFile:
    """A space inside a plain tar file, in which nothing else belongs."""

    address: str
    file: Readable
    members: Mapping[str, Member]
    alone: ClassVar[bool] = True
    growing: ClassVar[bool] = False

    def sizes(self) -> Mapping[str, int]:
        """Return the size of every plain file."""
        return {name: member.size for name, member in self.members.items()}

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes of a file, never those of the one behind it."""
        member = self.members[name]
        self.file.seek(member.offset)
        yield from _at_most(self.file, min(size, member.size))


@dataclass(frozen=True, kw_only=True)
class NewTarFile:
    """A tar file that is written as a whole; two exports of the same files give the same bytes."""

    tar: tarfile.TarFile

    def write(self, name: str, content: Path) -> None:
        """Add one file."""
        header = tarfile.TarInfo(name)
        header.size = content.stat().st_size
        header.mode = 0o644
        with content.open("rb") as file:
            self.tar.addfile(header, file)


Source: TypeAlias = Folder | TarFile
Target: TypeAlias = Folder | NewTarFile


@contextmanager
def open_source(address: str, meter: Meter | None = None) -> Iterator[Source]:
    """Open a place to take a space from; `meter` counts what has to be received before the place can be read."""
    if of_the_web(address) and not is_tar(address):
        raise ConfigError(
            f"{shown(address)}: a web server lists no files, which a folder needs; export to a file that ends in "
            f"{TAR}, and name that"
        )
    files, path = _resolve(address)
    if not is_tar(address):
        yield _folder(address, files, path, alone=not isinstance(files, LocalFileSystem))
        return
    if not is_file(address, files, path):
        raise ConfigError(f"{shown(address)}: there is no such file")
    local = isinstance(files, LocalFileSystem)
    with files.open(path, "rb") if local else reading(address, files, path, meter or Unmetered()) as file:
        yield TarFile(address=shown(address), file=file, members=read_members(file, shown(address)))


@contextmanager
def open_target(address: str) -> Iterator[Target]:
    """Open a place to hand a space on to; a tar file appears when everything has been written."""
    files, path = _resolve(address)
    if not is_tar(address):
        yield _folder(address, files, path, alone=True)
        return
    local = isinstance(files, LocalFileSystem)
    new = _new_file(Path(path), f"{Path(path).name}-") if local else appearing_elsewhere(address, files, path)
    with new as file, tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        yield NewTarFile(tar=tar)


def check_writable(address: str) -> None:
    """Raise `ConfigError` for an address that nothing can be exported to, before any work."""
    if of_the_web(address):
        raise ConfigError(
            f"{shown(address)}: a web server cannot be written to; export to a folder, a file that ends in {TAR} or a "
            "bucket, and let it be served from there"
        )


def exists(address: str) -> bool:
    """Say whether a file lies at `address`; raises `ConfigError` where nobody can say."""
    return is_file(address, *_resolve(address))


def _resolve(address: str) -> tuple[Any, str]:
    """Return fsspec's file system and the path in it."""
    if "://" not in address:
        return LocalFileSystem(), str(Path(address).expanduser().absolute())
    return file_system(address)


def _folder(address: str, files: Any, path: str, *, alone: bool) -> Folder:
    """Root a file system in a folder; the folder itself, which its user has named, may be a link."""
    if not isinstance(files, LocalFileSystem):
        return Folder(address=shown(address), files=Below(address, files, path), alone=alone)
    rooted = DirFileSystem(os.path.realpath(path), PlainFiles())
    return Folder(address=address, files=rooted, alone=alone, passed_over=UNFINISHED if alone else HIDDEN)


def _at_most(file: Readable, size: int) -> Iterator[bytes]:
    while size > 0 and (block := file.read(min(READ_SIZE, size))):
        size -= len(block)
        yield block


@contextmanager
def _new_file(path: Path, begin: str = "") -> Iterator[BinaryIO]:
    """Give a file that gets the name `path` when all has gone well; what killed exports to it have left is removed.

    That is what nobody has written to for a day; a younger one may be that of an export beside us.
    """
    make_folder(path.parent)
    for left in path.parent.glob(f".{escape(begin)}*.tmp"):
        with suppress(FileNotFoundError):  # it has got its name, or somebody else removes it
            if TEMPORARY.search(left.name) and left.is_file() and age(left) > ABANDONED_SECONDS:
                left.unlink()
    with appearing(path, begin) as file:
        yield file
