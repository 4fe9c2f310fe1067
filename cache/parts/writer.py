"""Writing parts of arrays: blocks of records enter, one committed part leaves.

One writer fills one part alone, for two that share a shard lose data silently. What cannot be stored is refused before
any byte is written.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

import numcodecs
import zarr

from cache.chunked import write_arrays
from cache.commits import Commit
from cache.fingerprints import JSON
from cache.layout import Array, PartLayout, counts_of
from cache.spaces import Kind, Space


class Keyed(Protocol):
    """What is stored of one record."""

    @property
    def key(self) -> str:
        """The record's key."""


BlockT = TypeVar("BlockT", bound=Keyed)


class PartsWriter(ABC, Generic[BlockT]):
    """Appends parts to one space; any number of writers may do so at the same time."""

    kind: ClassVar[Kind]
    layout: PartLayout

    def __init__(self, space: Space, *, note: Mapping[str, JSON] | None = None) -> None:
        """Write into `space`; `note` is recorded with every commit (versions, device, host)."""
        assert space.kind == self.kind, f"{space.path} holds no {self.kind}"
        self.space = space
        self._note = {"zarr": zarr.__version__, "numcodecs": numcodecs.__version__, **(note or {})}

    @abstractmethod
    def arrays_of(self, blocks: Sequence[BlockT]) -> dict[str, Array]:
        """Return the arrays of a part with these blocks; raises `ValueError` for what cannot be stored."""

    def append(
        self,
        blocks: Sequence[BlockT],
        dropped: Mapping[str, str] | None = None,
        *,
        note: Mapping[str, JSON] | None = None,
    ) -> Commit:
        """Commit blocks as one part, and with them why other records were dropped (key to reason).

        `note` is recorded with this commit beside the writer's own. A record given twice is stored once. Raises
        `ValueError` for a block that does not fit the space or the others, and `ModelError`, which is one, for values
        that are not finite as they are stored.
        """
        once = list({block.key: block for block in reversed(blocks)}.values())[::-1]
        if not once:
            return self.space.commit(None, counts={"records": 0}, dropped=dropped, note={**self._note, **(note or {})})
        return self.write(self.arrays_of(once), self.layout, dropped, note)

    def write(
        self,
        arrays: Mapping[str, Array],
        layout: PartLayout,
        dropped: Mapping[str, str] | None = None,
        note: Mapping[str, JSON] | None = None,
    ) -> Commit:
        """Commit arrays as one part."""
        with self.space.filling_part() as part:
            write_arrays(part, arrays, layout)
        noted = {**self._note, **(note or {})}
        return self.space.commit(part, counts=counts_of(arrays, layout), dropped=dropped, note=noted)
