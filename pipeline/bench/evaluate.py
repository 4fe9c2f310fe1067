"""`molsaki bench evaluate`: what the answers of many students cost by one engine, beside an engine each, as a table.

In: the options of the command. Out: a table or JSON on stdout; the students lie in a temporary folder that goes away.
Each way has a process of its own, one after the other, as often as there are rounds.
"""

from dataclasses import asdict
from functools import partial
from typing import Any

from pipeline.bench import compare
from pipeline.bench.compare import Row, measuring_in_a_folder, number, print_rows, ratio, with_model
from stages.bench.evaluate import (
    METHODS,
    EvaluateJob,
    EvaluateTimes,
    Method,
    measure_times,
    require_equal,
    write_students,
)
from stages.bench.measure import median, median_ratio
from stages.toy.random_llama import Shape

REFERENCE: Method = "each"
SMALL = Shape(layers=2, width=64, heads=2, kv_heads=2)
COLUMNS = [
    number("students", "students"),
    number("an engine for", "method"),
    number("seconds", "seconds", ".3g"),
    number("the first", "first_seconds", ".3g"),
    ratio("time", "time_ratio", ".2f"),
]


def bench_evaluate(*, as_json: bool, quiet: bool, repeats: int, **options: Any) -> None:
    """Measure as the options say, and print what came out."""
    with measuring_in_a_folder(None, quiet=quiet) as (progress, folder):
        model = with_model({None: SMALL}, **options) | {"device": options["device"]}
        job = EvaluateJob(folder=folder, **model)
        progress.start("evaluate", 1 + len(METHODS) * repeats * job.students)
        run = partial(compare.run_process, advance=progress.advance)
        run(write_students, job)
        found: dict[Method, list[EvaluateTimes]] = {method: [] for method in METHODS}
        for turn in range(repeats):
            for method in METHODS[:: 1 if turn % 2 == 0 else -1]:
                found[method].append(run(measure_times, job, method))
            require_equal(found["one"][-1], found[REFERENCE][-1])
        for note in dict.fromkeys(note for times in found["one"] for note in times.notes):
            progress.note(note)
    setting = found[REFERENCE][0].setting
    line = (
        f"random students of {setting.layers} layers, width {setting.width}, "
        f"{'tied' if job.tied else 'untied'} embeddings; {job.questions:,} questions, {job.max_tokens} new tokens at "
        f"most; {job.engine}, {job.dtype}; {setting.device}; torch {setting.torch}"
    )
    rows = [_row(job, method, found) for method in METHODS]
    print_rows(rows, COLUMNS, asdict(setting), line, as_json=as_json)


def _row(job: EvaluateJob, method: Method, found: dict[Method, list[EvaluateTimes]]) -> Row:
    """One way; the ratio is the median of those round by round, None for the way that is compared with."""
    rounds = {name: tuple(times.seconds for times in of) for name, of in found.items()}
    return {
        "case": str(job.students),
        "method": method,
        "students": job.students,
        "questions": job.questions,
        "seconds": median(rounds[method]),
        "first_seconds": median(tuple(times.first_seconds for times in found[method])),
        "compared_with": None if method == REFERENCE else REFERENCE,
        "time_ratio": None if method == REFERENCE else median_ratio(rounds[method], rounds[REFERENCE]),
        "seconds_by_round": rounds[method],
        "notes": found[method][0].notes,
        "engine": job.engine,
        "tied": job.tied,
        "dtype": job.dtype,
    }
