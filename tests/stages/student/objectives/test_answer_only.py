"""Plain fine-tuning: the loss is that of the answer, and the rationale is not even in the batch."""

import torch

from stages.settings import ObjectiveSettings
from tests.stages.student.objectives.reference import slow_cross_entropy
from tests.stages.student.test_step import EXAMPLES, model_of, plain_batch


def test_the_loss_is_the_cross_entropy_of_the_answer(student):
    settings = ObjectiveSettings(name="answer-only")
    batch = plain_batch(EXAMPLES, settings)
    out = model_of(student, settings)(**batch)
    torch.testing.assert_close(
        out["loss"], slow_cross_entropy(student, batch["predict_ids"], batch["predict_labels"]), rtol=1e-4, atol=1e-5
    )
    assert set(batch) == {"record", "predict_ids", "predict_labels", "predict_tokens"}
    assert set(out) == {"loss", "L_pre"}
