"""Where a student looks, before its training and after it: kept beside it for `molsaki explore`, which loads no model.

In: a `DistillationModel` and its records. Out: stepwise attention of every layer for a few of the records, the same
ones for each student of a run. It is taken in evaluation mode, without gradients and without drawing a random number,
so that training goes on as if nobody had looked.

Shapes: B batch, L layers, T tokens, S reasoning steps, K critical words.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cache.durable import appearing
from cache.keys import in_order
from cache.student_attention import LOOKED_AT, StudentLook, When
from stages.attention.stepwise import recording_attention
from stages.attention.tokens import padded_ids, pooling
from stages.models.modes import evaluating
from stages.student.model import DistillationModel
from stages.student.records.kept import keys_of_records, lengths_of
from stages.student.step import TrainingStep
from stages.student.summary import LAYER_WEIGHTS
from stages.student.texts import TrainingCollator, TrainingRecord

ROWS = 1 << 16
"""Records whose layer weights are written at a time."""


def looked_at(records: Sequence[TrainingRecord]) -> list[TrainingRecord]:
    """The first ones in the order of their keys: hashes, so that this is a random choice that all students share."""
    return [records[number] for number in in_order(keys_of_records(records))[:LOOKED_AT].tolist()]


@torch.no_grad()
def student_looks(
    model: DistillationModel, records: Sequence[TrainingRecord], when: When, batch_size: int
) -> list[StudentLook]:
    """The student's stepwise attention to `records` on their `explain` texts (Eq. 3), and its layers' shares (Eq. 5).

    Raises `ModelError` for a student whose attention cannot be recorded.
    """
    by_length = sorted(records, key=lambda record: len(record.located.ids))
    with evaluating(model):
        return [
            look
            for start in range(0, len(by_length), batch_size)
            for look in _looks(model, by_length[start : start + batch_size], when)
        ]


def _looks(model: DistillationModel, records: Sequence[TrainingRecord], when: When) -> Iterator[StudentLook]:
    body = model.student.base_model
    located = [record.located for record in records]
    ids_BT = padded_ids(located, pad=0)
    pool = pooling(located, ids_BT.shape[1]).to(body.device)
    needs_values = model.aligner is not None and bool(model.aligner.needs_values)
    with recording_attention(body, pool, keep_values=needs_values) as recording:
        body(input_ids=ids_BT.to(body.device), use_cache=False)
    attention_BLSK = recording.stacked().float().cpu().numpy().astype(np.float16)
    weights_BL = None
    if model.aligner is not None:
        tokens = torch.tensor([len(one.ids) for one in located], device=body.device)
        token_mask = torch.arange(ids_BT.shape[1], device=body.device)[None] < tokens[:, None]
        weights_BL = model.aligner(recording, token_mask)[1].float().cpu().numpy()
    for row, record in enumerate(records):
        one = record.located
        yield StudentLook(
            key=record.key,
            when=when,
            attention=attention_BLSK[row, :, : one.steps, : len(one.tokens_of_word)],
            layer_weights=None if weights_BL is None else weights_BL[row],
        )


@torch.no_grad()
def student_layer_weights(
    model: DistillationModel, records: Sequence[TrainingRecord], collator: TrainingCollator, batch_size: int
) -> np.ndarray:
    """The share of each of the student's layers in L_att for each record, (n, L) float32, in evaluation mode."""
    assert model.aligner is not None, "no layers were chosen"
    device = next(model.parameters()).device
    by_length = np.argsort(lengths_of(records, "explain"), kind="stable")
    found = np.empty((len(records), 0), dtype=np.float32)
    with evaluating(model):
        for start in range(0, len(by_length), batch_size):
            numbers = by_length[start : start + batch_size].tolist()
            batch = {name: one.to(device) for name, one in collator([(n, records[n]) for n in numbers]).items()}
            with TrainingStep(model.student, model.aligner, batch).recording() as recording:
                model.student(input_ids=batch["explain_ids"], use_cache=False)
            _, weights_BL = model.aligner(recording, batch["token_mask"])
            if not found.size:
                found = np.empty((len(records), weights_BL.shape[1]), dtype=np.float32)
            found[numbers] = weights_BL.float().cpu().numpy()
    return found


def write_layer_weights(folder: Path, records: Sequence[TrainingRecord], student: np.ndarray) -> None:
    """Write `layer_weights.parquet` into `folder`; it appears complete or not at all."""
    weights = pa.list_(pa.float32())
    schema = pa.schema([("key", pa.string()), ("teacher", weights), ("student", weights)])
    with appearing(folder / LAYER_WEIGHTS) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in range(0, len(records), ROWS):
            some = [records[number] for number in range(start, min(start + ROWS, len(records)))]
            teacher = [None if record.target is None else record.target.layer_weights for record in some]
            columns = [record.key for record in some], teacher, list(student[start : start + ROWS])
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
