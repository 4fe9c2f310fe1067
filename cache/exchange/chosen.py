"""Records chosen by their keys: a list of keys and a space enter, a space of the same spec that holds no others leaves.

It is written through the ordinary writers, and the names of its parts follow from what is in them, so that the same
choice is the same export and goes on where it was interrupted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from cache.commits import encode_commit
from cache.fingerprints import fingerprint
from cache.keys import KEY
from cache.layout import MAX_RECORDS
from cache.rationales import RationaleStore
from cache.reader import AttentionStore
from cache.soft_labels.reader import SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Space
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import DataError, MissingRecordsError

Item = TypeVar("Item")
MOST_BYTES = 1 << 29
"""Soft labels that are in memory at a time, and lie in one part."""


def read_keys(path: Path) -> list[str]:
    """Return the record keys in a file, one a line; empty lines and those that begin with # are left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of keys ({error})") from error
    keys = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    for number, key in keys:
        if not KEY.fullmatch(key):
            raise DataError(f"{path}: line {number}: expected a key of 64 hex digits, found {key!r}")
    if not keys:
        raise DataError(f"{path}: no key in it")
    return list(dict.fromkeys(key for _, key in keys))


def select(space: Space, keys: Sequence[str], folder: Path) -> Space:
    """Write the records of `keys` into a space of the same spec below `folder`."""
    chosen = Space.open_or_create(folder, space.kind, space.slug, space.spec)
    copy = {"rationales": _select_attempts, "attention": _select_records, "soft-labels": _select_soft_labels}
    copy[space.kind](space, keys, chosen)
    _name_by_content(chosen)
    return chosen


def _name_by_content(space: Space) -> None:
    """Let the names of parts follow from what is in them, so that the same choice of records is the same export."""
    names = dict(space.commit_files())
    for commit in space.commits():
        hashes = {name: entry.sha256 for name, entry in commit.files.items()}
        named = replace(commit, part=f"{commit.index:08d}-{fingerprint(hashes)[:12]}")
        space.part_path(commit).rename(space.part_path(named))
        names[commit.index].write_bytes(encode_commit(named))


def _select_records(space: Space, keys: Sequence[str], chosen: Space) -> None:
    store = AttentionStore(space)
    writer = AttentionWriter(chosen)
    for batch in _batches(keys):
        blocks = list(_blocks(store, batch))
        for told in (True, False):  # the records of one part tell of all that their steps look at, or none of them
            if alike := [block for block in blocks if (block.receivers is not None) is told]:
                writer.append(alike)


def _select_soft_labels(space: Space, keys: Sequence[str], chosen: Space) -> None:
    """Write the rows of chosen records, with the head that belongs to all of them."""
    store, writer = SoftLabelStore(space), SoftLabelWriter(chosen)
    if store.has_head:
        writer.append_head(*store.head())
    for batch in _batches(keys):
        for some in store.within(batch, MOST_BYTES):
            writer.append(store.read(some))


def _blocks(store: AttentionStore, keys: Sequence[str]) -> Iterator[AttentionBlock]:
    for key, attention, totals in zip(keys, store.read(keys), store.read_totals(keys), strict=True):
        yield AttentionBlock(
            key=key,
            marked=store.marked(key),
            attention=attention,
            step_tokens=store.step_tokens(key),
            receivers=None if totals is None else totals.receivers(),
        )


def _select_attempts(space: Space, keys: Sequence[str], chosen: Space) -> None:
    """Write the attempts at chosen questions, and what was asked about the key words of their rationales."""
    wanted = set(keys)
    stored = RationaleStore(space).attempts().values()
    texts = {(each.question, each.rationale) for each in stored if each.key in wanted and each.rationale}
    attempts = [
        each
        for each in stored
        if each.key in wanted or (each.phase == "keywords" and (each.question, each.rationale) in texts)
    ]
    if missing := sorted(wanted - {attempt.key for attempt in attempts}):
        raise MissingRecordsError(
            f"{space.path}: {len(missing)} of {len(wanted)} questions are not stored, the first is {missing[0]}"
        )
    for batch in _batches(attempts):
        RationaleStore(chosen).append(batch)


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + MAX_RECORDS] for start in range(0, len(items), MAX_RECORDS))
