"""Everything that knows how things lie on disk: spaces, parts, commits, fingerprints.

Nothing heavy is imported here: zarr, numpy and pandas load only when a store is opened.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.reader import AttentionStore


def open_attention(path: str | Path) -> "AttentionStore":
    """Open an attention space as a mapping from record key to its (L, S, K) float16 array.

    `path` is its folder, or a tar file or address of fsspec (`s3://…`, `hf://datasets/…`) that it was exported to. From
    there it is first copied into the user's cache directory, once, and every byte and record of it is checked.
    """
    from cache.exchange.locations import is_elsewhere
    from cache.reader import AttentionStore

    if is_elsewhere(str(path)):
        from cache.exchange.importing import fetch

        path = fetch(str(path))
    return AttentionStore.open(path)
