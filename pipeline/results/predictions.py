"""What students answered, kept in the run's folder: one Parquet file for each seed.

In: predictions and the fingerprint of how they came about. Out: `evaluation/seed-<n>.parquet`, a row for each
question and prompt, readable with any Parquet reader. The fingerprint stands in the file itself, so that the two
cannot part.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache.durable import replace_file
from data.errors import DamagedCacheError
from data.records import Prediction

if TYPE_CHECKING:
    import pandas as pd

FINGERPRINT = b"molsaki.fingerprint"
COLUMNS = ("seed", "dataset", "question_id", "prompt", "output", "parsed", "gold", "correct")


def write_predictions(path: Path, seed: int, predictions: Sequence[Prediction], fingerprint: str) -> None:
    """Write one seed's predictions; the file appears complete or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{name: seed if name == "seed" else getattr(one, name) for name in COLUMNS} for one in predictions]
    table = pa.Table.from_pylist(rows, schema=_schema(fingerprint))
    path.parent.mkdir(parents=True, exist_ok=True)
    written = pa.BufferOutputStream()
    pq.write_table(table, written, compression="zstd")
    replace_file(path, written.getvalue().to_pybytes())


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint in the predictions at `path`; None where there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        return None
    except pa.ArrowException as error:
        raise DamagedCacheError(_damaged(path, error)) from error
    return metadata.get(FINGERPRINT, b"").decode()


def read_predictions(paths: Iterable[Path]) -> "pd.DataFrame":
    """The predictions in several files in one frame with the columns `COLUMNS`."""
    import pandas as pd
    import pyarrow as pa

    frames = []
    for path in paths:
        try:
            frames.append(pd.read_parquet(path, columns=list(COLUMNS)))
        except (pa.ArrowException, KeyError) as error:
            raise DamagedCacheError(_damaged(path, error)) from error
    return pd.concat(frames, ignore_index=True)


def _schema(fingerprint: str) -> "pa.Schema":  # type: ignore[name-defined]  # noqa: F821
    import pyarrow as pa

    types = {"seed": pa.int64(), "correct": pa.bool_()}
    fields = [pa.field(name, types.get(name, pa.string())) for name in COLUMNS]
    return pa.schema(fields, metadata={FINGERPRINT: fingerprint.encode()})


def _damaged(path: Path, error: Exception) -> str:
    return f"{path}: does not decode ({error}); delete it, and `molsaki evaluate CONFIG` makes it again"
