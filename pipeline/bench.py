"""`molsaki bench attention`: which methods are compared on which cases, in which processes, and the table of it.

In: the options of a command. Out: a table or JSON on stdout. Each method gets processes of its own for its peak memory,
since a process never forgets its peak; a method for which memory does not suffice is reported as such and left out of
the one process in which the others then take turns for the times.

This module is also what those processes run; `pipeline.measuring` says how.
"""

import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from statistics import median_low
from typing import Literal, TypeAlias, cast, get_args

import click
from pydantic import TypeAdapter

from data.errors import ConfigError, MolsakiError
from pipeline.exits import StageProcessError
from pipeline.measuring import run_process, serve
from pipeline.progress import open_progress
from pipeline.tables import new_table, print_json, print_table, size
from stages.bench_attention import (
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
from stages.loading import torch_device
from stages.measure import Memory, Rounds, fastest, median, median_ratio
from stages.progress import Progress
from stages.random_llama import Setting, Shape, check_shape
from stages.settings import Device, Dtype

Task: TypeAlias = Literal["memory", "times"]
Status: TypeAlias = Literal["ok", "out of memory"]
OUT_OF_MEMORY: Status = "out of memory"
KILLED = -signal.SIGKILL
"""Exit code of a process to which Linux gave no more memory."""
SMALL = Shape(layers=8, width=512, heads=8, kv_heads=8)
PRESETS = {"7b": Shape(layers=32, width=4096, heads=32, kv_heads=32)}
BATCH_TOKENS = {"cpu": 4096, "cuda": 8192}
DTYPES: Mapping[str, Dtype] = {"cpu": "float32", "cuda": "bfloat16"}
PEAKS = {"cpu": 3, "cuda": 1}
"""Processes that peak memory is the median of. Resident memory of the same work differs by some percent from process to
process, much beside the difference between ours and the bare pass; what torch allocates on a GPU does not."""
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
    """One method on one case. Numbers are None where memory did not suffice, or where there is nothing to compare.

    Ratios are against `compared_with`: `time_ratio` is the median of the ratios round by round, `fastest_ratio` that of
    the fastest rounds, which is less touched by whatever else a machine does, `memory_ratio` that of the peaks.
    `max_difference` is the largest difference to the eager kernel's stepwise attention.
    """

    case: str
    method: Method
    status: Status
    seconds: float | None
    peak_bytes: int | None
    baseline_bytes: int | None
    compared_with: Method | None
    time_ratio: float | None
    fastest_ratio: float | None
    memory_ratio: float | None
    max_difference: float | None
    records_per_second: float | None
    tokens_per_second: float | None
    seconds_by_round: Rounds
    peak_bytes_by_process: tuple[int, ...]
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
    batch_tokens = request.batch_tokens or BATCH_TOKENS[_device(request)]
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
    device = _device(request)
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


def _device(request: Request) -> Literal["cpu", "cuda"]:
    return "cuda" if torch_device(request.device).type == "cuda" else "cpu"


def _shape(request: Request) -> Shape:
    """The preset or the small default, with what was said in so many words; heads alone mean as many of both kinds."""
    options = {"layers": request.layers, "width": request.width, "heads": request.heads, "kv_heads": request.kv_heads}
    said = {name: value for name, value in options.items() if value is not None}
    if request.model is not None and (said or request.preset):
        raise ConfigError("--model: it has a shape of its own; leave out --preset, --layers, --width and heads")
    if "heads" in said:
        said.setdefault("kv_heads", said["heads"])
    shape = replace(PRESETS[request.preset] if request.preset else SMALL, **said)
    check_shape(shape)
    return shape


def _measure(case: str, job: Job, progress: Progress) -> list[Result]:
    """Peak memory of each method, then the times of those that fit."""
    rounds = sum(len(rounds_of(method, job.repeats)) for method in job.methods)
    processes = sum(_processes(method, job) for method in job.methods)
    progress.start(f"case {case}", processes + len(job.methods) + rounds)
    peaks: dict[Method, list[Memory]] = {}
    for method in job.methods:
        peaks[method] = _peaks(method, job, progress)
        if not peaks[method]:
            progress.note(f"case {case}: {method} runs out of memory")
    fitting = tuple(method for method, memory in peaks.items() if memory)
    times = _times(replace(job, methods=fitting), progress) if fitting else None
    return [_result(case, job, method, peaks, times) for method in job.methods]


def _result(case: str, job: Job, method: Method, peaks: Mapping[Method, list[Memory]], times: Times | None) -> Result:
    memory, other = peaks[method], METHODS[method].compared_with
    rounds = times.rounds.get(method, ()) if times else ()
    seconds = median(rounds) if rounds else None
    reference = times.rounds.get(other) if times and other and rounds else None
    tokens = sum(text.tokens for text in job.texts)
    return Result(
        case=case,
        method=method,
        status="ok" if rounds else OUT_OF_MEMORY,
        seconds=seconds,
        peak_bytes=_median_peak(memory) if memory else None,
        baseline_bytes=median_low(one.baseline_bytes for one in memory) if memory else None,
        compared_with=other if reference else None,
        time_ratio=median_ratio(rounds, reference) if reference else None,
        fastest_ratio=fastest(rounds) / fastest(reference) if reference else None,
        memory_ratio=_median_peak(memory) / _median_peak(peaks[other]) if other and reference else None,
        max_difference=times.differences.get(method) if times else None,
        records_per_second=len(job.texts) / seconds if seconds else None,
        tokens_per_second=tokens / seconds if seconds else None,
        seconds_by_round=rounds,
        peak_bytes_by_process=tuple(one.peak_bytes for one in memory),
        records=len(job.texts),
        tokens=tokens,
        batch_tokens=job.batch_tokens,
        dtype=job.dtype,
        model=job.model or "random",
        setting=times.setting if times else None,
    )


def _median_peak(memory: Sequence[Memory]) -> int:
    return median_low(one.peak_bytes for one in memory)


def _processes(method: Method, job: Job) -> int:
    """How many processes measure a method's memory; one will do where it is T × T matrices."""
    return 1 if METHODS[method].slow else PEAKS[job.device]


def _peaks(method: Method, job: Job, progress: Progress) -> list[Memory]:
    """Memory of the method in each of its processes; none where one runs out of it."""
    found: list[Memory] = []
    for _ in range(_processes(method, job)):
        memory = _peak(replace(job, methods=(method,)), progress)
        if memory is None:
            return []
        found.append(memory)
    return found


def _peak(job: Job, progress: Progress) -> Memory | None:
    """Memory of the job's one method; None where it runs out of it, by an error or by being killed."""
    try:
        answer = run_task("memory", job, progress.advance)
    except StageProcessError as error:
        if error.code != KILLED:
            raise
        progress.advance()
        return None
    return TypeAdapter(Memory | None).validate_python(answer)


def _times(job: Job, progress: Progress) -> Times:
    try:
        answer = run_task("times", job, progress.advance)
    except StageProcessError as error:
        if error.code != KILLED:
            raise
        raise MolsakiError(
            f"bench: the process that took the times of {', '.join(job.methods)} was killed, most likely for want of "
            "memory; take a smaller --batch-tokens, or leave one out with --methods"
        ) from error
    return TypeAdapter(Times).validate_python(answer)


def run_task(task: Task, job: Job, advance: Callable[[], object]) -> object:
    """Do `task` in a process of its own; see `run_process`."""
    return run_process("pipeline.bench", task, TypeAdapter(Job).dump_json(job).decode(), advance)


def do_task(task: Task, job: Job, say: Callable[[str], object]) -> None:
    """The other end of `run_task`, in the process that measures."""
    answer: Memory | Times | None
    if task == "memory":
        answer = measure_peak(job)
        say("{}")
    else:
        answer = measure_times(job, after_each=lambda: say("{}"))
    say(json.dumps({"result": None if answer is None else asdict(answer)}))


def print_results(results: Sequence[Result], *, as_json: bool) -> None:
    """Print one line for each case and method; for machines the setting's fields beside the result's own."""
    if as_json:
        print_json([_flat(result) for result in results])
        return
    table = new_table(
        "case", "records", "method", "seconds", "records/s", "time", "peak memory", "memory", "difference"
    )
    for result in results:
        table.add_row(
            result.case,
            f"{result.records:,}",
            result.method,
            OUT_OF_MEMORY if result.status == OUT_OF_MEMORY else f"{result.seconds:.3g}",
            "" if result.records_per_second is None else f"{result.records_per_second:.3g}",
            _ratio(result.time_ratio, result),
            "" if result.peak_bytes is None else size(result.peak_bytes),
            _ratio(result.memory_ratio, result),
            "" if result.max_difference is None else f"{result.max_difference:.1e}",
        )
    print_table(table)
    for line in dict.fromkeys(_setting_line(result) for result in results if result.setting):
        click.echo(line)


def _flat(result: Result) -> dict[str, object]:
    setting = dict.fromkeys(Setting.__annotations__) if result.setting is None else asdict(result.setting)
    return {name: value for name, value in asdict(result).items() if name != "setting"} | setting


def _ratio(ratio: float | None, result: Result) -> str:
    return "" if ratio is None or result.compared_with is None else f"{ratio:.2f} × {result.compared_with}"


def _setting_line(result: Result) -> str:
    setting = result.setting
    assert setting is not None
    heads = f"{setting.heads} heads" + (f" ({setting.kv_heads} kv)" if setting.kv_heads != setting.heads else "")
    where = setting.device if setting.device != "cpu" else f"cpu, {setting.threads} threads"
    return (
        f"{result.model} model of {setting.layers} layers, width {setting.width}, {heads}; {result.dtype}, batches of "
        f"{result.batch_tokens:,} tokens; {where}; torch {setting.torch}, transformers {setting.transformers}"
    )


def main(arguments: Sequence[str]) -> int:
    """Measure as `run_task` asked, and return the exit code."""

    def measure(task: str, job: str, say: Callable[[str], object]) -> None:
        assert task in get_args(Task)
        do_task(cast(Task, task), TypeAdapter(Job).validate_json(job), say)

    return serve(arguments, measure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
