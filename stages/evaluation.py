"""Measure a student: every test question under both prompts, exact match on the parsed answer.

In: a checkpoint folder and questions. Out: one `Prediction` a question and prompt, with what the student wrote, so
that a reader can judge the parser too. `predict` asks for the bare answer, `explain` for a rationale from which the
answer is parsed; the paper's text at hand does not say which its tables use, so both are reported.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path

from data.answers.parse import parse_answer
from data.dataset import is_right
from data.errors import ConfigError
from data.prompts import explain_prompt, predict_prompt
from data.records import Prediction, Question
from stages.engines.contract import Decoding, EngineSetup
from stages.engines.reuse import ReusedEngines
from stages.runtime.progress import Progress, StopSignal
from stages.settings import Device, Dtype, EvaluationSettings, Task

PIECE = 256
"""Questions between two looks at the stop signal."""
PROMPTS = {"predict": predict_prompt, "explain": explain_prompt}


def evaluate_student(
    checkpoint: Path,
    questions: Sequence[Question],
    settings: EvaluationSettings,
    *,
    dtype: Dtype,
    device: Device,
    progress: Progress,
    stop: StopSignal,
    engines: ReusedEngines | None = None,
) -> list[Prediction]:
    """Generate greedily with every prompt of `settings.prompts` and mark each answer right or wrong.

    Questions without a gold answer cannot be marked: `ConfigError`. An output without an answer counts as wrong. With
    `engines` the engine stays there for the next student.
    """
    _require_gold(questions)
    setup = student_engine(checkpoint, settings, dtype=dtype, device=device)
    asked = list(product(settings.prompts, questions))
    predictions: list[Prediction] = []
    staying = nullcontext(engines) if engines is not None else ReusedEngines(progress.note)
    with staying as reused, reused.answering(settings.engine, setup) as engine:
        progress.start(f"evaluation {checkpoint.name}", len(asked))
        for start in range(0, len(asked), PIECE):
            stop.check("the students evaluated so far")
            piece = asked[start : start + PIECE]
            outputs = engine.generate([PROMPTS[prompt](question.text) for prompt, question in piece])
            predictions += [
                _marked(prompt, question, output.text)
                for (prompt, question), output in zip(piece, outputs, strict=True)
            ]
            progress.advance(len(piece))
    return predictions


def student_engine(checkpoint: Path, settings: EvaluationSettings, *, dtype: Dtype, device: Device) -> EngineSetup:
    """How a student is asked."""
    arguments = dict(settings.engine_arguments)
    if settings.engine == "transformers":
        arguments.setdefault("batch_size", settings.batch_size)
    return EngineSetup(
        model=str(checkpoint),
        revision=None,
        decoding=Decoding(max_tokens=settings.max_new_tokens),
        dtype=dtype,
        device=device,
        arguments=arguments,
    )


def _require_gold(questions: Sequence[Question]) -> None:
    without = [question for question in questions if question.answer is None]
    if without:
        raise ConfigError(
            f"data.test: {len(without)} of {len(questions)} questions have no gold answer, the first is "
            f"{without[0].dataset} {without[0].id}; name a split that has labels"
        )


def _marked(prompt: Task, question: Question, output: str) -> Prediction:
    assert question.answer is not None
    parsed = parse_answer(output, question)
    return Prediction(
        question_id=question.id,
        dataset=question.dataset,
        prompt=prompt,
        output=output,
        parsed=parsed,
        gold=question.answer,
        correct=is_right(parsed, question),
    )
