"""Stage one, second half: the teacher's stepwise attention (Eq. 2 after arXiv 2604.15701), computed and stored.

`stepwise_attention` is for outside code, and loaded when asked for: what only selects records or names spaces needs no
torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.attention.stepwise import stepwise_attention

__all__ = ["stepwise_attention"]


def __getattr__(name: str) -> object:
    """Load `stepwise_attention` when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stages.attention import stepwise

    return getattr(stepwise, name)
