"""`molsaki bench cache`: the store beside one file a record, and the table that comes of it.

In: the options of the command. Out: a table or JSON on stdout, and nothing on disk: everything is written into a folder
of its own that goes away at the end, after errors and after signals that ask to stop too. What is written, in which
ways it is read, and what the attention is made of stands in `stages.bench.cache` and `stages.bench.index`.
"""

import signal
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Literal, TypeAlias, TypeVar

import click
from pydantic import TypeAdapter

from data.errors import ConfigError, Interrupted
from pipeline.bench.cache_process import Task, run_task
from pipeline.console.progress import open_progress
from pipeline.console.tables import new_table, print_json, print_table, size
from stages.bench.cache import (
    METHODS,
    REFERENCE,
    ColdEpoch,
    IndexJob,
    Job,
    Method,
    Opened,
    ReadTimes,
    Setting,
    Written,
    rounds_of,
)
from stages.bench.measure import Rounds, median, median_ratio
from stages.runtime.progress import Progress, StopSignal

Case: TypeAlias = Literal["write", "open", "first epoch", "random reads", "epoch", "open index"]
COLD: dict[Method, Task] = {
    "store": "cold-store",
    "memory-map": "cold-memory-map",
    "torch-save": "cold-torch-save",
    "torch-save-float16": "cold-torch-save-float16",
}
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `molsaki bench cache`."""

    records: int
    layers: int
    repeats: int
    reads: int
    index_records: int
    teacher: str | None
    out: Path | None


@dataclass(frozen=True, kw_only=True)
class Result:
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


def bench_cache(request: Request, *, as_json: bool, quiet: bool) -> None:
    """Measure, remove what was written, and print what came out."""
    with stopped_by_signals(), open_progress(quiet=quiet) as progress, _folder(request.out) as folder:
        job = Job(
            folder=folder / "records",
            records=request.records,
            layers=request.layers,
            repeats=request.repeats,
            reads=min(request.reads, request.records),
            teacher=request.teacher,
        )
        job.folder.mkdir()
        written, results = measure_records(job, progress)
        if request.index_records:
            index = IndexJob(folder=folder / "index", records=request.index_records)
            results = [*results, measure_index(index, request.repeats, progress)]
    print_results(results, written.setting, as_json=as_json)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """A new folder below `out`, or where the system has its temporary files; removed in the end, whatever happens."""
    if out is not None and not out.is_dir():
        raise ConfigError(f"--out {out}: no such folder; make it, or leave out --out")
    with tempfile.TemporaryDirectory(prefix="molsaki-bench-", dir=out) as folder:
        yield Path(folder)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Interrupted` at once where a signal asks to stop: there is nothing to save, and a folder to remove."""

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in StopSignal.SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # a second one must not keep the folder from being removed
        raise Interrupted(f"stopped by {signal.Signals(number).name}; run the same command to measure again")

    before = {each: signal.signal(each, stop) for each in StopSignal.SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def measure_records(job: Job, progress: Progress) -> tuple[Written, list[Result]]:
    """Write all records by all methods and read them in several ways."""
    progress.start("bench cache: writing", 1 + len(METHODS) * job.repeats)
    written = _typed(Written, run_task("write", job, progress.advance))
    progress.start("bench cache: fresh processes", sum(len(rounds_of(method, job.repeats)) for method in METHODS))
    cold = {method: [_cold(job, method, progress) for _ in rounds_of(method, job.repeats)] for method in METHODS}
    progress.start("bench cache: reading", sum(job.repeats + len(rounds_of(method, job.repeats)) for method in METHODS))
    times = _typed(ReadTimes, run_task("read", job, progress.advance))
    return written, [
        *(_written_result(job, method, written) for method in METHODS),
        *(_cold_result("open", job, method, cold, lambda one: one.open_seconds) for method in METHODS),
        *(
            _cold_result("first epoch", job, method, cold, lambda one: one.open_seconds + one.epoch_seconds)
            for method in METHODS
        ),
        *(_timed_result("random reads", job.reads, method, times.reads) for method in METHODS),
        *(_timed_result("epoch", job.records, method, times.epochs) for method in METHODS),
    ]


def measure_index(job: IndexJob, repeats: int, progress: Progress) -> Result:
    """Write a store of many small records and open it, each time in a fresh process."""
    progress.start(f"bench cache: index of {job.records:,}", job.parts + repeats)
    run_task("write-index", job, progress.advance)
    opened = []
    for _ in range(repeats):
        opened.append(_typed(Opened, run_task("open-index", job)))
        progress.advance()
    rounds = tuple(one.seconds for one in opened)
    result = Result(
        case="open index",
        method="store",
        records=opened[0].records,
        seconds=median(rounds),
        seconds_by_round=rounds,
    )
    return _with_memory(result, opened)


def _cold(job: Job, method: Method, progress: Progress) -> ColdEpoch:
    found = _typed(ColdEpoch, run_task(COLD[method], job))
    progress.advance()
    return found


def _typed(kind: type[T], answer: object) -> T:
    return TypeAdapter(kind).validate_python(answer)


def _written_result(job: Job, method: Method, written: Written) -> Result:
    found, reference = written.sizes[method], written.sizes[REFERENCE]
    other = method != REFERENCE
    return replace(
        _timed_result("write", job.records, method, written.rounds),
        bytes=found.bytes,
        allocated_bytes=found.allocated_bytes,
        files=found.files,
        bytes_ratio=found.bytes / reference.bytes if other else None,
        allocated_ratio=found.allocated_bytes / reference.allocated_bytes if other else None,
        files_ratio=found.files / reference.files if other else None,
    )


def _cold_result(
    case: Case,
    job: Job,
    method: Method,
    cold: Mapping[Method, Sequence[ColdEpoch]],
    seconds: Callable[[ColdEpoch], float],
) -> Result:
    times = len(cold[method])
    rounds: dict[Method, Rounds] = {each: tuple(map(seconds, found[:times])) for each, found in cold.items()}
    result = _timed_result(case, job.records, method, rounds)
    return _with_memory(result if case != "open" else replace(result, records_per_second=None), cold[method])


def _timed_result(case: Case, records: int, method: Method, rounds: Mapping[Method, Rounds]) -> Result:
    seconds = median(rounds[method])
    other = None if method == REFERENCE else REFERENCE
    return Result(
        case=case,
        method=method,
        records=records,
        seconds=seconds,
        seconds_by_round=rounds[method],
        records_per_second=records / seconds,
        compared_with=other,
        time_ratio=median_ratio(rounds[method], rounds[other]) if other else None,
    )


def _with_memory(result: Result, found: Sequence[ColdEpoch] | Sequence[Opened]) -> Result:
    return replace(
        result,
        baseline_bytes=statistics.median_low(one.baseline_bytes for one in found),
        peak_bytes=statistics.median_low(one.peak_bytes for one in found),
        peak_bytes_by_process=tuple(one.peak_bytes for one in found),
        cold=all(one.dropped for one in found),
    )


def print_results(results: Sequence[Result], setting: Setting, *, as_json: bool) -> None:
    """Print one line for each case and method; for machines the setting's fields beside the result's own."""
    if as_json:
        print_json([{**asdict(setting), **asdict(result)} for result in results])
        return
    table = new_table("case", "method", "seconds", "records/s", "time", "bytes", "", "files", "", "peak memory")
    for result in results:
        table.add_row(
            f"{result.case}, {result.records:,} records" if result.case == "open index" else result.case,
            result.method,
            f"{result.seconds:.3g}",
            "" if result.records_per_second is None else f"{result.records_per_second:,.0f}",
            _ratio(result.time_ratio),
            "" if result.bytes is None else size(result.bytes),
            _ratio(result.bytes_ratio),
            "" if result.files is None else f"{result.files:,}",
            _ratio(result.files_ratio),
            "" if result.peak_bytes is None else size(result.peak_bytes),
        )
    print_table(table)
    click.echo(_setting_line(setting, cold=all(result.cold for result in results if result.peak_bytes is not None)))


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"× {ratio:.3g}"


def _setting_line(setting: Setting, *, cold: bool) -> str:
    pages = "had been dropped from" if cold else "may have been in"
    return (
        f"{setting.records:,} records, {setting.values:,} values and {setting.sums:,} sums in {setting.layers} layers "
        f"of a {setting.teacher} model, seed {setting.seed}; × is against {REFERENCE}; open, first epoch and open "
        f"index: fresh processes, the files {pages} the page cache; torch {setting.torch}, numpy {setting.numpy}, "
        f"zarr {setting.zarr}"
    )
