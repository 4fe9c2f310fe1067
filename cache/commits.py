"""Commit records: what one part holds enters, one JSON file that proves itself leaves, and back.

A commit is the only thing that makes a part visible. It lists every file of the part with size and SHA-256, and carries
a checksum of itself. A crash leaves a record complete, absent, or empty; anything else is damage and never ignored.
"""

import errno
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from cache.fingerprints import JSON, SCHEMA_VERSION, check_schema, fingerprint, hash_bytes
from data.errors import DamagedCacheError

PART_NAME = re.compile(r"\d{8,}-[0-9a-f]{12}")
VERIFY = "`molsaki cache verify SPACE` lists all damage"

MACHINE_TROUBLE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of the system that say nothing about a file: no permission, too many open files, no memory."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """Size in bytes and SHA-256 (64 hex digits) of one file of a part."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One commit record.

    `index` is its place in the order of commits. `part` is the folder below `parts/`, None where nothing but dropped
    records was committed. `counts` has at least `records`; `dropped` gives a reason for each record that was left out;
    `files` are all files of the part by relative path; `note` is what was recorded beside it: versions, device.
    """

    index: int
    part: str | None
    counts: Mapping[str, int]
    dropped: Mapping[str, str]
    files: Mapping[str, FileEntry]
    note: Mapping[str, JSON]

    @property
    def bytes(self) -> int:
        """Size of the part's files together."""
        return sum(entry.size for entry in self.files.values())


def encode_commit(commit: Commit) -> bytes:
    """Return the file content of a commit; its index is not in it, for that is the file's name."""
    content: dict[str, JSON] = {"schema": SCHEMA_VERSION, **asdict(commit)}
    del content["index"]
    content["checksum"] = fingerprint(content)
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode("ascii") + b"\n"


def is_damage(error: Exception) -> bool:
    """Say whether an exception at reading speaks of the file, not of the machine or of what its user may do."""
    return not isinstance(error, MemoryError) and getattr(error, "errno", None) not in MACHINE_TROUBLE


def reason_of(error: Exception, path: Path) -> str:
    """Return an error's words in one line, without the path and the advice where those stand beside it anyway."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.removeprefix(f"{path}: ").replace(f"; {VERIFY}", "").split())


@contextmanager
def damage_at(path: Path, what: str) -> Iterator[None]:
    """Let whatever the disk, or a library in bytes that are not ours, raises be a `DamagedCacheError` at `path`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DamagedCacheError) or not is_damage(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DamagedCacheError(f"{path}: {what} ({reason}); {VERIFY}") from error


def read_committed(path: Path, entry: FileEntry | None = None) -> bytes:
    """Return the content of a file that has to be there, and be what `entry` says; raises `DamagedCacheError`."""
    with damage_at(path, "cannot be read"):
        content = path.read_bytes()
    if entry is not None and hash_bytes(content) != entry.sha256:
        raise DamagedCacheError(f"{path}: the content is not what was committed; {VERIFY}")
    return content


def is_torn(content: bytes) -> bool:
    """Say whether a file was claimed and never filled, as a crash leaves it where there are no hard links.

    Such a file is empty, and no other state that a crash leaves has its name: whatever else does not prove itself is
    damaged, be it by a single bit at its end.
    """
    return not content


def decode_commit(content: bytes, *, index: int, path: Path) -> Commit:
    """Return the commit in `content`, read from `path`.

    Raises `DamagedCacheError` where it does not prove itself, and `MismatchError` for another version of the schema.
    """
    try:
        found = json.loads(content)
        checksum, actual = found.pop("checksum"), fingerprint(found)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedCacheError(f"{path}: not a commit record ({error}); {VERIFY}") from error
    if checksum != actual:
        raise DamagedCacheError(f"{path}: the content does not match the checksum inside it; {VERIFY}")
    check_schema(found, path)
    return _build(found, index=index, path=path)


def _build(found: dict[str, object], *, index: int, path: Path) -> Commit:
    try:
        commit = Commit(
            index=index,
            part=_part_name(found["part"]),
            counts={str(name): _integer(count) for name, count in _mapping(found["counts"]).items()},
            dropped={str(key): str(reason) for key, reason in _mapping(found["dropped"]).items()},
            files={_relative(name): _entry(_mapping(entry)) for name, entry in _mapping(found["files"]).items()},
            note=_mapping(found["note"]),
        )
        commit.counts["records"]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCacheError(f"{path}: a commit record with an impossible field ({error}); {VERIFY}") from error
    return commit


def _mapping(value: object) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {value!r}")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"expected a count, found {value!r}")
    return value


def _part_name(value: object) -> str | None:
    if value is None or (isinstance(value, str) and PART_NAME.fullmatch(value)):
        return value
    raise ValueError(f"no name of a part: {value!r}")


def _relative(name: str) -> str:
    """Refuse a path that would leave the part's folder: a store may come from somebody else."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or "\\" in name or not path.parts:
        raise ValueError(f"no path inside a part: {name!r}")
    return name


def _entry(found: Mapping[str, JSON]) -> FileEntry:
    return FileEntry(size=_integer(found["size"]), sha256=str(found["sha256"]))
