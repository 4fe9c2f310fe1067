"""`molsaki bench attention`: which methods are compared on which cases, and the table of it.

In: the options of a command. Out: a table or JSON on stdout. This module is also what the processes run that measure;
`pipeline.bench.compare` says how methods are compared.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle, islice

import click
from pydantic import TypeAdapter

from data.errors import ConfigError
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
from pipeline.console.tables import new_table, print_json, print_table
from stages.bench.attention import (
    METHODS,
    SVAMP,
    Job,
    Method,
    Text,
    Times,
    check_text,
    measure_peak,
    measure_times,
    rounds_of,
)
from stages.bench.measure import Memory
from stages.runtime.progress import Progress
from stages.settings import Device, Dtype
from stages.toy.random_llama import Setting, Shape

PRESETS = {"7b": Shape(layers=32, width=4096, heads=32, kv_heads=32)}
BATCH_TOKENS = {"cpu": 4096, "cuda": 8192}
BATCHES = 2
"""Full batches of a case, unless a number of records is given."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Records that are measured together: all of one length, or a mix."""

    name: str
    texts: tuple[Text, ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `molsaki bench attention`; None where nothing was said."""

    lengths: tuple[str, ...]
    words: int
    steps: int
    records: int | None
    methods: tuple[Method, ...]
    repeats: int
    model: str | None
    preset: str | None
    layers: int | None
    width: int | None
    heads: int | None
    kv_heads: int | None
    batch_tokens: int | None
    device: Device
    dtype: Dtype | None
    threads: int | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One method on one case; `max_difference` is the largest to the eager kernel's stepwise attention."""

    case: str
    comparison: Comparison
    max_difference: float | None
    records: int
    tokens: int
    batch_tokens: int
    dtype: Dtype
    model: str
    setting: Setting | None


def bench_attention(request: Request, *, as_json: bool, quiet: bool) -> None:
    """Measure every case that `request` names, and print what came out."""
    jobs = {case.name: _job(request, case) for case in _cases(request)}
    with open_progress(quiet=quiet) as progress:
        results = [result for name, job in jobs.items() for result in _measure(name, job, progress)]
    print_results(results, as_json=as_json)


def _cases(request: Request) -> list[Case]:
    batch_tokens = request.batch_tokens or BATCH_TOKENS[device_of(request.device)]
    fixed = {"words": request.words, "steps": request.steps}
    cases = []
    for name in dict.fromkeys(request.lengths):
        mix = SVAMP if name == "svamp" else (Text(tokens=int(name), **fixed),)
        for text in mix:
            check_text(text)
        mean = sum(text.tokens for text in mix) / len(mix)
        count = request.records or max(2, round(BATCHES * batch_tokens / mean))
        cases.append(Case(name=name, texts=tuple(islice(cycle(mix), count))))
    return cases


def _job(request: Request, case: Case) -> Job:
    device = device_of(request.device)
    return Job(
        model=request.model,
        shape=_shape(request),
        texts=case.texts,
        methods=tuple(method for method in METHODS if method in request.methods),
        repeats=request.repeats,
        batch_tokens=request.batch_tokens or BATCH_TOKENS[device],
        device=device,
        dtype=request.dtype or DTYPES[device],
        threads=request.threads,
    )


def _shape(request: Request) -> Shape:
    said = {name: getattr(request, name) for name in ("layers", "width", "heads", "kv_heads")}
    if request.model is not None and (any(said.values()) or request.preset):
        raise ConfigError("--model: it has a shape of its own; leave out --preset, --layers, --width and heads")
    return shape_of(PRESETS[request.preset] if request.preset else None, **said)


def _measure(case: str, job: Job, progress: Progress) -> list[Result]:
    """Peak memory of each method, then the times of those that fit."""
    rounds = sum(len(rounds_of(method, job.repeats)) for method in job.methods)
    processes = sum(_processes(method, job) for method in job.methods)
    progress.start(f"case {case}", processes + len(job.methods) + rounds)
    peaks: dict[Method, list[Memory]] = {}
    for method in job.methods:
        measure = partial(run_task, "memory", replace(job, methods=(method,)), progress.advance)
        peaks[method] = take_peaks(measure, _processes(method, job), progress)
        if not peaks[method]:
            progress.note(f"case {case}: {method} runs out of memory")
    fitting = replace(job, methods=tuple(method for method, memory in peaks.items() if memory))
    times = None
    if fitting.methods:
        measure = partial(run_task, "times", fitting, progress.advance)
        times = take_times(measure, Times, fitting.methods, "--batch-tokens")
    return [
        Result(
            case=case,
            comparison=compare(method, METHODS[method].compared_with, peaks, times.rounds if times else {}),
            max_difference=times.differences.get(method) if times else None,
            records=len(job.texts),
            tokens=sum(text.tokens for text in job.texts),
            batch_tokens=job.batch_tokens,
            dtype=job.dtype,
            model=job.model or "random",
            setting=times.setting if times else None,
        )
        for method in job.methods
    ]


def _processes(method: Method, job: Job) -> int:
    """How many processes measure a method's memory; one will do where it is T × T matrices."""
    return 1 if METHODS[method].slow else PEAKS[job.device]


def run_task(task: str, job: Job, advance: Callable[[], object]) -> object:
    """Do `task` in a process of its own; see `run_process`."""
    return run_process("pipeline.bench.attention", task, TypeAdapter(Job).dump_json(job).decode(), advance)


def do_task(task: str, job: Job, say: Callable[[str], object]) -> None:
    """The other end of `run_task`, in the process that measures."""
    answer(task, lambda: measure_peak(job), lambda after_each: measure_times(job, after_each=after_each), say)


def print_results(results: Sequence[Result], *, as_json: bool) -> None:
    """Print one line for each case and method; for machines the setting's fields beside the result's own."""
    if as_json:
        print_json([_flat(result) for result in results])
        return
    table = new_table(
        "case", "records", "method", "seconds", "records/s", "time", "peak memory", "memory", "difference"
    )
    for result in results:
        per_second, cells = result.comparison.per_second(result.records), result.comparison.cells()
        table.add_row(
            result.case,
            f"{result.records:,}",
            cells["method"],
            cells["seconds"],
            "" if per_second is None else f"{per_second:.3g}",
            cells["time"],
            cells["peak memory"],
            cells["memory"],
            "" if result.max_difference is None else f"{result.max_difference:.1e}",
        )
    print_table(table)
    for line in dict.fromkeys(_setting_line(result) for result in results if result.setting):
        click.echo(line)


def _flat(result: Result) -> dict[str, object]:
    own = {name: value for name, value in asdict(result).items() if name not in {"comparison", "setting"}}
    rates = {
        "records_per_second": result.comparison.per_second(result.records),
        "tokens_per_second": result.comparison.per_second(result.tokens),
    }
    setting = dict.fromkeys(Setting.__annotations__) if result.setting is None else asdict(result.setting)
    return {"case": result.case} | asdict(result.comparison) | rates | own | setting


def _setting_line(result: Result) -> str:
    assert result.setting is not None
    details = f"{result.dtype}, batches of {result.batch_tokens:,} tokens"
    return setting_line(result.setting, f"{result.model} model", details)


if __name__ == "__main__":
    sys.exit(serve_job(sys.argv[1:], Job, do_task))
