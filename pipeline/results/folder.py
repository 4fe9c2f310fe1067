"""Where everything lies in the folder of a run: this file alone knows the names.

In: the folder of a run, of a point of a matrix, or of a matrix. Out: paths, whether or not anything is there, and which
students and answers there are. Nothing is read here but names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from stages.runtime.shard import Shard
from stages.student.summary import CHECKPOINTS, LAYER_WEIGHTS, SUMMARY

CARD = "README.md"
KEPT_HERE = (f"{CHECKPOINTS}/*", "molsaki.yaml")
"""What is never handed on with a student; earlier versions wrote a configuration with paths of this machine."""
OF_SEED = re.compile(r"seed-(\d+)")


class Folder(Protocol):
    """Something that has a place."""

    @property
    def path(self) -> Path:
        """The place."""


class Inside:
    """What is called so in a folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: Folder, owner: type) -> Path:
        return folder.path / self._name


@dataclass(frozen=True)
class StudentFolder:
    """What lies beside a student's weights."""

    path: Path
    summary = Inside(SUMMARY)
    """What it is, in one file, which is there once the student is complete."""
    card = Inside(CARD)
    """The same for people, as the hub shows it."""
    layer_weights = Inside(LAYER_WEIGHTS)
    """Weights of teacher's and student's layers, a row a record."""

    @property
    def attention(self) -> Path:
        """Where it looked before and after training."""
        from cache.student_attention import STUDENT_ATTENTION  # with pyarrow, which few have need of

        return self.path / STUDENT_ATTENTION


@dataclass(frozen=True)
class EvaluationFolder:
    """The answers of students to a split, and how likely they find the right ones, a file a seed each."""

    path: Path
    summary = Inside("summary.json")
    """The accuracies."""
    all_likelihoods = Inside("likelihood")

    def predictions(self, seed: int) -> Path:
        """The answers of a seed's student."""
        return self.path / f"{_of(seed)}.parquet"

    def seeds(self) -> dict[int, Path]:
        """The answers that are there, by seed."""
        return dict(_by_seed(self.path, ".parquet"))

    def likelihood(self, seed: int) -> Path:
        """Log-probabilities that a seed's student gives the gold answers and the reference rationales."""
        return self.all_likelihoods / f"{_of(seed)}.parquet"

    def likelihoods(self) -> dict[int, Path]:
        """The log-probabilities that are there, by seed."""
        return dict(_by_seed(self.all_likelihoods, ".parquet"))


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run; that of a matrix has its points as folders in it."""

    path: Path
    config = Inside("config.yaml")
    """The configuration with every default, which runs by itself."""
    matrix = Inside("matrix.json")
    """Names of a matrix's points, in its order, with their values."""
    summary = Inside("summary.json")
    """Accuracies of all points of a matrix."""
    results = Inside("results.md")
    """The same as a table."""
    report = Inside("report.html")
    """The run on one page."""
    explorer = Inside("explore.html")
    """Its records on one page."""
    provenance = Inside("provenance.json")
    """What was executed, all in one file."""
    provenance_entries = Inside("provenance")
    """The same, a file for each execution."""
    task = Inside("lm-eval")
    """Its test as a task of lm-evaluation-harness."""
    trackers = Inside("logs")
    """What trackers write while students are trained."""
    all_students = Inside("student")
    earlier = Inside("earlier")
    """What was made with other settings."""

    def log(self, shard: Shard | None = None) -> Path:
        """The log; each shard has its own, for appends from several machines to one file can get lost."""
        which = "" if shard is None else f"-{shard.index}-of-{shard.count}"
        return self.path / f"log{which}.jsonl"

    def logs(self) -> list[Path]:
        """The logs that are there, those of shards among them."""
        return sorted(self.path.glob("log*.jsonl"))

    def student(self, seed: int) -> StudentFolder:
        """The student of a seed."""
        return StudentFolder(self.all_students / _of(seed))

    def students(self) -> dict[int, StudentFolder]:
        """The students that are there, finished or not, by seed."""
        return {seed: StudentFolder(path) for seed, path in _by_seed(self.all_students, "")}

    def evaluation(self, split: str = "test") -> EvaluationFolder:
        """The answers to a split."""
        return EvaluationFolder(self.path / ("evaluation" if split == "test" else f"evaluation-{split}"))

    def evaluations(self) -> list[EvaluationFolder]:
        """The answers to all splits that there are any to."""
        return [EvaluationFolder(path) for path in sorted(self.path.glob("evaluation*"))]

    def earlier_at(self, when: datetime) -> Path:
        """What was set aside at a time."""
        return self.earlier / when.strftime("%Y%m%dT%H%M%S.%fZ")

    def holds_run(self) -> bool:
        """Whether there is anything of a run, or of a matrix."""
        parts = (self.config, self.all_students, self.evaluation().path, self.provenance_entries)
        return any(part.exists() for part in parts)


def _of(seed: int) -> str:
    return f"seed-{seed}"


def _by_seed(folder: Path, suffix: str) -> Iterator[tuple[int, Path]]:
    """What is called after a seed, in the order of the seeds."""
    found = ((OF_SEED.fullmatch(path.name.removesuffix(suffix)), path) for path in folder.glob(f"*{suffix}"))
    yield from sorted((int(match[1]), path) for match, path in found if match)
