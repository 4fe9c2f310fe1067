"""Whether tools that convert a student keep it the model that it is.

Writes tiny random students by `stages.models.save`, positions turned by a number that is no default, and once more
without the names that only transformers 4 reads, as transformers 5 writes them by itself. Each tool converts them in an
environment of its own, which is made once beside this torch; what comes out is asked the same prompts. Prints a table.

llama.cpp's converter comes with the source of llama-cpp-python, whose build takes a compiler and half an hour; it knows
the tokenizers of published models only, so it needs one of those: a `STUDENT` with such a tokenizer.

    python -m benchmarks.converters [--tool onnx …] [STUDENT…]
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)
from transformers.utils import logging as transformers_logging

from cache.spaces import default_store
from stages.models.save import save_checkpoint
from tests.fakes import tiny_tokenizer

READER = Path(__file__).with_name("reading_conversions.py")
SIZE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
}  # fmt: skip
OLDER_NAMES = ("rope_theta", "rope_scaling", "partial_rotary_factor")
PROMPTS = (
    "explain: Tom has 3 figs. He buys 4 more. How many figs has he now?\n",
    "predict: 12 crêpes for Zoë, 1,234.5 for Ann.\n",
    "A:",
    "predict: 7 birds sat on a fence, 2 flew away; how many are left on the fence now, and why?\n",
)
TOKENS = 40
LLAMA_CPP = "llama-cpp-python==0.3.36"


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool, what it is installed by, and the command that converts, with places for the paths."""

    requirements: tuple[str, ...]
    command: tuple[str, ...]
    removed: tuple[str, ...] = ()
    """What it brings that does not go with a torch that was built for processors alone, and that it does without."""
    versions: tuple[str, ...]
    """Packages whose versions are told."""
    readers: tuple[str, ...]


TOOLS = {
    "onnx": Tool(
        requirements=("optimum-onnx[onnxruntime]==0.1.0",),
        command=(
            *("{bin}/optimum-cli", "export", "onnx", "--task", "text-generation-with-past"),
            *("--model", "{student}", "{out}"),
        ),
        versions=("optimum-onnx", "transformers", "onnxruntime"),
        readers=("onnx",),
    ),
    "openvino": Tool(
        requirements=("optimum-intel[openvino]==2.2.0",),
        command=(
            *("{bin}/optimum-cli", "export", "openvino", "--task", "text-generation-with-past"),
            *("--weight-format", "fp32", "--model", "{student}", "{out}"),
        ),
        removed=("torchvision",),
        versions=("optimum-intel", "transformers", "openvino"),
        readers=("openvino", "openvino_as_it_comes"),
    ),
    "ctranslate2": Tool(
        requirements=("ctranslate2==4.8.5", "transformers==5.24.0"),
        command=("{bin}/ct2-transformers-converter", "--model", "{student}", "--output_dir", "{out}"),
        versions=("ctranslate2", "transformers"),
        readers=("ctranslate2",),
    ),
    "llama.cpp": Tool(
        requirements=(LLAMA_CPP, "transformers==4.57.6", "sentencepiece"),
        command=(
            *("{bin}/python", "{source}/convert_hf_to_gguf.py", "{student}"),
            *("--outfile", "{out}", "--outtype", "f32"),
        ),
        versions=("llama-cpp-python", "transformers"),
        readers=("gguf",),
    ),
}


def write_students(folder: Path) -> None:
    """A Llama and a Qwen2, with tokenizers as theirs are."""
    letters = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    qwen2 = Qwen2Tokenizer(vocab={letter: number for number, letter in enumerate(letters)}, merges=[])
    made: Sequence[tuple[str, PreTrainedTokenizerBase, type[LlamaConfig | Qwen2Config], type]] = (
        ("llama", tiny_tokenizer(adds_begin=True), LlamaConfig, LlamaForCausalLM),
        ("qwen2", qwen2, Qwen2Config, Qwen2ForCausalLM),
    )
    for name, tokenizer, settings, kind in made:
        torch.manual_seed(0)
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        config = settings(vocab_size=len(tokenizer), **ends, **SIZE)
        save_checkpoint(kind(config).eval(), tokenizer, folder / name)


def without_older_names(student: Path, folder: Path) -> Path:
    """The student as transformers 5 writes it by itself, where positions are concerned."""
    shutil.copytree(student, folder, copy_function=os.link)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").unlink()
    kept = {name: value for name, value in config.items() if name not in OLDER_NAMES}
    (folder / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    return folder


@torch.no_grad()
def write_expected(student: Path, folder: Path) -> None:
    """What the student computes here, in float32."""
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(student)
    end = int(tokenizer.eos_token_id)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    logits, continued = {}, []
    for number, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        logits[str(number)] = model(input_ids=ids).logits[0].numpy()
        mask = torch.ones_like(ids)
        written = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False)
        rest = written[0, len(prompt) :].tolist()
        continued.append(rest[:-1] if rest[-1] == end else rest)
    folder.mkdir()
    np.savez(folder / "logits.npz", **logits)
    expected = {"prompts": prompts, "continued": continued, "tokens": TOKENS, "end": end}
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


def environment(tool: Tool, folder: Path) -> Path:
    """The folder of programs of the tool's environment, made where it is not there."""
    programs, done = folder / "bin", folder / "done"
    if not done.exists():
        click.echo(f"making {folder}", err=True)
        pip = [str(programs / "python"), "-m", "pip"]
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [*pip, "install", "--quiet", f"torch=={version('torch')}", *tool.requirements],
            *([*pip, "uninstall", "--quiet", "--yes", name] for name in tool.removed),
        ):
            subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603  our own commands
        done.touch()
    return programs


def llama_cpp_source(folder: Path) -> Path:
    """The part of llama.cpp's source that converts, from the source of its Python package."""
    if not folder.exists():
        with tempfile.TemporaryDirectory() as name:
            wanted = ["--no-deps", "--no-binary", "llama-cpp-python", "--dest", name, LLAMA_CPP]
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *wanted], check=True)  # noqa: S603
            with tarfile.open(next(Path(name).glob("*.tar.gz"))) as archive:
                archive.extractall(name, filter="data")
            shutil.move(next(Path(name).glob("*/vendor/llama.cpp")), folder)
    return folder


def versions(tool: Tool, programs: Path) -> str:
    """The versions that the table names."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    command = [str(programs / "python"), "-c", code, *tool.versions]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()  # noqa: S603
    return ", ".join(f"{name} {number}" for name, number in zip(tool.versions, found, strict=True))


def last_line(text: str) -> str:
    """What a program said in the end."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:160] if lines else ""


def results(tool: Tool, programs: Path, source: Path | None, student: Path, expected: Path) -> Iterator[str]:
    """Cells of the table: what was read by, how far logits are, how many texts are the same."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "converted"
        places = {"bin": programs, "student": student, "out": out, "source": source}
        command = [part.format(**places) for part in tool.command]
        quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            yield f"refused, exit code {done.returncode}: {last_line(done.stderr)} | |"
            return
        for reader in tool.readers:
            command = [str(programs / "python"), "-P", str(READER), reader, str(out), str(expected)]
            done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode != 0:
                yield f"{reader}: not read: {last_line(done.stderr)} | |"
                continue
            found = json.loads(last_line(done.stdout))
            yield f"{reader} | {found['difference']:.1e} | {found['same']} of {found['prompts']} |"


@click.command()
@click.argument("students", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tool", "tools", multiple=True, type=click.Choice(list(TOOLS)), help="One or several.")
@click.option("--environments", type=click.Path(path_type=Path), help="A folder for the tools' environments.")
def main(students: tuple[Path, ...], tools: tuple[str, ...], environments: Path | None) -> None:
    """Convert tiny students, and STUDENTS, and ask what comes out."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    root = (environments or default_store() / "bench" / "converters").absolute()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_students(place)
        click.echo("| tool | student | read by | logits differ by | equal texts |\n|---|---|---|---|---|")
        for student in (place / "llama", place / "qwen2", *(path.absolute() for path in students)):
            write_expected(student, expected := place / f"{student.name}-expected")
            bare = without_older_names(student, place / f"{student.name}-bare")
            for tool in tools or TOOLS:
                programs = environment(TOOLS[tool], root / tool)
                source = llama_cpp_source(root / "llama.cpp-source") if tool == "llama.cpp" else None
                named = versions(TOOLS[tool], programs)
                for folder, kind in ((student, ""), (bare, " without the older names")):
                    for row in results(TOOLS[tool], programs, source, folder, expected):
                        click.echo(f"| {named} | {student.name}{kind} | {row}")


if __name__ == "__main__":
    main()
