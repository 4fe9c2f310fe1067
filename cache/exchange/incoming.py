"""What a place offers to import: files from strangers enter, a space in a staging folder leaves, or one clear refusal.

Nothing is believed. First the small files are judged (spec.json, the commits, the list of names, all sizes and counts);
then the parts are copied, each file bounded by the size that its commit declares and compared with its hash; then what
was copied is judged again before anything decodes it, and after (see `cache.exchange.bounds`). The staging folder is
the only place that is written to, and every name in it has passed the patterns here.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cache.commits import VERIFY, Commit, FileEntry, decode_commit
from cache.durable import make_folder
from cache.exchange.addresses import TAR
from cache.exchange.archive import check_inside
from cache.exchange.bounds import check_counts, check_spec, check_staged
from cache.exchange.locations import README_FILE, Source
from cache.exchange.metering import Meter
from cache.exchange.strict_json import load_strictly
from cache.fingerprints import JSON, Spec, check_schema, describe_differences, differences, fingerprint
from cache.spaces import KINDS, SLUG, SPEC_FILE, Kind, Space, check_named_for, layers_of
from data.errors import ConfigError, DamagedCacheError, MismatchError

BESIDE = frozenset({SPEC_FILE, README_FILE, ".gitattributes"})
"""Files that may lie at the top: the spec, the card, and what the Hugging Face hub adds."""

COMMIT_FILE = re.compile(r"commits/(\d{8,12})\.json")
PART_FILE = re.compile(r"parts/(\d{8,12}-[0-9a-f]{12})/(.+)")
MAX_SPEC_BYTES = 1 << 20
MAX_COMMIT_BYTES = 64 << 20
MAX_SMALL_BYTES = 1 << 30
"""What all commits together may weigh: they are read at once."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A space as a place describes it, after its small files were judged; its parts have not been read yet.

    `commits` are in order, by file name; `content` are the bytes of spec.json and of the commits.
    """

    source: Source
    kind: Kind
    slug: str
    spec: Spec
    commits: Mapping[str, Commit]
    content: Mapping[str, bytes]

    @property
    def bytes(self) -> int:
        """What its parts weigh."""
        return sum(commit.bytes for commit in self.commits.values())


def read_offer(source: Source) -> Offer:
    """Judge everything that can be judged without reading a part.

    Raises `ConfigError` where there is no space, `MismatchError` for another schema, or a fingerprint that is not the
    spec's or not that in the name of the place, and `DamagedCacheError` for all else.
    """
    sizes = source.sizes()
    for name in sizes:
        check_inside(name, source.address)
    if SPEC_FILE not in sizes:
        raise ConfigError(
            f"{source.address}: no {SPEC_FILE} there: no space of a store, or an export that has not been finished; "
            "the same `molsaki cache export` goes on with it"
        )
    content = {SPEC_FILE: _read(source, SPEC_FILE, sizes[SPEC_FILE], MAX_SPEC_BYTES)}
    kind, slug, spec = _judge_spec(content[SPEC_FILE], source.address)
    check_address(source.address, spec)
    space = _judge_rows(Space(path=Path(), kind=kind, slug=slug, spec=spec), source.address)
    named = sorted((int(match[1]), name) for name in sizes if (match := COMMIT_FILE.fullmatch(name)))
    if (total := sum(sizes[name] for _, name in named)) > MAX_SMALL_BYTES:
        raise DamagedCacheError(f"{source.address}: commits of {total:,} bytes, {MAX_SMALL_BYTES:,} at most are taken")
    commits = {}
    for index, name in named:
        content[name] = _read(source, name, sizes[name], MAX_COMMIT_BYTES)
        if content[name] or source.alone:  # a claimed and unfilled one in somebody's store is no commit
            commits[name] = _judge_commit(content[name], space, index=index, name=name, address=source.address)
    _judge_together(commits, source.address)
    _judge_files(commits, sizes, source)
    return Offer(source=source, kind=kind, slug=slug, spec=spec, commits=commits, content=content)


def check_address(address: str, spec: Spec) -> None:
    """Raise `MismatchError` where the last name in an address says that it is for another fingerprint."""
    check_named_for(PurePosixPath(address.removesuffix(TAR)).name, spec, address)


def stage(offer: Offer, folder: Path, meter: Meter) -> Space:
    """Copy an offer with its parts into an empty `folder`, judge what was copied, and return the space there."""
    for below in ("parts", "commits"):
        make_folder(folder / below)
    (folder / SPEC_FILE).write_bytes(offer.content[SPEC_FILE])
    space = Space.open(folder, expected=offer.spec)
    meter.start("copied bytes", offer.bytes)
    for name, commit in offer.commits.items():
        for file, entry in commit.files.items():
            _copy(offer.source, f"parts/{commit.part}/{file}", entry, folder, meter)
        if commit.part is not None:
            with _naming(offer.source.address, folder):
                check_staged(space, commit)
        (folder / name).write_bytes(offer.content[name])
    return space


def _read(source: Source, name: str, size: int, limit: int) -> bytes:
    if size > limit:
        raise DamagedCacheError(f"{source.address}: {name}: {size:,} bytes, {limit:,} at most are taken")
    return b"".join(_blocks(source, name, size))


def _blocks(source: Source, name: str, size: int) -> Iterator[bytes]:
    """Yield a file block by block; raises `DamagedCacheError` where it ends too early."""
    read = 0
    for block in source.chunks(name, size):
        read += len(block)
        yield block
    if read != size:
        raise DamagedCacheError(f"{source.address}: {name}: breaks off after {read:,} of {size:,} bytes")


def _judge_spec(content: bytes, address: str) -> tuple[Kind, str, Spec]:
    where = f"{address}: {SPEC_FILE}"
    try:
        found = load_strictly(content)
    except ValueError as error:
        raise DamagedCacheError(f"{where}: not a description of a space ({error})") from error
    fields: Mapping[str, JSON] = found if isinstance(found, dict) else {}
    kind = next((kind for kind in KINDS if kind == fields.get("kind")), None)
    if kind is None:
        raise DamagedCacheError(f"{where}: kind is {fields.get('kind')!r}, expected {' or '.join(KINDS)}")
    slug, spec = fields.get("slug"), fields.get("spec")
    if not isinstance(slug, str) or not SLUG.fullmatch(slug):
        raise DamagedCacheError(f"{where}: slug is {slug!r}, expected letters, digits, '.', '_' and '-'")
    if not isinstance(spec, dict):
        raise DamagedCacheError(f"{where}: spec is {spec!r}, expected an object")
    check_schema(spec, where)
    if wrong := differences({"fingerprint": fingerprint(spec)}, {"fingerprint": fields.get("fingerprint")}):
        raise MismatchError(
            f"{where}: the fingerprint is not that of the spec beside it\n{describe_differences(wrong)}"
        )
    return kind, slug, spec


def _judge_rows(space: Space, address: str) -> Space:
    try:
        check_spec(space)
    except ValueError as error:
        raise DamagedCacheError(f"{address}: {SPEC_FILE}: {error}") from error
    return space


def _judge_commit(content: bytes, space: Space, *, index: int, name: str, address: str) -> Commit:
    try:
        load_strictly(content)
    except ValueError as error:
        raise DamagedCacheError(f"{address}: {name}: not a commit record ({error})") from error
    with _naming(address):
        commit = decode_commit(content, index=index, path=Path(name))
    try:
        check_counts(space, commit)
    except ValueError as error:
        raise DamagedCacheError(f"{address}: {name}: {error}") from error
    return commit


def _judge_together(commits: Mapping[str, Commit], address: str) -> None:
    """Refuse two commits of one index or one part, and layers that differ: no reader would open such a space."""
    for field in ("index", "part"):
        counted = Counter(getattr(commit, field) for commit in commits.values())
        if twice := [value for value, count in counted.items() if count > 1 and value is not None]:
            raise DamagedCacheError(f"{address}: two commits have the same {field} {twice[0]}")
    if len(layers := layers_of(commits.values())) > 1:
        raise DamagedCacheError(f"{address}: parts of {layers} layers side by side")


def _judge_files(commits: Mapping[str, Commit], sizes: Mapping[str, int], source: Source) -> None:
    """Refuse files that are missing, have another size than declared, or that no commit declares."""
    declared = {
        f"parts/{commit.part}/{file}": entry.size for commit in commits.values() for file, entry in commit.files.items()
    }
    for name, size in declared.items():
        if name not in sizes:
            raise DamagedCacheError(f"{source.address}: {name}: missing, {size:,} bytes were committed")
        if sizes[name] != size:
            raise DamagedCacheError(f"{source.address}: {name}: {sizes[name]:,} bytes, {size:,} were committed")
    parts = {commit.part for commit in commits.values()}
    for name in sizes.keys() - declared.keys() - BESIDE - commits.keys():
        # A folder may hold parts that are being written, and a store's own anything; they are never read.
        match = PART_FILE.fullmatch(name)
        unread = not source.alone if match is None else source.growing and match[1] not in parts
        if not unread:
            raise DamagedCacheError(f"{source.address}: {name}: no commit lists this file")


def _copy(source: Source, name: str, entry: FileEntry, folder: Path, meter: Meter) -> None:
    """Copy one file into the staging folder, no more than declared, and compare it with its hash."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for block in _blocks(source, name, entry.size):
            digest.update(block)
            file.write(block)
            meter.advance(len(block))
    if digest.hexdigest() != entry.sha256:
        raise DamagedCacheError(f"{source.address}: {name}: the content is not what was committed")


@contextmanager
def _naming(address: str, folder: Path | None = None) -> Iterator[None]:
    """Let an error of the cache name the place instead of our copy, and leave out the advice for one's own store."""
    try:
        yield
    except (DamagedCacheError, MismatchError) as error:
        message = str(error).removesuffix(f"; {VERIFY}")
        if folder is not None:
            message = message.replace(f"{folder}/", "")
        raise type(error)(f"{address}: {message}") from error
