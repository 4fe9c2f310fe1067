"""Train a tiny language model from nothing, for the demo: a teacher that reasons, without GPU, network and downloads.

In: questions with reference rationales. Out: a plain checkpoint folder, tokenizer included, that vLLM and transformers
load like any other; and a student's folder, which holds a configuration and a tokenizer only.

Shapes: B batch, T tokens.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data.answers.parse import parse_answer
from data.dataset import is_right
from data.prompts import answer_sentence, explain_prompt, predict_prompt, rationale_prompt
from data.records import Question
from stages.engines.contract import Decoding, EngineSetup
from stages.engines.start import open_engine
from stages.head import IGNORED
from stages.models.save import save_checkpoint
from stages.runtime.progress import Progress, StopSignal
from stages.toy.muon import Muon

END, PAD = "<end>", "<pad>"
POSITIONS = 256
TOKENIZER_TEXTS = 3000
"""So many texts show every word of the made-up problems."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Size of a Llama model."""

    layers: int
    width: int
    heads: int
    feed_forward: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast a model learns.

    The learning rate stays at its peak until the loss has come down to `good_loss`, or `most_steps` is near, and then
    falls to zero over `cooling_steps`. When a small model finds out how to copy the right number differs from seed to
    seed and from machine to machine by hundreds of steps; a fixed length would be too long or too short.
    """

    batch_size: int
    learning_rate: float
    good_loss: float
    most_steps: int
    cooling_steps: int
    warmup_steps: int = 30
    seed: int = 0


def word_tokenizer(questions: Sequence[Question], vocabulary: int = 512) -> PreTrainedTokenizerFast:
    """Byte-level BPE that learns the words of `questions`: whole words and numbers become one token each.

    With a smaller `vocabulary` most of them are made of several.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [_prompt(question) + _rationale(question) for question in questions[:TOKENIZER_TEXTS]]
    # The student's prompts and every number up to the largest result are words of their own, however rare.
    texts += [explain_prompt(" ") + predict_prompt(" ") + " ".join(map(str, range(31)))] * len(texts)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=10,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, model_max_length=POSITIONS)


def write_untrained(out: Path, tokenizer: PreTrainedTokenizerFast, shape: ModelShape) -> None:
    """Write configuration and tokenizer of a model without weights (`student.initialise: random`)."""
    _configuration(tokenizer, shape).save_pretrained(out)
    tokenizer.save_pretrained(out)


def train_from_scratch(
    questions: Sequence[Question],
    out: Path,
    *,
    tokenizer: PreTrainedTokenizerFast,
    shape: ModelShape,
    recipe: Recipe,
    progress: Progress,
    stop: StopSignal,
) -> None:
    """Train a model to continue each question with its reference rationale, and save it to `out`.

    The loss is on the rationale only. Matrices learn by Muon and the rest by AdamW, which needs half the steps of AdamW
    alone here. Nothing is saved before the end; a signal to stop raises `Interrupted`.
    """
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(_configuration(tokenizer, shape))
    optimizers = _optimizers(model, recipe)
    pace = _Pace(recipe)
    texts = _texts(tokenizer, questions)
    order = random.Random(recipe.seed)
    progress.start("training the teacher, at most", recipe.most_steps)
    while not pace.finished:
        ids, labels = _batch(order.sample(texts, recipe.batch_size), tokenizer.pad_token_id)
        model.zero_grad()
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * pace.share
            optimizer.step()
        pace.step(loss.item())
        progress.advance()
        stop.check("nothing of the unfinished teacher")
    progress.note(f"teacher trained in {pace.steps:,} steps, loss {pace.loss:.4f}")
    save_checkpoint(model, tokenizer, out)


def share_solved(model: Path, questions: Sequence[Question]) -> float:
    """Share of `questions` that the model at `model` answers right, greedily, as a teacher without worked examples."""
    setup = EngineSetup(model=str(model), revision=None, decoding=Decoding(max_tokens=96), dtype="float32")
    with open_engine("transformers", setup) as engine:
        outputs = engine.generate([_prompt(question) for question in questions])
    right = [
        is_right(parse_answer(output.text, question), question)
        for output, question in zip(outputs, questions, strict=True)
    ]
    return sum(right) / len(questions)


def _configuration(tokenizer: PreTrainedTokenizerFast, shape: ModelShape) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "layers" not in name]
    return [
        Muon(matrices, lr=recipe.learning_rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=recipe.learning_rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


class _Pace:
    """Where training stands, and what share of the peak learning rate that means."""

    MEMORY = 0.98
    """Weight of the past in the running mean of the loss: about the last fifty steps."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._cooling_from: int | None = None
        self.steps = 0
        self.loss = float("inf")

    @property
    def finished(self) -> bool:
        """Whether the learning rate has come down to zero."""
        return self._cooling_from is not None and self.steps >= self._cooling_from + self._recipe.cooling_steps

    @property
    def share(self) -> float:
        """Share of the peak learning rate for the coming step."""
        if self._cooling_from is None:
            return min(1.0, (self.steps + 1) / self._recipe.warmup_steps)
        return 1 - (self.steps - self._cooling_from) / self._recipe.cooling_steps

    def step(self, loss: float) -> None:
        """Count a step, and begin to cool down where the loss is good or time is short."""
        self.steps += 1
        self.loss = loss if self.steps == 1 else self.MEMORY * self.loss + (1 - self.MEMORY) * loss
        late = self.steps >= self._recipe.most_steps - self._recipe.cooling_steps
        if self._cooling_from is None and (late or self.loss <= self._recipe.good_loss):
            self._cooling_from = self.steps


def _prompt(question: Question) -> str:
    return rationale_prompt(question, shots=0)


def _rationale(question: Question) -> str:
    assert question.reference is not None
    assert question.answer is not None
    return f"{question.reference} {answer_sentence(question, question.answer)}"


def _texts(tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question]) -> list[tuple[list[int], list[int]]]:
    """Token ids of each prompt, and of its rationale with the end token; tokenized all at once, by all cores."""
    prompts = tokenizer([_prompt(question) for question in questions])["input_ids"]
    rationales = tokenizer([_rationale(question) for question in questions])["input_ids"]
    ends = [tokenizer.eos_token_id]
    return [(prompt, rationale + ends) for prompt, rationale in zip(prompts, rationales, strict=True)]


def _batch(texts: Sequence[tuple[list[int], list[int]]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and labels (B, T); a prompt is not learned."""
    ids = [torch.tensor(prompt + rationale) for prompt, rationale in texts]
    labels = [torch.tensor([IGNORED] * len(prompt) + rationale) for prompt, rationale in texts]
    return pad_sequence(ids, True, pad), pad_sequence(labels, True, IGNORED)
