"""Two checkouts side by side: whether fingerprints of all examples, bytes in stores and losses under a seed are equal.

    python -P benchmarks/same_behaviour.py ../before .

In: two checkouts. Out: a line for each kind of thing that was compared, how many there are and how many differ, with
names; exit code 1 where anything differs. Every file of `examples/` is run by its own checkout with the command line
alone, so that nothing is compared that a user does not have: a few questions of each data set, tiny random models that
are made here, rationales once by a teacher and once from a file, one epoch. Both work in folders of the same name, one
after the other.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data.sets.synthetic import synthetic_questions

CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
CHOICES = [
    {"label": label, "text": text}
    for label, text in zip("ABCDE", ("bird", "tree", "4 cars", "9 keys", "ink"), strict=True)
]
NUMBERS = range(3, 9)
ROWS: Mapping[str, list[dict[str, object]]] = {
    "svamp": [
        {
            "ID": f"s{n}",
            "Body": f"Tom has {n} figs and {n + 9} plums",
            "Question": "How many in all?",
            "Answer": 2 * n + 9,
        }
        for n in NUMBERS
    ],
    "gsm8k": [
        {
            "question": f"Ann buys {n} pens for {n} euros each. What does she pay?",
            "answer": f"{n} * {n} = {n * n}.\n#### {n * n}",
        }
        for n in NUMBERS
    ],
    "aqua": [
        {
            "question": f"What is {n} times 2?",
            "options": [
                f"{letter}){value}" for letter, value in zip("ABCDE", range(2 * n - 1, 2 * n + 4), strict=True)
            ],
            "correct": "B",
        }
        for n in NUMBERS
    ],
    "commonsenseqa": [
        {
            "id": f"c{n}",
            "answerKey": "A",
            "question": {"question_concept": "wing", "stem": f"What has a wing and {n} feathers?", "choices": CHOICES},
        }
        for n in NUMBERS
    ],
}
GOLD = {"svamp": "Answer", "gsm8k": "answer", "aqua": "correct", "commonsenseqa": "answerKey"}
TIMES = re.compile(r"runtime|per_second|seconds|flos", re.IGNORECASE)


def main() -> int:
    """Run both checkouts and compare what they leave."""
    parser = argparse.ArgumentParser(description="Whether two checkouts behave alike.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "made"
        make_inputs(made)
        found = [
            left_behind(checkout.resolve(), made, Path(scratch) / "work")
            for checkout in (options.before, options.after)
        ]
    return 1 if report(*found) else 0


def make_inputs(folder: Path) -> None:
    """Models of random weights, questions of every data set, and rationales for them."""
    folder.mkdir()
    byte_level = Tokenizer(
        models.BPE(vocab={letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    byte_level.pre_tokenizer, byte_level.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level, eos_token="</s>", pad_token="<pad>")  # noqa: S106
    tokenizer.chat_template = CHAT
    for name, layers in (("teacher", 4), ("student", 2)):
        torch.manual_seed(layers)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
            num_attention_heads=2, max_position_embeddings=16384, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    for name, rows in ROWS.items():
        write_rows(folder / f"{name}.jsonl", rows)
        write_rows(
            folder / f"{name}-rationales.jsonl",
            [explained(name, number, row) for number, row in enumerate(rows, start=1)],
        )
    made_up = synthetic_questions(len(NUMBERS), seed=5, split="train")
    write_rows(
        folder / "synthetic-rationales.jsonl",
        [{"id": one.id, "rationale": f"{one.reference} The answer is {one.answer}."} for one in made_up],
    )


def explained(name: str, number: int, row: Mapping[str, object]) -> dict[str, object]:
    """A rationale that states the gold answer, with two numbers and a key word in it."""
    answer = str(row[GOLD[name]]).rpartition(" ")[2]
    identifier = row.get("ID") or row.get("id") or f"{name}-{number}"
    return {"id": identifier, "rationale": f"First there are {number} birds. Then 2 more.", "answer": answer}


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def left_behind(checkout: Path, made: Path, work: Path) -> dict[str, dict[str, str]]:
    """What a checkout makes of all its examples: by kind, names and hashes or values."""
    work.mkdir()
    shutil.copytree(made, work, dirs_exist_ok=True)
    for example in sorted((checkout / "examples").glob("*.yaml")):
        for arguments in commands(example):
            run(checkout, work, *arguments)
    found = {
        "spaces and their specs": dict(specs(work)),
        "files of parts in stores": dict(parts(work)),
        "rationales": dict(tables(work, "store/rationales/*/parts/**/*.parquet")),
        "students' fingerprints": dict(students(work)),
        "losses": dict(losses(work)),
        "weights of students": {name: digest(path) for name, path in named(work, "runs/**/*.safetensors")},
        "answers of students": dict(tables(work, "runs/**/evaluation/*.parquet")),
    }
    assert all(found.values()), f"nothing to compare: {[kind for kind, one in found.items() if not one]}"
    shutil.rmtree(work)
    return found


def commands(example: Path) -> Iterator[tuple[str, ...]]:
    """What is run of an example: its rationales by the teacher, and all of it with rationales from a file."""
    name = example.stem
    small = {"store": "store", "teacher.model": "teacher", "teacher.dtype": "float32", "rationales.max_tokens": 8}
    small |= {"student.model": "student", "training.seeds": "[0]", "training.epochs": 1, "training.dtype": "float32"}
    small |= {"training.batch_size": 2, "evaluation.engine": "transformers", "evaluation.max_new_tokens": 4}
    small |= {"rationales.engine_arguments": "{}"}
    if name in ROWS:
        questions = f"[{{name: {name}, path: {name}.jsonl}}]"
        small |= {f"data.{part}": questions for part in ("train", "dev", "test")}
        answers = f"{name}-rationales.jsonl"
    else:
        questions = f"[{{name: synthetic, split: train, seed: 5, limit: {len(NUMBERS)}}}]"
        small |= {f"data.{part}": questions for part in ("train", "dev", "test")}
        answers = "synthetic-rationales.jsonl"
    whole = small | {"name": f"{name}-file", "rationales.engine": "file", "rationales.path": answers}
    whole |= {"rationales.keywords": "false", "attention.keyword_sources": "[data]", "rationales.second_phase": "false"}
    yield "rationales", str(example), *settings(small | {"rationales.engine": "transformers", "matrix": "null"})
    yield "run", str(example), *settings(whole)


def settings(values: Mapping[str, object]) -> list[str]:
    """`--set` for each."""
    return [argument for key, value in values.items() for argument in ("--set", f"{key}={value}")]


def run(checkout: Path, work: Path, *arguments: str) -> None:
    """A command of that checkout, in a process of its own."""
    command = [sys.executable, "-P", "-m", "pipeline", *arguments, "--quiet"]
    done = subprocess.run(  # noqa: S603  our own command
        command, cwd=work, env={**os.environ, "PYTHONPATH": str(checkout)}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{checkout.name}: {' '.join(arguments)}: {done.stderr}"


def named(work: Path, pattern: str) -> Iterator[tuple[str, Path]]:
    """Files by their names, without what is drawn by chance in the names of parts."""
    for path in sorted(work.glob(pattern)):
        if path.is_file():
            yield re.sub(r"(parts/\d+)-[0-9a-f]+", r"\1", path.relative_to(work).as_posix()), path


def digest(path: Path) -> str:
    """Hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def specs(work: Path) -> Iterator[tuple[str, str]]:
    """Each space, whose name ends with its fingerprint, and what that was made of."""
    for name, path in named(work, "store/*/*/spec.json"):
        yield name, path.read_text(encoding="utf-8")


def parts(work: Path) -> Iterator[tuple[str, str]]:
    """The bytes of attention parts; rationales carry the time at which they were asked for and are compared as rows."""
    for name, path in named(work, "store/attention/*/parts/**/*"):
        yield name, digest(path)


def tables(work: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Rows of Parquet files."""
    for name, path in named(work, pattern):
        yield name, json.dumps(pq.read_table(path).to_pylist(), default=str)


def students(work: Path) -> Iterator[tuple[str, str]]:
    """What the stages of each run are filed under."""
    for name, path in named(work, "runs/**/provenance.json"):
        for stage in json.loads(path.read_text(encoding="utf-8"))["stages"]:
            yield f"{name} {stage['stage']}", json.dumps(stage["fingerprints"])


def losses(work: Path) -> Iterator[tuple[str, str]]:
    """Every logged number of training but times."""
    for name, path in named(work, "runs/**/student/**/*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and (logged := content.get("log_history") or content.get("log")):
            yield (
                name,
                json.dumps([{key: value for key, value in one.items() if not TIMES.search(key)} for one in logged]),
            )


def report(before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]) -> bool:
    """Print what is equal and what is not; return whether anything differs."""
    anything = False
    for kind, old in before.items():
        new = after[kind]
        different = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        anything |= bool(different)
        print(f"{kind}: {len(old)} before, {len(new)} after, {len(different)} different")
        for name in different:
            print(f"  {name}: {str(old.get(name))[:200]} != {str(new.get(name))[:200]}")
    return anything


if __name__ == "__main__":
    sys.exit(main())
