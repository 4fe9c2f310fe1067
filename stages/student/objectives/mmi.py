"""MMI (Chen et al. 2024, arXiv 2403.03348): DSS whose two tasks are drawn to each other's words."""

from typing import TYPE_CHECKING

from stages.student.objective import Objective

if TYPE_CHECKING:
    import torch

    from stages.student.step import TaskOutput, TrainingStep


class Mmi(Objective):
    """`L = α L_pre + (1 − α) L_exp + β L_mi`, with `L_mi = −Σ_v p_pre(v) log p_exp(v)` over the vocabulary.

    p of a task is the largest probability that the student gives a word at any token of the target, divided by the sum
    over all words. The predict side is detached, so that the rationale is drawn to the answer and not the reverse.

    Where paper and code (xinchen9/cot_distillation_ACL2024) part: the code takes the largest probabilities of the
    rationale for logits and applies softmax to them a second time, which leaves nearly the uniform distribution and
    next to no gradient, does not divide the answer's by their sum, and counts padding in. The paper speaks of the
    cross-entropy between the two outputs' distributions, which is computed here.
    """

    name = "mmi"
    tasks = ("predict", "explain")
    settings_used = ("alpha", "beta")
    default_beta = 0.1

    def losses(self, step: "TrainingStep") -> "dict[str, torch.Tensor]":
        """Return the two tasks' losses, and the cross-entropy between their outputs."""
        predict, explain = step.output("predict"), step.output("explain")
        wanted = _log_distribution(predict).detach().exp()
        l_mi = step.mean_over_records(-(wanted * _log_distribution(explain)).sum(dim=-1))
        two_tasks = self.alpha * predict.loss + (1 - self.alpha) * explain.loss
        return {"loss": two_tasks + self.beta * l_mi, "L_pre": predict.loss, "L_exp": explain.loss, "L_mi": l_mi}


def _log_distribution(output: "TaskOutput") -> "torch.Tensor":
    """Logarithm of the task's distribution over the vocabulary, (B, V) float32."""
    log_probabilities_BNV = output.logits_BNV.float().log_softmax(dim=-1)
    at_targets_BNV = log_probabilities_BNV.masked_fill(~output.is_target_BN[..., None], -float("inf"))
    # log_softmax of logarithms divides by their sum.
    return at_targets_BNV.amax(dim=1).log_softmax(dim=-1)
