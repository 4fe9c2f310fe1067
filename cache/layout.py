"""The layout of parts of arrays: what arrays a part has, and whether a stored one is what its commit declares.

`PartLayout` says it of one kind of part; that of attention is here, those of soft labels in `cache.soft_labels.layout`.
docs/cache-format.md says the same in words, and docs/decisions/0001-attention-parts.md why it is so. Before zarr opens
an array (`cache.chunked`), its metadata are compared with what the commit declares, so that no other format, codec,
type or size than ours is ever decoded. Zarr is not imported here: plans need keys and counts only.

Shape letters: L layers, S steps, K critical words; n records of a part.
"""

import json
import math
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.commits import VERIFY, Commit, damage_at, read_committed
from cache.fingerprints import JSON
from cache.keys import KEY_BYTES
from cache.spaces import Space, check_files
from cache.step_totals import RECEIVERS
from data.errors import DamagedCacheError

Array = npt.NDArray[Any]

MAX_RECORDS = 4096
CHUNK_ROWS = 4096
TEXT_END = b"\xff"
"""Ends every text: no UTF-8 text contains this byte."""

KNOWN_CODECS = frozenset({"bytes", "blosc", "zstd", "crc32c", "sharding_indexed"})
METADATA = "zarr.json"

KEY_SHARD = "c/0/0"
KEY_BLOSC: JSON = {"typesize": 1, "cname": "zstd", "clevel": 3, "shuffle": "bitshuffle", "blocksize": 0}
KEY_SHARD_CODEC: JSON = {
    "chunk_shape": [CHUNK_ROWS, KEY_BYTES],
    "codecs": [{"name": "bytes"}, {"name": "blosc", "configuration": KEY_BLOSC}, {"name": "crc32c"}],
    "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    "index_location": "end",
}
KEY_CODECS: JSON = [{"name": "sharding_indexed", "configuration": KEY_SHARD_CODEC}]
"""What zarr notes of how keys are written here; where it says anything else, zarr reads them."""
CHECKSUM_BYTES = 4
SHARD_END = 16 + CHECKSUM_BYTES
"""The index of a shard with one chunk: where it begins, how long it is, and a checksum."""
BLOSC_HEADER = 16
"""Bytes in which a blosc chunk says, among other things, how large it is and will be."""


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """One array: its type, the names of its dimensions, and how many rows a chunk has.

    Where `chunk_values` is given, a chunk has fewer rows if they are so long that it would hold more values.
    """

    dtype: str
    dimensions: tuple[str, ...]
    chunk_rows: int = CHUNK_ROWS
    chunk_values: int | None = None

    @property
    def fill_value(self) -> float | int:
        """What a missing chunk reads as; never a valid value of an array of floats."""
        return float("nan") if np.dtype(self.dtype).kind == "f" else 0

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape of the array in a part of these sizes."""
        return tuple(sizes[dimension] for dimension in self.dimensions)

    def chunk(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a chunk of an array of this shape."""
        rows = self.chunk_rows
        if self.chunk_values is not None:
            rows = min(rows, max(1, self.chunk_values // max(1, math.prod(shape[1:]))))
        return (rows, *shape[1:])

    def chunks(self, shape: tuple[int, ...]) -> int:
        """Return how many chunks an array of this shape has; the last one is as large as the others."""
        return max(1, -(-shape[0] // self.chunk(shape)[0]))

    def chunk_bytes(self, shape: tuple[int, ...]) -> int:
        """Return how large a decoded chunk of an array of this shape is."""
        return math.prod(self.chunk(shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class PartLayout:
    """The arrays of one kind of part.

    Every part holds `arrays`, and may hold `optional` ones. `counts` is what a commit counts beside `records`: each the
    size of one dimension, that of an array at a place in its shape. `fixed` are dimensions whose size is always the
    same, or which the spec of the space says. `offsets` are arrays that say where each record begins in a dimension.
    """

    arrays: Mapping[str, ArrayLayout]
    counts: Mapping[str, tuple[str, int]]
    fixed: Mapping[str, int]
    optional: Mapping[str, ArrayLayout] = field(default_factory=dict)
    offsets: Mapping[str, str] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, ArrayLayout]:
        """All arrays that a part may hold."""
        return {**self.arrays, **self.optional}

    @property
    def has_records(self) -> bool:
        """Whether its parts hold records, each with a key."""
        return "key" in self.arrays

    def present(self, files: Collection[str]) -> dict[str, ArrayLayout]:
        """Return the arrays of a part with these files: what every part holds, and what this one holds besides."""
        besides = {name for name in self.optional if any(file.startswith(f"{name}/") for file in files)}
        return {name: layout for name, layout in self.all.items() if name in self.arrays or name in besides}

    def sizes(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the size of every dimension of a part with the `counts` of its commit.

        Raises `KeyError` for a count that is missing, and `ValueError` for one that this kind of part never has.
        """
        sizes = {self.all[array].dimensions[place]: counts[name] for name, (array, place) in self.counts.items()}
        if not self.has_records and counts["records"]:
            raise ValueError(f"{counts['records']:,} records in a part without records")
        for dimension, size in self.fixed.items():
            if sizes.setdefault(dimension, size) != size:
                raise ValueError(f"{sizes[dimension]:,} {dimension}, {size:,} by spec.json")
        return {**sizes, "record_edge": counts["records"] + 1}

    def counts_in(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Return the counts that arrays of these shapes have."""
        return {"records": 0, **{name: int(shapes[array][place]) for name, (array, place) in self.counts.items()}}


KEY_ARRAY = ArrayLayout(dtype="uint8", dimensions=("record", "key_byte"))
"""The keys of the records, in every part that has records."""

ARRAYS: Mapping[str, ArrayLayout] = {
    "attention": ArrayLayout(dtype="float16", dimensions=("cell", "layer")),
    "cell_offset": ArrayLayout(dtype="int64", dimensions=("record_edge",)),
    "steps": ArrayLayout(dtype="int16", dimensions=("record",)),
    "words": ArrayLayout(dtype="int16", dimensions=("record",)),
    "step_tokens": ArrayLayout(dtype="int32", dimensions=("step",)),
    "step_spans": ArrayLayout(dtype="int32", dimensions=("step", "span_edge")),
    "word_spans": ArrayLayout(dtype="int32", dimensions=("word", "span_edge")),
    "key": KEY_ARRAY,
    "text": ArrayLayout(dtype="uint8", dimensions=("text_byte",), chunk_rows=65536),
}
"""What every part of attention holds."""

STEP_ATTENTION = "step_attention"
MAY_HOLD: Mapping[str, ArrayLayout] = {
    STEP_ATTENTION: ArrayLayout(dtype="float16", dimensions=("step", "receiver", "layer")),
}
"""What one may hold besides, or not: those of the first versions do not."""
LAYOUTS: Mapping[str, ArrayLayout] = {**ARRAYS, **MAY_HOLD}

ATTENTION = PartLayout(
    arrays=ARRAYS,
    optional=MAY_HOLD,
    counts={
        "cells": ("attention", 0),
        "layers": ("attention", 1),
        "records": ("key", 0),
        "steps": ("step_spans", 0),
        "words": ("word_spans", 0),
        "text_bytes": ("text", 0),
    },
    fixed={"span_edge": 2, "key_byte": KEY_BYTES, "receiver": len(RECEIVERS)},
    offsets={"cell_offset": "cell"},
)


def counts_of(arrays: Mapping[str, Array], of: PartLayout = ATTENTION) -> dict[str, int]:
    """Return the counts that a commit declares of the arrays of its part."""
    return of.counts_in({name: array.shape for name, array in arrays.items()})


def check_part(space: Space, commit: Commit, of: PartLayout) -> None:
    """Raise `DamagedCacheError` unless all files of a part have their sizes and its metadata are what was committed."""
    check_files(space, commit)
    folder = space.part_path(commit)
    committed_metadata(folder, METADATA, commit)
    for name in of.present(commit.files):
        check_array(folder, name, commit, of)


def check_array(folder: Path, name: str, commit: Commit, of: PartLayout) -> None:
    """Raise `DamagedCacheError` unless the metadata of one array are what was committed and fit the counts."""
    try:
        sizes = of.sizes(commit.counts)
    except KeyError as error:
        raise DamagedCacheError(f"{folder}: commit {commit.index} does not count its {error}; {VERIFY}") from error
    except ValueError as error:
        raise DamagedCacheError(f"{folder}: commit {commit.index} counts {error}; {VERIFY}") from error
    path, layout = folder / name / METADATA, of.all[name]
    found = committed_metadata(folder, f"{name}/{METADATA}", commit)
    if unknown := set(_codec_names(found.get("codecs"))) - KNOWN_CODECS:
        raise DamagedCacheError(
            f"{path}: unknown codec {', '.join(sorted(unknown))}; only {', '.join(sorted(KNOWN_CODECS))} are read"
        )
    expected: dict[str, JSON] = {
        "node_type": "array",
        "data_type": layout.dtype,
        "shape": list(layout.shape(sizes)),
        "dimension_names": list(layout.dimensions),
    }
    for declared, value in expected.items():
        if found.get(declared) != value:
            raise DamagedCacheError(f"{path}: {declared} is {found.get(declared)}, expected {value}; {VERIFY}")


def stored_counts(folder: Path, of: PartLayout) -> dict[str, int]:
    """Return the counts of a part as the shapes of its arrays tell them."""
    return of.counts_in({name: json.loads((folder / name / METADATA).read_bytes())["shape"] for name in of.arrays})


def committed_metadata(folder: Path, name: str, commit: Commit) -> dict[str, JSON]:
    """Return a metadata file; raises `DamagedCacheError` unless it is what was committed, and zarr format 3."""
    path = folder / name
    if name not in commit.files:
        raise DamagedCacheError(f"{path}: not among the files of commit {commit.index}, not a zarr v3 part; {VERIFY}")
    content = read_committed(path, commit.files[name])
    try:
        found: dict[str, JSON] = dict(json.loads(content))
    except (ValueError, TypeError) as error:
        raise DamagedCacheError(f"{path}: no zarr metadata ({error}); {VERIFY}") from error
    if found.get("zarr_format") != 3:
        raise DamagedCacheError(f"{path}: zarr format {found.get('zarr_format')}, only format 3 is read")
    return found


def _codec_names(codecs: JSON) -> Iterator[str]:
    """Yield the names of codecs and of those inside of them; what is no list of codecs yields itself."""
    if not isinstance(codecs, list):
        yield repr(codecs)
        return
    for codec in codecs:
        named = codec if isinstance(codec, dict) else {"name": codec}
        yield str(named.get("name"))
        configuration = named.get("configuration")
        for inside in ("codecs", "index_codecs"):
            if isinstance(configuration, dict) and inside in configuration:
                yield from _codec_names(configuration[inside])


def read_keys(folder: Path, commit: Commit) -> Array | None:
    """Return the keys of a part (n, 32) without zarr; None where they are not laid out as this file does it.

    Opening a large store means reading the keys of a hundred parts, and zarr's way through its threads takes ten times
    as long. The SHA-256 of the whole file stands in for the checksums inside. Raises `DamagedCacheError` where the file
    is not what was committed, or cannot be one of ours though it was.
    """
    records, shard = commit.counts["records"], f"key/{KEY_SHARD}"
    metadata = committed_metadata(folder, f"key/{METADATA}", commit)
    if records > CHUNK_ROWS or shard not in commit.files or metadata.get("codecs") != KEY_CODECS:
        return None
    content = read_committed(folder / shard, commit.files[shard])
    with damage_at(folder / shard, "does not decode"):  # committed like that, by somebody else's program
        return _only_chunk(content, records)


def _only_chunk(shard: bytes, records: int) -> Array:
    """Return the keys in a shard of one chunk; raises `ValueError` where sizes contradict each other."""
    if len(shard) < BLOSC_HEADER + SHARD_END:
        raise ValueError(f"{len(shard)} bytes are no shard")
    start, length = struct.unpack("<QQ", shard[-SHARD_END:-CHECKSUM_BYTES])
    chunk = shard[:-SHARD_END][start : start + length - CHECKSUM_BYTES]
    if len(chunk) != length - CHECKSUM_BYTES or len(chunk) < BLOSC_HEADER:
        raise ValueError("its chunk is missing or lies outside of the file")
    decoded, compressed = struct.unpack("<4xI4xI", chunk[:BLOSC_HEADER])
    if (decoded, compressed) != (CHUNK_ROWS * KEY_BYTES, len(chunk)):
        raise ValueError(f"a chunk claims to be {decoded:,} bytes made of {compressed:,}")
    from numcodecs import blosc  # here: those who only ask for counts need no codecs

    rows: Array = np.frombuffer(blosc.decompress(chunk), np.uint8).reshape(CHUNK_ROWS, KEY_BYTES)[:records]
    return rows
