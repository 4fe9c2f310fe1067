"""Hashes of large files, kept between processes: a path enters, the SHA-256 leaves; the content is read once.

    <user cache>/hashes/<first 32 digits of the SHA-256 of the path>.json

What is kept holds while the file is the one that was read: its device, inode, size, and the times of its last write
and of its last change of any kind (ctime), which no program can set. A file that was changed in the last ten seconds is
read anew by each process, since a second change within one tick of a file system's clock would go unseen. Deleting the
folder costs nothing but time.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from cache.durable import replace_file
from cache.fingerprints import JSON, canonical, hash_bytes, hash_file
from cache.spaces import default_store

log = logging.getLogger(__name__)

LEAST = 1 << 20
"""Bytes from which a hash is worth a file of its own; less is read in a millisecond."""
SETTLED_SECONDS = 10.0
"""How long ago a file changed last before its hash is kept: clocks of two machines may differ by as much."""


class State(NamedTuple):
    """What tells that a file is still the one that was read; times in nanoseconds."""

    device: int
    inode: int
    size: int
    written: int
    changed: int


def kept_hash(path: Path) -> str:
    """The SHA-256 (64 hex digits) of a file's content, from what was kept of it where that still holds."""
    path = path.resolve()
    return _hash(path, _state_of(path))


def _state_of(path: Path) -> State:
    found = path.stat()
    return State(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(maxsize=1024)
def _hash(path: Path, state: State) -> str:
    if state.size < LEAST:
        return hash_file(path)
    place = default_store() / "hashes" / f"{hash_bytes(os.fsencode(path))[:32]}.json"
    found = _read(place, state)
    if found is None:
        settled = time.time() - state.changed / 1e9 > SETTLED_SECONDS
        found = hash_file(path)
        if settled and _state_of(path) == state:
            write_kept(place, {"state": list(state), "sha256": found})
    return found


def _read(place: Path, state: State) -> str | None:
    kept = read_kept(place)
    if kept.get("state") != list(state):
        return None
    found = kept.get("sha256")
    return found if isinstance(found, str) and len(found) == len(hash_bytes(b"")) else None


def read_kept(place: Path) -> Mapping[str, JSON]:
    """What a file of the user's cache keeps; nothing where there is none, or none that can be read."""
    try:
        kept = json.loads(place.read_bytes())
    except (OSError, ValueError):  # what it was kept of says it
        return {}
    return kept if isinstance(kept, dict) else {}


def write_kept(place: Path, content: JSON) -> None:
    """Keep something in a file of the user's cache; where nothing can be written each process finds it out anew."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, canonical(content))
    except OSError as error:
        log.debug("%s: not kept (%s)", place, error)
