"""Half precision is for models; sums over many tokens, exponentials and losses are computed in float32 at least."""

import torch


def at_least_float32(numbers: torch.Tensor) -> torch.Tensor:
    """Return `numbers` in float32, or in float64 if they are."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))
