"""The attention loss beside the rationale alone."""

import pytest
import torch

from stages.settings import AttentionTerm, ObjectiveSettings, TermSettings
from tests.stages.student.objectives.reference import slow_cross_entropy
from tests.stages.student.test_step import EXAMPLES, full_batch, model_of


@pytest.mark.parametrize(
    "settings",
    [
        ObjectiveSettings(name="molsaki-cot", beta=3.0),
        ObjectiveSettings(name="fine-tune-cot", terms=TermSettings(attention=AttentionTerm(weight=3.0))),
        ObjectiveSettings(name="molsaki", tasks=("explain",), beta=3.0),
    ],
)
def test_it_is_fine_tune_cot_with_the_attention_loss_of_molsaki(student, settings: ObjectiveSettings):
    batch = full_batch(student, EXAMPLES, settings)
    assert "predict_ids" not in batch
    out = model_of(student, settings)(**batch)
    l_exp = slow_cross_entropy(student, batch["explain_ids"], batch["explain_labels"])
    molsaki = ObjectiveSettings(beta=3.0)
    l_att = model_of(student, molsaki)(**full_batch(student, EXAMPLES, molsaki))["L_att"]
    torch.testing.assert_close(out["L_att"], l_att, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(out["loss"], l_exp + 3 * l_att, rtol=1e-4, atol=1e-5)
    assert {"L_exp", "layer_weights", "router_entropy"} <= out.keys()
