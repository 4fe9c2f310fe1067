"""Handing a space on: a space enters; files at an address leave that are the space as it lies in the store, and a card.

Only committed parts are exported. Files are written in an order that makes every unfinished state safe: a part before
the commit that names it, and spec.json last, without which nobody takes the place for a space. Where the place holds a
whole export already and gets what is new, the card comes last. The same export goes on where it was interrupted, also
one of chosen records: names and bytes follow from the records.

The card, README.md as `card.jinja` has it, is for somebody who has found the files and nothing else. The lines between
`---` are read by the Hugging Face hub. The licence is for whoever hands the records on to state: it depends on the
teacher and on the questions.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cache.commits import VERIFY, Commit
from cache.exchange.addresses import is_tar, shown
from cache.exchange.chosen import select
from cache.exchange.incoming import MAX_SPEC_BYTES, check_address
from cache.exchange.locations import (
    README_FILE,
    Folder,
    Source,
    Target,
    check_writable,
    exists,
    open_source,
    open_target,
)
from cache.exchange.metering import Meter, Unmetered
from cache.exchange.strict_json import load_strictly
from cache.fingerprints import JSON, describe_differences, differences, hash_blocks, hash_file
from cache.gc import EXPORT_PREFIX
from cache.spaces import OF_ARRAYS, SPEC_FILE, Kind, Space, describe, layers_of, summarise
from data.errors import ConfigError, DamagedCacheError, MismatchError

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
TEMPLATE = Path(__file__).with_name("card.jinja")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export holds, and how many of its files were written this time."""

    target: str
    kind: Kind
    fingerprint: str
    records: int
    parts: int
    files: int
    written: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class _File:
    """One file of an export: its name there, where its content lies, and what that has to be."""

    name: str
    path: Path
    size: int
    sha256: str


def export_space(
    space: Space, address: str, *, keys: Sequence[str] | None = None, meter: Meter | None = None
) -> Exported:
    """Write a space, or the records of `keys` alone, to a folder, a .tar file, or an fsspec address.

    Every file is compared with the hash of its commit before it is written: `DamagedCacheError`. A place that holds
    something else is refused: `MismatchError` for another space, `ConfigError` for other files.
    """
    meter = meter or Unmetered()
    check_writable(address)
    check_address(shown(address), space.spec)
    if keys is None:
        return _export(space, address, meter)
    with tempfile.TemporaryDirectory(prefix=EXPORT_PREFIX) as folder:
        return _export(select(space, keys, Path(folder)), address, meter)


def _export(space: Space, address: str, meter: Meter) -> Exported:
    with tempfile.TemporaryDirectory(prefix=EXPORT_PREFIX) as folder:
        card = Path(folder) / README_FILE
        card.write_text(_card(space), encoding="utf-8")
        commits = space.commits()
        summary = summarise(space, commits)
        files = [_file(README_FILE, card), *_files_of(space, commits), _file(SPEC_FILE, space.path / SPEC_FILE)]
        written = _write_missing(space, files, address, meter)
    return Exported(
        target=shown(address),
        kind=summary.kind,
        fingerprint=summary.fingerprint,
        records=summary.records,
        parts=summary.parts,
        files=len(files),
        written=written,
        bytes=sum(file.size for file in files),
    )


def _file(name: str, path: Path) -> _File:
    return _File(name=name, path=path, size=path.stat().st_size, sha256=hash_file(path))


def _files_of(space: Space, commits: Sequence[Commit]) -> Iterator[_File]:
    """Yield the files of each part, and then its commit."""
    names = dict(space.commit_files())
    for commit in commits:
        for name, entry in commit.files.items():
            path = space.part_path(commit) / name
            yield _File(name=f"parts/{commit.part}/{name}", path=path, size=entry.size, sha256=entry.sha256)
        yield _file(f"commits/{names[commit.index].name}", names[commit.index])


def _write_missing(space: Space, files: Sequence[_File], address: str, meter: Meter) -> int:
    """Write what is not at the address yet; returns the number of files."""
    if is_tar(address) and exists(address):
        with _open_tar_file(address) as source:
            there, _ = _already_there(space, files, source)
        if len(there) == len(files):
            return 0
    with open_target(address) as target:
        there, whole = _already_there(space, files, target) if isinstance(target, Folder) else (set(), False)
        missing = [file for file in files if file.name not in there]
        if whole:  # its card tells of the records that are there until all that is new has come
            missing.sort(key=lambda file: file.name == README_FILE)
        meter.start("exported bytes", sum(file.size for file in missing))
        for file in missing:
            _write(file, target)
            meter.advance(file.size)
    return len(missing)


@contextmanager
def _open_tar_file(address: str) -> Iterator[Source]:
    """Open a tar file that an export would replace; one that is none may be of anybody's."""
    try:
        with open_source(address) as source:
            yield source
    except DamagedCacheError as error:
        raise ConfigError(
            f"{error}; an export was cut off there, or it is something else: remove it, and export again"
        ) from error


def _write(file: _File, target: Target) -> None:
    if not file.path.is_file():
        raise DamagedCacheError(f"{file.path}: missing, {file.size} bytes were committed; {VERIFY}")
    if file.path.stat().st_size != file.size or hash_file(file.path) != file.sha256:
        raise DamagedCacheError(
            f"{file.path}: the content is not what was committed; nothing of it is exported; {VERIFY}"
        )
    target.write(file.name, file.path)


def _already_there(space: Space, files: Sequence[_File], source: Source) -> tuple[set[str], bool]:
    """Return which files of an export a place holds, and whether an earlier export has come to its end there.

    Raises where anything else is in the way.
    """
    sizes, ours = source.sizes(), {file.name: file for file in files}
    same = {name for name, size in sizes.items() if name in ours and _is_same(source, ours[name], size)}
    begun = {name for name in sizes.keys() & ours.keys() - same if _is_cut_off(source, ours[name], sizes[name])}
    whole = SPEC_FILE in sizes and SPEC_FILE not in begun
    if whole and SPEC_FILE not in same:
        _refuse_other_space(space, source, sizes[SPEC_FILE])
    for name in sizes.keys() - same - begun:
        if name == README_FILE:
            _refuse_other_card(space, source, sizes[name], whole=whole)
        elif (name not in ours and name != ".gitattributes") or name.startswith("commits/"):
            raise ConfigError(f"{source.address}: holds {name}, which is not of this export; {_way_out(source, whole)}")
    return same, whole


def _way_out(source: Source, whole: bool) -> str:
    if whole:
        return f"name an empty place, or take in what is there with `molsaki cache import {source.address}` first"
    return (
        f"no export has come to its end there ({SPEC_FILE} is missing), and this one cannot go on with what one of "
        "other records may have left: name an empty place, or remove it"
    )


def _is_same(source: Source, file: _File, size: int) -> bool:
    return size == file.size and hash_blocks(source.chunks(file.name, size)) == file.sha256


def _is_cut_off(source: Source, file: _File, size: int) -> bool:
    """Say whether the place holds the beginning of a small file, as one that does not write at once may be left."""
    if file.name.startswith("parts/") or size >= file.size:
        return False
    return file.path.read_bytes().startswith(b"".join(source.chunks(file.name, size)))


def _refuse_other_space(space: Space, source: Source, size: int) -> None:
    content = b"".join(source.chunks(SPEC_FILE, min(size, MAX_SPEC_BYTES)))
    try:
        found = load_strictly(content)
    except ValueError as error:
        raise ConfigError(f"{source.address}: holds a {SPEC_FILE} that is none ({error})") from error
    theirs = found.get("spec") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(theirs, dict):
        raise ConfigError(f"{source.address}: holds a {SPEC_FILE} of something else; name an empty place")
    if wrong := differences({"kind": space.kind, **space.spec}, {"kind": found.get("kind"), **theirs}):
        raise MismatchError(f"{source.address}: holds another space\n{describe_differences(wrong)}")


def _refuse_other_card(space: Space, source: Source, size: int, *, whole: bool) -> None:
    """An earlier card of ours is written anew; somebody's own README.md is not."""
    content = b"".join(source.chunks(README_FILE, min(size, MAX_SPEC_BYTES)))
    if not whole and space.fingerprint.encode() not in content:
        raise ConfigError(
            f"{source.address}: holds a {README_FILE} that no export of this space has written; name an empty place"
        )


def _card(space: Space) -> str:
    """Return README.md for an exported space."""
    from jinja2 import Environment, StrictUndefined  # who exports nothing needs none of it

    summary = describe(space).summary
    layers = ", ".join(map(str, layers_of(space.commits())))
    facts: Mapping[str, str] = {
        "kind": space.kind,
        "fingerprint": f"`{space.fingerprint}`",
        **{name: _cell(space.spec[name]) for name in ("model", "dtype") if name in space.spec},
        "records" if space.kind in OF_ARRAYS else "attempts": f"{summary.records:,} in {summary.parts:,} parts",
        "left out": f"{summary.dropped:,}, each with its reason in `commits/`",
        **({"layers": layers} if layers else {}),
        "size": f"{summary.bytes:,} bytes",
    }
    markdown = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701  Markdown
    return markdown.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=json.dumps(f"{space.slug}: {space.kind} of a teacher"),
        name=space.slug,
        kind=space.kind,
        size=next((size for limit, size in SIZES if summary.records < limit), "n>1M"),
        facts=facts,
        spec=json.dumps(space.spec, indent=1, ensure_ascii=False).replace("```", "'''"),
    )


def _cell(value: JSON) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{text}`".replace("|", "\\|").replace("\n", " ")
