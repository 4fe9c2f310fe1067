"""Arrays by name, kept beside a store for whoever wants them again: they enter piece by piece, memory maps leave.

    <store>/texts/<space>-<first 16 digits of a fingerprint>.<suffix>

One derived file (`cache.derived`) holds several arrays, of which the first axis grows while they are made: in a bounded
amount of memory, however long they become. Each section is one array in C order, little-endian, and then zeros up to a
multiple of 64 bytes; its checksum is of its entry in the list (as canonical JSON) and of these bytes.
"""

import math
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cache.derived import ALIGNMENT, BLOCK, Derived, MappedFile, Section, derived_path, file_to_fill, one_at_a_time
from cache.fingerprints import JSON, SCHEMA_VERSION, Spec
from cache.spaces import Space

FOLDER = "texts"
TYPES: Mapping[str, np.dtype[Any]] = {name: np.dtype(name) for name in ("|u1", "<i4", "<i8")}
"""What arrays may hold: bytes, numbers, and places in other arrays."""

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
Fill: TypeAlias = Callable[["ArraysToFill"], None]


def arrays_path(space: Space, of: Spec, suffix: str) -> Path | None:
    """Return where arrays lie that are made of a space and of `of`; None for a space outside of a store."""
    return derived_path(space, FOLDER, of, suffix)


def read_arrays(path: Path | None, head: Spec) -> Arrays | None:
    """Map the arrays at `path`; None where there are none, or none that are whole and made of `head`."""
    found = _kind(head).read(path)
    return None if found is None else _arrays(found)


def make_arrays(path: Path | None, head: Spec, fill: Fill) -> Arrays:
    """Let `fill` append to arrays, keep them at `path` and map them.

    Where there is no path, or none that may be written to, the file is a nameless temporary one. Of several processes
    that need the same arrays one makes them, and the others map what it has made.
    """
    kind = _kind(head)
    with one_at_a_time(path):
        found = kind.read(path)
        if found is None:
            with file_to_fill(path) as file, ExitStack() as stack:
                made = ArraysToFill(stack=stack, folder=Path(file.name).parent if isinstance(file.name, str) else None)
                fill(made)
                made.write(file, kind)
                found = kind.mapped(file)
    assert found is not None, f"{path}: arrays are not what was written"
    return _arrays(found)


def part(offset: Array, number: int) -> slice:
    """Where row `number` lies in arrays that hold rows of different lengths one after another."""
    return slice(int(offset[number]), int(offset[number + 1]))


@dataclass(kw_only=True)
class _Growing:
    """One array on its way: what it has by now lies in a file without a name."""

    file: IO[bytes]
    dtype: np.dtype[Any]
    row: tuple[int, ...]
    rows: int = 0


@dataclass(kw_only=True)
class ArraysToFill:
    """Arrays that grow by what is appended to them; until all of them are whole each lies in a file in `folder`."""

    stack: ExitStack
    folder: Path | None
    _growing: dict[str, _Growing] = field(default_factory=dict)
    _ends: dict[str, int] = field(default_factory=dict)

    def append(self, name: str, rows: Array) -> None:
        """Append rows to the array of this name; the first ones say what all of them are like."""
        one = self._growing.get(name)
        if one is None:
            file = self.stack.enter_context(tempfile.TemporaryFile(dir=self.folder))  # noqa: SIM115  it is one
            one = self._growing[name] = _Growing(file=file, dtype=rows.dtype.newbyteorder("<"), row=rows.shape[1:])
        assert rows.dtype == one.dtype and rows.shape[1:] == one.row, f"{name}: {rows.dtype} {rows.shape}"
        one.file.write(np.ascontiguousarray(rows, dtype=one.dtype).data)
        one.rows += len(rows)

    def append_lengths(self, name: str, lengths: Sequence[int]) -> None:
        """Append to an array of offsets, which begins with 0, where rows end that are so long."""
        if name not in self._ends:
            self.append(name, np.zeros(1, np.int64))
        ends = self._ends.get(name, 0) + np.cumsum(lengths, dtype=np.int64)
        self.append(name, ends)
        self._ends[name] = int(ends[-1]) if len(ends) else self._ends.get(name, 0)

    def write(self, file: IO[bytes], kind: Derived) -> None:
        """Write all of them into `file`, the first line in front."""
        sections: list[dict[str, JSON]] = [
            {"name": name, "dtype": one.dtype.str, "shape": [one.rows, *one.row]} for name, one in self._growing.items()
        ]
        file.write(kind.line(sections, [0] * len(sections)))
        sums = []
        for section, one in zip(sections, self._growing.values(), strict=True):
            one.file.seek(0)
            value = kind.sum_before(section)
            while block := one.file.read(BLOCK):
                file.write(block)
                value = zlib.crc32(block, value)
            zeros = bytes(kind.size(section) - _bytes(section))
            file.write(zeros)
            sums.append(zlib.crc32(zeros, value))
        file.seek(0)
        file.write(kind.line(sections, sums))


def _kind(head: Spec) -> Derived:
    return Derived(head={"schema": SCHEMA_VERSION, **head}, listed="arrays", size=_size, proves_entries=True)


def _size(section: Section) -> int:
    return -(-_bytes(section) // ALIGNMENT) * ALIGNMENT


def _bytes(section: Section) -> int:
    if not isinstance(section["name"], str) or any(int(length) < 0 for length in section["shape"]):
        raise ValueError(f"no array: {section}")
    return TYPES[section["dtype"]].itemsize * math.prod(section["shape"])


def _arrays(found: MappedFile) -> Arrays:
    ends = np.cumsum([0, *map(_size, found.sections)])
    return {
        section["name"]: found.content[start : start + _bytes(section)]
        .view(TYPES[section["dtype"]])
        .reshape(section["shape"])
        for section, start in zip(found.sections, ends[:-1].tolist(), strict=True)
    }
