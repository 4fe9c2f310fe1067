"""`molsaki bench train`: what a training step costs with the attention loss and without, as a table.

In: the options of the command. Out: a table or JSON on stdout. Each method gets processes of its own for its peak
memory; then all that fit take turns for the times in one process. This module is also what those processes run;
`pipeline.measuring` says how.
"""

import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median_low
from typing import Literal

import click
from pydantic import TypeAdapter

from pipeline.exits import StageProcessError
from pipeline.measuring import run_process, serve
from pipeline.progress import open_progress
from pipeline.tables import new_table, print_json, print_table, size
from pipeline.terminal import quieten_libraries
from stages.bench_attention import Text
from stages.bench_train import (
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
from stages.loading import torch_device
from stages.measure import Memory, Rounds, fastest, median, median_ratio
from stages.progress import Progress
from stages.random_llama import Setting, Shape, check_shape
from stages.settings import Device, Dtype

SMALL = Shape(layers=8, width=512, heads=8, kv_heads=8)
PRESETS = {"1b": Shape(layers=22, width=2048, heads=32, kv_heads=4)}
DTYPES: Mapping[str, Dtype] = {"cpu": "float32", "cuda": "bfloat16"}
PEAKS = {"cpu": 3, "cuda": 1}
"""Processes that peak memory is the median of: resident memory differs from process to process."""
KILLED = -signal.SIGKILL
"""Exit code of a process to which Linux gave no more memory."""


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
    """One method. Numbers are None where memory did not suffice, or where there is nothing to compare.

    Ratios are against `compared_with`: `time_ratio` is the median of the ratios round by round, `fastest_ratio` that of
    the fastest rounds, `memory_ratio` that of the peaks. `difference` is L_att's and its gradients' to eager attention.
    """

    case: str
    method: Method
    status: Literal["ok", "out of memory"]
    seconds: float | None
    peak_bytes: int | None
    baseline_bytes: int | None
    compared_with: Method | None
    time_ratio: float | None
    fastest_ratio: float | None
    memory_ratio: float | None
    difference: float | None
    records_per_second: float | None
    seconds_by_round: Rounds
    peak_bytes_by_process: tuple[int, ...]
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
    device: Literal["cpu", "cuda"] = "cuda" if torch_device(request.device).type == "cuda" else "cpu"
    said = {name: getattr(request, name) for name in ("layers", "width", "heads", "kv_heads")}
    said = {name: value for name, value in said.items() if value is not None}
    if "heads" in said:
        said.setdefault("kv_heads", said["heads"])
    shape = replace(PRESETS[request.preset] if request.preset else SMALL, **said)
    check_shape(shape)
    job = Job(
        shape=shape,
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
        peaks[method] = _peaks(method, job, progress)
        if not peaks[method]:
            progress.note(f"{method} runs out of memory")
    fitting = tuple(method for method, memory in peaks.items() if memory)
    times = _times(replace(job, methods=fitting), progress) if fitting else None
    return [_result(job, method, peaks, times) for method in job.methods], times.setting if times else None


def _peaks(method: Method, job: Job, progress: Progress) -> list[Memory]:
    """Memory of the method in each of its processes; none where one runs out of it, by an error or by being killed."""
    found: list[Memory] = []
    for _ in range(PEAKS[job.device]):
        try:
            answer = run_task("memory", replace(job, methods=(method,)), progress.advance)
        except StageProcessError as error:
            if error.code != KILLED:
                raise
            return []
        memory = TypeAdapter(Memory | None).validate_python(answer)
        if memory is None:
            return []
        found.append(memory)
    return found


def _times(job: Job, progress: Progress) -> Times:
    return TypeAdapter(Times).validate_python(run_task("times", job, progress.advance))


def run_task(task: str, job: Job, advance: Callable[[], object]) -> object:
    """Do `task` in a process of its own; see `run_process`."""
    return run_process("pipeline.bench_train", task, TypeAdapter(Job).dump_json(job).decode(), advance)


def do_task(task: str, job: Job, say: Callable[[str], object]) -> None:
    """The other end of `run_task`, in the process that measures."""
    answer: Memory | Times | None
    if task == "memory":
        answer = measure_peak(job)
        say("{}")
    else:
        answer = measure_times(job, after_each=lambda: say("{}"))
    say(json.dumps({"result": None if answer is None else asdict(answer)}))


def _result(job: Job, method: Method, peaks: Mapping[Method, list[Memory]], times: Times | None) -> Result:
    memory, other = peaks[method], COMPARED_WITH.get(method)
    rounds = times.rounds.get(method, ()) if times else ()
    seconds = median(rounds) if rounds else None
    reference = times.rounds.get(other) if times and other and rounds else None
    return Result(
        case=str(job.text.tokens),
        method=method,
        status="ok" if rounds else "out of memory",
        seconds=seconds,
        peak_bytes=_median_peak(memory) if memory else None,
        baseline_bytes=median_low(one.baseline_bytes for one in memory) if memory else None,
        compared_with=other if reference else None,
        time_ratio=median_ratio(rounds, reference) if reference else None,
        fastest_ratio=fastest(rounds) / fastest(reference) if reference else None,
        memory_ratio=_median_peak(memory) / _median_peak(peaks[other]) if other and reference else None,
        difference=times.difference if times and method == "molsaki" else None,
        records_per_second=job.records / seconds if seconds else None,
        seconds_by_round=rounds,
        peak_bytes_by_process=tuple(one.peak_bytes for one in memory),
        records=job.records,
        words=job.text.words,
        steps=job.text.steps,
        vocabulary=job.vocabulary,
        gradient_checkpointing=job.gradient_checkpointing,
        dtype=job.dtype,
    )


def _median_peak(memory: Sequence[Memory]) -> int:
    return median_low(one.peak_bytes for one in memory)


def _print(results: Sequence[Result], setting: Setting | None, *, as_json: bool) -> None:
    fields = dict.fromkeys(Setting.__annotations__) if setting is None else asdict(setting)
    if as_json:
        print_json([asdict(result) | fields for result in results])
        return
    table = new_table("tokens", "method", "seconds a step", "records/s", "time", "peak memory", "memory", "difference")
    for result in results:
        table.add_row(
            result.case,
            result.method,
            result.status if result.seconds is None else f"{result.seconds:.3g}",
            "" if result.records_per_second is None else f"{result.records_per_second:.3g}",
            _ratio(result.time_ratio, result.compared_with),
            "" if result.peak_bytes is None else size(result.peak_bytes),
            _ratio(result.memory_ratio, result.compared_with),
            "" if result.difference is None else f"{result.difference:.1e}",
        )
    print_table(table)
    if setting is not None:
        first = results[0]
        where = setting.device if setting.device != "cpu" else f"cpu, {setting.threads} threads"
        click.echo(
            f"random student of {setting.layers} layers, width {setting.width}, {setting.heads} heads, vocabulary "
            f"{first.vocabulary:,}; {first.records} records a step, {first.words} words, {first.steps} steps; "
            f"{first.dtype}; {where}; torch {setting.torch}, transformers {setting.transformers}"
        )


def _ratio(ratio: float | None, other: str | None) -> str:
    return "" if ratio is None or other is None else f"{ratio:.2f} × {other}"


def main(arguments: Sequence[str]) -> int:
    """Measure as `run_task` asked, and return the exit code."""

    def measure(task: str, job: str, say: Callable[[str], object]) -> None:
        assert task in {"memory", "times"}, task
        do_task(task, TypeAdapter(Job).validate_json(job), say)

    return serve(arguments, measure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
