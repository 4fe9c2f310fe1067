"""What `attention.keep_bits` saves and what it changes: bytes of the stored attention and its certificate.

In: nothing but options. Out: for 10 bits (all of float16's) and fewer, the bytes of the array `attention` and of the
whole part in a temporary store, and what `molsaki cache show` would say of it. The attention is that of a small random
Llama over made-up problems with rationales, or of a teacher of your own (`--teacher`, a folder or hub id).

    python benchmarks/rounding.py --records 2000
    python benchmarks/rounding.py --teacher demo/teacher --bits 10,7,5,3 --json
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cache.certificates import NOTE, Certificate
from cache.keys import record_key
from cache.layout import MAX_RECORDS
from cache.spaces import Space, describe
from cache.writer import AttentionBlock, AttentionWriter
from data.marking import mark
from data.sets.synthetic import synthetic_questions
from stages.attention.certify import certify
from stages.attention.stepwise import stepwise_attention
from stages.attention.tokens import locate
from stages.toy.teacher import word_tokenizer

LAYERS, WIDTH, HEADS = 16, 256, 8


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One store: bytes of the array `attention`, of all files of its parts, and the certificate of the whole."""

    keep_bits: int
    attention_bytes: int
    part_bytes: int
    certificate: Certificate


def computed_blocks(teacher: str | None, count: int) -> list[AttentionBlock]:
    """Stepwise attention in float32 of the first `count` made-up problems."""
    questions = synthetic_questions(count, seed=0, split="train")
    records = [mark(question.text, question.reference or "") for question in questions]
    if teacher is None:
        tokenizer = word_tokenizer(synthetic_questions(1000, seed=0, split="train"))
        model = random_llama(len(tokenizer))
    else:
        tokenizer = AutoTokenizer.from_pretrained(teacher)
        model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32).eval()
    attention = stepwise_attention(model, tokenizer, records, batch_tokens=8192)
    return [
        AttentionBlock(
            key=record_key(marked), marked=marked, attention=block, step_tokens=locate(tokenizer, marked).step_tokens()
        )
        for marked, block in zip(records, attention, strict=True)
    ]


def random_llama(vocabulary: int) -> LlamaForCausalLM:
    """Weights larger than usual make attention as uneven as that of trained models."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=512,
            initializer_range=0.08,
        )
    ).eval()


def stored_with(blocks: Sequence[AttentionBlock], keep_bits: int, store: Path) -> Kept:
    """Store the blocks with so many bits, and measure."""
    rounding = None if keep_bits == 10 else {"bitround": keep_bits}
    space = Space.open_or_create(store, "attention", "rounded", {"schema": 1, "rounding": rounding})
    writer = AttentionWriter(space)
    for start in range(0, len(blocks), MAX_RECORDS):
        part = blocks[start : start + MAX_RECORDS]
        certificate = certify([block.attention for block in part], writer.keep_bits)
        writer.append(part, note={NOTE: certificate.as_note()})
    (certificate,) = describe(space).certificates
    entries = [item for commit in space.commits() for item in commit.files.items()]
    return Kept(
        keep_bits=keep_bits,
        attention_bytes=sum(entry.size for name, entry in entries if name.startswith("attention/c/")),
        part_bytes=sum(entry.size for _, entry in entries),
        certificate=certificate,
    )


def line(kept: Kept, whole: Kept) -> str:
    """One row of the table; bytes are compared with those of all bits."""
    found, share = kept.certificate, kept.attention_bytes / whole.attention_bytes
    return (
        f"{kept.keep_bits:>4} {kept.attention_bytes / 1e6:>9.2f} MB {share:>6.2f}"
        f" {found.largest_relative_error:>10.1e} {found.mean_relative_error:>8.1e}"
        f" {found.largest_weight_change:>10.1e} {found.mean_weight_distance:>8.1e}"
        f" {found.largest_target_divergence:>10.1e} {found.mean_target_divergence:>8.1e}"
    )


HEADING = (
    "                           relative error      layer weights         KL of targets\n"
    "bits    attention  share    largest     mean    largest     mean    largest     mean"
)


@click.command()
@click.option("--records", default=2000, show_default=True)
@click.option("--bits", default="10,7,5,3", show_default=True)
@click.option("--teacher", help="Folder or hub id of a causal language model.  [default: a small random Llama]")
@click.option("--json", "as_json", is_flag=True)
def main(records: int, bits: str, teacher: str | None, as_json: bool) -> None:
    """Store the same attention with fewer and fewer bits."""
    blocks = computed_blocks(teacher, records)
    with tempfile.TemporaryDirectory() as store:
        results = [stored_with(blocks, kept, Path(store)) for kept in map(int, bits.split(","))]
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=1))
        return
    values = results[0].certificate.values
    click.echo(f"{records:,} records, {values:,} values, {2 * values / 1e6:.2f} MB as plain float16\n{HEADING}")
    click.echo("\n".join(line(result, results[0]) for result in results))


if __name__ == "__main__":
    main()
