"""What it takes on disk to keep what steps look at in all (`step_attention`), beside the attention to single words.

In: nothing but options. Out: bytes of the parts of a temporary store with that array and without it. The attention is
that of a random Llama with large weights over made-up problems with rationales, a begin token in front of each, so that
critical words, special tokens and other words all receive some; learned sinks are the zeros of most models. With
`--teacher` it is that of a model of your own.

    python -P benchmarks/receivers.py --records 1000
    python -P benchmarks/receivers.py --teacher demo/teacher --json
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import torch
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from cache.keys import record_key
from cache.layout import MAX_RECORDS, STEP_ATTENTION
from cache.spaces import Space
from cache.writer import AttentionBlock, AttentionWriter
from data.marking import mark
from data.records import Question
from data.sets.synthetic import synthetic_questions
from stages.attention.batches import TokenBudget
from stages.attention.stepwise import stepwise_of
from stages.attention.tokens import locate
from stages.attention.write import attention_block
from stages.models.load import load_causal_lm
from stages.models.tokenizer import load_tokenizer
from stages.toy.teacher import word_tokenizer

WIDTH, HEADS = 256, 8


def random_teacher(questions: Sequence[Question], layers: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A Llama whose attention is as uneven as a trained one's, and a tokenizer that adds a begin token."""
    tokenizer = word_tokenizer(questions)
    begin = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.eos_token_id)]
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=512,
        initializer_range=0.08,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


def computed_blocks(teacher: str | None, count: int, layers: int) -> list[AttentionBlock]:
    """What the attention stage would store of made-up problems."""
    questions = synthetic_questions(count, seed=0, split="train")
    records = [mark(question.text, question.reference or "") for question in questions]
    if teacher is None:
        model, tokenizer = random_teacher(questions, layers)
    else:
        model, tokenizer = load_causal_lm(teacher, None, "float32").eval(), load_tokenizer(teacher, None)
    located = [locate(tokenizer, marked) for marked in records]
    found = stepwise_of(model, located, TokenBudget(8192))
    return [
        attention_block(record_key(marked), marked, one, attention)
        for marked, one, attention in zip(records, located, found, strict=True)
    ]


def stored_bytes(blocks: Sequence[AttentionBlock], store: Path) -> dict[str, int]:
    """Bytes of all parts, and of the two arrays of attention in them, metadata included."""
    space = Space.open_or_create(store, "attention", "measured", {"schema": 1})
    for start in range(0, len(blocks), MAX_RECORDS):
        AttentionWriter(space).append(blocks[start : start + MAX_RECORDS])
    sizes = [(name, entry.size) for commit in space.commits() for name, entry in commit.files.items()]
    arrays = {
        array: sum(size for name, size in sizes if name.startswith(f"{array}/"))
        for array in ("attention", STEP_ATTENTION)
    }
    return {"parts": sum(size for _, size in sizes), **arrays}


@click.command()
@click.option("--records", default=1000, show_default=True)
@click.option("--layers", default=32, show_default=True)
@click.option("--teacher", help="Folder or hub id of a causal language model.  [default: a random Llama]")
@click.option("--json", "as_json", is_flag=True)
def main(records: int, layers: int, teacher: str | None, as_json: bool) -> None:
    """Store the same records with what their steps look at in all and without it."""
    blocks = computed_blocks(teacher, records, layers)
    with tempfile.TemporaryDirectory() as folder:
        told = stored_bytes(blocks, Path(folder) / "with")
        untold = stored_bytes([replace(block, receivers=None) for block in blocks], Path(folder) / "without")
    if as_json:
        click.echo(json.dumps({"records": len(blocks), "with": told, "without": untold}, indent=1))
        return
    added = told["parts"] - untold["parts"]
    click.echo(
        f"{len(blocks):,} records of {len(blocks[0].attention)} layers: {untold['parts']:,} bytes without, "
        f"{told['parts']:,} with, {added / len(blocks):,.0f} bytes a record more ({added / untold['parts']:.1%})"
    )


if __name__ == "__main__":
    main()
