"""Keys read past zarr: what zarr reads, and nothing that was not committed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from cache.chunked import write_arrays
from cache.keys import hex_keys
from cache.layout import KEY_SHARD, MAX_RECORDS, counts_of, read_keys
from cache.reader import AttentionStore
from cache.spaces import Space
from cache.writer import AttentionWriter, arrays_of
from data.errors import DamagedCacheError
from tests.cache.truth import make_block, make_space

BLOCKS = [make_block(number) for number in range(5)]


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return make_space(tmp_path)


def commit(space: Space, change: Callable[[Path], object]) -> None:
    """Commit a part after changing its files, with sizes and hashes as they then are."""
    arrays = arrays_of(BLOCKS)
    with space.filling_part() as part:
        write_arrays(part, arrays)
        change(part)
    space.commit(part, counts=counts_of(arrays))


def read(space: Space) -> np.ndarray | None:
    (only,) = space.commits()
    return read_keys(space.part_path(only), only)


def replace_shard(make: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def change(part: Path) -> None:
        shard = part / "key" / KEY_SHARD
        shard.write_bytes(make(shard.read_bytes()))

    return change


@pytest.mark.parametrize("count", [1, 5])
def test_keys_are_those_that_zarr_reads(count: int, space: Space):
    AttentionWriter(space).append(BLOCKS[:count])
    rows = read(space)
    assert rows is not None
    (only,) = space.commits()
    np.testing.assert_array_equal(rows, zarr.open_array(space.part_path(only) / "key", mode="r")[...], strict=True)
    assert list(hex_keys(rows)) == [block.key for block in BLOCKS[:count]]


def test_keys_of_a_full_part_are_in_one_chunk(space: Space):
    arrays = dict(arrays_of(BLOCKS[:1]))
    arrays["key"] = np.random.default_rng(0).integers(0, 256, (MAX_RECORDS, 32), np.uint8)
    with space.filling_part() as part:
        write_arrays(part, arrays)
    space.commit(part, counts={**counts_of(arrays), "records": MAX_RECORDS})
    rows = read(space)
    assert rows is not None
    np.testing.assert_array_equal(rows, arrays["key"])


def test_keys_in_another_codec_are_left_to_zarr(space: Space):
    def with_zstd(part: Path) -> None:
        keys = arrays_of(BLOCKS)["key"]
        zarr.open_group(part, mode="a").create_array(
            "key", shape=keys.shape, dtype="uint8", chunks=(4096, 32), shards=(4096, 32), fill_value=0,
            compressors=[ZstdCodec(), Crc32cCodec()], dimension_names=("record", "key_byte"), overwrite=True,
        )[...] = keys  # fmt: skip

    commit(space, with_zstd)
    assert read(space) is None
    assert list(AttentionStore(space)) == [block.key for block in BLOCKS]


def test_no_flipped_bit_in_the_keys_passes(space: Space):
    AttentionWriter(space).append(BLOCKS)
    (only,) = space.commits()
    shard = space.part_path(only) / "key" / KEY_SHARD
    whole = shard.read_bytes()
    for place in range(len(whole)):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(DamagedCacheError, match="the content is not what was committed"):
            read(space)
    shard.write_bytes(whole)
    assert list(AttentionStore(space)) == [block.key for block in BLOCKS]


@pytest.mark.parametrize(
    "make",
    [
        lambda shard: b"",
        lambda shard: shard[-20:],
        lambda shard: shard[:4] + b"\xff\xff\xff\x7f" + shard[8:],  # decoded, two gigabytes
        lambda shard: shard[:12] + b"\xff\xff\xff\x7f" + shard[16:],  # compressed, beyond the file
        lambda shard: shard[:-20] + b"\xff" * 8 + shard[-12:],  # begins outside of the file
        lambda shard: shard[:-12] + b"\xff" * 8 + shard[-4:],  # longer than the file
    ],
)
def test_sizes_that_contradict_each_other_are_never_decoded_here(make: Callable[[bytes], bytes], space: Space):
    commit(space, replace_shard(make))
    with pytest.raises(DamagedCacheError, match=rf"{KEY_SHARD}: does not decode \((.* are no shard|.* chunk .*)\)"):
        AttentionStore(space)


def test_a_chunk_that_does_not_decode_is_damage(space: Space):
    commit(space, replace_shard(lambda shard: shard[:16] + b"\xff" * (len(shard) - 40) + shard[-24:]))
    with pytest.raises(DamagedCacheError, match="does not decode"):
        AttentionStore(space)
