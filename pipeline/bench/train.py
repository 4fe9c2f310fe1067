"""`molsaki bench train`: what a training step costs with the attention loss and without, as a table.

In: the options of the command. Out: a table or JSON on stdout. This module is also what the processes run that measure;
`pipeline.bench.compare` says how methods are compared.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import click
from pydantic import TypeAdapter

from pipeline.bench.compare import (
    DTYPES,
    PEAKS,
    Comparison,
    answer,
    compare,
    device_of,
    run_process,
    serve_job,
    setting_line,
    shape_of,
    take_peaks,
    take_times,
)
from pipeline.console.progress import open_progress
from pipeline.console.quiet import quieten_libraries
from pipeline.console.tables import new_table, print_json, print_table
from stages.bench.attention import Text
from stages.bench.measure import Memory
from stages.bench.train import (
    COMPARED_WITH,
    METHODS,
    Job,
    Method,
    Times,
    check_job,
    measure_peak,
    measure_times,
    rounds_of,
)
from stages.runtime.progress import Progress
from stages.settings import Device, Dtype
from stages.toy.random_llama import Setting, Shape

PRESETS = {"1b": Shape(layers=22, width=2048, heads=32, kv_heads=4)}


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `molsaki bench train`; None where nothing was said."""

    length: int
    words: int
    steps: int
    records: int
    methods: tuple[Method, ...]
    repeats: int
    preset: str | None
    layers: int | None
    width: int | None
    heads: int | None
    kv_heads: int | None
    vocabulary: int
    gradient_checkpointing: bool
    device: Device
    dtype: Dtype | None
    threads: int | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One method; `difference` is that of L_att and its gradients to eager attention."""

    case: str
    comparison: Comparison
    difference: float | None
    records: int
    words: int
    steps: int
    vocabulary: int
    gradient_checkpointing: bool
    dtype: Dtype


def bench_train(request: Request, *, as_json: bool, quiet: bool) -> None:
    """Measure as `request` says, and print what came out."""
    quieten_libraries(quiet=True)
    job = job_of(request)
    with open_progress(quiet=quiet) as progress:
        results, setting = _measure(job, progress)
    _print(results, setting, as_json=as_json)


def job_of(request: Request) -> Job:
    """What the measuring processes are told; `ConfigError` for a shape or a length that cannot be."""
    device = device_of(request.device)
    said = {name: getattr(request, name) for name in ("layers", "width", "heads", "kv_heads")}
    job = Job(
        shape=shape_of(PRESETS[request.preset] if request.preset else None, **said),
        vocabulary=request.vocabulary,
        text=Text(tokens=request.length, steps=request.steps, words=request.words),
        records=request.records,
        methods=tuple(method for method in METHODS if method in request.methods),
        repeats=request.repeats,
        gradient_checkpointing=request.gradient_checkpointing,
        device=device,
        dtype=request.dtype or DTYPES[device],
        threads=request.threads,
    )
    check_job(job)
    return job


def _measure(job: Job, progress: Progress) -> tuple[list[Result], Setting | None]:
    rounds = sum(len(rounds_of(method, job.repeats)) for method in job.methods)
    progress.start("train", (PEAKS[job.device] + 1) * len(job.methods) + rounds)
    peaks: dict[Method, list[Memory]] = {}
    for method in job.methods:
        measure = partial(run_task, "memory", replace(job, methods=(method,)), progress.advance)
        peaks[method] = take_peaks(measure, PEAKS[job.device], progress)
        if not peaks[method]:
            progress.note(f"{method} runs out of memory")
    fitting = replace(job, methods=tuple(method for method, memory in peaks.items() if memory))
    times = None
    if fitting.methods:
        measure = partial(run_task, "times", fitting, progress.advance)
        times = take_times(measure, Times, fitting.methods, "--records")
    results = [
        Result(
            case=str(job.text.tokens),
            comparison=compare(method, COMPARED_WITH.get(method), peaks, times.rounds if times else {}),
            difference=times.difference if times and method == "molsaki" else None,
            records=job.records,
            words=job.text.words,
            steps=job.text.steps,
            vocabulary=job.vocabulary,
            gradient_checkpointing=job.gradient_checkpointing,
            dtype=job.dtype,
        )
        for method in job.methods
    ]
    return results, times.setting if times else None


def run_task(task: str, job: Job, advance: Callable[[], object]) -> object:
    """Do `task` in a process of its own; see `run_process`."""
    return run_process("pipeline.bench.train", task, TypeAdapter(Job).dump_json(job).decode(), advance)


def do_task(task: str, job: Job, say: Callable[[str], object]) -> None:
    """The other end of `run_task`, in the process that measures."""
    answer(task, lambda: measure_peak(job), lambda after_each: measure_times(job, after_each=after_each), say)


def _print(results: Sequence[Result], setting: Setting | None, *, as_json: bool) -> None:
    if as_json:
        print_json([_flat(result, setting) for result in results])
        return
    table = new_table("tokens", "method", "seconds a step", "records/s", "time", "peak memory", "memory", "difference")
    for result in results:
        per_second, cells = result.comparison.per_second(result.records), result.comparison.cells()
        table.add_row(
            result.case,
            cells["method"],
            cells["seconds"],
            "" if per_second is None else f"{per_second:.3g}",
            cells["time"],
            cells["peak memory"],
            cells["memory"],
            "" if result.difference is None else f"{result.difference:.1e}",
        )
    print_table(table)
    if setting is not None:
        first = results[0]
        details = (
            f"vocabulary {first.vocabulary:,}; {first.records} records a step, {first.words} words, {first.steps} "
            f"steps; {first.dtype}"
        )
        click.echo(setting_line(setting, "random student", details))


def _flat(result: Result, setting: Setting | None) -> dict[str, object]:
    own = {name: value for name, value in asdict(result).items() if name != "comparison"}
    rates = {"records_per_second": result.comparison.per_second(result.records)}
    fields = dict.fromkeys(Setting.__annotations__) if setting is None else asdict(setting)
    return {"case": result.case} | asdict(result.comparison) | rates | own | fields


if __name__ == "__main__":
    sys.exit(serve_job(sys.argv[1:], Job, do_task))
