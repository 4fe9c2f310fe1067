"""How long a student waits for its first optimizer step, and what that takes in memory, by the number of records.

    python -P benchmarks/first_step.py ../before . --records 10000 100000

In: checkouts, numbers of records. Out: for each a line for seed 0, which finds stage one in the store and nothing else,
and a line for seed 1, which another seed preceded: seconds from the end of its imports to the first optimizer step and
seconds of processors in them, the most memory by then, pages of files that it maps included, and what is its own in the
end. Records are made up here: a question and a rationale of three sentences, attention of one layer; teacher and
student are a Llama of one layer. Each student is `molsaki train` in a process of its own, which loads what training
imports, takes the time, and ends right behind the first step.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

SEEDS = (0, 1)
IMPORTED = ("pipeline.cli.run", "stages.student.train", "transformers.models.llama.modeling_llama")
"""What `molsaki train` imports on its way, and with it all that these import."""
PIECE = 4096
NAMES = ("Ann", "Ben", "Eva", "Mia", "Sam", "Tom")
WORDS = ("apples", "books", "cards", "coins", "pens", "shells")


def main() -> None:
    """Read the options, make the stores, and let each checkout train in them."""
    parser = argparse.ArgumentParser(description="Seconds and memory before a student's first step.")
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path()])
    parser.add_argument("--records", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--objective", default="molsaki")
    parser.add_argument("--keep", type=Path, help="folder for the stores, which are found there by the next call")
    parser.add_argument("--profile", type=Path, help="folder for what cProfile says of each student")
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make is not None:
        make(Path(), options.make)
    elif options.seed is not None:
        train(options.seed, options.objective, options.profile)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            measure(options, options.keep or Path(scratch))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Print a line for each number of records, checkout and seed."""
    print("records  checkout              seed  seconds  of processors  peak MB  own MB")
    for records in options.records:
        for number, checkout in enumerate(options.checkouts):
            place = folder / f"{records}-{number}"
            if not (place / "made").exists():
                _ours(checkout, place, "--make", str(records))
            shutil.rmtree(place / "runs", ignore_errors=True)
            for derived in ("targets", "texts"):
                shutil.rmtree(place / "store" / derived, ignore_errors=True)
            for seed in SEEDS:
                profile = [] if options.profile is None else ["--profile", str(options.profile.resolve())]
                said = _ours(checkout, place, "--seed", str(seed), "--objective", options.objective, *profile)
                found = json.loads(said.splitlines()[-1])
                figures = f"{found['seconds']:7.2f} {found['cpu']:14.2f} {found['peak']:8.0f} {found['own']:7.0f}"
                print(f"{records:7,}  {checkout!s:<20}  {seed:4}  {figures}", flush=True)


def _ours(checkout: Path, folder: Path, *arguments: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    command = [sys.executable, "-P", str(Path(__file__).resolve()), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE)  # noqa: S603  our own
    return done.stdout.decode()


def train(seed: int, objective: str, profile: Path | None) -> None:
    """Train one student as far as its first step, and print what that took."""
    import cProfile

    from torch.optim.optimizer import register_optimizer_step_post_hook

    from pipeline.cli.main import molsaki

    for name in IMPORTED:
        import_module(name)
    profiler = cProfile.Profile()
    started, worked = time.perf_counter(), time.process_time()

    def ends(*_: Any) -> None:
        seconds, cpu = time.perf_counter() - started, time.process_time() - worked
        if profile is not None:
            profiler.disable()
            profile.mkdir(parents=True, exist_ok=True)
            profiler.dump_stats(profile / f"seed-{seed}.prof")
        memory = dict(re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/self/status").read_text()))
        peak, own = (int(memory[name]) / 1e3 for name in ("VmHWM", "RssAnon"))
        found = {"seconds": seconds, "cpu": cpu, "peak": peak, "own": own}
        os.write(said, json.dumps(found).encode() + b"\n")
        os._exit(0)

    register_optimizer_step_post_hook(ends)
    said = os.dup(1)
    if profile is not None:
        profiler.enable()
    asked = ["train", "config.yaml", "--seed", str(seed), "--set", f"objective.name={objective}", "--quiet"]
    molsaki.main(asked, standalone_mode=False)


def make(folder: Path, records: int) -> None:
    """Write questions, rationales, a model and a configuration into `folder`, and fill its store."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    rows = [_row(number) for number in range(records)]
    for name, fields in (("questions", ("id", "question", "answer")), ("rationales", ("id", "rationale"))):
        lines = (json.dumps({field: row[field] for field in fields}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    save_model(folder / "model")
    config = {
        "name": "first",
        "store": str((folder / "store").resolve()),
        "data": {"train": [{"name": "jsonl", "path": "questions.jsonl"}]},
        "teacher": {"model": "./model", "dtype": "float32"},
        "rationales": {"engine": "file", "path": "rationales.jsonl"},
        "student": {"model": "./model"},
        "training": {"seeds": list(SEEDS), "dtype": "float32", "device": "cpu"},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    from pipeline.cli.main import molsaki

    molsaki.main(["rationales", "config.yaml", "--quiet"], standalone_mode=False)
    write_attention(folder)
    (folder / "made").touch()


def _row(number: int) -> dict[str, str]:
    """Question and rationale of this number: texts of all numbers differ."""
    first, second = number % 997 + 2, number // 997 + 2
    name, word, total = NAMES[number % len(NAMES)], WORDS[number // 7 % len(WORDS)], first + second
    return {
        "id": f"made-{number}",
        "question": f"{name} has {first} {word} and buys {second} more. How many {word} does {name} have?",
        "answer": str(total),
        "rationale": f"{name} starts with {first} {word}. {second} come to them. {first} + {second} = {total}.",
    }


def save_model(folder: Path) -> None:
    """A Llama of one layer with random weights, and a byte-level tokenizer of pairs of letters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=letters, special_tokens=["</s>"])
    tokenizer.train_from_iterator([text for number in range(200) for text in _row(number).values()], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{f"{role}_token": "</s>" for role in ("eos", "pad")})
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def write_attention(folder: Path) -> None:
    """Store made-up attention of one layer for all records, as `molsaki attention` files it."""
    import numpy as np

    from cache.keys import record_key
    from cache.spaces import Space
    from cache.writer import AttentionBlock, AttentionWriter
    from pipeline.config.matrix import load_matrix
    from pipeline.run.points import Run, look
    from stages.attention.select import mark_rationale

    (stages,) = look(Run(matrix=load_matrix(folder / "config.yaml"), folder=folder / "runs"))
    stage, settings = stages.attention, stages.point.config.attention
    writer = AttentionWriter(Space.open_or_create(folder / "store", "attention", stage.slug, stage.spec))
    random = np.random.default_rng(0)

    def blocks() -> Iterator[AttentionBlock]:
        for rationale in stages.rationales.rationales:
            marked = mark_rationale(rationale, settings)
            steps, words = len(marked.step_spans), len(marked.critical_spans)
            attention = random.random((1, steps, words), dtype=np.float32)
            tokens = np.ones(steps, np.int32)
            yield AttentionBlock(key=record_key(marked), marked=marked, attention=attention, step_tokens=tokens)

    made = blocks()
    while piece := list(islice(made, PIECE)):
        writer.append(piece)


if __name__ == "__main__":
    main()
