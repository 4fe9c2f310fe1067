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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from cache.durable import ABANDONED_SECONDS, age, appearing, make_folder
from cache.exchange.archive import Member, read_members
from cache.fingerprints import READ_SIZE
from cache.spaces import SPEC_FILE
from data.errors import ConfigError, DamagedCacheError

TAR = ".tar"
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

    `alone` says that nothing but the space belongs there; a store's own folder also has parts not yet committed.
    """

    address: str
    files: DirFileSystem
    alone: bool
    passed_over: re.Pattern[str] = NOTHING

    def sizes(self) -> Mapping[str, int]:
        """Return the size of every file by its name; raises `DamagedCacheError` for a link, or no plain file."""
        listed: dict[str, Any] = {}
        with suppress(FileNotFoundError), _reaching(self.address):
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
        with self.files.open(name, "rb") as file:
            yield from _at_most(file, size)

    def write(self, name: str, content: Path) -> None:
        """Write one file; nobody sees half of it where the place allows that."""
        self.files.put_file(str(content), name)


@dataclass(frozen=True, kw_only=True)
class TarFile:
    """A space inside a plain tar file, in which nothing else belongs."""

    address: str
    file: BinaryIO
    members: Mapping[str, Member]
    alone: bool = True

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


def is_elsewhere(address: str) -> bool:
    """Say whether `address` is a tar file or one of fsspec's, and no folder."""
    return "://" in address or address.endswith(TAR)


@contextmanager
def open_source(address: str) -> Iterator[Source]:
    """Open a place to take a space from."""
    files, path = _resolve(address)
    if not path.endswith(TAR):
        yield _folder(address, files, path, alone=not isinstance(files, LocalFileSystem))
        return
    if not _is_file(address, files, path):
        raise ConfigError(f"{address}: there is no such file")
    with files.open(path, "rb") as file:
        yield TarFile(address=address, file=file, members=read_members(file, address))


@contextmanager
def open_target(address: str) -> Iterator[Target]:
    """Open a place to hand a space on to; a tar file appears when everything has been written."""
    files, path = _resolve(address)
    if not path.endswith(TAR):
        yield _folder(address, files, path, alone=True)
        return
    local = isinstance(files, LocalFileSystem)
    new = _new_file(Path(path), f"{Path(path).name}-") if local else _new_remote_file(files, path)
    with new as file, tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        yield NewTarFile(tar=tar)


def exists(address: str) -> bool:
    """Say whether a file lies at `address`."""
    files, path = _resolve(address)
    return bool(files.exists(path))


def _resolve(address: str) -> tuple[Any, str]:
    """Return fsspec's file system and the path in it."""
    if "://" not in address:
        return LocalFileSystem(), str(Path(address).expanduser().absolute())
    try:
        files, path = fsspec.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{address}: cannot be reached: {error}") from error
    return files, path


def _folder(address: str, files: Any, path: str, *, alone: bool) -> Folder:
    """Root a file system in a folder; the folder itself, which its user has named, may be a link."""
    if not isinstance(files, LocalFileSystem):
        return Folder(address=address, files=DirFileSystem(path or "/", files), alone=alone)
    rooted = DirFileSystem(os.path.realpath(path), PlainFiles())
    return Folder(address=address, files=rooted, alone=alone, passed_over=UNFINISHED if alone else HIDDEN)


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Let whatever a library raises when it first asks for an address name the address; nothing there is no error."""
    try:
        yield
    except AssertionError as error:  # of `DirFileSystem`
        raise DamagedCacheError(f"{address}: lists what lies outside of it") from error
    except Exception as error:  # each library has its own: no network, no permission, no such bucket
        if isinstance(error, FileNotFoundError) or "://" not in address:
            raise
        raise ConfigError(f"{address}: cannot be reached: {type(error).__name__}: {error}") from error


def _is_file(address: str, files: Any, path: str) -> bool:
    with suppress(FileNotFoundError, NotADirectoryError), _reaching(address):
        return bool(files.info(path)["type"] == "file")
    return False


def _at_most(file: BinaryIO, size: int) -> Iterator[bytes]:
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


@contextmanager
def _new_remote_file(files: Any, path: str) -> Iterator[BinaryIO]:
    """Give a file below an address; what an error leaves there is removed, and would be refused as cut off anyway."""
    try:
        with files.open(path, "wb") as file:
            yield file
    except BaseException:
        if files.exists(path):
            files.rm_file(path)
        raise
