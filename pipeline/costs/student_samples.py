"""Timed samples of training and evaluation: the stage itself for some steps, one batch of answers of each kind.

In: a `Job` on the shadow of a run. Out: a `Sample`. Training is not written again here: the stage runs as it is, with a
fraction of its epochs on some of the records, and tells by its `Progress` when each step was done.
"""

import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.errors import Interrupted, MissingRecordsError
from data.prompts import predict_target
from data.records import Prediction, Question
from pipeline.costs.sampling import Job, expected_records, now
from pipeline.results.predictions import predictions_path, write_predictions
from pipeline.run.inputs import Inputs, Split
from pipeline.run.students import EvaluateStage, TrainStage, results_folder
from pipeline.run.usage import disk_bytes
from pipeline.run.work import Run, open_stages, stages_of
from stages.attention.select import Example
from stages.models.identity import WEIGHTS
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import Task

if TYPE_CHECKING:
    from stages.sampling import Sample, Times

STEPS = 60
LEAST_STEPS = 12
"""So many are made however long they take."""
WARM_STEPS = 4
"""So many at the beginning are slower than the others."""
LOCATED = 64
"""Texts whose tokens are found in addition, to know what those of all texts take."""


class _Share(Inputs):
    """The inputs of a run with some of its training questions, and no others."""

    def __init__(self, config_of: Run, questions: Sequence[Question]) -> None:
        super().__init__(config_of.config)
        self._share = tuple(questions)

    def questions(self, split: Split) -> tuple[Question, ...]:
        """The chosen questions for training."""
        return self._share if split == "train" else ()


@dataclass
class _Steps(SilentProgress):
    """Writes down when each task began and each optimizer step ended; asks to stop when time is up."""

    stop: StopSignal
    seconds: float
    tasks: list[tuple[str, "Times"]] = field(default_factory=list)
    ends: list["Times"] = field(default_factory=list)

    def start(self, task: str, total: int) -> None:
        """Begin a task; the steps are those of the last one."""
        self.tasks.append((task, now()))
        self.ends.clear()

    def advance(self, count: int = 1) -> None:
        """Count a step."""
        if count:
            self.ends.append(now())
        if len(self.ends) >= LEAST_STEPS and (self.ends[-1] - self.tasks[-1][1])[0] > self.seconds:
            self.stop.received = signal.SIGTERM

    @property
    def each(self) -> "Times":
        """What a step takes once it is warm."""
        warm = min(WARM_STEPS, len(self.ends) - 1)
        times: Times = (self.ends[-1] - self.ends[warm]) / max(1, len(self.ends) - 1 - warm)
        return times

    def took(self, task: str) -> "Times":
        """From the start of a task to that of the next one; zero where there was none."""
        for (name, begin), (_, end) in zip(self.tasks, self.tasks[1:], strict=False):
            if name == task:
                return end - begin
        return np.zeros(2)


def sample_training(job: Job) -> "Sample":
    """Let the stage train one student for some steps, on random records with the longest one among them."""
    _, attention = job.teacher_stages()
    config, training = job.run.config, job.run.config.training
    expected, assumptions = expected_records(attention)
    known = list(attention.readable)
    usable = [one for one in known if one.key in attention.recorded] if "attention" in stages_of(config) else known
    if training.processes > 1:
        assumptions = (*assumptions, f"one process trains; {training.processes} take less time")
    if training.early_stopping is not None:
        assumptions = (*assumptions, "all epochs are trained, and what the dev questions take is not in it")
    began = now()
    import stages.student.train  # noqa: F401  what it imports is needed once, however many students there are
    from stages.attention.tokens import token_counts
    from stages.models.tokenizer import load_tokenizer
    from stages.sampling import Sample, locating, padded_step

    imports = now() - began
    tokenizer = load_tokenizer(job.inputs.student.path, job.inputs.student.hub_revision)
    counted = token_counts(tokenizer, [one.marked.text for one in usable])
    fitting = [(one, count) for one, count in zip(usable, counted, strict=True) if count <= config.student.max_length]
    if not fitting:
        raise MissingRecordsError("no record is there that a sample of training could learn from")
    lengths = [count for _, count in fitting]
    rows = training.batch_size * training.gradient_accumulation
    chosen = _random_with_longest(lengths, rows)
    records = round((len(known) + expected) * len(fitting) / len(usable))
    steps = math.ceil(training.epochs * _updates(records, job))
    trial = _Trial.made(job, [fitting[i][0] for i in chosen], min(steps, STEPS))
    slower = padded_step(lengths, training.batch_size) / padded_step([lengths[i] for i in chosen], training.batch_size)
    each = trial.each * slower * min(training.batch_size, records) / min(training.batch_size, len(chosen))
    each_located, held = locating(tokenizer, [one.marked for one, _ in fitting[:LOCATED]])
    load = trial.load + (records - len(chosen)) * each_located
    student = load + each * steps + trial.tail * (1 + steps // training.checkpoint_steps / 2)
    grown = records / max(1, len(attention.recorded))
    took = imports + trial.targets * max(1.0, grown) + student * job.units
    return Sample(
        units=steps * job.units,
        sampled=trial.steps,
        unit="optimizer steps",
        seconds=float(took[0]),
        cpu_seconds=float(took[1]),
        once_seconds=float((imports + (load + trial.tail) * job.units)[0]),
        bytes=round(job.units * trial.student_bytes(steps) + trial.target_bytes * max(1.0, grown)),
        bytes_meanwhile=3 * trial.weights,
        further_memory=round((records - len(chosen)) * held),
        assumptions=assumptions,
    )


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """What training a student for some steps took."""

    steps: int
    load: "Times"
    targets: "Times"
    each: "Times"
    tail: "Times"
    """Writing the last checkpoint and the student."""
    folder_bytes: int
    log_bytes: int
    weights: int
    target_bytes: int

    @classmethod
    def made(cls, job: Job, share: Sequence[Example], count: int) -> "_Trial":
        """Train `count` steps; what time does not suffice for is left out, but for the first of them."""
        config = job.run.config
        short = replace(
            config.training,
            seeds=config.training.seeds[:1],
            epochs=count / _updates(len(share), job),
            checkpoint_steps=1 << 30,
            processes=1,
            early_stopping=None,
            report_to=(),
        )
        run = Run(config=config.model_copy(update={"training": short}), folder=job.run.folder)
        stage = open_stages(run, _Share(run, [one.rationale.question for one in share]))["train"]
        assert isinstance(stage, TrainStage)
        stage.plan()
        stop = StopSignal()
        steps = _Steps(stop=stop, seconds=job.seconds)
        job.progress.start("sample of training", count)
        begun = now()
        try:
            stage.execute(steps, stop)
        except Interrupted:
            job.progress.note(f"time was up after {len(steps.ends)} steps")
        ended = now()
        job.progress.advance(len(steps.ends))
        out = stage.student_folder(short.seeds[0])
        files = list(out.glob(WEIGHTS)) or list(out.rglob(WEIGHTS))
        log = out / "training.json"
        started = steps.tasks[-1][1]
        warm = min(WARM_STEPS, len(steps.ends) - 1) + 1
        slow = steps.ends[warm - 1] - started - warm * steps.each
        finished = log.exists()
        weights = sum(file.stat().st_size for file in files)
        if not finished and config.student.initialise == "random":
            _write_stand_in(job, out)
        return cls(
            steps=len(steps.ends),
            load=started - begun - steps.took("targets") + slow,
            targets=steps.took("targets"),
            each=steps.each,
            tail=ended - steps.ends[-1],
            folder_bytes=disk_bytes([out]) if finished else weights,
            log_bytes=log.stat().st_size if finished else 0,
            weights=weights,
            target_bytes=_new_bytes(config.store / "targets"),
        )

    def student_bytes(self, steps: int) -> float:
        """Size of a student's folder after so many steps; its log grows with them."""
        return self.folder_bytes + self.log_bytes * (steps / self.steps - 1)


def _write_stand_in(job: Job, out: Path) -> None:
    """For the sample of answers: a student that has learned nothing, in place of one that was not finished in time."""
    from stages.sampling import write_random_student

    write_random_student(job.inputs.student, out)


def _new_bytes(folder: Path) -> int:
    """Size of the files that the sample has made; those of the real store are links."""
    return sum(path.stat().st_size for path in folder.glob("*") if not path.is_symlink())


def _updates(records: int, job: Job) -> int:
    """Optimizer steps in an epoch, as the Trainer counts them."""
    training = job.run.config.training
    return math.ceil(math.ceil(records / training.batch_size) / training.gradient_accumulation)


def _random_with_longest(lengths: Sequence[int], rows: int) -> list[int]:
    """Indices of as many full batches as are wanted, at random but for the longest, which sets the peak of memory."""
    count = min(len(lengths), STEPS * rows)
    if count > rows:
        count -= count % rows
    order: list[int] = np.random.default_rng(0).permutation(len(lengths)).tolist()
    longest = int(np.argmax(lengths))
    return [longest, *(i for i in order if i != longest)][:count]


def sample_evaluation(job: Job, split: Split = "test") -> "Sample":
    """Let a student answer one batch of each kind of prompt."""
    config = job.run.config
    stages = open_stages(job.run, job.inputs, split=split)
    train, evaluate = stages["train"], stages["evaluate"]
    assert isinstance(train, TrainStage) and isinstance(evaluate, EvaluateStage)
    questions = job.inputs.labelled(split)
    finished = [seed for seed in train.seeds if train.is_finished(seed)] if train.plan().waits_for is None else []
    began = now()
    from stages.evaluation import PIECE, PROMPTS, student_engine
    from stages.models.tokenizer import load_tokenizer
    from stages.sampling import Sample, expected_longest, sample_answers

    imports = now() - began
    checkpoint = train.student_folder(finished[0]) if finished else _any_student(job, train)
    settings = config.evaluation
    prompts: Mapping[Task, list[str]] = {
        kind: [PROMPTS[kind](question.text) for question in questions] for kind in settings.prompts
    }
    most = dict.fromkeys(settings.prompts, settings.max_new_tokens)
    expected: Mapping[Task, list[str]] = {} if finished else _targets(job, settings.prompts)
    if expected:
        tokenizer = load_tokenizer(str(checkpoint), None)
        rows = min(settings.batch_size, len(questions))
        for kind, texts in expected.items():
            written = [len(ids) + 1 for ids in tokenizer(texts)["input_ids"]]
            most[kind] = min(settings.max_new_tokens, expected_longest(written, rows))
    job.progress.start("sample of answers", len(prompts))
    setup = student_engine(checkpoint, settings, dtype=config.training.dtype, device=config.training.device)
    load, answers = sample_answers(
        setup, settings.engine, prompts, rows=settings.batch_size, new_tokens=most, progress=job.progress
    )
    answering = np.zeros(2)
    asked = [(kind, text) for kind, texts in prompts.items() for text in texts]
    for batch in _batches(asked, PIECE, settings.batch_size if settings.engine == "transformers" else PIECE):
        slowest = max((kind for kind, _ in batch), key=lambda kind: most[kind])
        answering = answering + answers[slowest].time_of(len(batch))
    outputs = expected or {kind: list(one.outputs) for kind, one in answers.items()}
    whole = imports + (load + answering) * job.units
    return Sample(
        units=len(asked) * job.units,
        sampled=sum(len(one.outputs) for one in answers.values()),
        unit="answers",
        seconds=float(whole[0]),
        cpu_seconds=float(whole[1]),
        once_seconds=float((imports + load * job.units)[0]),
        bytes=_answers_bytes(job, split, questions, outputs) * job.units,
        assumptions=("answers are as long as the texts that the student learns from",) if expected else (),
    )


def _batches(asked: Sequence[tuple[Task, str]], piece: int, rows: int) -> Iterator[Sequence[tuple[Task, str]]]:
    """The batches that the prompts of an evaluation come in: by length within each piece."""
    for start in range(0, len(asked), piece):
        ordered = sorted(asked[start : start + piece], key=lambda one: len(one[1]))
        yield from (ordered[first : first + rows] for first in range(0, len(ordered), rows))


def _any_student(job: Job, train: TrainStage) -> Path:
    """A model of the student's shape: what a sample of training left, else what training would begin with."""
    for seed in train.seeds:
        folder = train.student_folder(seed)
        if list(folder.glob(WEIGHTS)):
            return folder
    if job.run.config.student.initialise == "pretrained":
        from stages.models.size import model_folder

        return model_folder(job.inputs.student)
    raise MissingRecordsError("no student is there that could answer for a sample")


def _targets(job: Job, kinds: Sequence[Task]) -> Mapping[Task, list[str]]:
    """What the student is trained to write after each kind of prompt; nothing where no rationale is there."""
    rationales, _ = job.teacher_stages()
    texts: Mapping[Task, list[str]] = {
        "predict": [predict_target(one.question) for one in rationales.rationales],
        "explain": [one.text for one in rationales.rationales],
    }
    return {kind: texts[kind] for kind in kinds} if rationales.rationales else {}


def _answers_bytes(job: Job, split: Split, questions: Sequence[Question], outputs: Mapping[Task, Sequence[str]]) -> int:
    """Size of a file of answers to all questions, from one with these outputs and one with a single answer."""
    rows = [
        Prediction(
            question_id=question.id, dataset=question.dataset, prompt=kind, output=text, parsed=question.answer,
            gold=question.answer or "", correct=True,
        )
        for kind, texts in outputs.items()
        for question, text in zip(questions, texts, strict=False)
    ]  # fmt: skip
    path = predictions_path(results_folder(job.run.folder, split), 0)
    sizes = []
    for some in (rows[:1], rows):
        write_predictions(path, 0, some, "0" * 64)
        sizes.append(path.stat().st_size)
    path.unlink()
    each = (sizes[1] - sizes[0]) / max(1, len(rows) - 1)
    return round(sizes[0] + each * (len(questions) * len(outputs) - 1))
