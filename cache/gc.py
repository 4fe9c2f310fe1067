"""Removing what no commit names: a space enters, its leftovers leave, each with its age; and they are removed.

Leftovers are parts of writers that were killed, temporary files, and the parts of commits that a repair withdrew.
Somebody may be writing a part now, and a reader may have a withdrawn one open, so only what is old enough goes. A space
with a commit file that proves nothing is left alone: what looks like a leftover may be what was committed.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.age import newest, now
from cache.commits import is_torn
from cache.repair import WITHDRAWN
from cache.spaces import Space
from cache.verify import CLAIM_SECONDS
from data.errors import DamagedCacheError


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something below a space that no commit names; `seconds` is its age, that of the newest file in it."""

    path: Path
    what: str
    bytes: int
    seconds: float


def leftovers(space: Space, *, older_than: float) -> list[Leftover]:
    """Return what can be removed from a space: everything uncommitted that is older than `older_than` seconds.

    Raises `DamagedCacheError` where a commit file proves nothing.
    """
    committed = _committed(space)
    at = now(space.path)
    temporary = (each for folder in (space.path, space.path / "commits") for each in _temporary_files(folder, at))
    found = (*_parts(space, committed, at), *temporary, *_withdrawn(space, at))
    return [leftover for leftover in found if leftover.seconds >= older_than]


def leftovers_of_targets(store: Path, *, older_than: float) -> list[Leftover]:
    """Return what killed trainings left of the memory maps beside the spaces of a store; see `cache.targets`."""
    folder = store / "targets"
    if not folder.is_dir():
        return []
    found = _temporary_files(folder, now(folder))
    return [leftover for leftover in found if leftover.seconds >= older_than]


def remove(space: Space, found: Sequence[Leftover]) -> Iterator[Leftover]:
    """Remove leftovers, parts before the withdrawn commits that name them; yield each when it is gone.

    What was committed meanwhile stays.
    """
    committed = _committed(space)
    for leftover in found:
        if leftover.path.name in committed:
            continue
        yield discard(leftover)


def discard(leftover: Leftover) -> Leftover:
    """Remove one leftover and return it."""
    if leftover.path.is_dir():
        shutil.rmtree(leftover.path)
    else:
        leftover.path.unlink(missing_ok=True)
    return leftover


def _committed(space: Space) -> set[str]:
    """Names of the parts that are committed."""
    for _, path in space.commit_files():
        if is_torn(path.read_bytes()) and now(path.parent) - path.stat().st_mtime > CLAIM_SECONDS:
            raise DamagedCacheError(f"{path}: empty, so its part is not known; see `molsaki cache verify --repair`")
    return {commit.part for commit in space.commits() if commit.part is not None}


def _parts(space: Space, committed: set[str], at: float) -> Iterator[Leftover]:
    records = [(path.read_bytes(), path.stat().st_mtime) for path in _children(space.path / WITHDRAWN)]
    for path in _children(space.path / "parts"):
        if path.name in committed or not path.is_dir():
            continue
        # Readers may have opened it until it was withdrawn; a record that names nothing may have been of any part.
        withdrawn = [time for content, time in records if path.name.encode() in content or b'"part"' not in content]
        written = max([newest(path), *withdrawn])
        what = "part of a withdrawn commit" if withdrawn else "part without commit"
        yield Leftover(path=path, what=what, bytes=_bytes(path), seconds=at - written)


def _temporary_files(folder: Path, at: float) -> Iterator[Leftover]:
    for path in sorted(folder.glob(".*.tmp")):
        yield _file(path, "temporary file", at)


def _withdrawn(space: Space, at: float) -> Iterator[Leftover]:
    for path in _children(space.path / WITHDRAWN):
        yield _file(path, "withdrawn commit", at)


def _file(path: Path, what: str, at: float) -> Leftover:
    status = path.stat()
    return Leftover(path=path, what=what, bytes=status.st_size, seconds=at - status.st_mtime)


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
