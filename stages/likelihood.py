"""How likely students find what they should have written: one forward pass over each text, nothing generated.

In: a checkpoint folder, questions, and reference rationales where there are any. Out: a `Likelihood` for each gold
answer after `predict` and each reference after `explain`. Texts and target tokens are those of training, the end token
included where the tokenizer has one, so that minus the mean over the tokens is the L_pre or L_exp of that one record.
Exact match takes one bit from a question; this tells students apart that are wrong alike.

Shapes: B batch, T tokens, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.prompts import explain_prompt, predict_prompt, predict_target
from data.records import Likelihood, Question
from stages.attention.batches import TokenBudget, compute_in_batches
from stages.head import IGNORED, next_tokens, target_logits
from stages.models.load import known_positions, load_causal_lm
from stages.models.tokenizer import load_tokenizer
from stages.runtime.device import torch_device
from stages.runtime.progress import Progress, StopSignal
from stages.settings import Device, Dtype, Task
from stages.student.texts import TrainingText, target_text

BATCH_TOKENS = 8192
LOGITS = 2**28
"""Most logits of one pass: 1 GiB in float32, so that a large vocabulary makes smaller batches."""
Asked = tuple[Task, Question, str]
"""A prompt, a question, and what should be written."""


def student_likelihoods(
    checkpoint: Path,
    questions: Sequence[Question],
    references: Sequence[str | None],
    prompts: Sequence[Task],
    *,
    dtype: Dtype,
    device: Device,
    progress: Progress,
    stop: StopSignal,
) -> list[Likelihood]:
    """Measure a student on labelled `questions`, each with its reference rationale or None.

    The weights are loaded in `dtype`; log-probabilities are float32. A text longer than the positions that the student
    knows has no log-probability, and a note counts them.
    """
    asked = list(_asked(questions, references, prompts))
    if not asked:
        return []
    with stop.at_once("the students evaluated so far"):
        tokenizer = load_tokenizer(str(checkpoint), None)
        texts = [_text(tokenizer, each) for each in asked]
        model = load_causal_lm(str(checkpoint), None, dtype).to(torch_device(device)).eval()
    known = _measured(model, texts, f"likelihood {checkpoint.name}", progress, stop)
    del model
    clear_device_cache(garbage_collection=True)  # for vLLM, which counts what is free
    if missing := len(asked) - len(known):
        why = f"longer than {checkpoint.name} can read, or of no finite probability"
        progress.note(f"log-probabilities: {missing:,} of {len(asked):,} texts are left out, {why}")
    return [
        Likelihood(
            question_id=question.id,
            dataset=question.dataset,
            prompt=prompt,
            target=target,
            log_probability=known.get(number),
            tokens=int((texts[number].labels != IGNORED).sum()),
        )
        for number, (prompt, question, target) in enumerate(asked)
    ]


def _asked(questions: Sequence[Question], references: Sequence[str | None], prompts: Sequence[Task]) -> Iterator[Asked]:
    for prompt in prompts:
        for question, reference in zip(questions, references, strict=True):
            target = predict_target(question) if prompt == "predict" else reference
            if target is not None:
                yield prompt, question, target


def _measured(
    model: PreTrainedModel, texts: Sequence[TrainingText], task: str, progress: Progress, stop: StopSignal
) -> dict[int, float]:
    """The sums of all texts that are short enough, by their number; without those that are no numbers."""
    positions, vocabulary = known_positions(model), model.config.get_text_config().vocab_size
    fitting = [number for number, text in enumerate(texts) if len(text.ids) <= positions]
    tokens = min(BATCH_TOKENS, max(1, LOGITS // vocabulary))
    budget = TokenBudget(tokens, setting="", remedy="set evaluation.likelihood to false")
    progress.start(task, len(fitting))

    def compute(chosen: list[int]) -> list[float]:
        stop.check("the students evaluated so far")
        found = text_log_probabilities(model, [texts[fitting[each]] for each in chosen])
        progress.advance(len(chosen))
        return found

    sums = compute_in_batches([len(texts[number].ids) for number in fitting], budget, compute)
    return {number: value for number, value in zip(fitting, sums, strict=True) if math.isfinite(value)}


def _text(tokenizer: PreTrainedTokenizerBase, asked: Asked) -> TrainingText:
    prompt, question, target = asked
    before = predict_prompt if prompt == "predict" else explain_prompt
    return target_text(tokenizer, before(question.text), target)


@torch.inference_mode()
def text_log_probabilities(model: PreTrainedModel, texts: Sequence[TrainingText]) -> list[float]:
    """Sum over the target tokens of a text of log p(token | all before it), for each text, in nats and float32.

    The texts are one batch, right-padded: under causal attention no token looks at the padding.
    """
    ids_BT = _stacked([text.ids for text in texts], 0).to(model.device)
    next_BT = next_tokens(_stacked([text.labels for text in texts], IGNORED).to(model.device))
    logits_NV, wanted_N = target_logits(model, ids_BT, next_BT).float(), next_BT[next_BT != IGNORED]
    losses_N = nn.functional.cross_entropy(logits_NV, wanted_N, reduction="none")
    written = (next_BT != IGNORED).sum(dim=1).tolist()
    return [-float(of_text.sum()) for of_text in torch.split(losses_N, written)]


def _stacked(rows: Sequence[np.ndarray], fill: int) -> torch.Tensor:
    tensors = [torch.from_numpy(row) for row in rows]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill)
