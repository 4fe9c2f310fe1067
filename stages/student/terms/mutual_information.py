"""L_mi of MMI (Chen et al. 2024, arXiv 2403.03348): two tasks that are drawn to each other's words."""

from typing import TYPE_CHECKING

from stages.student.terms.term import Term

if TYPE_CHECKING:
    import torch

    from cache.fingerprints import Spec
    from stages.student.step import TaskOutput, TrainingStep


class MutualInformation(Term):
    """`L_mi = −Σ_v p_pre(v) log p_exp(v)` over the vocabulary.

    p of a task is the largest probability that the student gives a word at any token of the target, divided by the sum
    over all words. The predict side is detached, so that the rationale is drawn to the answer and not the reverse.

    Where paper and code (xinchen9/cot_distillation_ACL2024) part: the code takes the largest probabilities of the
    rationale for logits and applies softmax to them a second time, which leaves nearly the uniform distribution and
    next to no gradient, does not divide the answer's by their sum, and counts padding in. The paper speaks of the
    cross-entropy between the two outputs' distributions, which is computed here.
    """

    symbol = "L_mi"
    tasks = ("predict", "explain")

    def losses(self, step: "TrainingStep") -> "dict[str, torch.Tensor]":
        """Return the cross-entropy between the two tasks' outputs."""
        predict, explain = step.output("predict"), step.output("explain")
        wanted = _log_distribution(predict).detach().exp()
        return {"L_mi": step.mean_over_records(-(wanted * _log_distribution(explain)).sum(dim=-1))}

    def described(self) -> "Spec":
        """Nothing but its weight."""
        return {}


def _log_distribution(output: "TaskOutput") -> "torch.Tensor":
    """Logarithm of the task's distribution over the vocabulary, (B, V) float32."""
    log_probabilities_BNV = output.logits_BNV.float().log_softmax(dim=-1)
    at_targets_BNV = log_probabilities_BNV.masked_fill(~output.is_target_BN[..., None], -float("inf"))
    # log_softmax of logarithms divides by their sum.
    return at_targets_BNV.amax(dim=1).log_softmax(dim=-1)
