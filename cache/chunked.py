"""Arrays of a part by zarr: plain numpy arrays enter, a zarr v3 group leaves, and back.

`cache.layout` says what a part holds, and has accepted the metadata of one before it is opened here. Importing zarr
takes as long as all else that a plan needs; whoever decodes nothing leaves this file alone.
"""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from cache.commits import damage_at, read_committed
from cache.fingerprints import SCHEMA_VERSION
from cache.layout import ATTENTION, Array, ArrayLayout, PartLayout


class PartStore(LocalStore):
    """The folder of a part that one writer fills; needs no hard links, with which zarr keeps out a second writer."""

    async def set_if_not_exists(self, key: str, value: Any) -> None:  # zarr's own buffer
        """Write what is not there; nobody comes in between, for the folder's name is ours alone."""
        if not await self.exists(key):
            await self.set(key, value)


def write_arrays(folder: Path, arrays: Mapping[str, Array], of: PartLayout = ATTENTION) -> None:
    """Write the arrays of one part into `folder`, each as one shard of compressed, checksummed chunks."""
    assert of.arrays.keys() <= arrays.keys() <= of.all.keys(), f"arrays of a part: {sorted(arrays)}"
    group = zarr.create_group(store=PartStore(folder), zarr_format=3, attributes={"molsaki_schema": SCHEMA_VERSION})
    for name, content in arrays.items():
        _create_array(group, name, of.all[name], content.shape)[...] = content


def _create_array(group: zarr.Group, name: str, layout: ArrayLayout, shape: tuple[int, ...]) -> zarr.Array[Any]:
    chunk = layout.chunk(shape)
    return group.create_array(
        name,
        shape=shape,
        dtype=layout.dtype,
        chunks=chunk,
        shards=(layout.chunks(shape) * chunk[0], *chunk[1:]),
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
        fill_value=layout.fill_value,
        dimension_names=layout.dimensions,
        config={"write_empty_chunks": True},  # a chunk of zeros must not look like a chunk that was lost
    )


class CommittedStore(LocalStore):
    """The folder of an array that was committed: what is not there is damage and never reads as fill value.

    Sizes are checked before, but the shard may go away between that and reading.
    """

    async def get(self, key: str, *options: Any, **named: Any) -> Any:  # zarr's own buffer
        """Return the content of a file; raises `FileNotFoundError` where there is none."""
        return self._there(key, await super().get(key, *options, **named))

    def get_sync(self, key: str, **named: Any) -> Any:
        """Return the content of a file as `get` does."""
        return self._there(key, super().get_sync(key, **named))

    def _there(self, key: str, content: Any) -> Any:
        if content is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.root / key))
        return content


def open_array(folder: Path, name: str) -> zarr.Array[Any]:
    """Open one array of a part that `check_part` has accepted."""
    with damage_at(folder / name, "does not open"):
        return zarr.open_array(store=CommittedStore(folder / name, read_only=True), mode="r", zarr_format=3)


def open_rebuilt(folder: Path, name: str, counts: Mapping[str, int], of: PartLayout) -> zarr.Array[Any]:
    """Open an array with the metadata that this format gives it, for those beside its data are damaged."""
    store, layout = MemoryStore(), of.all[name]
    with damage_at(folder / name, "does not open"):
        _create_array(zarr.create_group(store=store, zarr_format=3), name, layout, layout.shape(of.sizes(counts)))
        for path in (folder / name / "c").rglob("*"):
            if path.is_file():
                content = default_buffer_prototype().buffer.from_bytes(read_committed(path))
                sync(store.set(f"{name}/{path.relative_to(folder / name).as_posix()}", content))
        return zarr.open_array(store=store, path=name, mode="r", zarr_format=3)


def decode(array: zarr.Array[Any], path: Path, rows: slice = slice(None)) -> Array:
    """Return rows of an array; raises `DamagedCacheError` where a checksum or a codec finds them damaged."""
    with damage_at(path, "does not decode"):
        return np.asarray(array[rows])
