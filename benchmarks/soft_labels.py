"""What a row of soft labels costs on disk: vocabularies and K enter, bytes a row and the error of rounding leave.

    python -m benchmarks.soft_labels

Rows are made up and look like those of a language model: normal logits on top of Zipf's law, -ln(1 + rank), so that the
same tokens are likely in most rows, spread so much that the teacher is sure of the next token in some rows and hardly
in others. Ids are in no order of likelihood. Everything counts: all arrays, metadata, and the commit.

Letters: r rows, K tokens of a row, V tokens of the vocabulary.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.soft_labels.block import SoftLabelBlock
from cache.soft_labels.figures import mass_held
from cache.soft_labels.reader import SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Space

VOCABULARIES = (49_152, 151_936)
KEPT = (16, 64, 128)
RECORDS, ROWS_A_RECORD = 30, 100
TEMPERATURES = (1, 2)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One vocabulary and K: bytes a row in all and of each array, the mass held, and the largest errors of ln p."""

    vocabulary: int
    k: int
    rows: int
    bytes_a_row: float
    arrays: dict[str, float]
    mass: dict[str, float]
    float16_error: float
    bfloat16_error: float


def measure(vocabulary: int, blocks: Sequence[SoftLabelBlock], k: int) -> Case:
    """Write the `k` most likely tokens of all rows as one part, and weigh it."""
    with tempfile.TemporaryDirectory() as folder:
        spec = {"schema": 1, "layout": "top", "k": k, "vocabulary_size": vocabulary}
        space = Space.open_or_create(Path(folder), "soft-labels", "measured", spec)
        commit = SoftLabelWriter(space).append([_kept(block, k) for block in blocks])
        size = commit.bytes + sum(path.stat().st_size for path in (space.path / "commits").iterdir())
        rows, files = commit.counts["rows"], commit.files.items()
        names = sorted({name.partition("/")[0] for name, _ in files if "/" in name})
        logits = np.concatenate([block.logits[:, :k] for block in blocks if block.logits is not None])
        store = SoftLabelStore(space)
        return Case(
            vocabulary=vocabulary,
            k=k,
            rows=rows,
            bytes_a_row=size / rows,
            arrays={
                name: sum(entry.size for file, entry in files if file.startswith(f"{name}/")) / rows for name in names
            },
            mass={f"temperature {each}": mass_held(store, each).mean for each in TEMPERATURES},
            float16_error=float(np.abs(logits.astype(np.float16).astype(np.float32) - logits).max()),
            bfloat16_error=float(np.abs(_as_bfloat16(logits) - logits).max()),
        )


def _kept(block: SoftLabelBlock, k: int) -> SoftLabelBlock:
    assert block.tokens is not None and block.logits is not None, "the layout top has both"
    return replace(block, tokens=block.tokens[:, :k], logits=block.logits[:, :k])


def _as_bfloat16(values: npt.NDArray[np.floating]) -> Floats:
    """Round to 8 bits of mantissa, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def made_up(vocabulary: int, k: int, seed: int = 0) -> list[SoftLabelBlock]:
    """Return records with the `k` most likely tokens of their rows."""
    chance = np.random.default_rng(seed)
    zipf = -np.log1p(chance.permutation(vocabulary)).astype(np.float32)
    return [_record(zipf, k, chance) for _ in range(RECORDS)]


def _record(zipf: Floats, k: int, chance: np.random.Generator) -> SoftLabelBlock:
    rows = [_row(zipf, k, chance) for _ in range(ROWS_A_RECORD)]
    logits, norms = np.stack([logits for _, logits, _ in rows]), np.stack([norms for *_, norms in rows])
    return SoftLabelBlock(
        key=chance.bytes(32).hex(),
        ends=np.cumsum(chance.integers(1, 9, ROWS_A_RECORD)),
        log_probability=logits[np.arange(len(rows)), chance.geometric(0.7, len(rows)).clip(max=k) - 1] - norms[:, 0],
        tokens=np.stack([tokens for tokens, *_ in rows]),
        logits=logits,
        log_norms=norms,
    )


def _row(zipf: Floats, k: int, chance: np.random.Generator) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Return ids, logits less the largest, and the norms of one row."""
    logits = chance.uniform(1, 3) * (zipf + 1.5 * chance.standard_normal(len(zipf), np.float32))
    logits = (logits - logits.max()).astype(np.float32)
    largest = np.argpartition(-logits, k)[:k]
    largest = largest[np.argsort(-logits[largest])]
    norms = [np.log(np.exp(logits / temperature).sum(dtype=np.float64)) for temperature in TEMPERATURES]
    return largest, logits[largest], np.array(norms, np.float32)


def show(case: Case) -> None:
    """Print what was found of one case."""
    arrays = ", ".join(f"{name} {size:.1f}" for name, size in case.arrays.items())
    mass = ", ".join(f"{share:.1%} at {name}" for name, share in case.mass.items())
    print(f"V {case.vocabulary:,}, K {case.k}: {case.bytes_a_row:.1f} bytes a row ({arrays}), {case.rows:,} rows")
    print(f"    mass {mass}; error of ln p at most {case.float16_error:.2g}, {case.bfloat16_error:.2g} in bfloat16")


def main() -> None:
    """Measure every vocabulary and K."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soft_labels", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    cases = []
    for vocabulary in VOCABULARIES:
        blocks = made_up(vocabulary, max(KEPT))
        cases += [measure(vocabulary, blocks, k) for k in KEPT]
    if options.json:
        print(json.dumps([asdict(case) for case in cases]))
        return
    for case in cases:
        show(case)


if __name__ == "__main__":
    main()
