"""Whether the attention stage costs four times as much for four times the records, in the same memory.

In: nothing but options. Out: seconds and peak memory of `stages.attention.write.write_attention`, the whole stage, over
1,000 and over 4,000 made-up problems with rationales, and their ratios; linear cost is a ratio of 4. The teacher is a
small random Llama made on the spot, the store a temporary one. Each measurement is a process of its own, in turns.

`seconds` holds all that the stage does: the teacher is hashed and read, texts are tokenized, attention is computed,
parts are written, hashed and committed. `once_seconds` is the same for a single record, which is next to nothing but
what is done once; ratios are given with it and without it. Both come after a first run over one record, so that neither
pays for what a process does the first time. Importing torch and making up the records is in neither.

torch gets one thread: two that wait for each other at every layer suffer much more from other work on the machine, and
which share of the cost is linear does not depend on them. Beside the median of the ratios round by round stands the
ratio of the fastest rounds, which other work touches least.

    python benchmarks/attention_scaling.py
    python benchmarks/attention_scaling.py --repeats 5 --json > scaling.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data.marking import mark
from data.records import Marked
from data.sets.synthetic import synthetic_questions

THREADS = 1
BATCH_TOKENS = 4096
PIECE = 512
LAYERS, WIDTH, HEADS = 4, 256, 4


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One process: the stage over `records` records, and over one."""

    records: int
    seconds: float
    once_seconds: float
    baseline_bytes: int
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class Size:
    """All measurements of one number of records: medians, and the largest peak."""

    case: str
    method: str
    seconds: float
    seconds_without_once: float
    once_seconds: float
    peak_bytes: int
    threads: int
    seconds_by_round: tuple[float, ...]
    time_ratio: float | None
    time_ratio_without_once: float | None
    fastest_ratio: float | None
    fastest_ratio_without_once: float | None
    memory_ratio: float | None


def main() -> None:
    """Read the options, and measure or be one of the measuring processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--records", type=int, nargs="+", default=[1000, 4000], help="numbers of records, smallest first"
    )
    parser.add_argument("--repeats", type=int, default=5, help="processes for each number")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--measure", nargs=2, metavar=("RECORDS", "TEACHER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.records) < 1 or options.repeats < 1:
        parser.error("--records and --repeats: expected numbers above zero")
    if options.measure:
        count, teacher = options.measure
        print(json.dumps(asdict(measure(int(count), Path(teacher)))))
        return
    sizes = summarise(in_turns(options.records, options.repeats))
    print(json.dumps([asdict(size) for size in sizes], indent=1) if options.json else table(sizes))


def in_turns(counts: Sequence[int], repeats: int) -> list[list[Measurement]]:
    """For every round one measurement of each number of records."""
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "teacher"
        write_teacher(teacher)
        return [[in_new_process(count, teacher) for count in counts] for _ in range(repeats)]


def in_new_process(count: int, teacher: Path) -> Measurement:
    """`measure` in a process that has no memory of other measurements; -P as in `pipeline.run.processes`."""
    command = [sys.executable, "-P", __file__, "--measure", str(count), str(teacher)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)  # noqa: S603  our own command
    measurement = Measurement(**json.loads(done.stdout.splitlines()[-1]))
    print(f"{count:,} records: {measurement.seconds:.1f} s", file=sys.stderr)
    return measurement


def measure(count: int, teacher: Path) -> Measurement:
    """The stage over one record, twice, and then over `count` of them."""
    import torch

    from stages.bench.measure import bytes_in_use, clock, peak_bytes

    records = made_up(count)
    torch.set_num_threads(THREADS)
    cpu = torch.device("cpu")
    once = [clock(lambda: write(records[:1], teacher), cpu) for _ in range(2)][-1]
    baseline = bytes_in_use(cpu)
    seconds = clock(lambda: write(records, teacher), cpu)
    return Measurement(
        records=count,
        seconds=seconds,
        once_seconds=once,
        baseline_bytes=baseline,
        peak_bytes=peak_bytes(cpu),
    )


def made_up(count: int) -> list[Marked]:
    """The first `count` made-up problems with their rationales, marked; more of them begin with fewer."""
    questions = synthetic_questions(count, seed=0, split="train")
    return [mark(question.text, question.reference or "") for question in questions]


def write(records: Sequence[Marked], teacher: Path) -> None:
    """The attention stage as `molsaki attention` runs it, into a store that is thrown away."""
    from cache.spaces import Space
    from cache.writer import AttentionWriter
    from stages.attention.spec import attention_slug, attention_spec
    from stages.attention.write import write_attention
    from stages.models.identity import identify_model
    from stages.runtime.progress import SilentProgress, StopSignal
    from stages.settings import AttentionSettings, TeacherSettings

    model = TeacherSettings(model=str(teacher), dtype="float32", device="cpu")
    settings = AttentionSettings(batch_tokens=BATCH_TOKENS, piece=PIECE)
    identity = identify_model(model.model, None)
    with tempfile.TemporaryDirectory() as store, StopSignal() as stop:
        space = Space.open_or_create(
            Path(store), "attention", attention_slug(identity, settings), attention_spec(identity, model, settings)
        )
        write_attention(
            records,
            AttentionWriter(space),
            set(),
            model,
            settings,
            identity=identity,
            progress=SilentProgress(),
            stop=stop,
        )
        written = sum(commit.counts["records"] for commit in space.commits())
        assert written == len(records), f"{written} of {len(records)} records were written"


def write_teacher(folder: Path) -> None:
    """A random Llama with a tokenizer that knows the words of the made-up problems."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from stages.toy.teacher import word_tokenizer

    tokenizer = word_tokenizer(synthetic_questions(1000, seed=0, split="train"))
    torch.manual_seed(0)
    configuration = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=704,  # 8/3 of the width
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=512,
        initializer_range=0.08,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(configuration).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def summarise(rounds: Sequence[Sequence[Measurement]]) -> list[Size]:
    """Medians over the rounds; ratios to the first size are medians of the ratios round by round."""
    sizes = list(zip(*rounds, strict=True))
    return [_size(measurements, sizes[0]) for measurements in sizes]


def _size(ours: Sequence[Measurement], first: Sequence[Measurement]) -> Size:
    peak, is_first = max(one.peak_bytes for one in ours), ours is first

    def ratio(seconds: Sequence[float], reference: Sequence[float]) -> float | None:
        pairs = zip(seconds, reference, strict=True)
        return None if is_first else statistics.median(mine / theirs for mine, theirs in pairs)

    return Size(
        case=f"{ours[0].records} records",
        method="write_attention",
        seconds=statistics.median(whole(ours)),
        seconds_without_once=statistics.median(net(ours)),
        once_seconds=statistics.median(one.once_seconds for one in ours),
        peak_bytes=peak,
        threads=THREADS,
        seconds_by_round=tuple(whole(ours)),
        time_ratio=ratio(whole(ours), whole(first)),
        time_ratio_without_once=ratio(net(ours), net(first)),
        fastest_ratio=ratio([min(whole(ours))], [min(whole(first))]),
        fastest_ratio_without_once=ratio([min(net(ours))], [min(net(first))]),
        memory_ratio=None if is_first else peak / max(one.peak_bytes for one in first),
    )


def whole(measurements: Sequence[Measurement]) -> list[float]:
    """Seconds of the whole stage."""
    return [one.seconds for one in measurements]


def net(measurements: Sequence[Measurement]) -> list[float]:
    """Seconds without what is done once."""
    return [one.seconds - one.once_seconds for one in measurements]


def table(sizes: Sequence[Size]) -> str:
    """One line for each number of records; ratios are median and fastest."""
    columns = ("case", "seconds", "ratio", "fastest", "without once", "ratio", "fastest", "peak memory", "ratio")
    rows = [columns, *(_row(size) for size in sizes)]
    return "\n".join("".join(f"{cell:>14}" for cell in row) for row in rows)


def _row(size: Size) -> tuple[str, ...]:
    def times(ratio: float | None) -> str:
        return "" if ratio is None else f"{ratio:.2f}"

    return (
        size.case,
        f"{size.seconds:.1f}",
        times(size.time_ratio),
        times(size.fastest_ratio),
        f"{size.seconds_without_once:.1f}",
        times(size.time_ratio_without_once),
        times(size.fastest_ratio_without_once),
        f"{size.peak_bytes / 1e6:.0f} MB",
        times(size.memory_ratio),
    )


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    main()
