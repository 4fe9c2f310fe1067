"""`molsaki bench train`: what a training step costs with the attention loss and without, as a table.

In: the options of the command. Out: a table or JSON on stdout. `pipeline.bench.compare` says how methods are compared.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline.bench.compare import Benchmark, comparison_columns, number, print_comparisons, with_model
from pipeline.console.progress import open_progress
from stages.bench import train
from stages.bench.train import METHODS, TrainJob
from stages.toy.random_llama import Shape

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
COLUMNS = [number("tokens", "case"), *comparison_columns("seconds a step", "difference")]
FIELDS = ("records", "words", "steps", "vocabulary", "gradient_checkpointing", "dtype")
"""What machines are told of a job beside its length, which is the case."""


def bench_train(*, as_json: bool, quiet: bool, **options: Any) -> None:
    """Measure as the options say, and print what came out."""
    job = train_job(**options)
    with open_progress(quiet=quiet) as progress:
        found, times = BENCHMARK.compare("train", job, progress)
    rows = [
        {
            "case": str(job.length),
            **asdict(one),
            "records_per_second": one.per_second(job.records),
            "difference": times.differences.get(one.method) if times else None,
            **{name: getattr(job, name) for name in FIELDS},
        }
        for one in found
    ]
    size = f"{job.records} records a step, {job.words} words, {job.steps} steps"
    details = f"vocabulary {job.vocabulary:,}; {size}; {job.dtype}"
    print_comparisons(rows, COLUMNS, times.setting if times else None, "random student", details, as_json=as_json)


def train_job(*, methods: Sequence[str], **options: Any) -> TrainJob:
    """What the measuring processes are told; `ConfigError` for a shape or a length that cannot be."""
    job = TrainJob(methods=tuple(method for method in METHODS if method in methods), **with_model(PRESETS, **options))
    train.check_job(job)
    return job
