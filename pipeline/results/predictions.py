"""What students answered, kept in the run's folder: one Parquet file for each seed.

In: predictions and the fingerprint of how they came about. Out: `evaluation/seed-<n>.parquet`, a row for each
question and prompt, readable with any Parquet reader. The fingerprint stands in the file itself, so that the two
cannot part.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.durable import replace_file
from data.errors import DamagedCacheError, first_line
from data.records import Prediction

FINGERPRINT = b"molsaki.fingerprint"
SOURCES = b"molsaki.sources"
"""Where there is one: the fingerprint of what the other one follows from, in files that are read as they lie."""
Columns = Mapping[str, str]
"""Names of columns, in their order, each with what Arrow calls its type."""
Table = Mapping[str, Sequence[Any]]  # text, numbers or None, as Arrow has them
"""The values of each column, row by row."""
COLUMNS: Columns = {
    "seed": "int64",
    "dataset": "string",
    "question_id": "string",
    "prompt": "string",
    "output": "string",
    "parsed": "string",
    "gold": "string",
    "correct": "bool",
}


def write_predictions(path: Path, seed: int, predictions: Sequence[Prediction], fingerprint: str) -> None:
    """Write one seed's predictions; the file appears complete or not at all."""
    rows = [{name: seed if name == "seed" else getattr(one, name) for name in COLUMNS} for one in predictions]
    write_columns(path, COLUMNS, rows, fingerprint)


def read_predictions(paths: Iterable[Path]) -> Table:
    """The predictions in several files in one table with the columns `COLUMNS`."""
    return read_columns(paths, COLUMNS)


def write_columns(
    path: Path, columns: Columns, rows: Sequence[Mapping[str, object]], fingerprint: str, sources: str | None = None
) -> None:
    """Write rows with these columns, and the fingerprints of how they came about; complete or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {FINGERPRINT: fingerprint} | ({} if sources is None else {SOURCES: sources})
    fields = [pa.field(name, pa.type_for_alias(kind)) for name, kind in columns.items()]
    schema = pa.schema(fields, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), written, compression="zstd")
    replace_file(path, written.getvalue().to_pybytes())


def read_columns(paths: Iterable[Path], columns: Columns) -> Table:
    """What lies in several files in one table with these columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, list[Any]] = {name: [] for name in columns}
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                table = file.read(columns=list(columns), use_threads=False)
            for name, values in found.items():
                values += table[name].to_pylist()
        except (pa.ArrowException, KeyError) as error:
            raise DamagedCacheError(_damaged(path, error)) from error
    return found


def by_group(table: Table) -> Iterator[tuple[tuple[str, str], Table]]:
    """The rows of each data set and prompt, in the order in which these come up."""
    groups: dict[tuple[str, str], list[int]] = {}
    for row, group in enumerate(zip(table["dataset"], table["prompt"], strict=True)):
        groups.setdefault(group, []).append(row)
    for group, rows in groups.items():
        yield group, {name: [values[row] for row in rows] for name, values in table.items()}


def stored_fingerprint(path: Path, which: bytes = FINGERPRINT) -> str | None:
    """The fingerprint in the file at `path`, empty where it holds none; None where there is no file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        return None
    except pa.ArrowException as error:
        raise DamagedCacheError(_damaged(path, error)) from error
    return metadata.get(which, b"").decode()


def _damaged(path: Path, error: Exception) -> str:
    return f"{path}: does not decode ({first_line(error)}); delete it, and `molsaki evaluate CONFIG` makes it again"
