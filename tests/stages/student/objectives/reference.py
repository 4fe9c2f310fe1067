"""Cross-entropies computed one token at a time, from the student's logits alone."""

import torch
from transformers import PreTrainedModel


def slow_cross_entropy(student: PreTrainedModel, ids_BT: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """Mean of −log p(token) over all tokens with a label, text by text without its padding."""
    losses = []
    for ids, labels in zip(ids_BT, labels_BT, strict=True):
        last = int(labels.ne(-100).nonzero().max())
        probabilities = student(input_ids=ids[None, : last + 1]).logits[0].double().softmax(dim=-1)
        losses += [-probabilities[at - 1, ids[at]].log() for at in range(1, last + 1) if labels[at] != -100]
    return torch.stack(losses).mean().float()
