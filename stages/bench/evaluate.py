"""What students' answers cost when one engine serves them all, beside an engine for each.

In: how many random students of one shape there are, and how many made-up questions they are asked. Out: seconds of all
answers by either way. What is asked, decoded and judged is what `molsaki evaluate` does. Both ways have to give the
same answers. Students whose embeddings are their heads show what a proof costs that does not hold.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from data.errors import MismatchError
from data.sets.synthetic import synthetic_questions
from stages.bench.measure import Work, nothing
from stages.engines.reuse import ReusedEngines
from stages.evaluation import evaluate_student
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import Device, Dtype, EvaluationSettings
from stages.toy.random_llama import SEED, Setting, Shape, random_llama, setting_on
from stages.toy.teacher import word_tokenizer

Method: TypeAlias = Literal["each", "one"]
METHODS: tuple[Method, ...] = ("each", "one")
POSITIONS = 256


@dataclass(frozen=True, kw_only=True)
class EvaluateJob:
    """Everything that a measuring process needs to know; `folder` holds the students."""

    folder: Path
    shape: Shape
    students: int
    questions: int
    max_tokens: int
    tied: bool
    engine: Literal["transformers", "vllm"]
    device: Device
    dtype: Dtype

    def student(self, number: int) -> Path:
        """Where one of the students lies."""
        return self.folder / f"student-{number}"


@dataclass(frozen=True, kw_only=True)
class EvaluateTimes:
    """Seconds of a method for all students, the first one's among them, and lines that it said."""

    seconds: float
    first_seconds: float
    notes: tuple[str, ...]
    answers: tuple[str, ...]
    setting: Setting


def write_students(job: EvaluateJob) -> None:
    """Save random Llamas of one configuration, each with weights of its own."""
    tokenizer = word_tokenizer(synthetic_questions(500, seed=SEED, split="train"))
    for number in range(job.students):
        model = random_llama(
            job.shape, positions=POSITIONS, vocabulary=len(tokenizer), device=torch.device("cpu"), dtype="float32"
        )
        torch.manual_seed(SEED + number)
        for weight in model.parameters():
            weight.data += 0.3 * weight.data.std().nan_to_num() * torch.randn_like(weight)
        model.config.tie_word_embeddings = job.tied
        model.tie_weights()
        model.save_pretrained(job.student(number))
        tokenizer.save_pretrained(job.student(number))


def measure_times(job: EvaluateJob, method: Method, *, after_each: Work = nothing) -> EvaluateTimes:
    """Let all students answer, by an engine each or by one as long as it proves to be the next student."""
    questions = synthetic_questions(job.questions, seed=SEED, split="test")
    settings = EvaluationSettings(
        engine=job.engine,
        prompts=("predict",),
        max_new_tokens=job.max_tokens,
        engine_arguments={"max_model_len": POSITIONS} if job.engine == "vllm" else {},
    )
    notes: list[str] = []
    answers: list[str] = []
    started, first_seconds = time.monotonic(), 0.0
    with ReusedEngines(notes.append) as engines:
        for number in range(job.students):
            predictions = evaluate_student(
                job.student(number),
                questions,
                settings,
                dtype=job.dtype,
                device=job.device,
                progress=SilentProgress(),
                stop=StopSignal(),
                engines=engines if method == "one" else None,
            )
            answers += [one.output for one in predictions]
            first_seconds = first_seconds or time.monotonic() - started
            after_each()
    return EvaluateTimes(
        seconds=time.monotonic() - started,
        first_seconds=first_seconds,
        notes=tuple(notes),
        answers=tuple(answers),
        setting=setting_on("cuda" if torch.cuda.is_available() and job.device != "cpu" else "cpu", job.shape),
    )


def require_equal(one: EvaluateTimes, each: EvaluateTimes) -> None:
    """Raise `MismatchError` where the two ways gave other answers; a text in a hundred may differ by rounding."""
    differ = sum(a != b for a, b in zip(one.answers, each.answers, strict=True))
    if differ > len(each.answers) // 100:
        raise MismatchError(
            f"bench evaluate: {differ:,} of {len(each.answers):,} answers of one engine for all students are not those "
            "of an engine for each"
        )
