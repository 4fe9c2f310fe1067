"""What a step's attention goes to beside single critical words: stored sums enter, shares that add up to one leave.

The stepwise attention of a record (Eq. 2 after arXiv 2604.15701) tells what each critical word receives, not how much
that is of all that the step gives. For that a part may hold three sums more for each step and layer:

- `overlap`: what was counted more than once, for its token belongs to several words. All critical words together
  receive their sum less this. It is 0 for most records, and then costs nothing.
- `special`: tokens that cover no character of the text, such as a begin token, on which models rest attention that
  they have no use for.
- `sinks`: learned sinks (gpt-oss), one more score a head that takes its share and is no token; 0 for other models.

Softmax gives every token of the step 1 to hand out. What is left of `tokens` went to the other words.

Shape letters: L layers, S steps, K critical words.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Receiver = Literal["overlap", "special", "sinks"]
RECEIVERS: tuple[Receiver, ...] = get_args(Receiver)
"""In the order of the stored array's dimension of this name."""

Sums = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class StepTotals:
    """Where the attention of a record's steps goes: sums over the tokens of each step, (L, S) each; `tokens` (S,).

    `critical` is what the critical words receive together; what of it was counted for several is `overlap`, no part of
    the whole.
    """

    critical: Sums
    special: Sums
    sinks: Sums
    overlap: Sums
    tokens: npt.NDArray[np.integer[Any]]

    @property
    def other(self) -> Sums:
        """What the other words receive (L, S): the rest, never below zero, where rounding alone would put it."""
        rest: Sums = self.tokens - (self.critical + self.special + self.sinks)
        return np.maximum(rest, 0.0)

    def receivers(self) -> Sums:
        """The sums as one array (L, S, 3), as they are stored."""
        return np.stack([self.overlap, self.special, self.sinks], axis=-1)


def step_totals(attention_LSK: Sums, receivers_LSR: Sums, tokens_S: npt.NDArray[np.integer[Any]]) -> StepTotals:
    """Put together what is stored of one record, in float64, which adds up without rounding once more."""
    overlap, special, sinks = np.moveaxis(receivers_LSR.astype(np.float64), -1, 0)
    critical = np.maximum(attention_LSK.sum(axis=2, dtype=np.float64) - overlap, 0.0)
    return StepTotals(critical=critical, special=special, sinks=sinks, overlap=overlap, tokens=tokens_S)
