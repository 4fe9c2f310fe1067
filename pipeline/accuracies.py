"""Accuracies of runs, from the predictions in their folders: what `evaluate` and `compare` show.

In: evaluation folders. Out: one `Score` for each run, data set and prompt, and against the first run one
`PairedDifference`, over the seeds and questions that both runs have.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache.durable import replace_file
from data.errors import ConfigError, MissingRecordsError
from pipeline.predictions import read_predictions, seed_files
from stages.statistics import Accuracy, PairedDifference, accuracy, paired_bootstrap

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = "summary.json"
Group = tuple[str, str]
"""Data set and prompt."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Accuracy of one run on one data set by one prompt; `difference` is to the first run, None for that one itself."""

    run: str
    dataset: str
    prompt: str
    accuracy: Accuracy
    difference: PairedDifference | None = None


def scores_of(run: str, evaluation: Path) -> list[Score]:
    """The accuracies of one run; `MissingRecordsError` where it has not been evaluated."""
    groups = _right_or_wrong(run, evaluation)
    return [_score(run, group, right, base=None) for group, right in groups.items()]


def compare(evaluations: Mapping[str, Path]) -> list[Score]:
    """The accuracies of several runs, by name, each with its paired difference to the first."""
    found = {run: _right_or_wrong(run, folder) for run, folder in evaluations.items()}
    first = next(iter(found.values()))
    groups = dict.fromkeys(group for groups in found.values() for group in groups)
    return [
        _score(run, group, own[group], base=None if own is first else first.get(group))
        for group in groups
        for run, own in found.items()
        if group in own
    ]


def write_summary(run: str, evaluation: Path) -> None:
    """Write the accuracies of `run` beside its predictions, as JSON."""
    content = json.dumps([asdict(score) for score in scores_of(run, evaluation)], indent=1)
    replace_file(evaluation / SUMMARY, content.encode())


def evaluation_folders(runs: Sequence[str], root: Path) -> dict[str, Path]:
    """The evaluation folders of `runs`, each the path of a run's folder or its name below `root`."""
    found: dict[str, Path] = {}
    for run in runs:
        folder = Path(run) if Path(run).is_dir() else root / run
        if not folder.is_dir():
            raise ConfigError(f"run {run}: neither a folder nor a run in {root}")
        name = folder.resolve().name if folder.resolve().name not in found else str(folder)
        if name in found:
            raise ConfigError(f"run {run}: named twice")
        found[name] = folder / "evaluation"
    return found


def _right_or_wrong(run: str, evaluation: Path) -> "dict[Group, pd.DataFrame]":
    """Frames of seeds × questions for each data set and prompt; only questions that every seed answered."""
    if not (files := seed_files(evaluation)):
        raise MissingRecordsError(f"run {run}: no predictions in {evaluation}; make them with: molsaki evaluate CONFIG")
    frame = read_predictions(files)
    return {
        (str(dataset), str(prompt)): rows.pivot(index="seed", columns="question_id", values="correct").dropna(axis=1)
        for (dataset, prompt), rows in frame.groupby(["dataset", "prompt"], sort=False)
    }


def _score(run: str, group: Group, right: "pd.DataFrame", base: "pd.DataFrame | None") -> Score:
    difference = _difference(base, right) if base is not None else None
    dataset, prompt = group
    return Score(run=run, dataset=dataset, prompt=prompt, accuracy=accuracy(_shares(right)), difference=difference)


def _difference(base: "pd.DataFrame", other: "pd.DataFrame") -> PairedDifference | None:
    """Paired over what both have; None where they share no seed or no question."""
    seeds, questions = base.index.intersection(other.index), base.columns.intersection(other.columns)
    if seeds.empty or questions.empty:
        return None
    return paired_bootstrap(_shares(base.loc[seeds, questions]), _shares(other.loc[seeds, questions]))


def _shares(right: "pd.DataFrame") -> np.ndarray:
    return right.to_numpy(dtype=np.float64)
