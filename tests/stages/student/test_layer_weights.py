"""Layer weights of single records: those of the teacher's targets, and the trained student's whatever the batch."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stages.mixture import mixed_targets
from stages.settings import ObjectiveSettings, SinglePair
from stages.student.looks import student_layer_weights, write_layer_weights
from stages.student.summary import LAYER_WEIGHTS
from stages.student.texts import TrainingCollator, training_record
from tests.fakes import tiny_tokenizer
from tests.stages.student.test_step import EXAMPLES, full_batch, model_of, student
from tests.stages.student.test_train import attention, folder, train

__all__ = ["attention", "folder", "student"]


@pytest.fixture
def records():
    tokenizer = tiny_tokenizer()
    blocks = [
        np.random.default_rng(0).random((3, len(e.marked.step_spans), len(e.marked.critical_spans))) for e in EXAMPLES
    ]
    targets = mixed_targets(blocks, 0.1)
    return [training_record(tokenizer, one, target) for one, target in zip(EXAMPLES, targets, strict=True)]


def test_a_students_weights_do_not_depend_on_the_batch(student, records):
    model = model_of(student, ObjectiveSettings(), teacher_layers=3).train()
    torch.nn.init.normal_(model.aligner.router.score.weight, std=0.05)
    collator = TrainingCollator(pad=tiny_tokenizer().pad_token_id)
    together = student_layer_weights(model, records, collator, 16)
    alone = student_layer_weights(model, records, collator, 1)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.sum(together, axis=1), 1, atol=1e-6)
    assert not np.allclose(together[0], together[1])
    assert model.training
    model.eval()
    logged = model(**full_batch(student, EXAMPLES))["layer_weights"]
    np.testing.assert_allclose(np.mean(together, axis=0), logged.detach().numpy(), atol=1e-6)


def test_paired_layers_have_the_same_share_in_every_record(student, records):
    settings = ObjectiveSettings(alignment=SinglePair(single=(1, 2)))
    model = model_of(student, settings, teacher_layers=3)
    found = student_layer_weights(model, records, TrainingCollator(pad=tiny_tokenizer().pad_token_id), 2)
    assert found.tolist() == [[0.0, 1.0]] * 2


def test_the_file_has_a_row_for_each_record(student, records, tmp_path: Path):
    write_layer_weights(tmp_path, records, [[0.25, 0.75], [1.0, 0.0]])
    frame = pd.read_parquet(tmp_path / LAYER_WEIGHTS)
    assert frame["key"].tolist() == [one.key for one in EXAMPLES]
    for row, record in zip(frame.itertuples(), records, strict=True):
        np.testing.assert_array_equal(row.teacher, record.target.layer_weights)
    assert frame["student"].map(list).tolist() == [[0.25, 0.75], [1.0, 0.0]]


def test_training_leaves_them_beside_the_student(folder, attention, tmp_path: Path):
    train(folder, tmp_path, attention)
    frame = pd.read_parquet(tmp_path / LAYER_WEIGHTS)
    assert sorted(frame["key"]) == sorted(attention)
    np.testing.assert_allclose(frame["student"].map(sum), 1, atol=1e-6)
    train(folder, tmp_path / "dss", None, objective=ObjectiveSettings(name="dss"))
    assert not (tmp_path / "dss" / LAYER_WEIGHTS).exists()
