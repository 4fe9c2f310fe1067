"""Removing what no commit names: a space or a store enters, leftovers leave, each with its age; and they are removed.

Leftovers of a space are parts of writers that were killed, temporary files, and the parts of commits that a repair
withdrew. Leftovers of a store are the staging folders of killed imports and of killed exports of chosen records,
temporary files of killed trainings, and targets, texts and rows (`cache.derived`) of spaces that are gone. Somebody may
be writing any of them now, and a reader may have a withdrawn part open, so only what is old enough goes. A space with a
commit file that proves nothing is left alone: what looks like a leftover may be what was committed.
"""

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cache.commits import is_torn
from cache.derived import DERIVED
from cache.durable import age, newest, now
from cache.repair import WITHDRAWN
from cache.spaces import KINDS, Space, children
from cache.verify import CLAIM_SECONDS
from data.errors import DamagedCacheError

IMPORT_PREFIX = ".import-"
"""Begins the names of the folders, beside the spaces, in which imports judge what they have copied."""
EXPORT_PREFIX = "molsaki-export-"
"""Begins the names of the folders that exports fill in the system's place for temporary files."""
FETCHED = "fetched"
"""Folder beside the kinds, in the user's own store, for copies of spaces that were opened from an address."""
TEMPORARY = ".*.tmp"
DERIVED_NAME = re.compile(r"(.+)-[0-9a-f]{16}\.(?:targets|selection|tokens|rows)")


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
    found = (
        *_parts(space, committed, at),
        *_left(space.path.glob(TEMPORARY), "temporary file", at),
        *_left((space.path / "commits").glob(TEMPORARY), "temporary file", at),
        *_left(children(space.path / WITHDRAWN), "withdrawn commit", at),
    )
    return [leftover for leftover in found if leftover.seconds >= older_than]


def leftovers_of_store(store: Path, *, older_than: float) -> list[Leftover]:
    """Return what can be removed beside the spaces of a store, and what killed exports left on this machine."""
    beside = [*(store / kind for kind in KINDS), *children(store / FETCHED)]
    found = (
        *(leftover for folder in beside if folder.is_dir() for leftover in abandoned_imports(folder)),
        *(leftover for name, kind in DERIVED.items() for leftover in _derived(store, name, kind)),
        *_exports(),
    )
    return [leftover for leftover in found if leftover.seconds >= older_than]


def abandoned_imports(folder: Path) -> Iterator[Leftover]:
    """Return the staging folders of imports in `folder`, of running ones as well: only age tells which were killed."""
    return _left(folder.glob(f"{IMPORT_PREFIX}*"), "import that did not end", now(folder))


def _exports() -> Iterator[Leftover]:
    """Return this user's folders of exports that did not end."""
    folder = Path(tempfile.gettempdir())
    return _left(filter(_is_ours, folder.glob(f"{EXPORT_PREFIX}*")), "export that did not end", now(folder))


def _is_ours(path: Path) -> bool:
    with suppress(FileNotFoundError):  # the export has ended meanwhile
        return path.lstat().st_uid == os.getuid()
    return False


def _derived(store: Path, name: str, kind: str) -> Iterator[Leftover]:
    """Yield what killed trainings left of memory maps (see `cache.derived`), and maps of spaces that are gone.

    Where the folder of all spaces is gone as well, it may only be out of reach for now.
    """
    folder, spaces = store / name, store / kind
    if not folder.is_dir():
        return
    at = now(folder)
    yield from _left(folder.glob(TEMPORARY), "temporary file", at)
    named = ((DERIVED_NAME.fullmatch(path.name), path) for path in (children(folder) if spaces.is_dir() else []))
    gone = (path for match, path in named if match and not any(store.glob(f"*/{glob.escape(match[1])}")))
    yield from _left(gone, f"{name} of a space that is gone", at)


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
        if is_torn(path.read_bytes()) and age(path) > CLAIM_SECONDS:
            raise DamagedCacheError(
                f"{path}: empty, so its part is not known; see `molsaki cache verify SPACE --repair`"
            )
    return {commit.part for commit in space.commits() if commit.part is not None}


def _parts(space: Space, committed: set[str], at: float) -> Iterator[Leftover]:
    records = [(path.read_bytes(), path.stat().st_mtime) for path in children(space.path / WITHDRAWN)]
    for path in space.part_folders():
        if path.name in committed:
            continue
        # Readers may have opened it until it was withdrawn; a record that names nothing may have been of any part.
        withdrawn = [time for content, time in records if path.name.encode() in content or b'"part"' not in content]
        written = max([newest(path), *withdrawn])
        what = "part of a withdrawn commit" if withdrawn else "part without commit"
        yield Leftover(path=path, what=what, bytes=_bytes(path), seconds=at - written)


def _left(paths: Iterable[Path], what: str, at: float) -> Iterator[Leftover]:
    for path in sorted(paths):
        with suppress(FileNotFoundError):  # whoever was writing it has just ended
            yield Leftover(path=path, what=what, bytes=_bytes(path), seconds=at - newest(path))


def _bytes(path: Path) -> int:
    return sum(each.lstat().st_size for each in (path, *path.rglob("*")) if not each.is_dir())
