"""Where a student looked before and after its training, on disk: for people to look at, no stage needs it.

In: the student's stepwise attention to some of its records. Out: `student_attention.parquet` beside its weights, and
the same again. Plain Parquet columns: whoever reads the file runs nothing that it says. The values are those of
float16, in columns of float32: few readers compute with halves. pyarrow adds none up, polars does so in float16.

Shape letters: L layers, S steps, K critical words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cache.durable import replace_file
from data.errors import DamagedCacheError

STUDENT_ATTENTION = "student_attention.parquet"
LOOKED_AT = 200
"""Records whose attention is kept: a few megabytes, and two passes over so few cost little beside training."""
When = Literal["before", "after"]
SHAPE = ("layers", "steps", "words")
SCHEMA, OLD_SCHEMA = (
    pa.schema(
        [
            *(pa.field(name, pa.string(), nullable=False) for name in ("key", "when")),
            *(pa.field(name, pa.int16(), nullable=False) for name in SHAPE),
            pa.field("values", pa.list_(values), nullable=False),
            pa.field("layer_weights", pa.list_(pa.float32())),
        ]
    )
    for values in (pa.float32(), pa.float16())
)
"""Of files as they are written, and as they were before: with halves."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StudentLook:
    """One record as a student saw it: `attention` (L, S, K) in float16.

    `layer_weights` (L,) is the share of each layer in what was compared with the teacher's; None for an objective
    that compares nothing.
    """

    key: str
    when: When
    attention: npt.NDArray[np.float16]
    layer_weights: npt.NDArray[np.float32] | None


def write_student_attention(folder: Path, looks: Sequence[StudentLook]) -> None:
    """Write `student_attention.parquet` into `folder`; it appears complete or not at all."""
    rows = [
        {
            "key": look.key,
            "when": look.when,
            **dict(zip(SHAPE, look.attention.shape, strict=True)),
            "values": look.attention.astype(np.float16, copy=False).astype(np.float32).reshape(-1),
            "layer_weights": look.layer_weights,
        }
        for look in looks
    ]
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in SCHEMA]
    written = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), written, compression="zstd")
    replace_file(folder / STUDENT_ATTENTION, written.getvalue().to_pybytes())


def read_student_attention(folder: Path) -> list[StudentLook]:
    """Return what lies in the folder of a student, nothing for students that were trained before there was such a file.

    Raises `DamagedCacheError` for a file that is not as it was written.
    """
    path = folder / STUDENT_ATTENTION
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    try:
        halves = pa.list_(pa.float16()) in pq.read_schema(pa.BufferReader(content)).types
        schema = OLD_SCHEMA if halves else SCHEMA
        table = pq.read_table(pa.BufferReader(content), schema=schema, use_threads=False, pre_buffer=False)
        return list(_looks(table))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedCacheError(
            f"{path}: does not decode ({error}); delete it, the student itself does not need it"
        ) from error


def _looks(table: pa.Table) -> Iterator[StudentLook]:
    for row in zip(*(table.column(name) for name in SCHEMA.names), strict=True):
        key, when, layers, steps, words = (one.as_py() for one in row[:5])
        values, weights = (None if one.values is None else one.values.to_numpy(zero_copy_only=False) for one in row[5:])
        if when not in get_args(When):
            raise ValueError(f"record {key}: expected before or after, found {when}")
        if values is None or not np.isfinite(values).all():
            raise ValueError(f"record {key}: values that are not finite")
        with np.errstate(over="ignore"):
            attention = values.astype(np.float16)
        if not np.array_equal(attention, values):
            raise ValueError(f"record {key}: values that float16 does not hold")
        if weights is not None and len(weights) != layers:
            raise ValueError(f"record {key}: {len(weights)} layer weights for {layers} layers")
        if min(layers, steps, words) < 1:
            raise ValueError(f"record {key}: cannot reshape to {layers} layers, {steps} steps and {words} words")
        yield StudentLook(key=key, when=when, attention=attention.reshape(layers, steps, words), layer_weights=weights)
