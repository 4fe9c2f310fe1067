"""Where everything lies in the folder of a run: this file alone knows the names.

In: the folder of a run, of a point of a matrix, or of a matrix. Out: paths, whether or not anything is there, and which
students and answers there are. Nothing is read here but names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stages.runtime.shard import Shard
from stages.student.summary import CHECKPOINTS, LAYER_WEIGHTS, SUMMARY

CARD = "README.md"
SCORES = "summary.json"
KEPT_HERE = (f"{CHECKPOINTS}/*", "molsaki.yaml")
"""What is never handed on with a student; earlier versions wrote a configuration with paths of this machine."""
OF_SEED = re.compile(r"seed-(\d+)")


@dataclass(frozen=True)
class StudentFolder:
    """What lies beside a student's weights; `summary` says what it is, and is there once it is complete."""

    path: Path

    @property
    def summary(self) -> Path:
        """What it is, in one file."""
        return self.path / SUMMARY

    @property
    def card(self) -> Path:
        """The same for people, as the hub shows it."""
        return self.path / CARD

    @property
    def layer_weights(self) -> Path:
        """Weights of teacher's and student's layers, a row a record."""
        return self.path / LAYER_WEIGHTS

    @property
    def attention(self) -> Path:
        """Where it looked before and after training."""
        from cache.student_attention import STUDENT_ATTENTION  # with pyarrow, which few have need of

        return self.path / STUDENT_ATTENTION


@dataclass(frozen=True)
class EvaluationFolder:
    """The answers of students to a split, a file a seed."""

    path: Path

    @property
    def summary(self) -> Path:
        """The accuracies."""
        return self.path / SCORES

    def predictions(self, seed: int) -> Path:
        """The answers of a seed's student."""
        return self.path / f"{_of(seed)}.parquet"

    def seeds(self) -> dict[int, Path]:
        """The answers that are there, by seed."""
        return dict(_by_seed(self.path, ".parquet"))


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run; that of a matrix has its points as folders in it."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration with every default, which runs by itself."""
        return self.path / "config.yaml"

    @property
    def matrix(self) -> Path:
        """Names of a matrix's points, in its order, with their values."""
        return self.path / "matrix.json"

    @property
    def summary(self) -> Path:
        """Accuracies of all points of a matrix."""
        return self.path / SCORES

    @property
    def results(self) -> Path:
        """The same as a table."""
        return self.path / "results.md"

    @property
    def report(self) -> Path:
        """The run on one page."""
        return self.path / "report.html"

    @property
    def explorer(self) -> Path:
        """Its records on one page."""
        return self.path / "explore.html"

    @property
    def provenance(self) -> Path:
        """What was executed, all in one file."""
        return self.path / "provenance.json"

    @property
    def provenance_entries(self) -> Path:
        """The same, a file for each execution in this folder."""
        return self.path / "provenance"

    @property
    def trackers(self) -> Path:
        """What trackers write while students are trained."""
        return self.path / "logs"

    def log(self, shard: Shard | None = None) -> Path:
        """The log; each shard has its own, for appends from several machines to one file can get lost."""
        which = "" if shard is None else f"-{shard.index}-of-{shard.count}"
        return self.path / f"log{which}.jsonl"

    def student(self, seed: int) -> StudentFolder:
        """The student of a seed."""
        return StudentFolder(self.students_folder / _of(seed))

    @property
    def students_folder(self) -> Path:
        """All students."""
        return self.path / "student"

    def students(self) -> dict[int, StudentFolder]:
        """The students that are there, finished or not, by seed."""
        return {seed: StudentFolder(path) for seed, path in _by_seed(self.students_folder, "")}

    def evaluation(self, split: str = "test") -> EvaluationFolder:
        """The answers to a split."""
        return EvaluationFolder(self.path / ("evaluation" if split == "test" else f"evaluation-{split}"))

    def evaluations(self) -> list[EvaluationFolder]:
        """The answers to all splits that there are any to."""
        return [EvaluationFolder(path) for path in sorted(self.path.glob("evaluation*"))]

    @property
    def earlier(self) -> Path:
        """What was made with other settings."""
        return self.path / "earlier"

    def earlier_at(self, when: datetime) -> Path:
        """What was set aside at a time."""
        return self.earlier / when.strftime("%Y%m%dT%H%M%S.%fZ")

    def holds_run(self) -> bool:
        """Whether there is anything of a run, or of a matrix."""
        parts = (self.config, self.students_folder, self.evaluation().path, self.provenance_entries)
        return any(part.exists() for part in parts)


def _of(seed: int) -> str:
    return f"seed-{seed}"


def _by_seed(folder: Path, suffix: str) -> Iterator[tuple[int, Path]]:
    """What is called after a seed, in the order of the seeds."""
    found = ((OF_SEED.fullmatch(path.name.removesuffix(suffix)), path) for path in folder.glob(f"*{suffix}"))
    yield from sorted((int(match[1]), path) for match, path in found if match)
