"""Taking a space in: files at an address enter, parts of a store or a folder to read from leave, or one clear refusal.

An import trusts nothing (see `cache.exchange.incoming`) and is refused as a whole: everything is copied into a staging
folder beside the spaces and judged there; only then parts move into the space under names of their own and are
committed like parts that were computed here. So two stores of one fingerprint merge, while others write and read. One
that is killed while it commits has brought some of the parts, and the next one brings the others.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cache.commits import VERIFY, Commit
from cache.durable import ABANDONED_SECONDS, make_folder
from cache.exchange.incoming import Offer, read_offer, stage
from cache.exchange.locations import open_source
from cache.exchange.metering import Meter, Unmetered
from cache.fingerprints import describe_differences, differences, fingerprint, hash_bytes
from cache.gc import FETCHED, IMPORT_PREFIX, abandoned_imports, discard
from cache.parts.kinds import part_layout
from cache.parts.reader import Part
from cache.rationales import RationaleStore
from cache.soft_labels.layout import HEAD
from cache.spaces import (
    OF_ARRAYS,
    Kind,
    Space,
    declared_spec,
    default_store,
    dropped_records,
    is_space,
    layers_of,
    space_path,
)
from data.errors import MismatchError


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import has brought; `known` are the records that were there already, or came twice."""

    path: Path
    kind: Kind
    fingerprint: str
    records: int
    known: int
    parts: int
    bytes: int


def import_space(address: str, store: Path, *, meter: Meter | None = None) -> Imported:
    """Take the space at an address into a store, merged with the one of the same fingerprint if that is there.

    Parts whose every record is stored already are left out. Raises `MismatchError` for another schema, a fingerprint
    that is not the spec's, or another number of layers, and `DamagedCacheError` for whatever else is not right; the
    store is then as it was.
    """
    with open_source(address, meter) as source:
        offer = read_offer(source)
        space = _of_same_fingerprint(store, offer)
        wanted = offer if space is None else replace(offer, commits=_not_there(offer, space))
        with staging_folder(store / offer.kind) as folder:
            staged = stage(wanted, folder, meter or Unmetered())
            return _merge(staged, offer, space, store)


def fetch(address: str, *, meter: Meter | None = None) -> Path:
    """Return a folder of this machine with the space at an address, checked like an import.

    It lies in the user's cache directory under the hash of all commits, so that it is copied once, and again when there
    are more. Removing it is safe.
    """
    with open_source(address, meter) as source:
        offer = read_offer(source)
        hashes = {name: hash_bytes(content) for name, content in offer.content.items()}
        below = default_store() / FETCHED / fingerprint(hashes)[:16]
        path = below / f"{offer.slug}-{fingerprint(offer.spec)[:16]}"
        if not is_space(path):
            with staging_folder(below) as folder:
                stage(offer, folder, meter or Unmetered())
                with suppress(OSError):  # somebody fetched the same at the same time; theirs was checked as well
                    folder.rename(path)
    return path


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Give an empty folder below `parent`, and leave nothing of it, nor of folders made for it.

    It lies two levels down, where nobody who lists the spaces of a store takes it for one.
    """
    made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    make_folder(parent)
    for leftover in abandoned_imports(parent):
        if leftover.seconds > ABANDONED_SECONDS:
            discard(leftover)
    try:
        with tempfile.TemporaryDirectory(prefix=IMPORT_PREFIX, dir=parent, ignore_cleanup_errors=True) as path:
            (Path(path) / "space").mkdir()
            yield Path(path) / "space"
    finally:
        for folder in made:
            with suppress(OSError):  # it holds something by now
                folder.rmdir()


def _of_same_fingerprint(store: Path, offer: Offer) -> Space | None:
    """Return the space that the offer belongs to; it may have another name here."""
    own = space_path(store, offer.kind, offer.slug, offer.spec)
    others = sorted((store / offer.kind).glob(f"*-{fingerprint(offer.spec)[:16]}"))
    path = next((path for path in (own, *others) if is_space(path)), None)
    if path is None:
        return None
    if found := differences(declared_spec(path), offer.spec):
        raise MismatchError(
            f"{offer.source.address}: made with another spec than {path}, though that is named for the same; {VERIFY}\n"
            f"{describe_differences(found)}"
        )
    return Space.open(path)


def _not_there(offer: Offer, space: Space) -> Mapping[str, Commit]:
    """Return the commits that bring anything, as far as that can be told without reading their parts."""
    commits = space.commits()
    parts, dropped = {frozenset(commit.files.items()) for commit in commits}, dropped_records(commits)
    return {
        name: commit
        for name, commit in offer.commits.items()
        if commit.dropped.keys() - dropped.keys() or (commit.part and frozenset(commit.files.items()) not in parts)
    }


def _merge(staged: Space, offer: Offer, space: Space | None, store: Path) -> Imported:
    """Move the parts that bring records into the store and commit them there."""
    commits = staged.commits()
    if space is not None:
        _check_layers(commits, space, offer.source.address)
    known = set() if space is None else _keys_of(space, space.commits())
    before, offered = len(known - {HEAD}), sum(commit.counts["records"] for commit in offer.commits.values())
    space = space or Space.open_or_create(store, offer.kind, offer.slug, offer.spec)
    dropped = dropped_records(space.commits())
    moved = []
    for commit in commits:
        keys = _keys_of(staged, [commit])
        unheard = {key: reason for key, reason in commit.dropped.items() if key not in dropped}
        if keys - known:
            _move(staged, commit, space)
            moved.append(commit)
        elif unheard:
            space.commit(None, counts={"records": 0}, dropped=unheard, note=commit.note)
        known |= keys
        dropped |= unheard
    brought = len(known - {HEAD}) - before
    return Imported(
        path=space.path,
        kind=space.kind,
        fingerprint=space.fingerprint,
        records=brought,
        known=offered - brought,
        parts=len(moved),
        bytes=sum(commit.bytes for commit in moved),
    )


def _check_layers(commits: Sequence[Commit], space: Space, address: str) -> None:
    """Refuse parts of another number of layers: nobody could open the space any more."""
    ours, theirs = layers_of(space.commits()), layers_of(commits)
    if ours and set(theirs) - set(ours):
        found = differences({"layers": ours}, {"layers": theirs})
        raise MismatchError(f"{address}: other layers than {space.path} has\n{describe_differences(found)}")


def _keys_of(space: Space, commits: Sequence[Commit]) -> set[object]:
    """Return what records of these commits are known by: their keys, those of attempts with phase and sample.

    A part without records holds a head, of which a space needs one.
    """
    parts = [commit for commit in commits if commit.part is not None]
    if space.kind in OF_ARRAYS:
        opened = (Part(space, commit, part_layout(space, commit)) for commit in parts)
        return {key for part in opened for key in (part.keys if part.layout.has_records else [HEAD])}
    store = RationaleStore(space)
    return {attempt.name for commit in parts for attempt in store.read_part(commit)}


def _move(staged: Space, commit: Commit, space: Space) -> None:
    """Let a part that was judged become one of the space, under a fresh name."""
    part = space.new_part()
    try:
        os.utime(staged.part_path(commit))  # it is new here, whatever the time of its files
        staged.part_path(commit).rename(part)
        space.commit(part, counts=commit.counts, dropped=commit.dropped, note=commit.note)
    except BaseException:
        if part.name not in {found.part for found in space.commits()}:
            shutil.rmtree(part, ignore_errors=True)  # the error that is on its way says what is wrong
        raise
