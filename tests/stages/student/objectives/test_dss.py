"""Distilling step by step: two tasks, weighed by alpha."""

import pytest
import torch

from stages.settings import ObjectiveSettings
from tests.stages.student.objectives.reference import slow_cross_entropy
from tests.stages.student.test_step import EXAMPLES, model_of, plain_batch


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_loss_weighs_the_two_tasks(student, alpha: float):
    settings = ObjectiveSettings(name="dss", alpha=alpha)
    batch = plain_batch(EXAMPLES, settings)
    out = model_of(student, settings)(**batch)
    l_pre = slow_cross_entropy(student, batch["predict_ids"], batch["predict_labels"])
    l_exp = slow_cross_entropy(student, batch["explain_ids"], batch["explain_labels"])
    torch.testing.assert_close(out["loss"], alpha * l_pre + (1 - alpha) * l_exp, rtol=1e-4, atol=1e-5)
