"""Repairing a space: what is damaged in it enters; what is sound is kept, the rest is left to the next run.

No file of a part is changed, for readers may have it open. For each damaged commit the records of its part that a deep
look finds sound are written into a new part and committed, with the records that were dropped on purpose. Only then is
the damaged commit withdrawn: its file moves to `withdrawn/` and counts no longer. A crash in between leaves both, which
is harmless: a record may lie in two parts, and repairing again withdraws what is left. The new commit has a higher
number than the old one, so that no number is ever given twice. The old part stays until `molsaki cache gc`, for readers
that have it open.

A commit file that proves nothing does not tell what was committed. Then every part that no commit names is looked at,
and its sound records are kept: a checksum on every chunk and a key over every text prove them by themselves.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cache.chunked import write_arrays
from cache.commits import Commit
from cache.durable import make_folder, sync_folder
from cache.fingerprints import hash_bytes
from cache.layout import counts_of
from cache.parts.examine import Examined
from cache.spaces import OF_ARRAYS, SPEC_FILE, Space
from cache.verify import (
    CommitLook,
    Finding,
    look_at_all,
    look_at_commit,
    look_at_uncommitted,
    open_damaged,
    other_layers,
    uncommitted_parts,
)

WITHDRAWN = "withdrawn"


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What became of one damaged file: its records that were `kept`, and those the next run has to compute again.

    `recompute` is None where nobody knows how many records there were.
    """

    file: str
    part: str | None
    kept: int
    recompute: int | None


@dataclass(frozen=True, kw_only=True)
class _Survey:
    """What a deep look at all commits gave; `sound` are the keys in parts that nothing is wrong with."""

    damaged: Sequence[CommitLook]
    sound: Collection[str]
    strange: Collection[str | None]
    """Parts of another number of layers: nothing in them belongs here."""


def repair(folder: Path, *, advance: Callable[[], object] = lambda: None) -> list[Repair]:
    """Keep what is sound in the space at `folder` and withdraw what is not; `advance` is called after each commit.

    Raises `OSError` where nothing can be written; what is done by then stays, and nothing sound is lost.
    """
    space, findings = open_damaged(folder)
    lost_commits = any(finding.file == "commits" for finding in findings)
    for name in ("parts", "commits"):
        make_folder(space.path / name)
    survey = look_through(space, advance)
    return [
        *_repair_unreadable(space, survey, lost_commits=lost_commits),
        *_repair_parts(space, survey),
        *_repair_spec(space, findings),
    ]


def look_through(space: Space, advance: Callable[[], object]) -> _Survey:
    """Look deeply at every commit."""
    looks: list[CommitLook] = []
    keys: dict[str | None, tuple[str, ...]] = {}
    for look in look_at_all(space, deep=True):
        if look.commit and look.examined and not look.findings:
            keys[look.commit.part] = look.examined.keys
        looks.append(replace(look, examined=None))  # as in `verify`
        advance()
    strange = {finding.part for finding in other_layers(space, [look.commit for look in looks if look.commit])}
    return _Survey(
        damaged=[look for look in looks if look.findings or (look.commit and look.commit.part in strange)],
        sound={key for part, own in keys.items() if part not in strange for key in own},
        strange=strange,
    )


def _repair_parts(space: Space, survey: _Survey) -> Iterator[Repair]:
    """Write the sound records of damaged parts again, and withdraw their commits."""
    for look in survey.damaged:
        if look.commit is None or not look.path.exists():  # somebody else may repair this space, too
            continue
        again = look_at_commit(space, look.commit.index, look.path, deep=True)
        commit, part = look.commit, look.commit.part
        examined = None if part in survey.strange else again.examined
        kept, lost = _keep_sound(space, commit, examined, survey.sound, records=again.counts.get("records", 0))
        _withdraw(space, look.path)
        yield Repair(file=f"commits/{look.path.name}", part=part, kept=kept, recompute=lost)


def _keep_sound(
    space: Space, commit: Commit, examined: Examined | None, elsewhere: Collection[str], *, records: int
) -> tuple[int, int]:
    """Commit the sound records of a part anew, without those stored elsewhere; return how many were kept, and lost."""
    # In rationales they name attempts that lie in the part itself, and are asked for again with it.
    dropped = commit.dropped if space.kind in OF_ARRAYS else {}
    note = {**commit.note, "repaired": f"{commit.index:08d}"}
    if examined is None or not (examined.keys or _has_something(examined)):
        space.commit(None, counts={"records": 0}, dropped=dropped, note=note)
        return 0, records
    stored = np.array([key in elsewhere for key in examined.keys], dtype=bool)
    chosen = examined.sound & ~stored
    if chosen.any() or not examined.layout.has_records:
        arrays = examined.select(chosen)
        with space.filling_part() as part:
            write_arrays(part, arrays, examined.layout)
        space.commit(part, counts=counts_of(arrays, examined.layout), dropped=dropped, note=note)
    else:
        space.commit(None, counts={"records": 0}, dropped=dropped, note=note)
    kept = int((examined.sound | stored).sum())
    return kept, len(examined.keys) - kept


def _repair_unreadable(space: Space, survey: _Survey, *, lost_commits: bool) -> Iterator[Repair]:
    """Commit what parts without a readable commit prove to hold, and withdraw the commit files that prove nothing."""
    unreadable = [look for look in survey.damaged if look.commit is None and look.path.exists()]
    if not unreadable and not lost_commits:
        return
    contents = [look.content for look in unreadable]
    named = [part for part in space.part_folders() if any(part.name.encode() in content for content in contents)]
    for part in (*named, *uncommitted_parts(space)):
        kept = _recover(space, part, survey.sound, contents)
        yield Repair(file=f"parts/{part.name}", part=part.name, kept=kept, recompute=None)
    space.commit(None, counts={"records": 0}, note={"repaired": [look.path.stem for look in unreadable]})
    for look in unreadable:
        _withdraw(space, look.path)
        yield Repair(file=f"commits/{look.path.name}", part=None, kept=0, recompute=None)


def _recover(space: Space, part: Path, elsewhere: Collection[str], contents: Sequence[bytes]) -> int:
    """Commit the records of a part that prove themselves; return how many."""
    if space.kind == "rationales":
        return _recover_attempts(space, part, contents)
    look = look_at_uncommitted(space, part)
    if look.commit is None or look.examined is None or not _has_something(look.examined):
        return 0
    kept, _ = _keep_sound(space, look.commit, look.examined, elsewhere, records=0)
    return kept


def _has_something(examined: Examined) -> bool:
    """Say whether anything in a part is sound: a record, or a head, which is whole or nothing."""
    return bool(examined.sound.any()) if examined.layout.has_records else examined.is_whole


def _recover_attempts(space: Space, part: Path, contents: Sequence[bytes]) -> int:
    """Parquet has no checksums: the file is what was committed if its hash stands in a commit file."""
    from cache.rationales import FILE, RationaleStore, decode_attempts

    path = part / FILE
    content = path.read_bytes() if path.is_file() else b""
    if not any(hash_bytes(content).encode() in commit for commit in contents):
        return 0
    attempts = decode_attempts(content, path)
    RationaleStore(space).append(attempts)
    return len(attempts)


def _withdraw(space: Space, path: Path) -> None:
    """Move a commit file to `withdrawn/`, durably. Its age begins anew, for `cache gc` counts from then."""
    make_folder(space.path / WITHDRAWN)
    try:
        os.utime(path)
        path.rename(space.path / WITHDRAWN / path.name)
    except FileNotFoundError:
        return  # somebody else repairs this space and was first
    sync_folder(space.path / WITHDRAWN)
    sync_folder(path.parent)


def _repair_spec(space: Space, findings: Sequence[Finding]) -> Iterator[Repair]:
    """Set a damaged spec.json aside: the next run with that configuration finds it absent and writes it anew."""
    path = space.path / SPEC_FILE
    if path.exists() and any(finding.file == SPEC_FILE for finding in findings):
        _withdraw(space, path)
        yield Repair(file=SPEC_FILE, part=None, kept=0, recompute=0)
