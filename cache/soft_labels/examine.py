"""Judging a part of soft labels: its files enter, the faults found in it and the sound records leave.

A record is sound when everything of it decodes and its rows are what `cache.soft_labels.rules` says. Its key cannot be
held against its content, for its text lies elsewhere: the checksum of the chunk is what proves it.

r rows of all records of a part.
"""

import numpy as np
import numpy.typing as npt

from cache.keys import hex_keys
from cache.layout import Array
from cache.parts.examine import Examined, Reading
from cache.soft_labels.layout import RowsSpec
from cache.soft_labels.rules import wrong_rows


def examine(reading: Reading, rows: RowsSpec) -> Examined:
    """Decode a part and judge each of its records, or the head; nothing that is found in it raises."""
    if not reading.layout.has_records:
        return _examine_head(reading)
    keys, offsets = reading.whole("key"), reading.whole("row_offset")
    nothing = np.zeros(reading.counts["records"], dtype=bool)
    misfit = None if offsets is None else _misfit(offsets, reading.counts["rows"])
    if misfit:
        reading.blame("row_offset", misfit)
    if keys is None or offsets is None or misfit:
        return Examined(layout=reading.layout, keys=(), sound=nothing, faults=reading.faults(), arrays={})
    lengths = {"row": np.diff(offsets)}
    reading.place(lengths)
    sound = ~nothing
    for name in reading.offsets:
        sound &= reading.rows(name)
    if reading.offsets.keys() <= reading.arrays.keys():
        sound &= ~_wrong_records(reading, offsets, sound, rows)
    return Examined(
        layout=reading.layout,
        keys=tuple(hex_keys(keys)),
        sound=sound,
        faults=reading.faults(),
        arrays=reading.arrays,
        lengths=lengths,
    )


def _misfit(offsets: Array, rows: int) -> str | None:
    """Say where the offsets are not those of records with rows, one after another."""
    if offsets[0] != 0 or offsets[-1] != rows:
        return f"from {offsets[0]} to {offsets[-1]}, expected 0 to {rows}"
    return "a record without rows" if (np.diff(offsets) < 1).any() else None


def _wrong_records(
    reading: Reading, offsets: npt.NDArray[np.int64], readable: npt.NDArray[np.bool_], rows: RowsSpec
) -> npt.NDArray[np.bool_]:
    """Blame what is wrong in the rows of readable records, and return those records."""
    wrong_ones = np.zeros(len(readable), dtype=bool)
    starts = np.zeros(offsets[-1], dtype=bool)
    starts[offsets[:-1]] = True
    # What could not be read is zero, and would be blamed a second time.
    read = np.repeat(readable, np.diff(offsets))
    record_of_row = np.repeat(np.arange(len(readable)), np.diff(offsets))[read]
    arrays = {name: reading.arrays[name][read] for name in reading.offsets}
    for wrong in wrong_rows(arrays, starts[read], rows):
        records = np.unique(record_of_row[wrong.rows])
        reading.blame(wrong.array, wrong.what, records.tolist(), kind=wrong.kind)
        wrong_ones[records] = True
    return wrong_ones


def _examine_head(reading: Reading) -> Examined:
    for name in reading.present:
        array = reading.whole(name)
        if array is not None and not np.isfinite(array).all():
            reading.blame(name, "a value that is not finite")
    # It is whole or nothing: without the bias that it was committed with it would be another head.
    arrays = reading.arrays if reading.arrays.keys() == set(reading.present) else {}
    return Examined(layout=reading.layout, keys=(), sound=np.zeros(0, bool), faults=reading.faults(), arrays=arrays)
