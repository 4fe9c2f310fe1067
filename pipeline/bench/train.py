"""`molsaki bench train`: what a training step costs with the attention loss and without, as a table.

In: the options of the command. Out: a table or JSON on stdout. `pipeline.bench.compare` says how methods are compared.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from pipeline.bench.compare import Benchmark, comparison_columns, number, print_comparisons, with_model
from pipeline.bench.peers import installed
from pipeline.console.progress import open_progress
from stages.bench import train
from stages.bench.train import METHODS, TrainJob
from stages.toy.random_llama import Shape

TRL = "trl==1.16.0"
"""What ours is compared with where it is asked for: installed into a folder of its own, without what it needs."""
PRESETS = {
    None: Shape(layers=8, width=512, heads=8, kv_heads=8),
    "1b": Shape(layers=22, width=2048, heads=32, kv_heads=4),
}
BENCHMARK = Benchmark[TrainJob](
    peak=train.measure_peak,
    times=train.measure_times,
    most_rounds=train.MOST_ROUNDS,
    compared_with=train.COMPARED_WITH,
    smaller="--records",
)
AGAINST_TRL = replace(BENCHMARK, compared_with=train.COMPARED_WITH_TRL)
COLUMNS = [
    number("tokens", "case"),
    *comparison_columns("seconds a step", "difference"),
    number("of peak", "share_of_peak", ".0%"),
]
FIELDS = ("records", "words", "steps", "vocabulary", "gradient_checkpointing", "dtype")
"""What machines are told of a job beside its length, which is the case."""


def bench_train(*, as_json: bool, quiet: bool, **options: Any) -> None:
    """Measure as the options say, and print what came out."""
    against = options.pop("against", None)
    job = train_job(**options)
    with open_progress(quiet=quiet) as progress:
        if against is not None:
            job = replace(job, methods=(*job.methods, against), peers=str(installed(TRL, progress)))
        found, times = (BENCHMARK if against is None else AGAINST_TRL).compare("train", job, progress)
    rows = [
        {
            "case": "svamp" if job.svamp else str(job.length),
            **asdict(one),
            "records_per_second": one.per_second(job.records),
            "difference": times.differences.get(one.method) if times else None,
            "share_of_peak": times.shares_of_peak.get(one.method) if times else None,
            **{name: getattr(job, name) for name in FIELDS},
        }
        for one in found
    ]
    of_each = "as SVAMP's" if job.svamp else f"{job.words} words, {job.steps} steps"
    size = f"{job.records} records a step, {of_each}"
    details = f"vocabulary {job.vocabulary:,}; {size}; {job.dtype}"
    print_comparisons(rows, COLUMNS, times.setting if times else None, "random student", details, as_json=as_json)


def train_job(*, methods: Sequence[str], **options: Any) -> TrainJob:
    """What the measuring processes are told; `ConfigError` for a shape or a length that cannot be."""
    job = TrainJob(methods=tuple(method for method in METHODS if method in methods), **with_model(PRESETS, **options))
    train.check_job(job)
    return job
