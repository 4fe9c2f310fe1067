"""Everything that knows how things lie on disk: spaces, parts, commits, fingerprints.

Nothing heavy is imported here: zarr, numpy and pandas load only when a store is opened.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.reader import AttentionStore
    from cache.soft_labels.reader import SoftLabelStore


def open_attention(path: str | Path) -> "AttentionStore":
    """Open an attention space as a mapping from record key to its (L, S, K) float16 array.

    `path` is its folder, or a tar file or address of fsspec (`s3://…`, `hf://datasets/…`) that it was exported to. From
    there it is first copied into the user's cache directory, once, and every byte and record of it is checked.
    """
    from cache.reader import AttentionStore

    return AttentionStore.open(_here(path))


def open_soft_labels(path: str | Path) -> "SoftLabelStore":
    """Open a space of soft labels as a mapping from record key to its rows; `path` as in `open_attention`."""
    from cache.soft_labels.reader import SoftLabelStore

    return SoftLabelStore.open(_here(path))


def _here(path: str | Path) -> str | Path:
    from cache.exchange.addresses import is_elsewhere

    if is_elsewhere(str(path)):
        from cache.exchange.importing import fetch

        return fetch(str(path))
    return path
