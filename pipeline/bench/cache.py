"""`molsaki bench cache`: the store beside one file a record, and the table that comes of it.

In: the options of the command. Out: a table or JSON on stdout, and nothing on disk: everything is written into a folder
of its own that goes away at the end, after errors and after signals that ask to stop too. What is written, in which
ways it is read, and what the attention is made of stands in `stages.bench.cache` and `stages.bench.index`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pipeline.bench import compare
from pipeline.bench.compare import Column, amount, measuring_in_a_folder, median_memory, number, print_rows
from stages.bench import cache, index
from stages.bench.cache import METHODS, MOST_ROUNDS, REFERENCE, CacheJob, ColdEpoch, Method, StoreSetting, Written
from stages.bench.index import IndexJob, Opening
from stages.bench.measure import Rounds, median, median_ratio, rounds_of
from stages.runtime.progress import Progress

Case: TypeAlias = Literal["write", "open", "first epoch", "random reads", "epoch", "open index"]
OPENING: tuple[Case, ...] = ("open", "open index")
"""Cases in which no record is read."""
COLD: Mapping[Case, Callable[[ColdEpoch], float]] = {
    "open": lambda one: one.open_seconds,
    "first epoch": lambda one: one.open_seconds + one.epoch_seconds,
}
"""Cases in fresh processes, and which seconds of one are theirs."""


@dataclass(frozen=True, kw_only=True)
class CacheRow:
    """One method in one case. Numbers are None where there is nothing to compare, or where they do not belong.

    Ratios are against one float32 file a record: `time_ratio` is the median of the ratios round by round. Bytes are
    those of the files, and what the file system keeps for them (`allocated_bytes`). Memory is that of a whole process:
    `baseline_bytes` before it opens anything, libraries included, and at most. `cold` says that the files' pages had
    been given up before, in a process that had read nothing; names and places of files may still have been in memory.
    """

    case: Case
    method: Method
    records: int
    seconds: float
    seconds_by_round: Rounds
    records_per_second: float | None = None
    compared_with: Method | None = None
    time_ratio: float | None = None
    bytes: int | None = None
    allocated_bytes: int | None = None
    files: int | None = None
    bytes_ratio: float | None = None
    allocated_ratio: float | None = None
    files_ratio: float | None = None
    baseline_bytes: int | None = None
    peak_bytes: int | None = None
    peak_bytes_by_process: tuple[int, ...] = ()
    cold: bool = False


def _times(heading: str, field: str) -> Column:
    return heading, lambda row: "" if row[field] is None else f"× {row[field]:.3g}"


COLUMNS: list[Column] = [
    ("case", lambda row: f"open index, {row['records']:,} records" if row["case"] == "open index" else row["case"]),
    number("method", "method"),
    number("seconds", "seconds", ".3g"),
    number("records/s", "records_per_second", ",.0f"),
    _times("time", "time_ratio"),
    amount("bytes", "bytes"),
    _times("", "bytes_ratio"),
    number("files", "files", ","),
    _times("", "files_ratio"),
    amount("peak memory", "peak_bytes"),
]


def bench_cache(*, out: Path | None, index_records: int, as_json: bool, quiet: bool, **options: Any) -> None:
    """Measure as the options say, remove what was written, and print what came out."""
    with measuring_in_a_folder(out, quiet=quiet) as (progress, folder):
        job = CacheJob(folder=folder / "records", **options)
        job.folder.mkdir()
        setting, rows = measure_records(job, progress)
        if index_records:
            rows.append(measure_index(IndexJob(folder=folder / "index", records=index_records), job.repeats, progress))
    print_rows([asdict(row) for row in rows], COLUMNS, asdict(setting), _setting_line(setting, rows), as_json=as_json)


def measure_records(job: CacheJob, progress: Progress) -> tuple[StoreSetting, list[CacheRow]]:
    """Write all records by all methods and read them in several ways."""
    rounds, advance = rounds_of(METHODS, job.repeats, MOST_ROUNDS), progress.advance
    progress.start("bench cache: writing", 1 + len(METHODS) * job.repeats)
    written = compare.run_process(cache.measure_writing, job, advance=advance)
    progress.start("bench cache: fresh processes", sum(map(len, rounds.values())))
    cold = {
        method: [compare.run_process(cache.measure_cold, job, method, advance=advance) for _ in rounds[method]]
        for method in METHODS
    }
    progress.start("bench cache: reading", sum(job.repeats + len(rounds[method]) for method in METHODS))
    times = compare.run_process(cache.measure_reading, job, advance=advance)
    return written.setting, [
        *(_written_row(job, method, written) for method in METHODS),
        *(_cold_row(case, job, method, cold) for case in COLD for method in METHODS),
        *(_row("random reads", min(job.reads, job.records), method, times.reads) for method in METHODS),
        *(_row("epoch", job.records, method, times.epochs) for method in METHODS),
    ]


def measure_index(job: IndexJob, repeats: int, progress: Progress) -> CacheRow:
    """Write a store of many small records and open it, each time in a fresh process."""
    progress.start(f"bench cache: index of {job.records:,}", job.parts + repeats)
    compare.run_process(index.write_index, job, advance=progress.advance)
    opened = [compare.run_process(index.open_index, job, advance=progress.advance) for _ in range(repeats)]
    rounds: Rounds = tuple(one.open_seconds for one in opened)
    return _with_memory(_row("open index", opened[0].records, "store", {"store": rounds}), opened)


def _written_row(job: CacheJob, method: Method, written: Written) -> CacheRow:
    found, reference = written.sizes[method], written.sizes[REFERENCE]
    row = replace(_row("write", job.records, method, written.rounds), **asdict(found))
    if method == REFERENCE:
        return row
    return replace(
        row,
        bytes_ratio=found.bytes / reference.bytes,
        allocated_ratio=found.allocated_bytes / reference.allocated_bytes,
        files_ratio=found.files / reference.files,
    )


def _cold_row(case: Case, job: CacheJob, method: Method, cold: Mapping[Method, Sequence[ColdEpoch]]) -> CacheRow:
    times = len(cold[method])
    rounds: dict[Method, Rounds] = {each: tuple(map(COLD[case], found[:times])) for each, found in cold.items()}
    return _with_memory(_row(case, job.records, method, rounds), cold[method])


def _row(case: Case, records: int, method: Method, rounds: Mapping[Method, Rounds]) -> CacheRow:
    seconds = median(rounds[method])
    other = REFERENCE if method != REFERENCE and REFERENCE in rounds else None
    return CacheRow(
        case=case,
        method=method,
        records=records,
        seconds=seconds,
        seconds_by_round=rounds[method],
        records_per_second=None if case in OPENING else records / seconds,
        compared_with=other,
        time_ratio=median_ratio(rounds[method], rounds[other]) if other else None,
    )


def _with_memory(row: CacheRow, found: Sequence[Opening]) -> CacheRow:
    return replace(row, **median_memory(found), cold=all(one.dropped for one in found))


def _setting_line(setting: StoreSetting, rows: Sequence[CacheRow]) -> str:
    cold = all(row.cold for row in rows if row.peak_bytes is not None)
    pages = "had been dropped from" if cold else "may have been in"
    return (
        f"{setting.records:,} records, {setting.values:,} values and {setting.sums:,} sums in {setting.layers} layers "
        f"of a {setting.teacher} model, seed {setting.seed}; × is against {REFERENCE}; open, first epoch and open "
        f"index: fresh processes, the files {pages} the page cache; torch {setting.torch}, numpy {setting.numpy}, "
        f"zarr {setting.zarr}"
    )
