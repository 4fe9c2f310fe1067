"""How many dev questions a student answers right while it is trained: what early stopping goes by.

In: the questions of `data.dev`, and the model as it is now. Out: its accuracy under each prompt that its objective
teaches. It answers greedily, as in the evaluation, with the weights in memory; several processes share the questions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.answers.parse import parse_answer
from data.dataset import is_right
from data.records import Question
from stages.attention.stepwise import attention_implementation
from stages.engines.contract import Decoding, EngineSetup
from stages.engines.kinds.transformers import TransformersEngine
from stages.evaluation import PROMPTS
from stages.models.load import whole_attention
from stages.runtime.processes import Processes
from stages.settings import Task, TrainingSettings


@dataclass(frozen=True, kw_only=True)
class DevQuestions:
    """Questions with a gold answer, and how they are asked."""

    questions: Sequence[Question]
    prompts: Sequence[Task]
    max_new_tokens: int
    batch_size: int


def dev_accuracy(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dev: DevQuestions,
    training: TrainingSettings,
    processes: Processes,
) -> dict[str, float]:
    """Share of the questions that `student` answers right, for each prompt."""
    asked = list(product(dev.prompts, dev.questions))
    mine = asked[processes.index :: processes.count]
    setup = EngineSetup(
        model=student.name_or_path,
        revision=None,
        decoding=Decoding(max_tokens=dev.max_new_tokens),
        dtype="float32",
        arguments={"batch_size": dev.batch_size},
    )
    with _answering(student, training):
        engine = TransformersEngine(setup, loaded=(student, tokenizer))
        outputs = engine.generate([PROMPTS[prompt](question.text) for prompt, question in mine])
    right: dict[str, float] = dict.fromkeys(dev.prompts, 0.0)
    for (prompt, question), output in zip(mine, outputs, strict=True):
        right[prompt] += is_right(parse_answer(output.text, question), question)
    totals = processes.total(list(right.values()))
    return {prompt: total / len(dev.questions) for prompt, total in zip(dev.prompts, totals, strict=True)}


@contextmanager
def _answering(student: PreTrainedModel, training: TrainingSettings) -> Iterator[None]:
    """Let a model in the middle of its training generate, and leave it as it was."""
    generation, was_training = student.generation_config, student.training
    dtype = getattr(torch, training.dtype)
    student.eval()
    try:
        with (
            attention_implementation(student, whole_attention(student)),
            torch.autocast(student.device.type, dtype=dtype, enabled=dtype != torch.float32),
        ):
            yield
    finally:
        student.generation_config = generation
        student.train(was_training)
