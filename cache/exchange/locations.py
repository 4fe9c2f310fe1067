"""Where spaces are taken from and handed on to: a folder, a tar file, or an address that fsspec knows.

In: an address. Out: a `Source` that lists files and gives their bytes, or a `Target` that takes them. Names from
outside are only looked up here and never written to; see `cache.exchange.incoming` for what is believed of them.
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
from secrets import token_hex
from typing import Any, BinaryIO, Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cache.age import ABANDONED_SECONDS, age
from cache.durable import make_folder, sync_file, sync_folder
from cache.exchange.archive import Member, read_members
from cache.fingerprints import READ_SIZE
from data.errors import ConfigError, DamagedCacheError

TAR = ".tar"
TEMPORARY = re.compile(r"[.-][0-9a-f]{16}\.tmp$")
"""Ends the names of files that are on their way to their own."""


class Source(Protocol):
    """A place that may hold a space; everything in it may be a lie."""

    @property
    def address(self) -> str:
        """The place as its user calls it."""

    @property
    def alone(self) -> bool:
        """Whether nothing but the space belongs there; a store's own folder also has parts not yet committed."""

    def sizes(self) -> Mapping[str, int]:
        """Return the size of every file by its name."""

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the bytes of a file that `sizes` has listed, `size` of them and never more."""


class Target(Protocol):
    """A place that a space is written to, file by file."""

    @property
    def address(self) -> str:
        """The place as its user calls it."""

    def existing(self) -> "Source | None":
        """Return what is there already as a source, None where nothing is."""

    def write(self, name: str, content: Path) -> None:
        """Write one file; nobody sees half of it where the place allows that."""


def is_elsewhere(address: str) -> bool:
    """Say whether `address` is a tar file or one of fsspec's, and no folder."""
    return "://" in address or address.endswith(TAR)


@contextmanager
def open_source(address: str) -> Iterator[Source]:
    """Open a place to take a space from."""
    files, path = _resolve(address)
    if not path.endswith(TAR):
        yield LocalFolder(address=address, path=Path(path)) if files is None else RemoteFolder(address, files, path)
        return
    with _open_file(address, files, path) as file:
        yield TarFile(address=address, file=file, members=read_members(file, address))


@contextmanager
def open_target(address: str) -> Iterator[Target]:
    """Open a place to hand a space on to; a tar file appears when everything has been written."""
    files, path = _resolve(address)
    if not path.endswith(TAR):
        yield LocalTarget(address=address, path=Path(path)) if files is None else RemoteTarget(address, files, path)
    elif files is None:
        with _new_tar_file(Path(path)) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            yield TarTarget(address=address, tar=tar)
    else:
        with (
            _new_remote_file(files, path) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            yield TarTarget(address=address, tar=tar)


def exists(address: str) -> bool:
    """Say whether a file lies at `address`."""
    files, path = _resolve(address)
    return Path(path).exists() if files is None else bool(files.exists(path))


def _resolve(address: str) -> tuple[Any, str]:
    """Return fsspec's file system and the path in it; None for files of this machine, however they are written."""
    if "://" not in address:
        return None, str(Path(address).expanduser())
    try:
        files, path = fsspec.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{address}: cannot be reached: {error}") from error
    return (None if isinstance(files, LocalFileSystem) else files), path


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Let whatever a library raises when it first asks for an address name the address; nothing there is no error."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # each library has its own: no network, no permission, no such bucket
        raise ConfigError(f"{address}: cannot be reached: {type(error).__name__}: {error}") from error


def _is_file(address: str, files: Any, path: str) -> bool:
    try:
        with _reaching(address):
            return bool(files.info(path)["type"] == "file")
    except FileNotFoundError:
        return False


@contextmanager
def _open_file(address: str, files: Any, path: str) -> Iterator[BinaryIO]:
    if not (Path(path).is_file() if files is None else _is_file(address, files, path)):
        raise ConfigError(f"{address}: there is no such file")
    with Path(path).open("rb") if files is None else files.open(path, "rb") as file:
        yield file


@dataclass(frozen=True, kw_only=True)
class TarFile:
    """A space inside a plain tar file."""

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
class LocalFolder:
    """A space in a folder of this machine, its own store's or an exported one."""

    address: str
    path: Path
    alone: bool = False

    def sizes(self) -> Mapping[str, int]:
        """Return the files of the space; raises `DamagedCacheError` for a link or whatever else is no plain file.

        What else lies beside `commits` and `parts` is not looked at. Commits are listed before parts, so that the parts
        of every commit that is found are there.
        """
        found: dict[str, int] = {}
        for name in ("spec.json", "README.md"):
            if os.path.lexists(self.path / name):
                found[name] = self._size(name, (self.path / name).lstat())
        for folder in ("commits", "parts"):
            if (self.path / folder).is_symlink():
                self._size(folder, (self.path / folder).lstat())
            found.update(self._walk(folder))
        return found

    def _walk(self, folder: str) -> Iterator[tuple[str, int]]:
        try:
            entries = sorted(os.scandir(self.path / folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            return  # a writer took its unfinished part away, or this is no space; the latter is noticed by spec.json
        for entry in entries:
            name = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(name)
            elif not entry.name.startswith("."):  # a commit on its way to its name
                try:
                    yield name, self._size(name, entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue  # likewise

    def _size(self, name: str, found: os.stat_result) -> int:
        if not stat.S_ISREG(found.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no plain file"
            raise DamagedCacheError(f"{self.address}: {name!r} is {kind}; only plain files are taken")
        return found.st_size

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes of a file; a link put there meanwhile is not followed."""
        descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            yield from _at_most(file, size)


class RemoteFolder:
    """A space below an fsspec address."""

    alone = True

    def __init__(self, address: str, files: Any, path: str) -> None:
        self.address = address
        self._files = files
        self._path = path.rstrip("/")

    def sizes(self) -> Mapping[str, int]:
        """Return the size of every file below the address."""
        try:
            with _reaching(self.address):
                listed = self._files.find(self._path, detail=True)
        except FileNotFoundError:
            return {}
        return {self._name(path): self._size(path, entry) for path, entry in listed.items()}

    def _name(self, path: str) -> str:
        if not path.startswith(f"{self._path}/"):
            raise DamagedCacheError(f"{self.address}: lists {path!r}, which lies outside of it")
        return path[len(self._path) + 1 :]

    def _size(self, path: str, entry: Mapping[str, Any]) -> int:
        if entry.get("type") != "file" or entry.get("islink") or not isinstance(entry.get("size"), int):
            raise DamagedCacheError(f"{self.address}: {path!r} is no plain file of a known size")
        return int(entry["size"])

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes of a file."""
        with self._files.open(f"{self._path}/{name}", "rb") as file:
            yield from _at_most(file, size)


def _at_most(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (block := file.read(min(READ_SIZE, size))):
        size -= len(block)
        yield block


@dataclass(frozen=True, kw_only=True)
class LocalTarget:
    """A folder of this machine."""

    address: str
    path: Path

    def existing(self) -> Source | None:
        """Return the folder unless it is empty or absent."""
        if not self.path.exists():
            return None
        if not self.path.is_dir():
            raise ConfigError(f"{self.address}: is a file; name a folder, or a file that ends in {TAR}")
        return WholeFolder(address=self.address, path=self.path) if any(self.path.iterdir()) else None

    def write(self, name: str, content: Path) -> None:
        """Copy a file, under its name only when it is whole and on disk; what killed exports left beside it goes."""
        path = self.path / name
        make_folder(path.parent)
        _remove_abandoned(path.parent, ".*.tmp")
        temporary = _temporary_name(path.parent)
        try:
            shutil.copyfile(content, temporary)
            sync_file(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


@dataclass(frozen=True, kw_only=True)
class WholeFolder(LocalFolder):
    """A folder that is about to be written into, so that everything in it counts."""

    alone: bool = True

    def sizes(self) -> Mapping[str, int]:
        """Return all files, hidden ones left out that a killed export may have left."""
        files = (path for path in self.path.rglob("*") if path.is_symlink() or not path.is_dir())
        named = ((path.relative_to(self.path).as_posix(), path) for path in files if path.suffix != ".tmp")
        return {name: self._size(name, path.lstat()) for name, path in named}


def _temporary_name(folder: Path, begin: str = "") -> Path:
    return folder / f".{begin}{token_hex(8)}.tmp"


def _remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove temporary files that nobody has written to for a day; a younger one may be that of an export beside us."""
    found = [path for path in folder.glob(pattern) if TEMPORARY.search(path.name) and path.is_file()]
    for path in found:
        with suppress(FileNotFoundError):  # it has got its name, or somebody else removes it
            if age(path) > ABANDONED_SECONDS:
                path.unlink()


class RemoteTarget:
    """Files below an fsspec address."""

    def __init__(self, address: str, files: Any, path: str) -> None:
        self.address = address
        self._files = files
        self._path = path.rstrip("/")

    def existing(self) -> Source | None:
        """Return what lies below the address, if anything does."""
        source = RemoteFolder(self.address, self._files, self._path)
        return source if source.sizes() else None

    def write(self, name: str, content: Path) -> None:
        """Upload one file."""
        self._files.put_file(str(content), f"{self._path}/{name}")


@dataclass(frozen=True, kw_only=True)
class TarTarget:
    """A tar file that is being written; two exports of the same files give the same bytes."""

    address: str
    tar: tarfile.TarFile

    def existing(self) -> Source | None:
        """Return nothing: a tar file is always written as a whole."""
        return None

    def write(self, name: str, content: Path) -> None:
        """Add one file."""
        header = tarfile.TarInfo(name)
        header.size = content.stat().st_size
        header.mode = 0o644
        with content.open("rb") as file:
            self.tar.addfile(header, file)


@contextmanager
def _new_tar_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file that gets the name `path` when all has gone well; what killed exports to it have left is removed."""
    make_folder(path.parent)
    _remove_abandoned(path.parent, f".{escape(path.name)}-*.tmp")
    temporary = _temporary_name(path.parent, f"{path.name}-")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


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
