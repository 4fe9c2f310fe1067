"""How likely students find what they should have written, kept in the run's folder: one Parquet file for each seed.

In: what `stages.likelihood` measured and the fingerprint of how it came about. Out:
`evaluation/likelihood/seed-<n>.parquet`, a row for each question and prompt, readable with any Parquet reader; and of
several of these, `LikelihoodScore`s. Predictions lie in files of their own, so that either can be made without the
other.

Runs are compared on texts that both were asked for. Log-probabilities per token of students whose tokenizers cut a text
differently cannot be compared; per byte of the text they can.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data.records import Likelihood
from pipeline.results.grid import Grid, Values, grid
from pipeline.results.predictions import Columns, Table, by_group, read_columns, write_columns
from stages.figures.statistics import PairedDifference, SeedMean, paired_bootstrap, seed_mean

COLUMNS: Columns = {
    "seed": "int64",
    "dataset": "string",
    "question_id": "string",
    "prompt": "string",
    "target": "string",
    "log_probability": "float64",
    "tokens": "int32",
    "bytes": "int32",
}


@dataclass(frozen=True, kw_only=True)
class LikelihoodScore:
    """What the students of a run give the texts of one data set and prompt: mean log-probability of a token, in nats.

    `difference` is to the base, of a token, or of a byte where `unit` says so, for the tokenizers differ. `left_out`
    counts questions that some student has no log-probability of.
    """

    per_token: SeedMean
    per_byte: SeedMean
    left_out: int
    difference: PairedDifference | None = None
    unit: Literal["token", "byte"] = "token"


@dataclass(frozen=True)
class TextLikelihoods:
    """Of one data set and prompt: sums of log-probabilities (seeds × texts), and tokens and bytes of the texts.

    A text is known by its question and by what it says: another reference rationale is another text.
    """

    sums: Grid[tuple[str, str]]
    tokens: Mapping[tuple[str, str], int]
    bytes: Mapping[tuple[str, str], int]


def write_likelihoods(
    path: Path, seed: int, found: Sequence[Likelihood], fingerprint: str, sources: str | None = None
) -> None:
    """Write what one seed's student gives the texts; the file appears complete or not at all."""
    rows = [{name: seed if name == "seed" else getattr(one, name) for name in COLUMNS} for one in found]
    write_columns(path, COLUMNS, rows, fingerprint, sources)


def read_likelihoods(paths: Iterable[Path]) -> Table:
    """What lies in several files in one table with the columns `COLUMNS`."""
    return read_columns(paths, COLUMNS)


def likelihoods(files: Mapping[int, Path]) -> dict[tuple[str, str], TextLikelihoods]:
    """The log-probabilities in files, one a seed, by data set and prompt; only texts that every seed has."""
    if not files:
        return {}
    found = {group: _texts(rows) for group, rows in by_group(read_likelihoods(files.values()))}
    return {group: texts for group, texts in found.items() if texts.sums.values.size}


def _texts(rows: Table) -> TextLikelihoods:
    texts = list(zip(rows["question_id"], rows["target"], strict=True))
    tokens, sizes = dict[tuple[str, str], int](), dict[tuple[str, str], int]()
    for text, count, size in zip(texts, rows["tokens"], rows["bytes"], strict=True):
        tokens[text], sizes[text] = max(count, tokens.get(text, 0)), max(size, sizes.get(text, 0))
    return TextLikelihoods(grid(rows["seed"], texts, rows["log_probability"]), tokens, sizes)


def likelihood_score(own: TextLikelihoods, base: TextLikelihoods | None) -> LikelihoodScore:
    """Mean and deviation over seeds, and the difference to `base`, paired by seed and text."""
    difference, unit = (None, "token") if base is None else _difference(base, own)
    return LikelihoodScore(
        per_token=seed_mean(_values(own.sums, own.tokens, own.sums.seeds, own.sums.asked)),
        per_byte=seed_mean(_values(own.sums, own.bytes, own.sums.seeds, own.sums.asked)),
        left_out=own.sums.left_out,
        difference=difference,
        unit="byte" if unit == "byte" else "token",
    )


def _difference(base: TextLikelihoods, own: TextLikelihoods) -> tuple[PairedDifference | None, str]:
    """Over the seeds and texts that both have; None where they share none."""
    seeds, texts = base.sums.common(own.sums)
    if not seeds or not texts:
        return None, "token"
    same = all(base.tokens[text] == own.tokens[text] for text in texts)
    pair = [_values(one.sums, one.tokens if same else one.bytes, seeds, texts) for one in (base, own)]
    return paired_bootstrap(*pair), "token" if same else "byte"


def _values(
    sums: Grid[tuple[str, str]],
    counts: Mapping[tuple[str, str], int],
    seeds: Sequence[int],
    texts: Sequence[tuple[str, str]],
) -> Values:
    return sums.at(seeds, texts) / np.array([counts[text] for text in texts], np.float64)
