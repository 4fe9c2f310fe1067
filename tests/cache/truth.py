"""Attention blocks that follow from a number alone, so that any process can tell whether a stored record is right."""

from pathlib import Path

import numpy as np

from cache.keys import record_key
from cache.spaces import Space
from cache.writer import AttentionBlock
from data.records import Marked

SPEC = {"schema": 1, "teacher": {"source": "made up"}}


def make_space(store: Path) -> Space:
    return Space.open_or_create(store, "attention", "teacher", SPEC)


def make_block(number: int, *, layers: int = 2, steps: int = 3, words: int = 2) -> AttentionBlock:
    random = np.random.default_rng(number)
    question, rationale = f"Wie groß ist {number}?", f"So groß wie {number}."
    marked = Marked(
        question=question,
        rationale=rationale,
        text=f"{question}\n{rationale}",
        step_spans=tuple((step, step + 1) for step in range(steps)),
        critical_spans=tuple((word, word + 2) for word in range(0, 2 * words, 2)),
    )
    return AttentionBlock(
        key=record_key(marked),
        marked=marked,
        attention=random.gamma(0.5, size=(layers, steps, words)).astype(np.float32),
        step_tokens=random.integers(1, 20, steps),
    )


def stored(block: AttentionBlock) -> np.ndarray:
    return block.attention.astype(np.float16)
