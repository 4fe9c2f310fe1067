"""Whether other versions of transformers read our students as the models that they are.

Writes a tiny random student of every causal language model that transformers has, positions turned by numbers that are
no version's default, and a few tokenizers, all by `stages.models.save`. Then reads the folders by other versions, each
installed into a temporary folder beside this torch, and compares logits and token ids with this version's own.

    python -m benchmarks.older_transformers [--scaled] [--version 4.57.6 …] [MODEL_TYPE…]

With `--scaled`, each student once for each way of scaling positions, for texts longer than those of its training.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping
from functools import partial
from itertools import product
from pathlib import Path

import click
import numpy as np
import torch
from transformers import GemmaTokenizer, LlamaTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from benchmarks.architectures import small_model
from benchmarks.reading_students import ROUNDING
from stages.models.load import load_causal_lm, whole_attention
from stages.models.older_readers import least_version
from stages.models.save import save_checkpoint, save_tokenizer
from tests.fakes import tiny_tokenizer

VERSIONS = {
    "4.46.3": ("huggingface-hub==0.36.2", "tokenizers==0.20.3"),
    "4.57.6": ("huggingface-hub==0.36.2", "tokenizers==0.22.1"),
    "5.0.0": ("huggingface-hub==1.3.0", "tokenizers==0.22.1"),
    "5.24.0": (),
}
"""Versions of transformers, and what else each takes that this environment does not have."""
READER = Path(__file__).with_name("reading_students.py")
BASES = (123_456.0, 23_456.0)
ORIGINAL = 32
"""Positions before scaling; the texts that are compared are longer."""
SCALINGS: Mapping[str, Mapping[str, object]] = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn": {"factor": 4.0},
    "longrope": {"factor": 4.0},
}
TEXTS = (
    "Tom has 3 figs,\n\n  and 1,234.5 more.\tNow, Zoë: 12 crêpes?",
    " leading",
    " <s> x </s> <x>y ",
    "don't . you ?",
)


def turn_unevenly(config: PreTrainedConfig, scaling: str = "") -> None:
    """Set the bases of positions to numbers that no version has by default, and scale them."""
    rope = getattr(config, "rope_parameters", None) or {}
    by_layer_type = [value for value in rope.values() if isinstance(value, dict)]
    for parameters, base in zip(by_layer_type or [rope] if rope else [], BASES, strict=False):
        parameters["rope_theta"] = base
    if config.model_type in ("olmo3", "modernbert-decoder"):  # transformers 4 knows one base for all layers
        rope["full_attention"]["rope_theta"] = rope["sliding_attention"]["rope_theta"]
    if scaling:
        scale(config, rope.get("full_attention", rope), scaling)


def scale(config: PreTrainedConfig, rope: dict[str, object], scaling: str) -> None:
    """Scale positions as configurations of published models say it; raises `LookupError` where there are none."""
    if "rope_theta" not in rope:
        raise LookupError("no positions that could be scaled")
    rope.update(rope_type=scaling, **SCALINGS[scaling])
    if scaling in ("llama3", "yarn", "longrope"):
        rope["original_max_position_embeddings"] = ORIGINAL
    if scaling == "longrope":
        width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        pairs = int(width * float(rope.get("partial_rotary_factor") or 1)) // 2
        rope["short_factor"] = [1 + number / 10 for number in range(pairs)]
        rope["long_factor"] = [2.0 + number for number in range(pairs)]
    if hasattr(config, "original_max_position_embeddings"):
        config.original_max_position_embeddings = ORIGINAL
    config.max_position_embeddings = ORIGINAL if scaling == "dynamic" else 4 * ORIGINAL


@torch.no_grad()
def write_student(model_type: str, folder: Path, scaling: str = "") -> str | None:
    """Write a random student and its logits; says why where this version cannot make one."""
    try:
        model = small_model(model_type, partial(turn_unevenly, scaling=scaling)).float()
        if model._can_set_attn_implementation():
            model.set_attn_implementation(whole_attention(model))
        ids = torch.arange(3, 63)[None]
        logits = model(input_ids=ids, use_cache=False).logits
        save_checkpoint(model, tiny_tokenizer(adds_begin=True), folder)
    except Exception as error:  # a configuration that cannot be made small, or scaled so, says nothing about saving
        return f"not made: {type(error).__name__}: {error}"[:100]
    np.save(folder / "logits.npy", logits.numpy())
    back = load_causal_lm(str(folder), None, "float32").eval()
    if float((back(input_ids=ids, use_cache=False).logits - logits).abs().max()) > ROUNDING * float(logits.abs().max()):
        return "DIFFERENT when read again by this version"
    return None


def tokenizers() -> dict[str, PreTrainedTokenizerBase]:
    """Tokenizers of the kinds that transformers 4 treats each in its own way."""
    characters = sorted(set("▁" + "".join(TEXTS).replace(" ", "")))
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    own = {**vocabulary, **{piece: len(vocabulary) + n for n, piece in enumerate(("<pad>", "<eos>", "<bos>"))}}
    special = tiny_tokenizer(adds_begin=True)
    special.add_special_tokens({"additional_special_tokens": ["<x>"]})
    return {
        "bytes": tiny_tokenizer(),
        "bytes, begin token and more": special,
        "Llama": LlamaTokenizer(vocab=vocabulary, merges=[]),
        "Gemma": GemmaTokenizer(vocab=own, merges=[]),
    }


def write_tokenizers(folder: Path) -> None:
    """Write each tokenizer with what it makes of `TEXTS`."""
    for name, tokenizer in tokenizers().items():
        save_tokenizer(tokenizer, folder / name)
        ids = [tokenizer(text)["input_ids"] for text in TEXTS]
        decoded = [tokenizer.decode(one, skip_special_tokens=True) for one in ids]
        expected = {"texts": TEXTS, "ids": ids, "decoded": decoded, "inputs": sorted(tokenizer(TEXTS[0]))}
        (folder / name / "expected.json").write_text(json.dumps(expected))


def installed(version: str, folder: Path) -> Path:
    """Install a version of transformers, without what this environment has, into a folder to put in front."""
    wanted = [f"transformers=={version}", *VERSIONS[version]]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *wanted]
    subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603  our own command
    return folder


def read(folder: Path, packages: Path | None) -> dict[str, str]:
    """What another version makes of the folders, by name."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **({"PYTHONPATH": str(packages)} if packages else {})}
    command = [sys.executable, "-P", str(READER), str(folder)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)  # noqa: S603
    return dict(json.loads(done.stdout.splitlines()[-1]))


@click.command()
@click.argument("model_types", nargs=-1)
@click.option("--version", "versions", multiple=True, type=click.Choice(list(VERSIONS)), help="One or several.")
@click.option("--scaled", is_flag=True, help="With positions scaled, in each way.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def main(model_types: tuple[str, ...], versions: tuple[str, ...], scaled: bool, as_json: bool) -> None:
    """Compare MODEL_TYPES, or all that transformers has, in other versions of it."""
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    results: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        wanted = model_types or tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        for model_type, scaling in product(wanted, SCALINGS if scaled else ("",)):
            student = place / "students" / f"{model_type} {scaling}".strip()
            if said := write_student(model_type, student, scaling):
                click.echo(f"{student.name}: {said}", err=True)
                shutil.rmtree(student, ignore_errors=True)
        write_tokenizers(place / "students")
        for version in versions or VERSIONS:
            results[version] = read(place / "students", installed(version, place / version))
        for folder in sorted((place / "students").iterdir()):
            config = folder / "config.json"
            least = least_version(json.loads(config.read_text())) if config.exists() else None
            said = {version: found[folder.name] for version, found in results.items()}
            if not as_json and (least or any(text != "equal" for text in said.values())):
                click.echo(f"{folder.name:28} {f'from {least} on' if least else '':12} {said}")
    if as_json:
        click.echo(json.dumps(results, indent=1))
        return
    for version, found in results.items():
        counts = Counter(text.split(":")[0] for text in found.values())
        click.echo(f"transformers {version}: {', '.join(f'{kind} {count}' for kind, count in counts.items())}")


if __name__ == "__main__":
    main()
