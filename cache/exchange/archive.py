"""Tar files from strangers: bytes enter, the names, places and sizes of plain files in them leave; nothing is unpacked.

Python's `tarfile` follows extended headers of any declared size and knows links, devices and sparse files. An archive
of ours has none of these, so that a header of 512 bytes says all there is to a file, and whatever is not a plain file
or a folder is refused before a byte of it is read.
"""

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from cache.exchange.remote import Readable
from data.errors import ConfigError, DamagedCacheError

BLOCK = tarfile.BLOCKSIZE
MAX_MEMBERS = 2_000_000
"""A space of ten million records in small parts has fewer files than this."""
MAX_SIZE = 1 << 62
"""No place in a file is further off; no file system takes one, either."""

REGULAR = {tarfile.REGTYPE, tarfile.AREGTYPE}
REFUSED: Mapping[bytes, str] = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.FIFOTYPE: "a fifo",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    **dict.fromkeys((tarfile.CHRTYPE, tarfile.BLKTYPE), "a device"),
    **dict.fromkeys((tarfile.XHDTYPE, tarfile.XGLTYPE), "an extended header"),
    **dict.fromkeys((tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK), "an extended header"),
}
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


@dataclass(frozen=True, kw_only=True)
class Member:
    """Where the bytes of one file lie in an archive."""

    offset: int
    size: int


def read_members(file: Readable, address: str) -> dict[str, Member]:
    """Return the plain files of a tar archive by name.

    Raises `ConfigError` for what is no plain tar file, and `DamagedCacheError` for an archive that breaks off, for a
    name that comes twice, and for anything in it that is neither a plain file nor a folder.
    """
    _refuse_compressed(file, address)
    found: dict[str, Member] = {}
    position = 0
    while (header := _read_header(file, position, address)) is not None:
        name = header.name.removeprefix("./") or "."
        member = Member(offset=position + BLOCK, size=_size(header, address))
        if member.size and not _byte_at(file, member.offset + member.size - 1):
            raise DamagedCacheError(f"{address}: breaks off inside {name}; get the file again")
        if header.type in REGULAR:
            if name in found:
                raise DamagedCacheError(f"{address}: {name} is in it twice")
            found[name] = member
            if len(found) > MAX_MEMBERS:
                raise DamagedCacheError(f"{address}: more than {MAX_MEMBERS:,} files")
        else:
            check_inside(name, address)
        position = member.offset + -(-member.size // BLOCK) * BLOCK
    return found


def check_inside(name: str, address: str) -> None:
    """Raise `DamagedCacheError` for a name that would leave the folder it is unpacked in."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
        raise DamagedCacheError(f"{address}: {name!r} is no path inside a space")


def _refuse_compressed(file: Readable, address: str) -> None:
    file.seek(0)
    begin = file.read(8)
    for magic, name in COMPRESSED.items():
        if begin.startswith(magic):
            raise ConfigError(f"{address}: compressed with {name}; unpack it to a plain .tar file first")


def _read_header(file: Readable, position: int, address: str) -> tarfile.TarInfo | None:
    """Return the header at `position`, None at the end mark of the archive."""
    file.seek(position)
    block = file.read(BLOCK)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed leaves it out
        return None
    except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
        raise DamagedCacheError(f"{address}: breaks off at byte {position:,}; get the file again") from error
    except (tarfile.TarError, ValueError) as error:
        if position == 0:
            raise ConfigError(f"{address}: not a tar file") from error
        raise DamagedCacheError(f"{address}: no tar header at byte {position:,} ({error})") from error


def _byte_at(file: Readable, position: int) -> bytes:
    file.seek(position)
    return file.read(1)


def _size(header: tarfile.TarInfo, address: str) -> int:
    if header.type not in REGULAR and header.type != tarfile.DIRTYPE:
        kind = REFUSED.get(header.type, f"of the unknown type {header.type!r}")
        raise DamagedCacheError(f"{address}: {header.name!r} is {kind}; only plain files are taken")
    if not 0 <= header.size <= MAX_SIZE or (header.type == tarfile.DIRTYPE and header.size):
        raise DamagedCacheError(f"{address}: {header.name!r} has the impossible size {header.size}")
    return header.size
