"""The group `molsaki bench`: what the stages cost on this machine, beside the obvious ways to do the same."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import Command, all_of, device_option, examples, json_option, quiet_option
from pipeline.console.progress import quieten_libraries


@click.group()
def bench() -> None:
    """Measure what the stages cost on this machine."""


def _number(name: str, default: int | None, text: str, *, least: int = 1) -> Callable[[Command], Command]:
    """An option that is a whole number of at least `least`."""
    return click.option(name, type=click.IntRange(min=least), default=default, help=text)


def _separated(
    name: str, default: str, text: str, *, allowed: tuple[str, ...], numbers: bool = False
) -> Callable[[Command], Command]:
    """An option whose values are separated by commas, each of them allowed or, where they may be, a number."""

    def split(_context: click.Context, _parameter: click.Parameter, said: str) -> tuple[str, ...]:
        values = tuple(value.strip() for value in said.split(","))
        for value in values:
            if value not in allowed and not (numbers and value.isdecimal() and int(value) > 0):
                expected = ", ".join((*(["numbers above zero"] if numbers else []), *allowed))
                raise click.BadParameter(f"expected {expected}, separated by commas; found {value!r}")
        return values

    return click.option(name, default=default, callback=split, help=text)


def _shape_options(what: str, *, layers: int = 8, width: int = 512) -> Callable[[Command], Command]:
    """Add the size of a random model; nothing is filled in, for a preset or a model may say it."""
    return all_of(
        _number("--layers", None, f"Layers of the random {what}.  [default: {layers}]"),
        _number("--width", None, f"Its hidden size.  [default: {width}]"),
        _number("--heads", None, "Its query heads.  [default: 8]"),
        _number("--kv-heads", None, "Its key-value heads.  [default: as many as query heads]"),
    )


def _device_options(*dtypes: str) -> Callable[[Command], Command]:
    """Add where and in which numbers models run."""
    shown = "Number format.  [default: float32, on a GPU bfloat16]"
    return all_of(device_option, click.option("--dtype", type=click.Choice(dtypes), help=shown))


def _measure(name: str, options: Mapping[str, Any]) -> None:
    """Run the benchmark of that name, which is called as its command is."""
    quieten_libraries(quiet=True)
    getattr(import_module(f"pipeline.bench.{name}"), f"bench_{name}")(**options)


text_options = all_of(
    _number("--words", 24, "Critical words in a record."), _number("--steps", 8, "Reasoning steps in a record.")
)
threads_option = _number("--threads", None, "Threads on a CPU.  [default: what torch takes]")
output_options = all_of(quiet_option, json_option)
BENCH_METHODS = ("forward", "molsaki", "output_attentions", "one-by-one")
TRAIN_METHODS = ("dss", "molsaki", "output_attentions")
MORE_TRAIN_METHODS = ("soft-labels",)


@examples(
    "molsaki bench attention",
    "molsaki bench attention --lengths 1024,4096,svamp --json > attention.json",
    "molsaki bench attention --preset 7b --device cuda --lengths 512,4096",
    "molsaki bench attention --engine vllm --lengths svamp     beside vLLM's own reading of the same texts",
)
@bench.command("attention")
@click.option(
    "--engine",
    type=click.Choice(["transformers", "vllm"]),
    default="transformers",
    help="Who runs the model. With `vllm`, --methods means nothing: `prefill` is compared with `vllm`.",
)
@_number("--tensor-parallel", 1, "With --engine vllm: workers that the model is spread over.")
@_separated(
    "--lengths",
    "1024,4096",
    "Tokens a record, a case each; `svamp` is a mix of lengths, steps and words as in SVAMP with rationales.",
    allowed=("svamp",),
    numbers=True,
)
@text_options
@_number("--records", None, "Records of a case.  [default: two full batches, two at least]")
@_separated(
    "--methods",
    ",".join(BENCH_METHODS),
    "What to compare: the bare pass, ours, eager attention in the same batches, the same a record at a time; "
    "`words` is ours as a student needs it, without what the steps look at in all.",
    allowed=(*BENCH_METHODS, "words"),
)
@_number("--repeats", 5, "Rounds; eager attention is in three at most.")
@click.option("--model", metavar="PATH_OR_ID", help="A model of transformers instead of a random one.")
@click.option(
    "--preset", type=click.Choice(["7b"]), help="Shape of Llama-2-7B: 32 layers, width 4096, 32 heads of both kinds."
)
@_shape_options("Llama")
@_number("--batch-tokens", None, "Tokens of a batch, padding included.  [default: 4096, on a GPU 8192]")
@_device_options("float32", "bfloat16", "float16")
@threads_option
@output_options
def bench_attention(**options: Any) -> None:  # click's own types
    """Time and peak memory of stepwise attention, beside a bare forward pass and beside output_attentions=True.

    All methods see the same model and the same made-up records, in turns within one process; each has its memory
    measured in processes of its own. A ratio is that of a method to the one named beside it.
    """
    _measure("attention", options)


@examples(
    "molsaki bench cache",
    "molsaki bench cache --records 2000 --index-records 0",
    "molsaki bench cache --teacher demo/teacher --out . --json > cache.json",
)
@bench.command("cache")
@_number("--records", 20_000, "Records that are written and read.")
@_number("--layers", None, "Layers of each record.  [default: 32]")
@_number("--repeats", 3, "Rounds; epochs in which the store decodes each record alone are in one.")
@_number("--reads", 2000, "Random reads in a round.")
@_number("--index-records", 500_000, "Records of the store whose opening is measured; 0 leaves it out.", least=0)
@click.option(
    "--teacher", metavar="PATH_OR_ID", help="A model of transformers whose attention is taken, instead of a random one."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder on the file system to measure; a temporary folder is made in it.  [default: the system's]",
)
@output_options
def bench_cache(layers: int | None, **options: Any) -> None:  # click's own types
    """Bytes, files and times of a store and its memory map, beside one torch.save file a record.

    The texts are made-up problems; 128 of each shape are run through a random Llama with large weights (or --teacher),
    and the others take their attention with every value changed by about a tenth, so that zeros and exponents are like
    those of a real store and mantissas are all different. The same seed is taken every time. Everything is written into
    a temporary folder that is removed in the end. Without root, only the contents of files can be dropped from memory
    before they are opened, not their names and places.
    """
    if layers is not None and options["teacher"] is not None:
        raise click.UsageError("--layers: a --teacher has its own; leave out one of the two")
    _measure("cache", {**options, "layers": layers or 32})


@examples(
    "molsaki bench rationales",
    "molsaki bench rationales --questions 4000 --max-tokens 128 --json > rationales.json",
    "molsaki bench rationales --layers 32 --width 4096 --heads 32 --kv-heads 8 --device cuda",
)
@bench.command("rationales")
@_number("--questions", 1000, "Made-up questions in a run.")
@_number("--shots", 4, "Worked examples before each question.", least=0)
@_number("--max-tokens", 64, "Length of every output, in tokens.")
@_number("--piece", 256, "Questions per commit.")
@_number("--repeats", 5, "Rounds.")
@_shape_options("teacher", layers=4, width=256)
@_device_options("float32", "bfloat16", "float16")
@output_options
def bench_rationales(**options: Any) -> None:  # click's own types
    """Throughput of the rationale stage beside a bare LLM.generate over the same prompts, by the same vLLM.

    `generate` gets all prompts at once; `stage` also makes them, judges what comes and commits it. vLLM forgets its
    prefixes before each round, and that both give the same texts is checked first.
    """
    _measure("rationales", options)


@examples(
    "molsaki bench train",
    "molsaki bench train --gradient-checkpointing --json > train.json",
    "molsaki bench train --preset 1b --device cuda --records 16",
    "molsaki bench train --svamp --against trl",
)
@bench.command("train")
@_number("--length", 256, "Tokens of an `explain` text.")
@text_options
@click.option(
    "--svamp", is_flag=True, help="Records as long as SVAMP's with rationales, and unlike each other, instead."
)
@_number("--records", 8, "Records of a batch.")
@_separated(
    "--methods",
    ",".join(TRAIN_METHODS),
    "What to compare: without attention, ours, and eager attention of the student in a pass of its own. `soft-labels` "
    "is dss with 64 likeliest tokens of each target token.",
    allowed=(*TRAIN_METHODS, *MORE_TRAIN_METHODS),
)
@click.option(
    "--against",
    type=click.Choice(["trl"]),
    help="Compare with TRL's SFTTrainer on the same texts, which is installed for it once, below the user's cache.",
)
@_number("--repeats", 7, "Rounds; eager attention is in five at most.")
@click.option(
    "--preset", type=click.Choice(["1b"]), help="Shape of TinyLlama: 22 layers, width 2048, 32 heads, 4 for keys."
)
@_shape_options("student")
@_number("--vocabulary", 32_000, "Its vocabulary.")
@click.option("--gradient-checkpointing", is_flag=True, help="Compute layers again in the backward pass.")
@_device_options("float32", "bfloat16")
@threads_option
@output_options
def bench_train(**options: Any) -> None:  # click's own types
    """Time and peak memory of a training step with the attention loss, beside one without.

    All methods take whole steps (both tasks, backward pass, AdamW) on the same student and batch, in turns within one
    process; each has its memory measured in processes of its own.
    """
    _measure("train", options)


@examples(
    "molsaki bench evaluate",
    "molsaki bench evaluate --students 10 --questions 1000 --json > evaluate.json",
    "molsaki bench evaluate --tied                    students whose embeddings are their heads",
)
@bench.command("evaluate")
@_number("--students", 10, "Students of one configuration.")
@_number("--questions", 200, "Made-up questions that each is asked.")
@_number("--max-tokens", 16, "Length of an answer at most, in tokens.")
@click.option("--tied", is_flag=True, help="Let the embeddings be the head, where vLLM on a CPU cannot change weights.")
@click.option("--engine", type=click.Choice(["vllm", "transformers"]), default="vllm", help="What they answer by.")
@_number("--repeats", 1, "Rounds.")
@_shape_options("student", layers=2, width=64)
@_device_options("float32", "bfloat16", "float16")
@output_options
def bench_evaluate(**options: Any) -> None:  # click's own types
    """Time of the answers of many students by one engine that changes its weights, beside an engine for each.

    The one engine proves for each student that it has its weights, and both ways have to give the same answers.
    """
    _measure("evaluate", options)
