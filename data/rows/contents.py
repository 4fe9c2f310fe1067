"""What a file holds, whatever it is packed in, and what it is where its rows cannot be read here.

Enters: a path. Leaves: bytes without gzip, bzip2, xz, zstd or a zip archive of one file around them, and the name that
says of what form they are. Files are known by their first bytes, not by their names: what is neither text nor a table
of columns is refused as what it is, so that nobody has to guess from "the byte 0x93". What is packed may unpack to
`LARGEST` at most, and is no longer unpacked where it grows beyond that.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from data.errors import DataError, first_line

LARGEST = 1 << 30
"""Bytes that a packed file may unpack to: more than questions need, and less than memory."""
BLOCK = 1 << 20
SUFFIXES = frozenset({".gz", ".bz2", ".xz", ".zst", ".zstd", ".zip"})
PACKED = {
    b"\x1f\x8b": "gzip",
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
    b"BZh9\x17\x72\x45\x38\x50\x90": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}
COLUMNS = {b"PAR1\x15": "Parquet", b"ARROW1\x00\x00": "Arrow", b"\xff\xff\xff\xff": "Arrow stream"}
FOREIGN = {
    b"\xd0\xcf\x11\xe0": "a file of Microsoft Office, such as .xls; save the table as CSV in UTF-8",
    b"%PDF-": "a PDF document",
    b"SQLite format 3\x00": "an SQLite database; write the table as CSV or JSON Lines",
    b"\x89HDF\r\n": "an HDF5 file",
    b"Obj\x01": "an Avro file; write it as Parquet or JSON Lines",
    b"FEA1\x00": "a Feather file of version 1; write it as Parquet",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it",
    b"Rar!\x1a\x07": "a RAR archive; unpack it",
    b"\x04\x22\x4d\x18": "a file that lz4 has packed; unpack it",
    b"\x1f\x9d": "a file that compress has packed; unpack it",
    b"\x93NUMPY": "an array of NumPy",
    **{
        b"\x80%c" % protocol: "a pickle of Python, which is never read: loading one runs whatever it holds"
        for protocol in range(2, 6)
    },
    b"\xff\xfe": "text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "text in UTF-16; save it as UTF-8",
    b"version https://git-lfs": "a pointer of Git LFS, not the file; fetch that with: git lfs pull",
}
"""What is told from the first bytes and not read."""
WEB_PAGES = (b"<!doctype html", b"<html")
OFFICE = {
    "xl/": "an Excel workbook; save the sheet as CSV in UTF-8",
    "word/": "a Word document",
    "ppt/": "a PowerPoint presentation",
    "content.xml": "an OpenDocument file; save the sheet as CSV in UTF-8",
}
"""Zip archives that are a document, by what one of their files begins with."""
DAMAGED = (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""What the libraries raise that unpack."""
LEFT_BY_SYSTEMS = ("__MACOSX/", ".DS_Store", "Thumbs.db")


class Readable(Protocol):
    """What gives bytes."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, none at the end."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a file holds. `name` ends as files of its form do; `stem` is what its questions are named after."""

    path: Path
    name: str
    stem: str
    content: bytes

    @property
    def suffix(self) -> str:
        """The end of its name, such as `.csv`."""
        return PurePosixPath(self.name).suffix.lower()

    @property
    def columns(self) -> str | None:
        """Of which form its columns are; None where it is text."""
        return next((form for magic, form in COLUMNS.items() if self.content.startswith(magic)), None)

    def text(self) -> str:
        """Its text, whatever line ends it has; bytes that are not UTF-8 are reported with their line."""
        try:
            return self.content.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = self.content.count(b"\n", 0, error.start) + 1
            found = f"found the byte {self.content[error.start]:#04x}"
            raise DataError(f"{self.path}:{line}: expected UTF-8, {found}; save it as UTF-8") from error


def file_content(path: Path) -> Content:
    """Read a file and unpack it; raises `DataError` for one that is packed amiss or of a form that is not read."""
    content = path.read_bytes()
    packing = _packing(content)
    if packing is None:
        _require_known(path, content)
        return Content(path=path, name=path.name, stem=path.stem, content=content)
    plain = path.stem if path.suffix.lower() in SUFFIXES else path.name
    inner, content = _unpacked(path, content, packing)
    if (again := _packing(content)) is not None:
        raise DataError(f"{path}: {packing} has packed what {again} has packed; unpack it")
    _require_known(path, content)
    return Content(path=path, name=inner or plain, stem=PurePosixPath(plain).stem, content=content)


def _packing(content: bytes) -> str | None:
    return next((packing for magic, packing in PACKED.items() if content.startswith(magic)), None)


def _require_known(path: Path, content: bytes) -> None:
    """Raise `DataError` for what is neither text nor a table of columns, as far as its first bytes say what it is."""
    found = next((name for magic, name in FOREIGN.items() if content.startswith(magic)), None)
    if content[257:262] == b"ustar":
        found = "a tar archive; unpack it and name the file that is to be read"
    elif content[:64].lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith(WEB_PAGES):
        found = "a web page, perhaps one that says why there is no file"
    if found:
        raise DataError(f"{path}: expected questions in text or Parquet, found {found}")


def _unpacked(path: Path, content: bytes, packing: str) -> tuple[str, bytes]:
    """The content, after the name that it has in an archive; empty where it has none."""
    with ExitStack() as stack:
        try:
            name, stream = _opened(path, content, packing, stack)
            return name, _limited(path, stream)
        except DataError:
            raise
        except DAMAGED as error:
            raise DataError(f"{path}: a file of {packing} that cannot be unpacked: {first_line(error)}") from error


def _opened(path: Path, content: bytes, packing: str, stack: ExitStack) -> tuple[str, Readable]:
    packed = io.BytesIO(content)
    if packing == "zip":
        archive = stack.enter_context(zipfile.ZipFile(packed))
        member = _only_file(path, archive)
        return member.filename, stack.enter_context(archive.open(member))
    if packing == "zstd":
        import pyarrow  # takes a while, and files of other forms need none of it

        stream: Readable = pyarrow.CompressedInputStream(packed, "zstd")
        return "", stream
    openers: dict[str, Callable[[io.BytesIO], Readable]] = {
        "gzip": lambda file: gzip.GzipFile(fileobj=file),
        "bzip2": bz2.BZ2File,
        "xz": lzma.LZMAFile,
    }
    return "", openers[packing](packed)


def _only_file(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The one file of an archive; raises `DataError` for archives of several, and for those that are a document."""
    found = [each for each in archive.infolist() if not each.is_dir()]
    for start, document in OFFICE.items():
        if any(each.filename.startswith(start) for each in found):
            raise DataError(f"{path}: expected questions in text or Parquet, found {document}")
    files = [each for each in found if not any(left in each.filename for left in LEFT_BY_SYSTEMS)]
    if len(files) != 1:
        names = [each.filename for each in files[:3]] + ["…"] * (len(files) > 3)
        listed = f" ({', '.join(names)})" if names else ""
        raise DataError(f"{path}: a zip archive of {len(files):,} files{listed}; unpack it and name the one to be read")
    return files[0]


def _limited(path: Path, stream: Readable) -> bytes:
    """All that a stream gives, which may not be more than `LARGEST`."""
    blocks: list[bytes] = []
    size = 0
    while block := stream.read(BLOCK):
        blocks.append(block)
        size += len(block)
        if size > LARGEST:
            raise DataError(f"{path}: unpacks to more than {too_large()}")
    return b"".join(blocks)


def too_large() -> str:
    """How much is too much, and what to do."""
    return f"{LARGEST >> 20:,} MiB; name a JSON Lines file that is not packed, with what is needed only"
