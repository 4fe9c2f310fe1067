"""Verifying a space: its folder enters, everything that is wrong in it leaves, as findings. Nothing is changed.

By default every committed file has to have its size and its SHA-256, every commit its checksum, the spec its
fingerprint, and a part of arrays the metadata and counts of its commit. `deep` also decodes all of it and judges each
record (`cache.parts.kinds`). Rationales are few bytes and are decoded always.

Whatever is found, looking goes on: one run names all damage. `look_at_commit` is what `cache.repair` builds on.
"""

import errno
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cache.commits import Commit, FileEntry, decode_commit, is_damage, is_torn, reason_of
from cache.durable import age
from cache.fingerprints import hash_file
from cache.keys import KEY
from cache.layout import METADATA, PartLayout, check_array, committed_metadata, stored_counts
from cache.parts.examine import Examined
from cache.parts.kinds import examine_part, part_layout
from cache.spaces import KINDS, NAMED_FOR, SPEC_FILE, Kind, Space, files_of_part, read_spec
from data.errors import DamagedCacheError

CLAIM_SECONDS = 3600.0
"""How long an empty commit file may be somebody's, who is about to fill it (only where there are no hard links)."""

DEFECT = {errno.EIO, getattr(errno, "EBADMSG", errno.EIO), getattr(errno, "EUCLEAN", errno.EIO)}
"""What a file system answers that finds the medium, or itself, damaged."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    `part` is the folder below `parts/`, None where it is not known or none; `file` is relative to the space. `records`
    counts the records concerned; `keys` are theirs, where they could be read.
    """

    part: str | None
    file: str
    what: str
    records: int
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at, and what was found; `records` and `bytes` are those of readable commits."""

    path: Path
    kind: Kind
    deep: bool
    commits: int
    records: int
    bytes: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class CommitLook:
    """One commit file and its part.

    `commit` is None where the file proves nothing, `content` is what is in it. `counts` are those that the part's
    arrays have room for. `examined` is there after a deep look at arrays.
    """

    path: Path
    content: bytes
    commit: Commit | None
    findings: tuple[Finding, ...]
    counts: Mapping[str, int]
    examined: Examined | None = None


def verify(folder: Path, *, deep: bool = False, advance: Callable[[], object] = lambda: None) -> Verification:
    """Look at everything in the space at `folder`; `advance` is called after each commit."""
    space, findings = open_damaged(folder)
    looks = []
    for look in look_at_all(space, deep=deep):
        looks.append(replace(look, examined=None))  # the arrays of many parts would not fit into memory
        advance()
    commits = [look.commit for look in looks if look.commit]
    return Verification(
        path=space.path,
        kind=space.kind,
        deep=deep,
        commits=len(looks),
        records=sum(commit.counts["records"] for commit in commits),
        bytes=sum(commit.bytes for commit in commits),
        findings=(*findings, *(found for look in looks for found in look.findings), *other_layers(space, commits)),
    )


def commit_count(folder: Path) -> int:
    """Return how many commits there are to look at."""
    return len(open_damaged(folder)[0].commit_files())


def open_damaged(folder: Path) -> tuple[Space, list[Finding]]:
    """Open a space whose spec.json may be damaged, and say what is wrong with it; its folder tells kind and name."""
    wrong: dict[str, str] = {}
    try:
        space = read_spec(folder)
    except DamagedCacheError as error:  # a mismatch is none: of another schema nothing here may be judged or repaired
        kind = next((kind for kind in KINDS if kind == folder.resolve().parent.name), None)
        if kind is None:
            raise
        space = Space(path=folder, kind=kind, slug=folder.name.rpartition("-")[0], spec={})
        wrong[SPEC_FILE] = reason_of(error, folder / SPEC_FILE)
    else:
        name = NAMED_FOR.fullmatch(folder.resolve().name)
        if name and name[1] != space.fingerprint[:16]:
            wrong[SPEC_FILE] = f"its fingerprint begins with {space.fingerprint[:16]}, the folder is that of {name[1]}"
    if not (space.path / "commits").is_dir() and (parts := uncommitted_parts(space)):
        wrong["commits"] = f"missing, while parts/ holds {len(parts)}"
    return space, [Finding(part=None, file=file, what=what, records=0) for file, what in wrong.items()]


def uncommitted_parts(space: Space) -> list[Path]:
    """Return the folders below parts/ whose name stands in no commit file."""
    contents = [path.read_bytes() for _, path in space.commit_files()]
    return [part for part in space.part_folders() if not any(part.name.encode() in content for content in contents)]


def look_at_all(space: Space, *, deep: bool) -> Iterator[CommitLook]:
    """Look at every commit file, whatever is in it, and at what it names."""
    return (look_at_commit(space, index, path, deep=deep) for index, path in space.commit_files())


def look_at_commit(space: Space, index: int, path: Path, *, deep: bool) -> CommitLook:
    """Check one commit file and everything that it names."""
    file = f"commits/{path.name}"
    nothing = CommitLook(path=path, content=b"", commit=None, findings=(), counts={})
    try:
        content = path.read_bytes()
        if is_torn(content):
            return replace(nothing, findings=_of_claim(path, file))
        commit = decode_commit(content, index=index, path=path)
    except FileNotFoundError:
        return nothing  # withdrawn meanwhile
    except OSError as error:
        if error.errno is not None and error.errno not in DEFECT:
            raise
        content = b"" if error.errno is not None else path.read_bytes()
        finding = Finding(part=None, file=file, what=reason_of(error, path), records=0)
        return replace(nothing, content=content, findings=(finding,))
    if commit.part is None:
        return replace(nothing, content=content, commit=commit)
    return replace(look_at_part(space, commit, deep=deep), path=path, content=content)


def _of_claim(path: Path, file: str) -> tuple[Finding, ...]:
    """An empty commit file is what a crash leaves where there are no hard links, or what is left of a commit."""
    if age(path) < CLAIM_SECONDS:
        return ()
    what = "empty: left by a crash where there are no hard links, or emptied since; it counts as absent"
    return (Finding(part=None, file=file, what=what, records=0),)


def look_at_part(space: Space, commit: Commit, *, deep: bool) -> CommitLook:
    """Check the files of a part against its commit, and decode them where that is asked for."""
    folder = space.part_path(commit)
    damaged = {name: found for name, entry in commit.files.items() if (found := _damage(folder / name, entry))}
    # Metadata follow from the counts; data do not.
    broken = {name.partition("/")[0] for name, one in damaged.items() if one.unreadable and "/c/" in name}
    rebuilt = {name.partition("/")[0] for name in damaged if name.endswith(f"/{METADATA}")} - broken
    wrong = {f"parts/{commit.part}/{name}": damage.what for name, damage in damaged.items()}
    look = CommitLook(path=Path(), content=b"", commit=commit, findings=(), counts=commit.counts)
    if space.kind == "rationales":
        if not damaged and (complaint := _attempts_complaint(space, commit)):
            wrong[f"parts/{commit.part}"] = complaint
        return replace(look, findings=_of_part(commit, wrong))
    layout = part_layout(space, commit)
    counts = _counts(space, commit, layout, damaged)
    if differ := [name for name, number in counts.items() if number != commit.counts.get(name)]:
        told = ", ".join(f"{counts[name]} {name}, {commit.counts.get(name)} were committed" for name in differ)
        wrong[f"commits/{commit.index:08d}.json"] = f"the arrays hold {told}"
    complaints = dict(_layout_complaints(space, replace(commit, counts=counts), layout, set(damaged)))
    findings = _of_part(commit, wrong | {f"parts/{commit.part}/{name}": what for name, what in complaints.items()})
    if not deep:
        return replace(look, findings=findings, counts=counts)
    examined = examine_part(space, commit, counts, broken=broken | complaints.keys(), rebuilt=rebuilt)
    findings += tuple(_of_examined(commit, examined, counts["records"]))
    return replace(look, findings=findings, counts=counts, examined=examined)


def _of_part(commit: Commit, wrong: Mapping[str, str]) -> tuple[Finding, ...]:
    records = commit.counts["records"]
    return tuple(Finding(part=commit.part, file=file, what=what, records=records) for file, what in wrong.items())


def _of_examined(commit: Commit, examined: Examined, records: int) -> Iterator[Finding]:
    for fault in examined.faults:
        yield Finding(
            part=commit.part,
            file=f"parts/{commit.part}/{fault.array}",
            what=fault.what,
            records=len(fault.rows) or records,
            keys=tuple(examined.keys[row] for row in fault.rows) if examined.keys else (),
        )


@dataclass(frozen=True, kw_only=True)
class _Damage:
    """Why a file is not what was committed; with `unreadable` nothing in it can be."""

    what: str
    unreadable: bool


def _damage(path: Path, entry: FileEntry) -> _Damage | None:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return _Damage(what="not a file", unreadable=True)
        if status.st_size != entry.size:
            return _Damage(what=f"{status.st_size:,} bytes, {entry.size:,} were committed", unreadable=True)
        if (found := hash_file(path)) != entry.sha256:
            what = f"SHA-256 {found[:16]}…, {entry.sha256[:16]}… was committed"
            return _Damage(what=what, unreadable=False)
    except (FileNotFoundError, NotADirectoryError):
        return _Damage(what=f"missing, {entry.size:,} bytes were committed", unreadable=True)
    except OSError as error:
        if error.errno not in DEFECT:
            raise  # no access, too many files open: that says nothing about the file
        return _Damage(what=f"cannot be read: {error.strerror}", unreadable=True)
    return None


def _counts(space: Space, commit: Commit, layout: PartLayout, damaged: Mapping[str, _Damage]) -> dict[str, int]:
    """Return the counts that the arrays' metadata tell, those of the commit where metadata are damaged."""
    committed = {name: commit.counts.get(name, 0) for name in ("records", *layout.counts)}
    if any(name.endswith(METADATA) for name in damaged):
        return committed
    try:
        return stored_counts(space.part_path(commit), layout)
    except Exception:  # what is no metadata is named, array by array, by _layout_complaints
        return committed


def _layout_complaints(
    space: Space, commit: Commit, layout: PartLayout, damaged: set[str]
) -> Iterator[tuple[str, str]]:
    """Yield the arrays whose metadata are not ours, or that no file of data was committed for."""
    folder = space.part_path(commit)
    if METADATA not in damaged and (
        what := _complaint(partial(committed_metadata, folder, METADATA, commit), folder / METADATA)
    ):
        yield METADATA, what
    for name in layout.present(commit.files):
        if f"{name}/{METADATA}" in damaged:
            continue
        if what := _complaint(partial(check_array, folder, name, commit, layout), folder / name / METADATA):
            yield name, what
        elif not any(file.startswith(f"{name}/c/") for file in commit.files):
            yield name, "no file with its data was committed"


def _complaint(check: Callable[[], object], path: Path) -> str | None:
    try:
        check()
    except OSError as error:  # DamagedCacheError is one
        if not is_damage(error):
            raise
        return reason_of(error, path)
    return None


def _attempts_complaint(space: Space, commit: Commit) -> str | None:
    """Say what is wrong with the attempts in a part of rationales."""
    from cache.rationales import KEPT, RationaleStore

    try:
        attempts = RationaleStore(space).read_part(commit)
    except DamagedCacheError as error:
        return reason_of(error, space.part_path(commit))
    except Exception as error:  # whatever a damaged file makes the library raise
        if not is_damage(error):
            raise
        return f"does not decode ({type(error).__name__}: {error})"
    if bad := [attempt.key for attempt in attempts if not KEY.fullmatch(attempt.key)]:
        return f"{bad[0]!r} is no key of 64 hex digits"
    dropped = {each.label: each.outcome for each in attempts if each.outcome != KEPT}
    kept = sum(attempt.outcome == KEPT for attempt in attempts)
    if kept != commit.counts.get("kept"):
        return f"{kept} attempts were kept, {commit.counts.get('kept')} by the commit"
    return None if dropped == dict(commit.dropped) else "attempts were dropped for other reasons than the commit says"


def other_layers(space: Space, commits: Sequence[Commit]) -> list[Finding]:
    """Find parts with another number of layers than most records of the space have."""
    if space.kind != "attention":
        return []
    layered = [commit for commit in commits if commit.part is not None and "layers" in commit.counts]
    records: Counter[int] = Counter()
    for commit in layered:
        records[commit.counts["layers"]] += commit.counts["records"]
    usual = max(records, key=lambda layers: (records[layers], layers), default=0)
    return [
        Finding(
            part=commit.part,
            file=f"parts/{commit.part}/attention",
            what=f"{commit.counts['layers']} layers, most records of the space have {usual}",
            records=commit.counts["records"],
        )
        for commit in layered
        if commit.counts["layers"] != usual
    ]


def look_at_uncommitted(space: Space, part: Path) -> CommitLook:
    """Take a part of arrays that no readable commit names for what it is on disk, and look at it deeply."""
    commit = Commit(index=0, part=part.name, counts={"records": 0}, dropped={}, files=files_of_part(part), note={})
    counts = _counts(space, commit, part_layout(space, commit), {})
    return look_at_part(space, replace(commit, counts=counts), deep=True)
