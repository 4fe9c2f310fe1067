"""What training has left of the students of a run, for reports and figures: summaries, logs, weights of layers.

In: the folder of a run. Out: a `TrainedStudent` for each one that is done. Torch is not imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.results.folder import RunFolder, StudentFolder
from stages.figures.statistics import Log
from stages.student.summary import damaged_student, read_summary

OF_TRAINER = frozenset({"step", "epoch", "learning_rate", "grad_norm", "total_flos"})
DEV, WEIGHTS, LOSS = "eval_accuracy", "layer_weights", "loss"


@dataclass(frozen=True, kw_only=True)
class TrainedStudent:
    """One student; `summary` is what its training.json says."""

    folder: StudentFolder
    seed: int
    summary: Mapping[str, Any]  # a file of ours, of whatever version

    @property
    def log(self) -> list[Mapping[str, Any]]:
        """Entries of training; what the Trainer says of all of it in the end is none."""
        return [entry for entry in self.summary.get("log", []) if LOSS in entry]

    @property
    def looks(self) -> Log:
        """Accuracies on dev questions during training."""
        return [(entry["step"], entry[DEV]) for entry in self.summary.get("log", []) if DEV in entry]

    @property
    def names(self) -> list[str]:
        """Losses that were logged: the total first, then its parts as they come."""
        found = dict.fromkeys(name for entry in self.log for name, value in entry.items() if _is_loss(name, value))
        return sorted(found, key=lambda name: name != LOSS)

    @property
    def layers(self) -> int:
        """Layers whose weights were logged."""
        return len(self.course[0][1]) if self.course else 0

    @cached_property
    def course(self) -> list[tuple[int, tuple[float, ...]]]:
        """The weights of its layers (L,) at each step at which they were logged."""
        entries = [entry for entry in self.summary.get("log", []) if WEIGHTS in entry]
        return [(int(entry["step"]), tuple(map(float, entry[WEIGHTS]))) for entry in entries]

    def values(self, name: str) -> Log:
        """What was logged under a name."""
        return [(entry["step"], float(entry[name])) for entry in self.log if name in entry]

    def layer(self, number: int) -> Log:
        """What was logged of one layer's weight."""
        return [(step, weights[number]) for step, weights in self.course]

    @cached_property
    def layer_weights(self) -> dict[str, np.ndarray] | None:
        """Weights (records, layers) under `teacher` (Eq. 4; empty where it had none) and `student` (Eq. 5), if kept.

        Raises `DamagedCacheError` where the file does not decode.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder.layer_weights
        if not path.is_file():
            return None
        try:
            table = pq.read_table(path, columns=["teacher", "student"])
            return {
                name: np.array(table[name].drop_null().to_pylist(), dtype=np.float64) for name in table.column_names
            }
        except (pa.ArrowException, ValueError, KeyError) as error:
            raise damaged_student(path, error) from error


def trained_students(folder: Path) -> list[TrainedStudent]:
    """The finished students of a run, by seed; raises `DamagedCacheError` where a training.json does not decode."""
    found = []
    for seed, beside in RunFolder(folder).students().items():
        if (summary := read_summary(beside.path)) is None:
            continue
        student = TrainedStudent(folder=beside, seed=seed, summary=summary)
        try:
            _ = student.names, student.course, student.looks  # a log that is none of ours shows here
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged_student(beside.summary, error) from error
        found.append(student)
    return found


def _is_loss(name: str, value: object) -> bool:
    return name not in OF_TRAINER and isinstance(value, int | float) and not name.startswith(("train_", "eval_"))
