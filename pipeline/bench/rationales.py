"""`molsaki bench rationales`: how much of vLLM's own throughput the rationale stage keeps, as a table.

In: the options of the command. Out: a table or JSON on stdout; the teacher and the stores lie in a temporary folder
that goes away. Each method gets a process of its own for its peak memory; then both take turns for the times in one
process, with one vLLM. This module is also what those processes run; `pipeline.bench.measuring` says how.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from pydantic import TypeAdapter

from pipeline.bench.cache import stopped_by_signals
from pipeline.bench.compare import DTYPES, device_of, run_process, serve_job, shape_of
from pipeline.console.progress import open_progress
from pipeline.console.quiet import quieten_libraries
from pipeline.console.tables import new_table, print_json, print_table, size
from stages.bench.measure import Memory, Rounds, fastest, median, median_ratio
from stages.bench.rationales import METHODS, Job, Method, Times, measure_peak, measure_times, write_teacher
from stages.runtime.progress import Progress
from stages.settings import Device, Dtype
from stages.toy.random_llama import Shape

REFERENCE: Method = "generate"
SMALL = Shape(layers=4, width=256, heads=8, kv_heads=8)


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `molsaki bench rationales`."""

    questions: int
    shots: int
    max_tokens: int
    piece: int
    repeats: int
    layers: int | None
    width: int | None
    heads: int | None
    kv_heads: int | None
    device: Device
    dtype: Dtype | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One method. Ratios are against `compared_with`, None where there is nothing to compare.

    `throughput_ratio` is the median of the ratios round by round, `fastest_ratio` that of the fastest rounds; both are
    1 where the stage is as fast as vLLM alone. Memory is that of the process that asks, vLLM's own not included.
    `uncommitted` is the most answers that a kill would have lost.
    """

    case: str
    method: Method
    seconds: float
    peak_bytes: int
    baseline_bytes: int
    compared_with: Method | None
    throughput_ratio: float | None
    fastest_ratio: float | None
    tokens_per_second: float
    new_tokens_per_second: float
    seconds_by_round: Rounds
    questions: int
    prompt_tokens: int
    new_tokens: int
    piece: int
    uncommitted: int | None
    dtype: Dtype
    vllm: str


def bench_rationales(request: Request, *, as_json: bool, quiet: bool) -> None:
    """Measure as `request` says, and print what came out."""
    quieten_libraries(quiet=True)
    with (
        stopped_by_signals(),
        open_progress(quiet=quiet) as progress,
        tempfile.TemporaryDirectory(prefix="molsaki-bench-") as folder,
    ):
        job = job_of(request, Path(folder))
        results, times = _measure(job, progress)
    _print(results, times, as_json=as_json)


def job_of(request: Request, folder: Path) -> Job:
    """What the measuring processes are told; `ConfigError` for a shape that cannot be."""
    said = {name: getattr(request, name) for name in ("layers", "width", "heads", "kv_heads")}
    return Job(
        folder=folder,
        shape=shape_of(SMALL, **said),
        questions=request.questions,
        shots=request.shots,
        max_tokens=request.max_tokens,
        piece=request.piece,
        repeats=request.repeats,
        device=request.device,
        dtype=request.dtype or DTYPES[device_of(request.device)],
    )


def _measure(job: Job, progress: Progress) -> tuple[list[Result], Times]:
    progress.start("rationales", 1 + len(METHODS) * (2 + job.repeats))
    run_task("teacher", job, progress.advance)
    peaks = {method: TypeAdapter(Memory).validate_python(run_task(method, job, progress.advance)) for method in METHODS}
    times = TypeAdapter(Times).validate_python(run_task("times", job, progress.advance))
    return [_result(job, method, peaks[method], times) for method in METHODS], times


def run_task(task: str, job: Job, advance: Callable[[], object]) -> object:
    """Do `task` in a process of its own; see `run_process`."""
    return run_process("pipeline.bench.rationales", task, TypeAdapter(Job).dump_json(job).decode(), advance)


def do_task(task: str, job: Job, say: Callable[[str], object]) -> None:
    """The other end of `run_task`, in the process that measures."""
    answer: Memory | Times | None = None
    if task == "teacher":
        write_teacher(job)
        say("{}")
    elif task == "times":
        answer = measure_times(job, after_each=lambda: say("{}"))
    else:
        (method,) = (method for method in METHODS if method == task)
        answer = measure_peak(job, method)
        say("{}")
    say(json.dumps({"result": None if answer is None else asdict(answer)}))


def _result(job: Job, method: Method, memory: Memory, times: Times) -> Result:
    rounds, reference = times.rounds[method], times.rounds[REFERENCE]
    seconds, compared = median(rounds), method != REFERENCE
    return Result(
        case=str(job.questions),
        method=method,
        seconds=seconds,
        peak_bytes=memory.peak_bytes,
        baseline_bytes=memory.baseline_bytes,
        compared_with=REFERENCE if compared else None,
        throughput_ratio=median_ratio(reference, rounds) if compared else None,
        fastest_ratio=fastest(reference) / fastest(rounds) if compared else None,
        tokens_per_second=(times.prompt_tokens + times.new_tokens) / seconds,
        new_tokens_per_second=times.new_tokens / seconds,
        seconds_by_round=rounds,
        questions=job.questions,
        prompt_tokens=times.prompt_tokens,
        new_tokens=times.new_tokens,
        piece=job.piece,
        uncommitted=times.uncommitted if compared else None,
        dtype=job.dtype,
        vllm=times.vllm,
    )


def _print(results: Sequence[Result], times: Times, *, as_json: bool) -> None:
    setting = times.setting
    if as_json:
        print_json([asdict(result) | asdict(setting) for result in results])
        return
    table = new_table("questions", "method", "seconds", "new tokens/s", "throughput", "peak memory", "uncommitted")
    for result in results:
        ratio = "" if result.throughput_ratio is None else f"{result.throughput_ratio:.3f} × {result.compared_with}"
        table.add_row(
            f"{result.questions:,}",
            result.method,
            f"{result.seconds:.3g}",
            f"{result.new_tokens_per_second:,.0f}",
            ratio,
            size(result.peak_bytes),
            "" if result.uncommitted is None else f"{result.uncommitted:,}",
        )
    print_table(table)
    first = results[0]
    click.echo(
        f"random teacher of {setting.layers} layers, width {setting.width}, {setting.heads} heads; "
        f"{first.prompt_tokens:,} prompt tokens and {first.new_tokens:,} new ones, pieces of {first.piece:,}; "
        f"{first.dtype}; {setting.device}; vLLM {first.vllm}, torch {setting.torch}"
    )


if __name__ == "__main__":
    sys.exit(serve_job(sys.argv[1:], Job, do_task))
