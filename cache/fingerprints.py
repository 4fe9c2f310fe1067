"""Fingerprints: a description of how something is made enters, a SHA-256 leaves; and what differs between two of them.

Two computations that would give the same records have the same fingerprint and share one space on disk.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from data.errors import ConfigError, MismatchError

SCHEMA_VERSION = 1
"""Version of everything that this room writes; it belongs into every spec and stands in every commit."""

JSON: TypeAlias = "Mapping[str, JSON] | Sequence[JSON] | str | int | float | bool | None"
Spec: TypeAlias = Mapping[str, JSON]

ABSENT = "(absent)"
READ_SIZE = 1 << 20
ENTRIES = 4096
"""Entries of a long list that are in memory at a time."""


def canonical(value: JSON) -> bytes:
    """Return `value` as JSON with sorted keys, no white space and ASCII only: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def fingerprint(spec: JSON) -> str:
    """Return the SHA-256 (64 hex digits) of the canonical JSON of `spec`."""
    return hash_bytes(canonical(spec))


def fingerprint_with(spec: Spec, name: str, entries: Iterable[str]) -> str:
    """Return `fingerprint({**spec, name: [*entries]})` without a list of the entries in memory."""

    def blocks() -> Iterator[bytes]:
        opening = b"{"
        for key in sorted({*spec, name}):
            yield opening + canonical(key) + b":"
            if key == name:
                yield from _listed(entries)
            else:
                yield canonical(spec[key])
            opening = b","
        yield b"}"

    return hash_blocks(blocks())


def _listed(entries: Iterable[str]) -> Iterator[bytes]:
    opening, left = b"[", iter(entries)
    while some := list(islice(left, ENTRIES)):
        yield opening + canonical(some)[1:-1]
        opening = b","
    yield b"]" if opening == b"," else b"[]"


def hash_bytes(content: bytes) -> str:
    """Return the SHA-256 (64 hex digits) of `content`."""
    return hashlib.sha256(content).hexdigest()


def hash_blocks(blocks: Iterable[bytes]) -> str:
    """Return the SHA-256 (64 hex digits) of blocks, one after another."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 (64 hex digits) of a file's content."""
    with path.open("rb") as file:
        return hash_blocks(iter(partial(file.read, READ_SIZE), b""))


def hash_folder(path: Path, patterns: Sequence[str], of: Callable[[Path], str] = hash_file) -> str:
    """Return the SHA-256 (64 hex digits) over the files in `path` that match any of the glob `patterns`.

    It is the hash of the lines that `sha256sum` prints for these files, sorted by name; `of` hashes one. Raises
    `ConfigError` where no file matches, because the hash of nothing would make different folders look alike.
    """
    found = {file for pattern in patterns for file in path.glob(pattern) if file.is_file()}
    names = sorted(file.relative_to(path).as_posix() for file in found)
    if not names:
        raise ConfigError(f"{path}: no file in this folder matches {', '.join(patterns)}")
    lines = "".join(f"{of(path / name)}  {name}\n" for name in names)
    return hash_bytes(lines.encode())


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One field in which two specs disagree; `ours` and `theirs` are JSON, or `(absent)`."""

    field: str
    ours: str
    theirs: str


def differences(ours: Spec, theirs: Spec) -> list[Difference]:
    """Return the fields in which two specs disagree, nested fields as `teacher.revision`, sorted by name."""
    left, right = dict(_leaves(ours)), dict(_leaves(theirs))
    return [
        Difference(field=field, ours=left.get(field, ABSENT), theirs=right.get(field, ABSENT))
        for field in sorted(left.keys() | right.keys())
        if left.get(field, ABSENT) != right.get(field, ABSENT)
    ]


def check_schema(made_with: Mapping[str, JSON], where: object) -> None:
    """Raise `MismatchError` unless the `schema` of a spec or commit, read at `where`, is the one of this room."""
    theirs: Spec = {"schema": made_with["schema"]} if "schema" in made_with else {}
    if found := differences({"schema": SCHEMA_VERSION}, theirs):
        raise MismatchError(
            f"{where}: made with another version of the schema; {_who_reads(theirs.get('schema'))}\n"
            f"{describe_differences(found)}"
        )


def _who_reads(schema: JSON) -> str:
    if not isinstance(schema, int) or isinstance(schema, bool):
        return "no molsaki writes that"
    if schema > SCHEMA_VERSION:
        return "a newer molsaki wrote it and reads it: `pip install --upgrade molsaki`"
    return "only the older molsaki that wrote it reads it; a run with its configuration computes it anew"


def _leaves(value: JSON, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, json.dumps(value, sort_keys=True, ensure_ascii=False)


def describe_differences(found: Sequence[Difference]) -> str:
    """Return differences as indented lines: the field, then our value and theirs below each other."""
    return "\n".join(f"  {each.field}\n    ours:   {each.ours}\n    theirs: {each.theirs}" for each in found)
