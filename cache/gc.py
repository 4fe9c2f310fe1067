"""Removing what no commit names: a space or a store enters, leftovers leave, each with its age; and they are removed.

Leftovers of a space are parts of writers that were killed, temporary files, and the parts of commits that a repair
withdrew. Leftovers of a store are the staging folders of killed imports and of killed exports of chosen records,
temporary files of killed trainings, and targets of spaces that are gone. Somebody may be writing any of them now, and a
reader may have a withdrawn part open, so only what is old enough goes. A space with a commit file that proves nothing
is left alone: what looks like a leftover may be what was committed.
"""

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cache.age import newest, now
from cache.commits import is_torn
from cache.repair import WITHDRAWN
from cache.spaces import KINDS, Space
from cache.verify import CLAIM_SECONDS
from data.errors import DamagedCacheError

IMPORT_PREFIX = ".import-"
"""Begins the names of the folders, beside the spaces, in which imports judge what they have copied."""
EXPORT_PREFIX = "molsaki-export-"
"""Begins the names of the folders that exports fill in the system's place for temporary files."""
FETCHED = "fetched"
"""Folder beside the kinds, in the user's own store, for copies of spaces that were opened from an address."""
TARGETS_NAME = re.compile(r"(.+)-[0-9a-f]{16}\.targets")


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something that no commit names and nobody needs; `seconds` is its age, that of the newest file in it."""

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


def leftovers_of_store(store: Path, *, older_than: float) -> list[Leftover]:
    """Return what can be removed beside the spaces of a store, and what killed exports left on this machine."""
    beside = [*(store / kind for kind in KINDS), *_children(store / FETCHED)]
    found = (
        *(leftover for folder in beside if folder.is_dir() for leftover in abandoned_imports(folder)),
        *_targets(store),
        *_exports(),
    )
    return [leftover for leftover in found if leftover.seconds >= older_than]


def abandoned_imports(folder: Path) -> Iterator[Leftover]:
    """Yield the staging folders of imports in `folder`, of running ones as well: only age tells which were killed."""
    at = now(folder)
    for path in sorted(folder.glob(f"{IMPORT_PREFIX}*")):
        yield from _folder(path, "import that did not end", at)


def _exports() -> Iterator[Leftover]:
    """Yield this user's folders of exports that did not end."""
    folder = Path(tempfile.gettempdir())
    at = now(folder)
    for path in sorted(folder.glob(f"{EXPORT_PREFIX}*")):
        with suppress(FileNotFoundError):  # it has ended meanwhile
            if path.lstat().st_uid == os.getuid():
                yield from _folder(path, "export that did not end", at)


def _targets(store: Path) -> Iterator[Leftover]:
    """Yield what killed trainings left of the memory maps (see `cache.targets`), and maps of spaces that are gone.

    Where the folder of all spaces is gone as well, it may only be out of reach for now.
    """
    folder, spaces = store / "targets", store / "attention"
    if not folder.is_dir():
        return
    at = now(folder)
    yield from _temporary_files(folder, at)
    for path in _children(folder) if spaces.is_dir() else []:
        named = TARGETS_NAME.fullmatch(path.name)
        if named and not any(store.glob(f"*/{glob.escape(named[1])}")):
            yield _file(path, "targets of a space that is gone", at)


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
    with suppress(FileNotFoundError):  # somebody else is removing it as well
        if leftover.path.is_dir():
            shutil.rmtree(leftover.path)
        else:
            leftover.path.unlink()
    return leftover


def _committed(space: Space) -> set[str]:
    """Names of the parts that are committed."""
    for _, path in space.commit_files():
        if is_torn(path.read_bytes()) and now(path.parent) - path.stat().st_mtime > CLAIM_SECONDS:
            raise DamagedCacheError(
                f"{path}: empty, so its part is not known; see `molsaki cache verify SPACE --repair`"
            )
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


def _folder(path: Path, what: str, at: float) -> Iterator[Leftover]:
    with suppress(FileNotFoundError):  # whoever was writing it has just ended
        yield Leftover(path=path, what=what, bytes=_bytes(path), seconds=at - newest(path))


def _file(path: Path, what: str, at: float) -> Leftover:
    status = path.stat()
    return Leftover(path=path, what=what, bytes=status.st_size, seconds=at - status.st_mtime)


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
