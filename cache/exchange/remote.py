"""What lies at an address: fsspec's file systems and files enter, the same leave with errors that name the address.

Each library has errors of its own for a server that is down, rights that are missing or a connection that is cut; here
they become one line of what could not be done with which address, and no secret is in it. What a listing says is asked
for anew each time, a tar file takes its place when all of it is there, and a server that only gives whole files is read
from the beginning.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.spec import AbstractBufferedFile

from cache.exchange.addresses import WEB, of_the_web, protocols, shown, without_secrets
from cache.exchange.metering import Meter
from cache.fingerprints import READ_SIZE
from data.errors import ConfigError, DamagedCacheError, first_line

SILENT_SECONDS = 60.0
"""How long a web server may be silent; fsspec would end any answer after five minutes, however far it is."""
SILENCE = logging.NullHandler()
"""Where nobody has asked for logs, what a library tries again and how would stand above our one line."""
BUCKETS = {"s3", "s3a", "gs", "gcs"}
GONE = {404, 410}
NO_SUCH_PLACE = {"NoSuchBucket", "RepositoryNotFoundError"}
"""What is raised where not the file is missing but all that it would lie in."""


class Readable(Protocol):
    """What is asked of a file that is read here."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a byte."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes from there, fewer at the end."""


def file_system(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address and the path in it.

    It is one of its own, also within a chain: one that fsspec keeps has the listings and the credentials of before.
    """
    options: dict[str, dict[str, Any]] = {name: {"skip_instance_cache": True} for name in protocols(address)}
    try:
        for name in options.keys() & set(WEB):
            options[name]["client_kwargs"] = {"timeout": _only_while_silent()}
        files, path = fsspec.url_to_fs(address, **options)
    except ImportError as error:
        helps = "; `pip install 'molsaki[remote]'` brings it" if BUCKETS & options.keys() else ""
        raise ConfigError(f"{_refusal(address, 'reached', error)}{helps}") from None
    except Exception as error:  # an unknown name; of a chain whatever its inner link meets
        raise _refusal(address, "reached", error) from None
    logging.getLogger(type(files).__module__.partition(".")[0]).addHandler(SILENCE)
    return files, path


def _only_while_silent() -> Any:  # a library that only fsspec's HTTP needs
    from aiohttp import ClientTimeout

    return ClientTimeout(total=None, sock_connect=SILENT_SECONDS, sock_read=SILENT_SECONDS)


@contextmanager
def reaching(address: str, what: str = "reached") -> Iterator[None]:
    """Let whatever a library raises name the address, and what cannot be done with it; nothing there is no error."""
    try:
        yield
    except AssertionError as error:  # of `DirFileSystem`
        raise DamagedCacheError(f"{shown(address)}: lists what lies outside of it") from error
    except FileNotFoundError as error:
        if what == "reached" and _is_just_not_there(error):
            raise
        raise _refusal(address, what, error) from None
    except Exception as error:  # each library has its own: no network, no permission, no such bucket
        raise _refusal(address, what, error) from None


def _refusal(address: str, what: str, error: BaseException) -> ConfigError:
    """One line; of a web server that cannot be reached fsspec says `FileNotFoundError`, and the reason behind it."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    said = without_secrets(first_line(error), address)
    name = type(error).__name__
    return ConfigError(f"{shown(address)}: cannot be {what}: {name}" + ("" if said == name else f": {said}"))


def _is_just_not_there(error: FileNotFoundError) -> bool:
    """Say whether an answer came, and was that there is no such file in a place that exists."""
    cause = error.__cause__
    if cause is None or type(cause).__name__ in NO_SUCH_PLACE:
        return cause is None
    status = getattr(cause, "status", getattr(getattr(cause, "response", None), "status_code", None))
    if status is not None:
        return status in GONE
    no_answer = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return not (no_answer or type(cause).__module__.startswith("aiohttp."))


def is_file(address: str, files: Any, path: str) -> bool:
    """Say whether a file lies at an address; raises `ConfigError` where nobody can say."""
    with suppress(FileNotFoundError, NotADirectoryError), reaching(address):
        return bool(files.info(path)["type"] == "file")
    return False


class Below(DirFileSystem):
    """The files below a folder of an address, by names relative to it; errors name the address."""

    def __init__(self, address: str, files: Any, path: str) -> None:
        super().__init__(path or "/", files, skip_instance_cache=True)
        self.address = address

    def find(self, path: str, **_: Any) -> dict[str, Any]:
        """Return what lies at or below `path`, but for the empty objects `x/` that consoles make as folders."""
        with reaching(self.address):
            found = self.fs.find(self._join(path), detail=True)
            files = {name: entry for name, entry in found.items() if not name.endswith("/") or entry.get("size")}
            return dict(self._relpath_detail(files))

    def open(self, path: str, *_: Any, **__: Any) -> "Reached":
        """Open a file to read."""
        with reaching(self.address, "read"):
            return Reached(self.fs.open(self._join(path), "rb"), self.address, "read")

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        """Copy a file there."""
        with reaching(self.address, "written"):
            self.fs.put_file(lpath, self._join(rpath))


class Reached:
    """A file elsewhere, of which every call names the address where it fails."""

    def __init__(self, file: Any, address: str, what: str) -> None:
        self.file, self.address, self.what = file, address, what

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte."""
        with reaching(self.address, self.what):
            return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        """Say at which byte it is."""
        return int(self.file.tell())

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        with reaching(self.address, self.what):
            return bytes(self.file.read(size))

    def write(self, content: bytes) -> int:
        """Take bytes."""
        with reaching(self.address, self.what):
            self.file.write(content)
        return len(content)

    def close(self) -> None:
        """Close a file that was read: nothing depends on it any more."""
        with suppress(Exception):
            self.file.close()


class _Kept:
    """A stream that can be read at any place, since what has come of it lies in a temporary file."""

    def __init__(self, stream: Readable, copy: BinaryIO, meter: Meter) -> None:
        self.stream, self.copy, self.meter = stream, copy, meter
        self.position = self.there = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0, "a stream has no end before it has ended"
        self.position = offset
        return offset

    def read(self, size: int) -> bytes:
        self.copy.seek(self.there)
        while self.there < self.position + size and (block := self.stream.read(READ_SIZE)):
            self.copy.write(block)
            self.there += len(block)
            self.meter.advance(len(block))
        self.copy.seek(self.position)
        content = self.copy.read(size)
        self.position += len(content)
        return content


@contextmanager
def reading(address: str, files: Any, path: str, meter: Meter) -> Iterator[Readable]:
    """Give a file to read at any place; where its server gives no parts of files, it is read from the beginning."""
    with reaching(address, "read"):
        stream = of_the_web(address) and not _gives_ranges(files, path)
        file = files.open(path, "rb", **({"block_size": 0} if stream else {}))
    with closing(Reached(file, address, "read")) as reached:
        if not stream:
            yield reached
            return
        with tempfile.TemporaryFile() as copy:
            meter.start("received bytes", files.info(path).get("size") or 0)
            yield _Kept(reached, copy, meter)


def _gives_ranges(files: Any, path: str) -> bool:
    """Say whether a web server answers with the second byte where that is asked for."""
    from fsspec.implementations.http import HTTPFile

    with files.open(path, "rb", block_size=1, cache_type="none") as file:
        if not isinstance(file, HTTPFile):
            return False
        file.seek(1)
        try:
            file.read(1)
        except ValueError:  # it sends the whole file
            return False
    return True


@contextmanager
def appearing_elsewhere(address: str, files: Any, path: str) -> Iterator[BinaryIO]:
    """Give a file to fill that takes the place of what is at an address when all of it is there, or not at all.

    fsspec's own `with` publishes what has been written until an error comes. Within a transaction a file waits to be
    committed, where its library knows of that; that of others (`hf://`) sends its end when it is closed, and is not.
    """
    with reaching(address, "written"):
        files.transaction.start()
        file = files.open(path, "wb")
    try:
        yield cast(BinaryIO, Reached(file, address, "written"))
        with reaching(address, "written"):
            file.close()
            files.transaction.complete()
    except BaseException:
        _give_up(file)
        raise


def _give_up(file: Any) -> None:
    """Leave nothing of a file that is being written; the error that is on its way says what is wrong."""
    if isinstance(file, AbstractBufferedFile):
        file.closed = True  # also when it is collected: closing would send the rest
    with suppress(Exception):
        file.discard()
    with suppress(Exception):
        file.temp_file.close()  # where `hf://` has put it together
        Path(file.temp_file.name).unlink()
