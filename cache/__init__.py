"""Everything that knows how things lie on disk: spaces, parts, commits, fingerprints.

Nothing heavy is imported here: zarr, numpy and pandas load only when a store is opened.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.reader import AttentionStore


def open_attention(path: str | Path) -> "AttentionStore":
    """Open an attention space as a mapping from record key to its (L, S, K) float16 array."""
    from cache.reader import AttentionStore

    return AttentionStore.open(path)
