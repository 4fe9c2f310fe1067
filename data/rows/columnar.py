"""Rows of files that hold columns: Parquet, and Arrow's own form, which Feather and the library `datasets` write.

Enters: a file's content. Leaves: fields by name, each row with its number. Values are those of Python, as a JSON file
would have them: lists for arrays, None for what is missing, NaN included; a whole number stays one. A decimal is the
number as it is written, a date or time its text.

A small file may say one long text a million times. So texts of Parquet are read as they are stored, each once, and rows
are made a few at a time, as few as whatever they share is long.
"""

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from data.errors import DataError, first_line
from data.rows import contents
from data.rows.contents import Content
from data.rows.row import bare_name

ROWS, ROOM = 256, 64 << 20
"""Rows that are made at a time, fewer where that many could take more bytes."""
ROW_BYTES = 256
"""What a row takes beside its values, at least."""
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""A stream that was cut off between two batches lacks it, and nothing else would tell."""


def columnar_rows(content: Content) -> Iterator[tuple[int, dict[str, object]]]:
    """The rows of a file with columns; raises `DataError` where it is damaged, or holds too much."""
    import pyarrow  # takes a while, and text needs none of it

    size = number = 0
    try:
        for batch in _batches(content):
            batch.validate(full=True)  # a damaged file may point anywhere, and reading it then ends the process
            names = [bare_name(name) for name in batch.schema.names]
            if twice := [name for place, name in enumerate(names) if name in names[:place]]:
                raise DataError(f"{content.path}: two columns are named {twice[0]!r}")
            for piece in _pieces(batch):
                columns = [column.to_pylist() for column in piece.columns]
                for values in zip(*columns, strict=True):
                    fields = {name: _plain(value) for name, value in zip(names, values, strict=True)}
                    size += _size(fields)
                    _require_room(content, size)
                    number += 1
                    yield number, fields
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        where = f"{content.path}: {content.columns} that cannot be read after row {number:,}"
        raise DataError(f"{where}: {first_line(error)}") from error


def _batches(content: Content) -> Iterator[Any]:
    """Record batches of whatever form it is."""
    import pyarrow

    source = pyarrow.BufferReader(content.content)
    if content.columns == "Parquet":
        from pyarrow import parquet

        metadata = parquet.read_metadata(source)
        _require_room(
            content, sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        )
        columns = [metadata.schema.column(number) for number in range(metadata.num_columns)]
        texts = [
            one.path for one in columns if one.physical_type == "BYTE_ARRAY" and one.logical_type.type != "DECIMAL"
        ]
        yield from parquet.ParquetFile(source, read_dictionary=texts).iter_batches(batch_size=ROWS)
    elif content.columns == "Arrow":
        reader = pyarrow.ipc.open_file(source)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        if not content.content.endswith(END_OF_STREAM):
            raise DataError(f"{content.path}: an Arrow stream without its end; fetch or write the file again")
        yield from pyarrow.ipc.open_stream(source)


def _pieces(batch: Any) -> Iterator[Any]:
    """The batch, a few rows at a time. What rows share counts in full to each piece."""
    start = 0
    while start < batch.num_rows:
        piece = batch.slice(start, ROWS)
        rows = min(ROWS, max(1, ROOM // max(1, piece.nbytes)))
        yield piece.slice(0, rows)
        start += rows


def _require_room(content: Content, size: int) -> None:
    if size > contents.LARGEST:
        raise DataError(f"{content.path}: unpacks to more than {contents.too_large()}")


def _size(value: object) -> int:
    """About the bytes of a value."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return ROW_BYTES + sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 8


def _plain(value: object) -> object:
    """A value as JSON would have it."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, Decimal):
        return None if value.is_nan() else str(value)
    written = getattr(value, "isoformat", None)
    return value if written is None else written()
