"""How much a run's students weigh their layers: what training left in the run's folder enters, means and courses leave.

In: `student/seed-<n>/layer_weights.parquet`, a row a record, and the log in `training.json` beside it. Students that
were trained without attention have no weights and are left out.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import DamagedCacheError
from stages.shares import Spread, spread_by_layer

LAYER_WEIGHTS = "layer_weights.parquet"  # as in `stages.layer_weights`, which loads torch
TRAINING = "training.json"
SEED = re.compile(r"seed-(\d+)")


@dataclass(frozen=True, kw_only=True)
class StudentWeights:
    """One student: weights of its layers once it was trained, over `records`, and their means while it was trained.

    `steps` are the optimizer steps that were logged, `course` the weights (L,) at each.
    """

    seed: int
    records: int
    layers: tuple[Spread, ...]
    steps: tuple[int, ...]
    course: tuple[tuple[float, ...], ...]


def student_weights(folder: Path) -> Iterator[StudentWeights]:
    """Yield the students of the run in `folder` by seed; none where it does not exist."""
    matches = ((SEED.fullmatch(path.name), path) for path in (folder / "student").glob("seed-*"))
    for seed, path in sorted((int(match[1]), path) for match, path in matches if match):
        if (path / LAYER_WEIGHTS).is_file():
            yield _of_student(seed, path)


def _of_student(seed: int, folder: Path) -> StudentWeights:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(folder / LAYER_WEIGHTS, columns=["student"])["student"].to_pylist()
        entries = [entry for entry in _log(folder / TRAINING) if "layer_weights" in entry]
        return StudentWeights(
            seed=seed,
            records=len(rows),
            layers=tuple(spread_by_layer(rows)),
            steps=tuple(int(entry["step"]) for entry in entries),
            course=tuple(tuple(map(float, entry["layer_weights"])) for entry in entries),
        )
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise DamagedCacheError(
            f"{folder}: {LAYER_WEIGHTS} or {TRAINING} is not what training writes ({type(error).__name__}: {error}); "
            "remove the student's folder, and `molsaki train CONFIG` trains it again"
        ) from error


def _log(path: Path) -> list[dict[str, Any]]:  # whatever transformers logs
    log: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["log"]
    return log
