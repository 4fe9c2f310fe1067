"""Rows of tables in text: columns apart by commas or tabs, below a line of their names.

Enters: the text. Leaves: fields by name, each row with the number of its last line. A table whose columns are apart by
something else is refused by what it has: where semicolons stand, "3,5" is most often three and a half.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.errors import DataError
from data.rows.row import Refuse, bare_name

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "upright strokes"}


def table_rows(text: str, path: Path, refuse: Refuse, *, separator: str) -> Iterator[tuple[int, dict[str, object]]]:
    """The rows of a table; `path` is for messages. Blanks behind a separator count where the names have them, too."""
    blanks = f"{separator} " in text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=blanks)
    try:
        columns = _columns(next(reader, []), path, separator)
        for cells in reader:
            if len(cells) == len(columns):
                yield reader.line_num, dict(zip(columns, cells, strict=True))
            elif cells:
                found = f"expected {len(columns)} columns, found {len(cells)}"
                refuse(DataError(f"{path}:{reader.line_num}: {found}"))
    except csv.Error as error:
        refuse(DataError(f"{path}:{reader.line_num}: no table: {error}"))


def _columns(names: Sequence[str], path: Path, separator: str) -> list[str]:
    """The names of the columns, which have to differ; raises `DataError` where all of them stand in one."""
    columns = [bare_name(name) for name in names]
    if twice := [name for place, name in enumerate(columns) if name in columns[:place]]:
        raise DataError(f"{path}:1: two columns are named {twice[0]!r}")
    found = [mark for mark in SEPARATORS if mark in columns[0]] if len(columns) == 1 else []
    if found:
        wrong = "quotes around all of them" if separator in found else SEPARATORS[found[0]]
        remedy = "let its name end in .tsv" if found == ["\t"] else f"save it with {SEPARATORS[separator]}"
        raise DataError(
            f"{path}:1: the header is one column, {columns[0]!r}; expected {SEPARATORS[separator]} between columns, "
            f"found {wrong}: {remedy}"
        )
    return columns
