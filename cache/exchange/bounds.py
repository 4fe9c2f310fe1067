"""What a part from strangers may claim: counts and staged files enter, nothing leaves but a refusal where they lie.

Compressed data say themselves how large they will be. All places where they do are compared with what the counts of
the commit allow before anything is decoded: the shape of chunks in zarr's metadata, the index of each shard, the header
of each blosc chunk, the metadata of a Parquet file. So memory is bounded whatever comes in.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cache.certificates import NOTE, read_certificate
from cache.commits import Commit
from cache.exchange.strict_json import load_strictly
from cache.fingerprints import JSON
from cache.layout import (
    ATTENTION,
    BLOSC_HEADER,
    CHECKSUM_BYTES,
    MAX_RECORDS,
    METADATA,
    ArrayLayout,
    PartLayout,
    check_part,
)
from cache.parts.kinds import part_layout
from cache.rationales import FILE, OLD_SCHEMA, SCHEMA, TEXTS
from cache.soft_labels.layout import rows_spec
from cache.spaces import OF_ARRAYS, Kind, Space
from cache.verify import look_at_part
from cache.writer import COUNT_LIMIT
from data.errors import DamagedCacheError

MAX_DECODED = 4 << 30
"""Bytes that a part may have when decoded: 4,096 records of 80 layers, 20 steps and 60 words are 800 MB."""
MAX_TEXT_BYTES = 1 << 30
"""The same of a part of rationales: 1,024 attempts of ten pages are 40 MB."""
MAX_METADATA_BYTES = 1 << 20
MAX_ATTEMPTS = 1_000_000
MAX_DROPPED = 10_000_000

BLOSC_ZSTD = 4
CODECS = ["bytes", "blosc", "crc32c"]
INDEX_CODECS = ["bytes", "crc32c"]


def shard_file(name: str, of: PartLayout = ATTENTION) -> str:
    """Return the one file with the data of an array."""
    return f"{name}/c/" + "/".join("0" for _ in of.all[name].dimensions)


def part_files(kind: Kind, files: Collection[str], of: PartLayout = ATTENTION) -> frozenset[str]:
    """Return exactly what a part holds that has `files`: all files of an array or none, and nothing else."""
    if kind == "rationales":
        return frozenset({FILE})
    arrays = of.present(files)
    shards = (shard_file(name, of) for name in arrays)
    return frozenset({METADATA, *(f"{name}/{METADATA}" for name in arrays), *shards})


def check_spec(space: Space) -> None:
    """Raise `ValueError` where the spec of a space does not say what its parts have to be."""
    if space.kind == "soft-labels":
        rows_spec(space.spec)


def check_counts(space: Space, commit: Commit) -> None:
    """Raise `ValueError` unless the files and counts of a commit are those of a part that we could have written.

    Of `space` nothing is read, for it does not lie anywhere yet.
    """
    if commit.part is None:
        if commit.files or commit.counts["records"]:
            raise ValueError("files or records, and no part")
        return
    layout = part_layout(space, commit) if space.kind in OF_ARRAYS else None
    if wrong := sorted(commit.files.keys() ^ part_files(space.kind, commit.files, layout or ATTENTION)):
        raise ValueError(f"{wrong[0]!r} is no file of a part of {space.kind}, or is missing there")
    if len(commit.dropped) > MAX_DROPPED:
        raise ValueError(f"{len(commit.dropped):,} dropped records")
    if NOTE in commit.note:
        read_certificate(commit.note[NOTE])
    if layout is None:
        _between("records", commit.counts["records"], 1, MAX_ATTEMPTS)
        _between("kept", commit.counts.get("kept", -1), 0, commit.counts["records"])
        _between("bytes", commit.bytes, 1, MAX_TEXT_BYTES)
    else:
        _check_array_counts(commit, layout)


def _check_array_counts(commit: Commit, layout: PartLayout) -> None:
    counts = commit.counts
    if wrong := sorted({"records", *layout.counts} ^ counts.keys()):
        raise ValueError(f"count {wrong[0]!r} is unknown or missing")
    if layout is ATTENTION:
        _check_attention_counts(counts)
    else:
        _check_soft_label_counts(counts)
    sizes = layout.sizes(counts)
    shapes = [(array, array.shape(sizes)) for array in layout.present(commit.files).values()]
    decoded = sum(array.chunks(shape) * array.chunk_bytes(shape) for array, shape in shapes)
    _between("decoded bytes", decoded, 1, MAX_DECODED)


def _check_soft_label_counts(counts: Mapping[str, int]) -> None:
    if "rows" in counts:
        _between("records", counts["records"], 1, MAX_RECORDS)
        _between("rows", counts["rows"], counts["records"], MAX_DECODED)
    for name in counts.keys() - {"records", "rows"}:
        _between(name, counts[name], 1, MAX_DECODED)


def _check_attention_counts(counts: Mapping[str, int]) -> None:
    records = counts["records"]
    _between("records", records, 1, MAX_RECORDS)
    _between("layers", counts["layers"], 1, COUNT_LIMIT)
    _between("steps", counts["steps"], records, records * COUNT_LIMIT)
    _between("words", counts["words"], records, records * COUNT_LIMIT)
    _between("text_bytes", counts["text_bytes"], 2 * records, MAX_DECODED)
    _between("cells", counts["cells"], records, MAX_DECODED)


def _between(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{value:,} {name}, expected {least:,} to {most:,}")


def check_staged(space: Space, commit: Commit) -> None:
    """Raise `DamagedCacheError` unless a copied part holds what its commit says, every record of it sound."""
    if space.kind in OF_ARRAYS:
        _check_arrays(space, commit, part_layout(space, commit))
    else:
        _check_attempts(space.part_path(commit) / FILE, commit)
    findings = look_at_part(space, commit, deep=True).findings
    if findings:
        first, more = findings[0], len(findings) - 1
        raise DamagedCacheError(f"{first.file}: {first.what}" + (f" (and {more} more findings)" if more else ""))


def _check_arrays(space: Space, commit: Commit, of: PartLayout) -> None:
    folder = space.part_path(commit)
    group = _metadata(folder / METADATA)
    if extra := sorted(group.keys() - {"zarr_format", "node_type", "attributes"}):
        raise DamagedCacheError(f"{folder / METADATA}: {extra[0]} in the metadata of a part")
    layouts = of.present(commit.files)
    found = {name: _metadata(folder / name / METADATA) for name in layouts}
    check_part(space, commit, of)
    sizes = of.sizes(commit.counts)
    for name, layout in layouts.items():
        shape = layout.shape(sizes)
        _check_chunking(found[name], layout, shape, folder / name / METADATA)
        shard = folder / shard_file(name, of)
        _check_shard(shard, chunks=layout.chunks(shape), chunk_bytes=layout.chunk_bytes(shape))


def _metadata(path: Path) -> Mapping[str, JSON]:
    if (size := path.stat().st_size) > MAX_METADATA_BYTES:
        raise DamagedCacheError(f"{path}: {size:,} bytes, {MAX_METADATA_BYTES:,} at most are taken")
    try:
        found = load_strictly(path.read_bytes())
    except ValueError as error:
        raise DamagedCacheError(f"{path}: no zarr metadata ({error})") from error
    if not isinstance(found, dict):
        raise DamagedCacheError(f"{path}: no zarr metadata")
    return found


def _check_chunking(found: Mapping[str, Any], layout: ArrayLayout, shape: tuple[int, ...], path: Path) -> None:
    """Refuse any other division into chunks, or other codecs at any place, than those that we write."""
    chunk = list(layout.chunk(shape))
    shard = [layout.chunks(shape) * chunk[0], *chunk[1:]]
    codecs = found.get("codecs")
    sharding = _named(codecs[0]) if isinstance(codecs, list) and len(codecs) == 1 else ("", {})
    inner = sharding[1]
    expected: list[tuple[str, Any, Any]] = [
        ("chunk_grid", _named(found.get("chunk_grid")), ("regular", {"chunk_shape": shard})),
        ("chunk_key_encoding", _named(found.get("chunk_key_encoding")), ("default", {"separator": "/"})),
        ("storage_transformers", found.get("storage_transformers") or [], []),
        ("codec", sharding[0], "sharding_indexed"),
        ("chunk_shape", inner.get("chunk_shape"), chunk),
        ("codecs", _names(inner.get("codecs")), CODECS),
        ("index_codecs", _names(inner.get("index_codecs")), INDEX_CODECS),
        ("index_location", inner.get("index_location", "end"), "end"),
    ]
    for field, value, wanted in expected:
        if value != wanted:
            raise DamagedCacheError(f"{path}: {field} is {_short(value)}, expected {_short(wanted)}")


def _named(value: Any) -> tuple[str, dict[str, Any]]:  # whatever JSON can hold
    """Name and configuration of a codec, a grid or an encoding."""
    if not isinstance(value, dict):
        return repr(value), {}
    configuration = value.get("configuration", {})
    return str(value.get("name")), configuration if isinstance(configuration, dict) else {}


def _names(codecs: Any) -> list[str]:  # likewise
    return [_named(codec)[0] for codec in codecs] if isinstance(codecs, list) else [repr(codecs)]


def _short(value: Any) -> str:  # likewise
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _check_shard(path: Path, *, chunks: int, chunk_bytes: int) -> None:
    """Refuse a shard whose index leads out of it, that lacks a chunk, or whose chunks claim another decoded size."""
    index_bytes = 16 * chunks
    data_bytes = path.stat().st_size - index_bytes - CHECKSUM_BYTES
    if data_bytes < 0:
        raise DamagedCacheError(f"{path}: too short for the index of {chunks:,} chunks")
    with path.open("rb") as file:
        file.seek(data_bytes)
        index = np.frombuffer(file.read(index_bytes), "<u8").reshape(chunks, 2).tolist()
        for number, (offset, length) in enumerate(index):
            if length < BLOSC_HEADER + CHECKSUM_BYTES or offset + length > data_bytes:
                raise DamagedCacheError(f"{path}: chunk {number} is missing or lies outside of the file")
            _check_blosc(file, offset, length - CHECKSUM_BYTES, chunk_bytes, path)


def _check_blosc(file: BinaryIO, offset: int, length: int, chunk_bytes: int, path: Path) -> None:
    file.seek(offset)
    header = file.read(BLOSC_HEADER)
    decoded, compressed = (int.from_bytes(header[start : start + 4], "little") for start in (4, 12))
    if decoded != chunk_bytes or compressed != length or header[2] >> 5 != BLOSC_ZSTD:
        raise DamagedCacheError(
            f"{path}: a chunk claims to be {decoded:,} bytes made of {compressed:,}, "
            f"expected {chunk_bytes:,} of {length:,} in zstd"
        )


def _check_attempts(path: Path, commit: Commit) -> None:
    """Refuse a Parquet file of other columns, codecs or sizes before its texts are spread out in memory.

    Dictionaries are kept as such while the texts are counted, for a single long text may stand in every row.
    """
    try:
        with pq.ParquetFile(path, thrift_string_size_limit=MAX_METADATA_BYTES) as file:
            _check_parquet_metadata(file.metadata, commit, path)
            texts = [name for name in file.schema_arrow.names if name in TEXTS]
        with pq.ParquetFile(path, thrift_string_size_limit=MAX_METADATA_BYTES, read_dictionary=texts) as file:
            decoded = sum(_text_bytes(batch) for batch in file.iter_batches(batch_size=1024, use_threads=False))
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DamagedCacheError):
            raise
        raise DamagedCacheError(f"{path}: does not decode ({error})") from error
    if decoded > MAX_TEXT_BYTES:
        raise DamagedCacheError(f"{path}: {decoded:,} bytes when decoded, {MAX_TEXT_BYTES:,} at most are taken")


def _check_parquet_metadata(metadata: pq.FileMetaData, commit: Commit, path: Path) -> None:
    if metadata.num_rows != commit.counts["records"]:
        raise DamagedCacheError(f"{path}: {metadata.num_rows} attempts, {commit.counts['records']} were committed")
    found = _columns(metadata.schema.to_arrow_schema())
    if found not in (expected := [_columns(schema) for schema in (SCHEMA, OLD_SCHEMA)]):
        raise DamagedCacheError(f"{path}: columns {_short(found)}, expected {_short(expected[0])}")
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    if other := sorted({column.compression for column in columns} - {"ZSTD"}):
        raise DamagedCacheError(f"{path}: unknown codec {other[0]}; only ZSTD is read")
    if (claimed := sum(column.total_uncompressed_size for column in columns)) > MAX_TEXT_BYTES:
        raise DamagedCacheError(f"{path}: {claimed:,} bytes when decoded, {MAX_TEXT_BYTES:,} at most are taken")


def _columns(schema: pa.Schema) -> list[str]:
    return [f"{field.name}: {field.type}" for field in schema]


def _text_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of all texts in a batch as they would be without dictionaries; numbers have a size of their own."""
    total = 0
    for column in batch.columns:
        if pa.types.is_integer(column.type):
            total += column.nbytes
            continue
        if isinstance(column, pa.DictionaryArray):
            lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
        else:
            lengths = pc.binary_length(column)
        total += pc.sum(lengths).as_py() or 0
    return total
