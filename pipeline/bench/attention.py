"""`molsaki bench attention`: which methods are compared on which cases, and the table of it.

In: the options of a command. Out: a table or JSON on stdout. `pipeline.bench.compare` says how methods are compared.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import cycle, islice
from typing import Any

from data.errors import ConfigError
from pipeline.bench.compare import Benchmark, Row, comparison_columns, number, print_comparisons, with_model
from pipeline.console.progress import open_progress
from stages.bench import attention, vllm_attention
from stages.bench.attention import METHODS, SVAMP, AttentionJob, Text, check_text
from stages.toy.random_llama import Shape

PRESETS = {
    None: Shape(layers=8, width=512, heads=8, kv_heads=8),
    "7b": Shape(layers=32, width=4096, heads=32, kv_heads=32),
}
BATCH_TOKENS = {"cpu": 4096, "cuda": 8192}
BATCHES = 2
"""Full batches of a case, unless a number of records is given."""
BENCHMARK = Benchmark[AttentionJob](
    peak=attention.measure_peak,
    times=attention.measure_times,
    most_rounds=attention.MOST_ROUNDS,
    compared_with={name: method.compared_with for name, method in METHODS.items()},
    slow=attention.MOST_ROUNDS,
    smaller="--batch-tokens",
)
IN_VLLM = Benchmark[AttentionJob](
    peak=vllm_attention.measure_peak,
    times=vllm_attention.measure_times,
    most_rounds={},
    compared_with=vllm_attention.COMPARED_WITH,
    slow={},
    smaller="--batch-tokens",
)
COLUMNS = [number("case", "case"), number("records", "records", ","), *comparison_columns("seconds", "max_difference")]


def bench_attention(*, engine: str, as_json: bool, quiet: bool, **options: Any) -> None:
    """Measure every case that the options name, and print what came out."""
    if engine == "vllm":
        options["methods"] = list(vllm_attention.COMPARED_WITH)
    benchmark = IN_VLLM if engine == "vllm" else BENCHMARK
    jobs, rows, setting = attention_jobs(**options), list[Row](), None
    with open_progress(quiet=quiet) as progress:
        for case, job in jobs.items():
            found, times = benchmark.compare(f"case {case}", job, progress)
            setting = times.setting if times else setting
            rows += [
                {
                    "case": case,
                    **asdict(one),
                    "records_per_second": one.per_second(len(job.texts)),
                    "tokens_per_second": one.per_second(job.tokens),
                    "max_difference": times.differences.get(one.method) if times else None,
                    "records": len(job.texts),
                    "tokens": job.tokens,
                    "batch_tokens": job.batch_tokens,
                    "dtype": job.dtype,
                    "model": job.model or "random",
                }
                for one in found
            ]
    details = f"{job.dtype}, batches of {job.batch_tokens:,} tokens"
    print_comparisons(rows, COLUMNS, setting, f"{job.model or 'random'} model", details, as_json=as_json)


def attention_jobs(
    *,
    lengths: Sequence[str],
    words: int,
    steps: int,
    records: int | None,
    methods: Sequence[str],
    batch_tokens: int | None,
    **options: Any,
) -> dict[str, AttentionJob]:
    """What the measuring processes are told of each case: records all of one length, or a mix."""
    if options["model"] is not None and any(
        options[name] for name in ("preset", "layers", "width", "heads", "kv_heads")
    ):
        raise ConfigError("--model: it has a shape of its own; leave out --preset, --layers, --width and heads")
    common = with_model(PRESETS, **options)
    room = batch_tokens or BATCH_TOKENS[common["device"]]
    jobs = {}
    for case in lengths:
        mix = SVAMP if case == "svamp" else (Text(tokens=int(case), words=words, steps=steps),)
        for text in mix:
            check_text(text)
        count = records or max(2, round(BATCHES * room / (sum(text.tokens for text in mix) / len(mix))))
        jobs[case] = AttentionJob(
            texts=tuple(islice(cycle(mix), count)),
            methods=tuple(method for method in (*METHODS, *vllm_attention.COMPARED_WITH) if method in methods),
            batch_tokens=room,
            **common,
        )
    return jobs
