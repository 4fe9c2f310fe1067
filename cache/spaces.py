"""Spaces: one folder for everything that was computed under one spec. Parts enter, committed parts leave.

    <store>/<kind>/<slug>-<first 16 digits of the fingerprint>/
        spec.json               what the fingerprint was made of
        parts/<index>-<random>/ files of one part; anybody's leftovers too, until they are committed
        commits/<index>.json    one file per committed part

Any number of processes write at the same time without locks: a part has a name of its own, and a commit is created
exclusively under the next free index. Readers see what is committed, and nothing else.
"""

import json
import os
import re
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from cache.certificates import NOTE, Certificate, add_up, read_certificate
from cache.commits import VERIFY, Commit, FileEntry, decode_commit, encode_commit, is_torn, reason_of
from cache.durable import (
    DISK_FULL,
    create_exclusively,
    errors_name,
    make_folder,
    replace_file,
    sync_file,
    sync_folder,
)
from cache.fingerprints import (
    JSON,
    SCHEMA_VERSION,
    Difference,
    Spec,
    canonical,
    check_schema,
    describe_differences,
    differences,
    fingerprint,
    hash_file,
)
from data.errors import ConfigError, DamagedCacheError, MismatchError

Kind = Literal["rationales", "attention", "soft-labels"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OF_ARRAYS: frozenset[Kind] = frozenset({"attention", "soft-labels"})
"""Those whose parts are zarr groups of records (`cache.layout`); a part of rationales is one Parquet file."""
SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SPEC_FILE = "spec.json"
LOOKS = 5
"""How often the commits are looked at anew because one went away meanwhile."""
COMMIT_NAME = re.compile(r"(\d{8,})\.json")
NAMED_FOR = re.compile(r".+-([0-9a-f]{16})")
"""Names of folders that say which fingerprint the space in them has."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """An open space; `spec` is what its spec.json says."""

    path: Path
    kind: Kind
    slug: str
    spec: Spec

    @classmethod
    def open_or_create(cls, store: Path, kind: Kind, slug: str, spec: Spec) -> "Space":
        """Open the space of this spec below `store`, made anew where there is none.

        Raises `MismatchError` with field, ours and theirs when the folder was made with another spec.
        """
        if not SLUG.fullmatch(slug):
            raise ConfigError(f"a space cannot be called {slug!r}: letters, digits, '.', '_' and '-' only, 100 at most")
        wanted = cls(path=space_path(store, kind, slug, spec), kind=kind, slug=slug, spec=_as_stored(spec))
        spec_file = wanted.path / SPEC_FILE
        if not spec_file.exists():
            wanted._create()
        # Where there are no hard links it may be somebody else's, who is writing it now: then both write the same.
        if is_torn(spec_file.read_bytes()):
            replace_file(spec_file, wanted._encode_spec())
        found = cls.open(wanted.path, expected=wanted.spec)
        found._make_folders()  # of an empty space, tools that copy files only leave nothing but spec.json
        return found

    @classmethod
    def open(cls, path: str | Path, *, expected: Spec | None = None) -> "Space":
        """Open an existing space whose spec.json proves itself.

        Raises `MismatchError` with field, ours and theirs for another version of the schema, for a folder that is named
        for another fingerprint and, with `expected`, where the spec differs; `DamagedCacheError` where the spec does
        not have the fingerprint beside it.
        """
        space = read_spec(Path(path), expected=expected)
        check_named_for(space.path.resolve().name, space.spec, space.path)
        return space

    @property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the spec."""
        return fingerprint(self.spec)

    def commits(self) -> list[Commit]:
        """Return all commits in order; an empty file, which a crash leaves without hard links, is none."""
        for _ in range(LOOKS):
            with suppress(FileNotFoundError):  # withdrawn by a repair since it was listed; what replaces it is there
                return list(self._commits())
        raise DamagedCacheError(f"{self.path / 'commits'}: lists commits that are not there; {VERIFY}")

    def _commits(self) -> Iterator[Commit]:
        if self._lost_its_commits():
            raise DamagedCacheError(f"{self.path / 'commits'}: missing, while parts/ is not empty; {VERIFY}")
        for index, path in self.commit_files():
            content = path.read_bytes()
            if not is_torn(content):
                yield decode_commit(content, index=index, path=path)

    def commit_files(self) -> list[tuple[int, Path]]:
        """Return index and path of every file that has the name of a commit, whatever is in it."""
        named = ((COMMIT_NAME.fullmatch(path.name), path) for path in children(self.path / "commits"))
        return sorted((int(match[1]), path) for match, path in named if match)

    def part_folders(self) -> list[Path]:
        """Return the folders of all parts, committed or not."""
        return [path for path in children(self.path / "parts") if path.is_dir()]

    def _next_index(self) -> int:
        return max((index for index, _ in self.commit_files()), default=-1) + 1

    def new_part(self) -> Path:
        """Make a folder below parts/ for one part, under a name that nobody else has."""
        path = self.path / "parts" / f"{self._next_index():08d}-{secrets.token_hex(6)}"
        path.mkdir()
        return path

    @contextmanager
    def filling_part(self) -> Iterator[Path]:
        """Give a new part to write into, and remove it when writing fails, so that a full disk gets its space back."""
        path = self.new_part()
        try:
            with errors_name(self.path):  # libraries often do not say which file did not fit
                yield path
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)  # the error that is on its way says what is wrong
            raise

    def part_path(self, commit: Commit) -> Path:
        """Return the folder of a commit that has a part."""
        assert commit.part is not None, "a commit of dropped records only has no part"
        return self.path / "parts" / commit.part

    def commit(
        self,
        part: Path | None,
        *,
        counts: Mapping[str, int],
        dropped: Mapping[str, str] | None = None,
        note: Mapping[str, JSON] | None = None,
    ) -> Commit:
        """Make a finished part visible to readers, durably; None where all records were dropped.

        `counts` needs `records`. Nothing may write into the part any more.
        """
        assert "records" in counts, f"counts without records: {counts}"
        with self._giving_space_back(part):
            files = {} if part is None else _sync_part(part)
            commit = Commit(
                index=self._next_index(),
                part=None if part is None else part.name,
                counts=dict(counts),
                dropped=dict(dropped or {}),
                files=files,
                note=dict(note or {}),
            )
            return self.publish(commit)

    @contextmanager
    def _giving_space_back(self, part: Path | None) -> Iterator[None]:
        """Remove a part that a full disk kept from being committed, unless its commit is there after all."""
        try:
            yield
        except OSError as error:
            if part is not None and error.errno in DISK_FULL and not self._is_committed(part):
                shutil.rmtree(part, ignore_errors=True)  # the error that is on its way says what is wrong
            raise

    def _is_committed(self, part: Path) -> bool:
        return any(part.name.encode() in path.read_bytes() for _, path in self.commit_files())

    def publish(self, commit: Commit) -> Commit:
        """Create a commit record under the first index from `commit.index` on that is free."""
        content = encode_commit(commit)
        while True:
            try:
                create_exclusively(self.path / "commits" / f"{commit.index:08d}.json", content)
            except FileExistsError:
                commit = replace(commit, index=commit.index + 1)
            else:
                return commit

    def _lost_its_commits(self) -> bool:
        return not (self.path / "commits").is_dir() and bool(children(self.path / "parts"))

    def _make_folders(self) -> None:
        if not self._lost_its_commits():
            for folder in ("parts", "commits"):
                make_folder(self.path / folder)

    def _create(self) -> None:
        self._make_folders()
        with suppress(FileExistsError):  # somebody else made the same space meanwhile; what they wrote is read next
            create_exclusively(self.path / SPEC_FILE, self._encode_spec())

    def _encode_spec(self) -> bytes:
        content = {"kind": self.kind, "slug": self.slug, "fingerprint": self.fingerprint, "spec": self.spec}
        return json.dumps(content, indent=2).encode("ascii") + b"\n"


def space_path(store: Path, kind: Kind, slug: str, spec: Spec) -> Path:
    """Return the folder in which the space of `spec` lies, whether it exists or not."""
    return Path(store) / kind / f"{slug}-{fingerprint(spec)[:16]}"


def is_space(folder: Path) -> bool:
    """Say whether a space lies in `folder`; not yet one is where somebody has made folders and not all of spec.json."""
    spec_file = folder / SPEC_FILE
    return spec_file.is_file() and not is_torn(spec_file.read_bytes())


def space_folders(store: Path, *, kinds: Sequence[Kind] = KINDS) -> list[Path]:
    """Return the folders of all spaces below `store` by kind and name, damaged ones too.

    What somebody has just begun to make, or was killed over, is none yet.
    """
    folders = (folder for kind in kinds for folder in children(Path(store) / kind))
    return [folder for folder in folders if is_space(folder) or _has_content(folder)]


def _has_content(folder: Path) -> bool:
    """Say whether a folder has commits or parts, which a space gets after its spec.json and never before."""
    commits = any(COMMIT_NAME.fullmatch(found.name) for found in children(folder / "commits"))
    return commits or bool(children(folder / "parts"))


def read_spec(path: Path, *, expected: Spec | None = None) -> Space:
    """Return the space in the folder `path` as `Space.open` does, whatever fingerprint its folder is named for."""
    space, declared = _read_spec_file(path)
    intact = declared == space.fingerprint
    if expected is not None and (fields := differences(_as_stored(expected), space.spec)):
        edited = "" if intact else "\n  Its fingerprint does not fit it either: it was changed after it was made."
        raise MismatchError(
            f"{path / SPEC_FILE}: was made with another spec; {VERIFY}\n{describe_differences(fields)}{edited}"
        )
    if not intact:
        raise DamagedCacheError(f"{path / SPEC_FILE}: the spec does not have the fingerprint beside it; {VERIFY}")
    check_schema(space.spec, path / SPEC_FILE)
    return space


def declared_spec(path: Path) -> Spec:
    """Return what spec.json says, even where its fingerprint does not fit it: to show in what it differs."""
    return _read_spec_file(path)[0].spec


def check_named_for(name: str, spec: Spec, where: object) -> None:
    """Raise `MismatchError` where a folder or file is named for another fingerprint than `spec` has."""
    named = NAMED_FOR.fullmatch(name)
    if named and named[1] != (actual := fingerprint(spec)[:16]):
        found = Difference(field="fingerprint", ours=f"{named[1]}… (by the name)", theirs=f"{actual}… ({SPEC_FILE})")
        raise MismatchError(
            f"{where}: named for another space than lies there; {VERIFY}\n{describe_differences([found])}"
        )


def check_files(space: Space, commit: Commit, *, below: str = "") -> None:
    """Raise `DamagedCacheError` for the first file of a part that is missing or has another size than committed.

    This is cheap and catches what zarr does not notice: a deleted shard would read as fill value. With `below`, only
    the files in that folder of the part are looked at.
    """
    folder = os.fspath(space.part_path(commit))
    files = {name: entry for name, entry in commit.files.items() if not below or name.startswith(f"{below}/")}
    for name, entry in files.items():
        path = f"{folder}/{name}"  # there are thousands in a large store, and a Path takes longer than the call
        try:
            found = os.stat(path)  # noqa: PTH116  likewise
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DamagedCacheError(f"{path}: missing, {entry.size} bytes were committed; {VERIFY}") from error
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
            raise DamagedCacheError(f"{path}: {found.st_size} bytes, {entry.size} were committed; {VERIFY}")


def _as_stored(spec: Spec) -> Spec:
    """Return the spec as JSON gives it back: tuples become lists."""
    stored: Spec = json.loads(canonical(spec))
    return stored


def _read_spec_file(path: Path) -> tuple[Space, JSON]:
    """Return the space that spec.json describes, and the fingerprint that stands in it, which may be another one."""
    spec_file = path / SPEC_FILE
    try:
        content = json.loads(spec_file.read_bytes())
        spec, declared = dict(content["spec"]), content["fingerprint"]
        if _is_of_another_schema(spec, declared):  # before anything else: there all of this may be otherwise
            check_schema(spec, spec_file)
        if content["kind"] not in KINDS:
            raise ValueError(f"kind {content['kind']!r}")
        if not SLUG.fullmatch(content["slug"]):
            raise ValueError(f"slug {content['slug']!r}")
        space = Space(path=path, kind=content["kind"], slug=content["slug"], spec=spec)
        named = f"-{space.fingerprint[:16]}"
        if path.name.endswith(named) and path.name != space.slug + named:  # a folder may have been renamed altogether
            raise ValueError(f"slug {space.slug!r}, while the folder is called {path.name}")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _no_spec_file(path) from error
    except MismatchError:  # a ValueError as well
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedCacheError(f"{spec_file}: not a description of a space ({error}); {VERIFY}") from error
    return space, declared


def _is_of_another_schema(spec: Spec, declared: JSON) -> bool:
    """Say whether a spec says so, and not because of a flipped bit; raises `ValueError` for NaN, which no JSON has."""
    ours = fingerprint({**spec, "schema": SCHEMA_VERSION})
    return "schema" in spec and spec["schema"] != SCHEMA_VERSION and ours != declared


def _no_spec_file(path: Path) -> ConfigError | DamagedCacheError:
    if _has_content(path):
        return DamagedCacheError(
            f"{path / SPEC_FILE}: missing, while there are parts or commits; the next run with the configuration that "
            "the space was made with writes it anew"
        )
    return ConfigError(f"{path}: not a space of a store, it has no {SPEC_FILE}; see `molsaki cache ls`")


def _sync_part(part: Path) -> dict[str, FileEntry]:
    """Bring a part's files and folders to disk and return what they are."""
    files = files_of_part(part)
    for name in files:
        sync_file(part / name)
    for folder in (*sorted((path for path in part.rglob("*") if path.is_dir()), reverse=True), part, part.parent):
        sync_folder(folder)
    return files


def files_of_part(part: Path) -> dict[str, FileEntry]:
    """Return what a commit says of the files in a folder."""
    files = {path.relative_to(part).as_posix(): path for path in sorted(part.rglob("*")) if path.is_file()}
    return {name: FileEntry(size=path.stat().st_size, sha256=hash_file(path)) for name, path in files.items()}


def children(folder: Path) -> list[Path]:
    """Return what lies in a folder, by name; nothing where there is none."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


@dataclass(frozen=True, kw_only=True)
class SpaceSummary:
    """One line about a space. `records` adds up all parts, so that what two jobs computed at once counts twice."""

    path: Path
    kind: Kind
    slug: str
    fingerprint: str
    records: int
    dropped: int
    parts: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class SpaceDescription:
    """Everything about a space that can be said without decoding it.

    `drop_reasons` counts records by the reason for which they were left out, most frequent first. `uncommitted_parts`
    are leftovers of crashes, or parts that somebody is writing now. `notes` are the different ones among the commits,
    but for `certificates`: what storing has changed, measured when the records were written and added up over all parts
    that say so.
    """

    summary: SpaceSummary
    spec: Spec
    drop_reasons: Mapping[str, int]
    uncommitted_parts: tuple[str, ...]
    notes: tuple[Mapping[str, JSON], ...]
    certificates: tuple[Certificate, ...]


@dataclass(frozen=True, kw_only=True)
class UnreadableSpace:
    """One line about a space that does not open: `problem` says why; without `damaged` it is of another version."""

    path: Path
    kind: Kind
    problem: str
    damaged: bool


def list_spaces(store: Path, *, kinds: Sequence[Kind] = KINDS) -> list[SpaceSummary | UnreadableSpace]:
    """Return one line about each space below `store`, by kind and name; none where there is no store yet.

    One that cannot be opened does not keep the others from being listed.
    """
    return [_line_about(kind, folder) for kind in kinds for folder in space_folders(store, kinds=[kind])]


def _line_about(kind: Kind, folder: Path) -> SpaceSummary | UnreadableSpace:
    try:
        space = Space.open(folder)
        return summarise(space, space.commits())
    except (DamagedCacheError, MismatchError) as error:
        problem = reason_of(error, folder).replace(f"{folder}/", "")
        return UnreadableSpace(path=folder, kind=kind, problem=problem, damaged=isinstance(error, DamagedCacheError))


def describe(space: Space) -> SpaceDescription:
    """Return what `molsaki cache show` tells about a space."""
    commits = space.commits()
    committed = {commit.part for commit in commits}
    return SpaceDescription(
        summary=summarise(space, commits),
        spec=space.spec,
        drop_reasons=dict(Counter(dropped_records(commits).values()).most_common()),
        uncommitted_parts=tuple(path.name for path in children(space.path / "parts") if path.name not in committed),
        notes=_distinct_notes(commits),
        certificates=tuple(add_up(_certificates(space, commits))),
    )


def layers_of(commits: Iterable[Commit]) -> list[int]:
    """Return the numbers of layers of parts, each once; more than one is more than a reader can open."""
    return sorted({commit.counts["layers"] for commit in commits if "layers" in commit.counts})


def dropped_records(commits: Sequence[Commit]) -> dict[str, str]:
    """Return the reason for each record that was left out; the earliest one of a record stands."""
    reasons: dict[str, str] = {}
    for commit in reversed(commits):
        reasons.update(commit.dropped)
    return reasons


def summarise(space: Space, commits: Sequence[Commit]) -> SpaceSummary:
    """Return one line about a space with these commits."""
    return SpaceSummary(
        path=space.path,
        kind=space.kind,
        slug=space.slug,
        fingerprint=space.fingerprint,
        records=sum(commit.counts["records"] for commit in commits),
        dropped=len(dropped_records(commits)),
        parts=sum(commit.part is not None for commit in commits),
        bytes=sum(commit.bytes for commit in commits),
    )


def _distinct_notes(commits: Sequence[Commit]) -> tuple[Mapping[str, JSON], ...]:
    without = [{name: value for name, value in commit.note.items() if name != NOTE} for commit in commits]
    return tuple(note for note in {canonical(note): note for note in without}.values() if note)


def _certificates(space: Space, commits: Sequence[Commit]) -> Iterator[Certificate]:
    """Yield the certificates of parts that hold just the records that were measured.

    What repair or a choice of records has left of a part carries the note of the whole.
    """
    for commit in commits:
        if commit.part is not None and NOTE in commit.note:
            try:
                certificate = read_certificate(commit.note[NOTE])
            except ValueError as error:
                raise DamagedCacheError(
                    f"{space.path}: commit {commit.index}: note.{NOTE} is no certificate ({error}); {VERIFY}"
                ) from error
            if certificate.records == commit.counts["records"]:
                yield certificate


def default_store() -> Path:
    """The folder for both stores in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "molsaki"
