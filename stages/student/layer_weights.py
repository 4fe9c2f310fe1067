"""How much each layer counts, record by record: kept beside a student that was trained with attention, for plots.

In: a trained `DistillationModel` and its records. Out: `layer_weights.parquet`, a row a record: its key, the weights of
the teacher's layers in its targets (Eq. 4), and those of the student's layers once it is trained (Eq. 5). Their means
over training stand in the log of training.json.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cache.durable import replace_file
from stages.student.step import DistillationModel, TrainingCollator, TrainingRecord, TrainingStep

LAYER_WEIGHTS = "layer_weights.parquet"


@torch.no_grad()
def student_layer_weights(
    model: DistillationModel, records: Sequence[TrainingRecord], collator: TrainingCollator, batch_size: int
) -> list[list[float]]:
    """The share of each of the student's layers (L,) in L_att for each record, in evaluation mode."""
    assert model.helper is not None, "no layers were chosen"
    device = next(model.parameters()).device
    by_length = sorted(range(len(records)), key=lambda number: len(records[number].explain.ids))
    found: dict[int, list[float]] = {}
    was_training = model.training
    model.eval()
    for start in range(0, len(by_length), batch_size):
        numbers = by_length[start : start + batch_size]
        batch = {name: one.to(device) for name, one in collator([(n, records[n]) for n in numbers]).items()}
        step = TrainingStep(model.student, model.helper, batch)
        with step.recording() as recording:
            model.student(input_ids=batch["explain_ids"], use_cache=False)
        _, weights_BL = model.helper(recording, batch["token_mask"])
        found.update(zip(numbers, weights_BL.float().tolist(), strict=True))
    model.train(was_training)
    return [found[number] for number in range(len(records))]


def write_layer_weights(folder: Path, records: Sequence[TrainingRecord], student: Sequence[Sequence[float]]) -> None:
    """Write `layer_weights.parquet` into `folder`; it appears complete or not at all."""
    table = pa.table(
        {
            "key": [record.key for record in records],
            "teacher": pa.array(
                [None if record.target is None else record.target.layer_weights.tolist() for record in records],
                pa.list_(pa.float32()),
            ),
            "student": pa.array(student, pa.list_(pa.float32())),
        }
    )
    written = pa.BufferOutputStream()
    pq.write_table(table, written, compression="zstd")
    replace_file(folder / LAYER_WEIGHTS, written.getvalue().to_pybytes())
