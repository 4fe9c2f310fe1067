"""Batches of texts of like length under a budget of tokens, which halves when memory runs out.

In: the lengths of texts and what to do with a batch. Out: a result for each text, in the texts' order. Sorting by
length keeps padding small; a budget in tokens, padding included, makes every batch as large as the first that fitted.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from data.errors import ModelError
from stages.runtime.device import unless_out_of_memory

log = logging.getLogger(__name__)
Result = TypeVar("Result")
FOR_THE_TEACHER = "lower attention.max_length, or spread the teacher over several devices with teacher.device_map: auto"


class TokenBudget:
    """Most tokens, padding included, in one forward pass; what did not fit is not tried again.

    `setting` is the key that it was read from, empty where there is none, and `remedy` what helps where a single text
    does not fit.
    """

    def __init__(self, tokens: int, *, setting: str = "attention.batch_tokens", remedy: str = FOR_THE_TEACHER) -> None:
        self.tokens, self.remedy = tokens, remedy
        self._setting = f" ({setting})" if setting else ""

    def halve(self, tried: int) -> None:
        """Half of what did not fit is the budget from now on."""
        self.tokens = tried // 2
        log.warning(
            "out of memory with %s tokens in a batch: going on with %s%s",
            f"{tried:,}",
            f"{self.tokens:,}",
            self._setting,
        )


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group indices so that longest × count stays within `batch_tokens`; a text longer than that goes alone.

    Longest first, so that a batch that does not fit into memory shows at once.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def key_batches(ordered: Sequence[str], lengths: Mapping[str, int], budget: TokenBudget) -> Iterator[Sequence[str]]:
    """Cut keys, longest text first, into batches under a budget that may become smaller on the way.

    They are those of `length_batches` over all records, whatever is committed when.
    """
    first = 0
    while first < len(ordered):
        count = max(1, budget.tokens // max(1, lengths[ordered[first]]))
        yield ordered[first : first + count]
        first += count


def compute_in_batches(
    lengths: Sequence[int], budget: TokenBudget, compute: Callable[[list[int]], Sequence[Result]]
) -> list[Result]:
    """Hand batches of indices to `compute`, which returns a result for each index; every index once.

    A batch for which memory runs out is taken apart, and all later ones are smaller. Raises `ModelError` where a single
    text is too much.
    """
    results: dict[int, Result] = {}
    while len(results) < len(lengths):
        left = [i for i in range(len(lengths)) if i not in results]
        for batch in length_batches([lengths[i] for i in left], budget.tokens):
            chosen = [left[i] for i in batch]
            found = unless_out_of_memory(partial(compute, chosen))
            if found is None:
                tried = lengths[chosen[0]] * len(chosen)
                if len(chosen) == 1:
                    raise ModelError(f"a text of {tried:,} tokens alone does not fit into memory; {budget.remedy}")
                budget.halve(tried)
                break
            results.update(zip(chosen, found, strict=True))
    return [results[i] for i in range(len(lengths))]
