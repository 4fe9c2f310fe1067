"""MMI: the cross-entropy between what the two tasks say, by hand and against a slow reference."""

import math
from collections.abc import Sequence

import pytest
import torch

from stages.settings import ObjectiveSettings
from stages.student.objectives.mmi import Mmi
from stages.student.step import TaskOutput
from tests.stages.student.objectives.reference import slow_cross_entropy
from tests.stages.student.test_step import EXAMPLES, model_of, plain_batch

MMI = ObjectiveSettings(name="mmi")


class Said:
    """A step whose outputs are given."""

    def __init__(self, **outputs: TaskOutput) -> None:
        self.output = outputs.__getitem__

    def answer(self, tasks: Sequence[str]) -> None:
        """Everything is there."""

    def cross_entropy(self, task: str) -> torch.Tensor:
        return self.output(task).loss

    def mean_over_records(self, values_B: torch.Tensor) -> torch.Tensor:
        return values_B.mean(dim=0)


def said(probabilities: list[list[float]], targets: list[bool]) -> TaskOutput:
    logits = torch.tensor([probabilities]).log().requires_grad_()
    return TaskOutput(loss=torch.tensor(0.0), logits_BNV=logits, is_target_BN=torch.tensor([targets]))


def test_the_cross_entropy_by_hand():
    # Largest of the answer's one target token: (1/2, 1/4, 1/4). Of the rationale's two: (0.6, 0.6, 0.2), sum 1.4.
    predict = said([[0.9, 0.05, 0.05], [0.5, 0.25, 0.25]], [False, True])
    explain = said([[0.6, 0.3, 0.1], [0.2, 0.6, 0.2], [0.01, 0.01, 0.98]], [True, True, False])
    out = Mmi(MMI).losses(Said(predict=predict, explain=explain))
    expected = -(0.75 * math.log(0.6 / 1.4) + 0.25 * math.log(0.2 / 1.4))
    assert out["L_mi"].item() == pytest.approx(expected, rel=1e-5)
    assert out["loss"].item() == pytest.approx(0.1 * expected, rel=1e-5)  # the source's β
    out["loss"].backward()
    assert predict.logits_BNV.grad is None, "the predict side is detached"
    assert explain.logits_BNV.grad.abs().sum() > 0


def test_the_loss_of_a_padded_batch_equals_a_slow_reference(student):
    settings = ObjectiveSettings(name="mmi", alpha=0.3, beta=2.0)
    batch = plain_batch(EXAMPLES, settings)
    out = model_of(student, settings)(**batch)
    l_mi = torch.stack([_slow(student, batch, row) for row in range(len(EXAMPLES))]).mean()
    l_pre, l_exp = (
        slow_cross_entropy(student, batch[f"{t}_ids"], batch[f"{t}_labels"]) for t in ("predict", "explain")
    )
    torch.testing.assert_close(out["loss"], 0.3 * l_pre + 0.7 * l_exp + 2.0 * l_mi, rtol=1e-4, atol=1e-5)


def _slow(student, batch, row: int) -> torch.Tensor:
    shares = []
    for task in ("predict", "explain"):
        at = batch[f"{task}_labels"][row].ne(-100).nonzero()[:, 0]
        ids = batch[f"{task}_ids"][row, : at.max() + 1]
        largest = student(input_ids=ids[None]).logits[0, at - 1].softmax(dim=-1).max(dim=0).values
        shares.append(largest / largest.sum())
    return -(shares[0] * shares[1].log()).sum()
