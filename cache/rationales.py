"""The store of rationales: every attempt of the teacher at a question enters, kept or dropped, and leaves by its key.

A part is one Parquet file with a row for each attempt, so that it can be read with any Parquet reader, file by file:
older ones lack columns. Attempts that two jobs made at the same time are served once.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from cache.commits import VERIFY, Commit, read_committed
from cache.fingerprints import JSON
from cache.spaces import Space, check_files
from data.errors import DamagedCacheError, DataError
from data.records import Phase

FILE = "attempts.parquet"
KEPT = "kept"
SURROGATE = re.compile("[\ud800-\udfff]")
"""What a Python text may hold, and Unicode does not."""

AttemptName: TypeAlias = tuple[str, Phase, int]
"""Key, phase, sample: what one attempt is known by."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What the teacher wrote to one question in one phase, as the sample of that number.

    `rationale` and `answer` are what was made of `output`, empty where nothing could be. `outcome` is `kept`, or the
    reason why the attempt was dropped. In the phase `keywords` the teacher was asked about the text of `rationale`,
    and `keywords` are the words that it named and that occur in the text.
    """

    key: str
    question_id: str
    dataset: str
    question: str
    gold: str
    phase: Phase
    output: str
    rationale: str
    answer: str
    outcome: str
    sample: int = 0
    keywords: tuple[str, ...] = ()

    @property
    def name(self) -> AttemptName:
        """What the attempt is known by."""
        return self.key, self.phase, self.sample

    @property
    def label(self) -> str:
        """The same as text, in the list of what a commit has dropped; the first sample needs no number."""
        return f"{self.key}/{self.phase}" + (f"/{self.sample}" if self.sample else "")


ADDED = ("sample", "keywords")
"""Columns that parts of before samples and key words lack."""
NAMES = tuple(field.name for field in fields(Attempt))
TEXTS = tuple(name for name in NAMES if name != "sample")
SCHEMA = pa.schema([pa.field(name, pa.string() if name in TEXTS else pa.int32(), nullable=False) for name in NAMES])
OLD_SCHEMA = pa.schema([field for field in SCHEMA if field.name not in ADDED])
MOST_SAMPLES = 1_000_000
PHASES: tuple[Phase, ...] = get_args(Phase)
PREFERENCE: tuple[Phase, ...] = ("plain", "imported", "gold_shown")
"""Phases that give rationales. Of several kept ones of a question the one counts that saw least of the answer."""


class RationaleStore:
    """The attempts in one space; every call reads what is committed by then."""

    def __init__(self, space: Space, *, note: Mapping[str, JSON] | None = None) -> None:
        """Serve `space`; `note` is recorded with every commit (library versions, device)."""
        assert space.kind == "rationales", f"{space.path} holds no rationales"
        self.space = space
        self._note = {"pyarrow": pa.__version__, **(note or {})}

    def append(self, attempts: Sequence[Attempt]) -> Commit:
        """Commit attempts as one part."""
        table = as_table(attempts)
        with self.space.filling_part() as part:
            pq.write_table(table, part / FILE, compression="zstd")
        dropped = [attempt for attempt in attempts if attempt.outcome != KEPT]
        return self.space.commit(
            part,
            counts={"records": len(attempts), "kept": len(attempts) - len(dropped)},
            dropped={attempt.label: attempt.outcome for attempt in dropped},
            note=self._note,
        )

    def attempts(self) -> dict[AttemptName, Attempt]:
        """Return all attempts by their names; of duplicates the one that was committed first.

        Raises `DamagedCacheError` when a part is missing or its bytes are not those that were committed.
        """
        found: dict[AttemptName, Attempt] = {}
        for commit in self.space.commits():
            for attempt in self.read_part(commit):
                found.setdefault(attempt.name, attempt)
        return found

    def kept(self) -> dict[str, Attempt]:
        """Return one kept rationale for each question that has any: plain before answer shown, first sample first."""
        attempts = (attempt for attempt in self.attempts().values() if attempt.phase in PREFERENCE)
        kept = [attempt for attempt in attempts if attempt.outcome == KEPT]
        kept.sort(key=lambda attempt: (PREFERENCE.index(attempt.phase), attempt.sample))
        found: dict[str, Attempt] = {}
        for attempt in kept:
            found.setdefault(attempt.key, attempt)
        return found

    def read_part(self, commit: Commit) -> list[Attempt]:
        """Return the attempts of one commit; raises `DamagedCacheError` where they are not what was committed."""
        if commit.part is None:
            return []
        check_files(self.space, commit)
        path = self.space.part_path(commit) / FILE
        if FILE not in commit.files:
            raise DamagedCacheError(f"{path}: not among the files of commit {commit.index}; {VERIFY}")
        attempts = decode_attempts(read_committed(path, commit.files[FILE]), path)
        if len(attempts) != commit.counts["records"]:
            raise DamagedCacheError(f"{path}: {len(attempts)} attempts, {commit.counts['records']} committed; {VERIFY}")
        return attempts


def as_table(attempts: Sequence[Attempt]) -> pa.Table:
    """Return what lies in a part with these attempts; raises `DataError` for a text that is no Unicode."""
    rows = [as_row(attempt) for attempt in attempts]
    try:
        return pa.Table.from_pylist(rows, schema=SCHEMA)
    except UnicodeEncodeError as error:
        broken = next(row for row in rows if SURROGATE.search("".join(map(str, row.values()))))
        raise DataError(
            f"question {broken['question_id']} of {broken['dataset']}: a text is no Unicode ({error})"
        ) from error


def as_row(attempt: Attempt) -> dict[str, str | int]:
    """Return columns by name; key words stand one a line, and have no line breaks themselves."""
    assert not any("\n" in word for word in attempt.keywords), f"a line break in {attempt.keywords}"
    return {**asdict(attempt), "keywords": "\n".join(attempt.keywords)}


def decode_attempts(content: bytes, path: Path) -> list[Attempt]:
    """Return the attempts in the bytes of a part's file, read from `path`; raises `DamagedCacheError`."""
    try:
        # Threads that read from a Python object abort the process, or hang, when it ends before they do (Arrow 33975).
        with pq.ParquetFile(pa.BufferReader(content), pre_buffer=False) as file:
            schema = SCHEMA if set(ADDED) & set(file.schema_arrow.names) else OLD_SCHEMA
            table = file.read(use_threads=False).select(schema.names)
            rows = (table if table.schema.equals(schema) else table.cast(schema)).to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DamagedCacheError(f"{path}: does not decode ({error}); {VERIFY}") from error
    return [_as_attempt(row, path) for row in rows]


def _as_attempt(row: dict[str, Any], path: Path) -> Attempt:  # what Parquet columns hold
    if row["phase"] not in PHASES:
        raise DamagedCacheError(f"{path}: unknown phase {row['phase']!r} of {row['key']}; {VERIFY}")
    if not 0 <= row.get("sample", 0) < MOST_SAMPLES:
        raise DamagedCacheError(
            f"{path}: sample {row['sample']} of {row['key']}, expected 0 to {MOST_SAMPLES - 1}; {VERIFY}"
        )
    return Attempt(**{**row, "keywords": tuple(filter(None, row.get("keywords", "").split("\n")))})
