"""A run of the rationale stage that can be killed: questions enter; a process, and what it asked and stored, leave."""

import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.processes import command, environment
from benchmarks.faults.run_folder import write_run_folder
from cache.rationales import Attempt, AttemptName, RationaleStore
from cache.spaces import Space, is_space

PIECE = 50
RATIONALES = f"{{engine: transformers, shots: 1, piece: {PIECE}}}"

Attempts = dict[AttemptName, Attempt]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Questions and a configuration in a folder, a store, and what the teacher has noted."""

    folder: Path
    store: Path
    padding: int = 0

    @classmethod
    def write(cls, folder: Path, questions: int, *, store: Path | None = None, padding: int = 0) -> "Experiment":
        """Write everything that the stage reads."""
        rows = [
            {
                "ID": f"q-{n}",
                "Body": f"Ann has {n} figs and finds {n % 7}.",
                "Question": "How many figs?",
                "Answer": n + n % 7,
            }
            for n in range(questions)
        ]
        store = folder / "store" if store is None else store
        write_run_folder(folder, store, RATIONALES, rows)
        return cls(folder=folder, store=store, padding=padding)

    def start(self, jobs: int = 1) -> subprocess.Popen[str]:
        """Start the stage, which begins to ask when so many jobs have been started."""
        options = ["--be-stage", str(self.folder / "asked"), "--padding", str(self.padding), "--jobs", str(jobs)]
        return subprocess.Popen(  # noqa: S603
            command(options),
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, problems: list[str]) -> None:
        """Run the stage to its end."""
        stage = self.start()
        _, said = stage.communicate()
        if stage.returncode:
            problems.append(f"the stage ended with {stage.returncode}: {said.strip()}")

    def asked(self) -> Counter[str]:
        """How often each prompt was answered, by its hash."""
        log = self.folder / "asked"
        return Counter(log.read_text().split() if log.exists() else [])

    def answered(self) -> int:
        """Answers that were given so far."""
        log = self.folder / "asked"
        return log.stat().st_size // 65 if log.exists() else 0

    def attempts(self) -> tuple[Attempts, int]:
        """All attempts by key and phase, and how many are stored, those included that are stored twice."""
        folder = self.store / "rationales"
        spaces = [Space.open(path) for path in folder.iterdir() if is_space(path)] if folder.exists() else []
        if not spaces:  # killed before there was one
            return {}, 0
        (space,) = spaces
        return RationaleStore(space).attempts(), sum(commit.counts["records"] for commit in space.commits())
