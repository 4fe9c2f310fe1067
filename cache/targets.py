"""What training reads again and again, decoded and combined once: an attention store enters, a memory map leaves.

    <store>/targets/<space>-<first 16 digits of the rule's fingerprint>.targets

The layers of each record are combined by a *rule* of the caller's to one matrix or to a few; the result is a few
kilobytes a record that never change. They lie in one file for all records of a space, which every job and data-loader
worker maps, so that they share its memory. The file is derived: one that is damaged, or made from other parts than
those committed now, is made again, and parts that it held already are copied. It appears complete and durable, by a
rename, and is never changed.

Shape letters: L layers, P matrices that a rule makes of them, S steps, K critical words.
"""

import errno
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from cache.durable import appearing, make_folder
from cache.fingerprints import JSON, SCHEMA_VERSION, Spec, canonical, fingerprint
from cache.reader import Attention, AttentionPart, AttentionStore

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
FLOAT = np.dtype("<f4")
ALIGNMENT = 64
MOST_VALUES = 1 << 24
"""Values of attention that are decoded and combined at a time."""
COUNTS = ("records", "cells", "layers", "matrices")
NOT_OURS_TO_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True, kw_only=True, eq=False)
class Combined:
    """The layers of one record combined to `attention` (P, S, K), with each layer's share (L,) of it; float32."""

    attention: Floats
    layer_weights: Floats


Combine = Callable[[Sequence[Attention]], Sequence[Combined]]


@dataclass(frozen=True, kw_only=True)
class _Block:
    """What the file holds of one part: the cells of its records, `matrices` for each record, then its layer weights."""

    part: str
    records: int
    cells: int
    layers: int
    matrices: int

    @property
    def floats(self) -> int:
        return self.matrices * self.cells + self.records * self.layers


class CombinedStore(Mapping[str, Combined]):
    """All records of an attention store, combined; what it gives are views of the memory map."""

    def __init__(self, store: AttentionStore, blocks: Sequence[_Block], floats: Floats) -> None:
        """Serve `floats`, which hold `blocks` in the order of the store's parts."""
        self._store = store
        self._blocks = blocks
        self._floats = floats
        self._starts = [0, *accumulate(block.floats for block in blocks)]

    def __getitem__(self, key: str) -> Combined:
        number, row = self._store.find(key)
        part, block, start = self._store.parts[number], self._blocks[number], self._starts[number]
        first, last = (start + block.matrices * int(part.cell_offset[at]) for at in (row, row + 1))
        weights = start + block.matrices * block.cells + row * block.layers
        shape = block.matrices, int(part.steps[row]), int(part.words[row])
        return Combined(
            attention=self._floats[first:last].reshape(shape),
            layer_weights=self._floats[weights : weights + block.layers],
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._store)

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, key: object) -> bool:
        return key in self._store


def combined(
    store: AttentionStore,
    rule: Spec,
    combine: Combine,
    *,
    matrices: int = 1,
    advance: Callable[[int], None] | None = None,
) -> CombinedStore:
    """Map the combined records of `store`, made by `combine` where the file is not there yet.

    `rule` says what `combine` does: equal rules have to give equal results, `matrices` (P) for each record. `advance`
    hears of records that are done. Where there is no store, or none that may be written to, the file is a nameless
    temporary one. Raises `MissingRecordsError` for a store without records.
    """
    path = targets_path(store, rule)
    head: Spec = {"schema": SCHEMA_VERSION, "space": store.space.fingerprint, "rule": rule}
    layers = store.layers
    blocks = [_block(part, layers, matrices) for part in store.parts]
    found = None if path is None else _File.read(path, head)
    if found is None or found.blocks != blocks:
        with _file_to_fill(path) as file:
            _fill(file, head, blocks, _contents(store, blocks, found, combine, advance))
            found = _File.mapped(file, head)
        assert found is not None and found.blocks == blocks, f"{store.space.path}: targets are not what was written"
    return CombinedStore(store, blocks, found.floats)


def targets_path(store: AttentionStore, rule: Spec) -> Path | None:
    """Return where the combined records of a space lie; None for one outside of a store, such as an export."""
    space = store.space.path
    if space.parent.name != store.space.kind:
        return None
    return space.parent.parent / "targets" / f"{space.name}-{fingerprint(rule)[:16]}.targets"


def _block(part: AttentionPart, layers: int, matrices: int) -> _Block:
    cells = int(part.cell_offset[-1])
    return _Block(part=part.folder.name, records=len(part), cells=cells, layers=layers, matrices=matrices)


@dataclass(frozen=True, kw_only=True, eq=False)
class _File:
    """A file of combined records that has proved itself: a line that says what is in it, then that as one array."""

    blocks: list[_Block]
    floats: Floats

    @classmethod
    def read(cls, path: Path, head: Spec) -> "_File | None":
        """Map the file at `path`; None where there is none, or none that is whole and made as `head` says."""
        try:
            with path.open("rb") as file:
                found = cls.mapped(file, head)
        except FileNotFoundError:
            return None
        if found is None:
            log.warning("%s: damaged or of another kind; it is made again from the store", path)
        return found

    @classmethod
    def mapped(cls, file: IO[bytes], head: Spec) -> "_File | None":
        """Map an open file whose first line, made anew from what is in it, is just the line that it begins with."""
        file.seek(0)
        line = file.readline()
        blocks = _blocks_in(line)
        size = os.fstat(file.fileno()).st_size
        if not blocks or size != len(line) + FLOAT.itemsize * sum(block.floats for block in blocks):
            return None
        # Copy on write: torch wants arrays that it could write to, and nobody's writing may reach the file.
        floats: Floats = np.asarray(np.memmap(file, dtype=FLOAT, mode="c", offset=len(line)))
        sums = [zlib.crc32(content.data) for content in _split(floats, blocks)]
        return cls(blocks=blocks, floats=floats) if line == _line(head, blocks, sums) else None


def _line(head: Spec, blocks: Sequence[_Block], sums: Sequence[int]) -> bytes:
    """The first line: JSON, padded so that the array behind it is aligned; as long for any sums."""
    parts: list[JSON] = [{**asdict(one), "crc32": f"{value:08x}"} for one, value in zip(blocks, sums, strict=True)]
    content = canonical({**head, "parts": parts})
    return content + b" " * (-(len(content) + 1) % ALIGNMENT) + b"\n"


def _blocks_in(line: bytes) -> list[_Block]:
    """The blocks that a first line tells of; none where it is no such line."""
    try:
        found = json.loads(line)["parts"]
        return [_Block(part=str(one["part"]), **{name: int(one[name]) for name in COUNTS}) for one in found]
    except (ValueError, KeyError, TypeError, OverflowError):
        return []


def _split(floats: Floats, blocks: Sequence[_Block]) -> list[Floats]:
    return np.split(floats, list(accumulate(block.floats for block in blocks))[:-1])


def _fill(file: IO[bytes], head: Spec, blocks: Sequence[_Block], contents: Iterator[Floats]) -> None:
    file.write(_line(head, blocks, [0] * len(blocks)))
    sums = []
    for block, content in zip(blocks, contents, strict=True):
        assert content.dtype == FLOAT and content.size == block.floats, f"{content.size} of {block.floats} floats"
        file.write(content.data)
        sums.append(zlib.crc32(content.data))
    file.seek(0)
    file.write(_line(head, blocks, sums))


def _contents(
    store: AttentionStore,
    blocks: Sequence[_Block],
    earlier: _File | None,
    combine: Combine,
    advance: Callable[[int], None] | None,
) -> Iterator[Floats]:
    """Yield what the file holds of each part: as it was before, or combined now."""
    there = {} if earlier is None else dict(zip(earlier.blocks, _split(earlier.floats, earlier.blocks), strict=True))
    for part, block in zip(store.parts, blocks, strict=True):
        yield there[block] if block in there else _combined_part(part, combine)
        if advance is not None:
            advance(block.records)


def _combined_part(part: AttentionPart, combine: Combine) -> Floats:
    found = [one for rows in _slices(part) for one in combine(part.read(rows))]
    cells = [one.attention.reshape(-1) for one in found]
    content: Floats = np.concatenate([*cells, *(one.layer_weights for one in found)]).astype(FLOAT, copy=False)
    return content


def _slices(part: AttentionPart) -> Iterator[range]:
    """Yield the rows of a part in order, so many at a time as have `MOST_VALUES` values, one at least."""
    first = 0
    while first < len(part):
        most = part.cell_offset[first] + MOST_VALUES // part.layers
        last = max(first + 1, int(np.searchsorted(part.cell_offset, most, side="right")) - 1)
        yield range(first, last)
        first = last


@contextmanager
def _file_to_fill(path: Path | None) -> Iterator[IO[bytes]]:
    """Give a file that takes the name `path` once it is full; a nameless one where nothing may be written there."""
    with ExitStack() as stack:
        yield _beside(path, stack) or stack.enter_context(tempfile.TemporaryFile())


def _beside(path: Path | None, stack: ExitStack) -> IO[bytes] | None:
    """Open the file that takes the name `path`; None where nothing may be written there."""
    if path is None:
        return None
    try:
        make_folder(path.parent)
        return stack.enter_context(appearing(path))
    except OSError as error:
        if error.errno not in NOT_OURS_TO_WRITE:
            raise
        log.info("%s: cannot be written (%s); this process keeps a copy of its own", path, error.strerror)
        return None
