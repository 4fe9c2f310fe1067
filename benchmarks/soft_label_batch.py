"""What a batch of soft labels costs the collator: a store with 64 likeliest tokens enters, milliseconds a batch leave.

    python -m benchmarks.soft_label_batch

Sixteen records of a hundred target tokens each are taken from the memory map at random, as training does. Cases take
turns, and the first round is left out. `same` are tokens as the teacher's; `other` ones of which a few end elsewhere,
so that rows are sought; `text` the same, learned from in pieces.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.soft_labels import made_up
from cache.soft_labels.block import SoftLabelBlock
from cache.soft_labels.mapped import mapped_soft_labels
from cache.soft_labels.reader import SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Space
from stages.settings import SoftLabelTerm
from stages.student.records.soft_labels import SoftTargets

VOCABULARY, KEPT, RECORDS = 32_000, 64, 16
MOVED = 7
"""In `other` one of so many tokens is a character longer."""


def stored(folder: Path) -> Mapping[str, SoftLabelBlock]:
    """Write made-up records, and map them."""
    spec = {"schema": 1, "layout": "top", "k": KEPT, "vocabulary_size": VOCABULARY}
    space = Space.open_or_create(folder, "soft-labels", "measured", spec)
    SoftLabelWriter(space).append(made_up(VOCABULARY, KEPT))
    return mapped_soft_labels(SoftLabelStore(space))


def moved(ends: np.ndarray) -> np.ndarray:
    """Some borders elsewhere, and the last where it was."""
    later = np.arange(len(ends)) % MOVED == 0
    later[-1] = False
    return np.minimum(ends + later, np.append(ends[1:], ends[-1]))


def main() -> None:
    """Print the median and the range of each case."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soft_label_batch", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    chance = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        blocks = stored(Path(folder))
        same = {key: np.array(block.ends) for key, block in blocks.items()}
        other = {key: moved(ends) for key, ends in same.items()}
        by_row = SoftTargets(blocks=blocks, settings=SoftLabelTerm())
        by_text = SoftTargets(blocks=blocks, settings=SoftLabelTerm(match="text"))
        cases = {"same": (by_row, same), "other": (by_row, other), "text": (by_text, other)}
        took: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(options.rounds):
            keys = chance.choice(list(blocks), RECORDS, replace=False)
            for name, (targets, ends) in cases.items():
                started = time.perf_counter()
                targets.of([(str(key), ends[key]) for key in keys])
                took[name].append(1e3 * (time.perf_counter() - started))
    for name, times in took.items():
        print(f"{name}: {statistics.median(times[1:]):.2f} ms a batch ({min(times[1:]):.2f} to {max(times[1:]):.2f})")


if __name__ == "__main__":
    main()
