"""Fine-tune-CoT: one target, rationale and answer, with the prompt masked."""

import torch

from stages.settings import ObjectiveSettings
from tests.fakes import tiny_tokenizer
from tests.stages.student.objectives.reference import slow_cross_entropy
from tests.stages.student.test_step import EXAMPLES, model_of, plain_batch


def test_the_loss_is_the_cross_entropy_of_rationale_and_answer(student):
    settings = ObjectiveSettings(name="fine-tune-cot")
    batch = plain_batch(EXAMPLES, settings)
    out = model_of(student, settings)(**batch)
    torch.testing.assert_close(
        out["loss"], slow_cross_entropy(student, batch["explain_ids"], batch["explain_labels"]), rtol=1e-4, atol=1e-5
    )
    assert set(batch) == {"record", "explain_ids", "explain_labels", "explain_tokens"}
    assert set(out) == {"loss", "L_exp"}


def test_the_one_target_ends_with_the_answer():
    batch = plain_batch(EXAMPLES[:1], ObjectiveSettings(name="fine-tune-cot"))
    written = batch["explain_labels"][0]
    assert tiny_tokenizer().decode(written[written != -100]).startswith("3 + 4 = 7. The answer is 7.")
