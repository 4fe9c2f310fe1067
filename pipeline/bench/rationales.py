"""`molsaki bench rationales`: how much of vLLM's own throughput the rationale stage keeps, as a table.

In: the options of the command. Out: a table or JSON on stdout; the teacher and the stores lie in a temporary folder
that goes away. Each method gets a process of its own for its peak memory; then both take turns for the times in one
process, with one vLLM. `pipeline.bench.compare` says how such processes are started.
"""

from dataclasses import asdict
from functools import partial
from typing import Any

from pipeline.bench import compare
from pipeline.bench.compare import Row, amount, measuring_in_a_folder, number, print_rows, ratio, with_model
from stages.bench.measure import Memory, fastest, median, median_ratio
from stages.bench.rationales import (
    METHODS,
    Method,
    RationalesJob,
    RationaleTimes,
    measure_peak,
    measure_times,
    write_teacher,
)
from stages.toy.random_llama import Shape

REFERENCE: Method = "generate"
SMALL = Shape(layers=4, width=256, heads=8, kv_heads=8)
COLUMNS = [
    number("questions", "questions", ","),
    number("method", "method"),
    number("seconds", "seconds", ".3g"),
    number("new tokens/s", "new_tokens_per_second", ",.0f"),
    ratio("throughput", "throughput_ratio", ".3f"),
    amount("peak memory", "peak_bytes"),
    number("uncommitted", "uncommitted", ","),
]


def bench_rationales(*, as_json: bool, quiet: bool, **options: Any) -> None:
    """Measure as the options say, and print what came out."""
    with measuring_in_a_folder(None, quiet=quiet) as (progress, folder):
        # vLLM has its own mind of `auto`: a device is asked for where one was named.
        model = with_model({None: SMALL}, **options) | {"device": options["device"]}
        job = RationalesJob(folder=folder, **model)
        progress.start("rationales", 1 + len(METHODS) * (2 + job.repeats))
        run = partial(compare.run_process, advance=progress.advance)
        run(write_teacher, job)
        peaks = {method: run(measure_peak, job, method) for method in METHODS}
        times = run(measure_times, job)
    setting = times.setting
    line = (
        f"random teacher of {setting.layers} layers, width {setting.width}, {setting.heads} heads; "
        f"{times.prompt_tokens:,} prompt tokens and {times.new_tokens:,} new ones, pieces of {job.piece:,}; "
        f"{job.dtype}; {setting.device}; vLLM {times.vllm}, torch {setting.torch}"
    )
    rows = [_row(job, method, peaks[method], times) for method in METHODS]
    print_rows(rows, COLUMNS, asdict(setting), line, as_json=as_json)


def _row(job: RationalesJob, method: Method, memory: Memory, times: RationaleTimes) -> Row:
    """One method. Ratios are against `compared_with`, None where there is nothing to compare.

    `throughput_ratio` is the median of the ratios round by round, `fastest_ratio` that of the fastest rounds; both are
    1 where the stage is as fast as vLLM alone. Memory is that of the process that asks, vLLM's own not included.
    `uncommitted` is the most answers that a kill would have lost.
    """
    rounds, reference, is_stage = times.rounds[method], times.rounds[REFERENCE], method != REFERENCE
    seconds = median(rounds)
    return {
        "case": str(job.questions),
        "method": method,
        "seconds": seconds,
        **asdict(memory),
        "compared_with": REFERENCE if is_stage else None,
        "throughput_ratio": median_ratio(reference, rounds) if is_stage else None,
        "fastest_ratio": fastest(reference) / fastest(rounds) if is_stage else None,
        "tokens_per_second": (times.prompt_tokens + times.new_tokens) / seconds,
        "new_tokens_per_second": times.new_tokens / seconds,
        "seconds_by_round": rounds,
        "questions": job.questions,
        "prompt_tokens": times.prompt_tokens,
        "new_tokens": times.new_tokens,
        "piece": job.piece,
        "uncommitted": times.uncommitted if is_stage else None,
        "dtype": job.dtype,
        "vllm": times.vllm,
    }
