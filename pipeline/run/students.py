"""Stage two as the command line runs it: one student for each seed, then their answers to the test questions.

In: the inputs of a run and what stage one has stored. Out: `student/seed-<n>/`, `evaluation/seed-<n>.parquet` and
`evaluation/likelihood/seed-<n>.parquet` in the run's folder. Each carries the fingerprint of everything that it depends
on: equal means finished and skipped, different means that it is moved to `earlier/<time>/` and made anew.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cache.fingerprints import JSON, Spec, fingerprint, fingerprint_with
from cache.keys import in_order
from data.errors import ConfigError, Interrupted, MissingRecordsError
from pipeline.console.exits import StageProcessError
from pipeline.results.card import add_scores, scores_for_card, write_card
from pipeline.results.folder import EvaluationFolder, RunFolder
from pipeline.results.likelihoods import write_likelihoods
from pipeline.results.predictions import SOURCES, stored_fingerprint, write_predictions
from pipeline.results.scores import scores_of, write_scores
from pipeline.run.inputs import Inputs, Split
from pipeline.run.plan import StageName, StagePlan, reasons
from pipeline.run.processes import our_command, run_together
from pipeline.run.soft_labels import SoftLabelStage
from pipeline.run.teacher import AttentionStage, RecordStage
from stages.attention.select import Example
from stages.attention.selected import chosen, keys_of, which
from stages.engines.reuse import ReusedEngines
from stages.runtime.imports import importing
from stages.runtime.progress import Progress, SilentProgress, StopSignal
from stages.runtime.shard import process_of
from stages.settings import EvaluationSettings
from stages.student.objective import Objective, objective_of
from stages.student.summary import Origin, damaged_student, read_summary

if TYPE_CHECKING:
    from cache.reader import AttentionStore
    from cache.soft_labels.reader import SoftLabelStore
    from stages.student.dev import DevQuestions

STUDENT_SCHEMA = 3
"""Raised when the same settings would lead to another student than before."""
NO_INFLUENCE = frozenset(
    {
        "seeds",
        "device",
        "processes",
        "loader_workers",
        "checkpoint_steps",
        "log_steps",
        "gradient_checkpointing",
        "report_to",
    }
)
"""Training settings that change where and when, not what."""
LIKELIHOOD_SCHEMA = 1
"""Raised when the same student and texts would get other log-probabilities than before."""
OF_LIKELIHOOD = frozenset({"likelihood", "references"})
"""Settings of the evaluation that no answer depends on."""
OF_NO_PACE = frozenset(
    {"epochs", "learning_rate", "scheduler", "warmup", "seeds", "checkpoint_steps", "log_steps", "early_stopping"}
)
"""Training settings that say nothing of how long one step takes."""
OF_PACE = ("name", "tasks", "terms", "alignment", "options")
"""What of an objective says how long a step takes."""


class TrainStage:
    """Trains the students; `seeds` narrows the configuration's to some of them."""

    name: StageName = "train"
    written, likelihood_seconds = 0, 0.0

    def __init__(
        self,
        inputs: Inputs,
        folder: Path,
        attention: AttentionStage,
        seeds: Sequence[int] = (),
        soft_labels: SoftLabelStage | None = None,
    ) -> None:
        """`attention` says which records there are, also where none is learned from."""
        self.inputs, self.folder = inputs, RunFolder(folder)
        self._rationales, self._attention = attention.rationales, attention
        self._soft_labels = soft_labels or SoftLabelStage(inputs, attention)
        self.seeds = chosen_seeds(inputs.config.training.seeds, seeds)

    def plan(self) -> StagePlan:
        """Count finished students; they cannot be told from others before all rationales are there."""
        if not self._attention.rationale_plan.finished:
            return self._waiting(self._rationales.name)
        done = sum(self.is_finished(seed) for seed in self.seeds)
        left = len(self.seeds) - done
        for stage in self._needed if left else ():
            if not stage.plan().finished:
                return self._waiting(stage.name)
        detail = f"{len(self._attention.selection.examples):,} records each"
        if stale := sum(self._is_stale(seed) for seed in self.seeds):
            detail += f"; {stale} trained with other settings will be moved to {self.folder.earlier}"
        return StagePlan(name=self.name, unit="students", done=done, to_do=left, detail=detail)

    def execute(self, progress: Progress, stop: StopSignal) -> None:
        """Train the students that are not there, one seed after the other."""
        self._require_stage_one()
        self._attention.keep()
        attention = self._attention.open() if self._attention in self._needed else None
        soft_labels = self._soft_labels.open() if self._soft_labels in self._needed else None
        examples = self._left(attention, soft_labels)
        config, share = self.inputs.config, process_of(os.environ)
        if share.is_main:
            move_to_earlier(self.folder, self._stale(), progress)
        missing = [seed for seed in self.seeds if not self.is_finished(seed)]
        if config.training.processes > 1 and share.count == 1:
            self._train_together(missing, progress, stop)
            return
        with importing():
            from stages.student.train import train_student

        for seed in missing:
            stop.check("the students trained so far")
            student = self.folder.student(seed)
            if share.is_main:
                student.path.mkdir(parents=True, exist_ok=True)
            train_student(
                examples,
                config.student,
                config.objective,
                config.training,
                attention=attention,
                soft_labels=soft_labels,
                seed=seed,
                out=student.path,
                fingerprint=self.fingerprint,
                origin=self.origin,
                progress=progress,
                stop=stop,
                dev=self._dev(),
                logs=self.folder.trackers,
            )
            if share.is_main:
                write_card(student)

    def _left(self, attention: "AttentionStore | None", soft_labels: "SoftLabelStore | None") -> Sequence[Example]:
        """The records that the teacher could read; raises `MissingRecordsError` where it could read none."""
        examples: Sequence[Example] = self._attention.selection.examples
        for store, stage in ((attention, self._attention), (soft_labels, self._soft_labels)):
            if store is not None:
                examples = chosen(examples, ~which(examples, store.dropped))
            if not examples:
                dropped, section = reasons(stage.plan().dropped), stage.name.replace("-", "_")
                raise MissingRecordsError(
                    f"no record is left to train on ({dropped}); {section}.max_length says how long they may be"
                )
        return examples

    def _train_together(self, missing: Sequence[int], progress: Progress, stop: StopSignal) -> None:
        """Start the processes that train the missing students, and wait for them."""
        quiet = ["--quiet"] if isinstance(progress, SilentProgress) else []
        command = our_command("train-share", self.folder.path, *(f"--seed={seed}" for seed in missing), *quiet)
        code = run_together(command, self.inputs.config.training.processes, stop)
        if code == Interrupted.exit_code:
            raise Interrupted("stopped after saving a checkpoint; run the same command to go on")
        if code != 0:
            raise StageProcessError(code)

    @property
    def origin(self) -> Origin:
        """What the students are made from."""
        config = self.inputs.config
        return Origin(
            run=config.name,
            teacher=self.inputs.teacher,
            student=self.inputs.student,
            data=config.data.train,
            rationales=self._rationales.fingerprint,
            sources=self._rationales.by_source,
            attention=self._attention.fingerprint if self._attention in self._needed else None,
            soft_labels=self._soft_labels.fingerprint if self._soft_labels in self._needed else None,
            settings=config.student,
            training=config.training,
        )

    def fingerprints(self) -> Mapping[str, str]:
        """What the students are known by."""
        return {"students": self.fingerprint}

    def pace(self) -> str:
        """What a student depends on but for its records and how often it sees them, and where it is trained."""
        spec = {name: value for name, value in self._spec().items() if name not in {"rationales", "dev"}}
        training, objective = asdict(self.inputs.config.training), self._objective.described()
        return fingerprint(
            {
                **spec,
                "training": {name: training[name] for name in training if name not in OF_NO_PACE},
                "objective": {name: objective[name] for name in OF_PACE if name in objective},
            }
        )

    def is_finished(self, seed: int) -> bool:
        """Whether the student of `seed` is there and was trained just so."""
        return self._stored(seed) == self.fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that a student depends on, its seed aside."""
        keys = keys_of(self._attention.selection.examples)
        return fingerprint_with(self._spec(), "records", (keys[number] for number in in_order(keys)))

    @cached_property
    def _needed(self) -> Sequence[RecordStage]:
        """The stages whose records the objective learns from, in order."""
        needed = ((self._attention, self._objective.needs_attention), (self._soft_labels, self._objective.soft_labels))
        return [stage for stage, is_needed in needed if is_needed]

    @cached_property
    def _objective(self) -> Objective:
        return objective_of(self.inputs.config.objective)

    def _spec(self) -> Spec:
        """All but the records, which are many."""
        config, student = self.inputs.config, self.inputs.student
        training = asdict(config.training)
        peft: Spec = {"peft": config.student.peft} if config.student.peft else {}
        stopping = config.training.early_stopping is not None
        left_out = NO_INFLUENCE if stopping else NO_INFLUENCE | {"early_stopping"}
        return {
            "schema": STUDENT_SCHEMA,
            **peft,
            **self.layers_spec,
            **(self._dev_spec() if stopping else {}),
            "student": student.revision,
            "tokenizer": student.tokenizer,
            "initialise": config.student.initialise,
            "max_length": config.student.max_length,
            "objective": self._objective.described(),
            "training": {name: value for name, value in training.items() if name not in left_out},
            "rationales": self._rationales.fingerprint,
            "attention": self._attention.fingerprint if self._attention in self._needed else None,
            **({"soft_labels": self._soft_labels.fingerprint} if self._soft_labels in self._needed else {}),
        }

    @property
    def layers_spec(self) -> Spec:
        """How many layers a student keeps, where not all; students that were trained before there was a choice stay."""
        layers = self.inputs.config.student.layers
        return {} if layers is None else {"layers": layers}

    def _dev(self) -> "DevQuestions | None":
        """What early stopping asks the student, if it is asked at all."""
        if self.inputs.config.training.early_stopping is None:
            return None
        from stages.student.dev import DevQuestions

        evaluation = self.inputs.config.evaluation
        return DevQuestions(
            questions=self.inputs.labelled("dev"),
            prompts=self._objective.tasks,
            max_new_tokens=evaluation.max_new_tokens,
            batch_size=evaluation.batch_size,
        )

    def _dev_spec(self) -> Spec:
        questions: list[Spec] = [asdict(question) for question in self.inputs.labelled("dev")]
        return {"dev": questions, "dev_max_new_tokens": self.inputs.config.evaluation.max_new_tokens}

    def _waiting(self, stage: StageName) -> StagePlan:
        return StagePlan(name=self.name, unit="students", done=0, to_do=len(self.seeds), waits_for=stage)

    def _require_stage_one(self) -> None:
        rationales = self._attention.rationale_plan
        if not rationales.finished:
            raise MissingRecordsError(
                f"rationales of {rationales.to_do:,} questions are missing; make them with: molsaki rationales CONFIG"
            )
        for stage in self._needed:
            if not (plan := stage.plan()).finished:
                what, them = ("teacher attention", "is missing; make it")
                if stage is self._soft_labels:
                    what, them = ("soft labels", "are missing; make them")
                raise MissingRecordsError(f"{what} of {plan.to_do:,} records {them} with: molsaki {stage.name} CONFIG")
        self._attention.require_records()

    def _stale(self) -> list[Path]:
        """What lies in the run's folder for these seeds and was made with other settings."""
        stale = [seed for seed in self.seeds if self._is_stale(seed)]
        evaluations = self.folder.evaluations()
        files = [file for each in evaluations for file in (*each.seeds().items(), *each.likelihoods().items())]
        results = [path for seed, path in files if seed in stale]
        summaries = [each.summary for each in evaluations if results and each.summary.exists()]
        return [*(self.folder.student(seed).path for seed in stale), *results, *summaries]

    def _is_stale(self, seed: int) -> bool:
        return self._stored(seed) not in {None, self.fingerprint}

    def _stored(self, seed: int) -> str | None:
        """The fingerprint that a finished student was trained under; None where there is no finished student."""
        student = self.folder.student(seed)
        try:
            return None if (summary := read_summary(student.path)) is None else str(summary["fingerprint"])
        except KeyError as error:
            raise damaged_student(student.summary, error) from error


class EvaluateStage:
    """Lets the students answer, and measures how likely they find what is right; `split` is `test`, or `dev`."""

    name: StageName = "evaluate"
    written, likelihood_seconds = 0, 0.0

    def __init__(self, train: TrainStage, split: Split, engines: ReusedEngines | None = None) -> None:
        """`engines` stay for the students of other points."""
        self._inputs, self._train, self._split = train.inputs, train, split
        self._engines = engines
        self._seeds = train.seeds
        self._adds = False  # whether nothing but log-probabilities was missing when it was planned

    @property
    def results(self) -> EvaluationFolder:
        """The folder that the predictions lie in."""
        return self._train.folder.evaluation(self._split)

    def plan(self) -> StagePlan:
        """Count the students whose answers are there."""
        questions, scored = self._inputs.questions(self._split), self._inputs.labelled(self._split)
        dropped = {"no gold answer": len(questions) - len(scored)} if len(scored) < len(questions) else {}
        if not questions:
            detail = f"data.{self._split} names no questions"
            return StagePlan(name=self.name, unit="students", done=0, to_do=0, detail=detail)
        train = self._train.plan()
        done = 0 if train.waits_for else sum(self.is_finished(seed) for seed in self._seeds)
        detail = f"{len(scored):,} questions each"
        if done < len(self._seeds) and self._settings.likelihood and "explain" in self._settings.prompts:
            detail += f", {self._inputs.references(self._split).count:,} with a reference rationale"
        if not train.waits_for and (answered := sum(self._is_answered(seed) for seed in self._seeds) - done):
            detail += f"; {answered} have answered and lack log-probabilities only"
        self._adds = not train.waits_for and answered == len(self._seeds) - done
        return StagePlan(
            name=self.name,
            unit="students",
            done=done,
            to_do=len(self._seeds) - done,
            dropped=dropped,
            detail=detail,
            waits_for=None if train.finished else train.name,
        )

    def execute(self, progress: Progress, stop: StopSignal) -> None:
        """Evaluate the students whose answers are missing."""
        missing = [seed for seed in self._seeds if not self._train.is_finished(seed)]
        if missing:
            raise MissingRecordsError(
                f"no student with these settings for seed {', '.join(map(str, missing))}; "
                "train it with: molsaki train CONFIG"
            )
        questions = self._inputs.labelled(self._split)
        if not questions:
            raise ConfigError(f"data.{self._split}: no question with a gold answer to measure on")
        self._move_stale(progress)
        with nullcontext(self._engines) if self._engines is not None else ReusedEngines(progress.note) as engines:
            for seed in self._seeds:
                if not self._is_answered(seed):
                    self._let_answer(seed, engines, progress, stop)
            if self._settings.likelihood and self._inputs.config.training.device != "cpu":
                engines.close()  # a GPU that vLLM holds has no room for torch
        # All log-probabilities behind all answers: a GPU that torch has used has less room for vLLM.
        for seed in self._seeds:
            if not self.is_finished(seed):
                self._measure(seed, progress, stop)
        write_scores(self.results.summary, scores_of(self._inputs.config.name, self.results))

    def _let_answer(self, seed: int, engines: ReusedEngines, progress: Progress, stop: StopSignal) -> None:
        with importing():
            from stages.evaluation import evaluate_student

        training = self._inputs.config.training
        predictions = evaluate_student(
            self._train.folder.student(seed).path,
            self._inputs.labelled(self._split),
            self._settings,
            dtype=training.dtype,
            device=training.device,
            progress=progress,
            stop=stop,
            engines=engines,
        )
        self.written += sum(len(one.output) for one in predictions)
        write_predictions(self.results.predictions(seed), seed, predictions, self.fingerprint)
        self._tell(seed)

    def _measure(self, seed: int, progress: Progress, stop: StopSignal) -> None:
        from stages.likelihood import student_likelihoods

        training, references = self._inputs.config.training, self._inputs.references(self._split)
        if references.problem:
            progress.note(f"no reference rationales: {references.problem}")
        started = time.monotonic()
        found = student_likelihoods(
            self._train.folder.student(seed).path,
            self._inputs.labelled(self._split),
            references.texts,
            self._settings.prompts,
            dtype=training.dtype,
            device=training.device,
            progress=progress,
            stop=stop,
        )
        self.likelihood_seconds += time.monotonic() - started
        place = self.results.likelihood(seed)
        write_likelihoods(place, seed, found, self.likelihood_fingerprint, self._sources_of_likelihood)
        self._tell(seed)

    def _tell(self, seed: int) -> None:
        """Let the student's card say what it scored in the test."""
        if self._split == "test":
            student = self._train.folder.student(seed)
            add_scores(student, self._train.origin, scores_for_card(self.results, seed))

    def fingerprints(self) -> Mapping[str, str]:
        """What the answers are known by."""
        return {f"evaluation-{self._split}": self.fingerprint}

    def pace(self) -> str:
        """Which student is asked what and how; students of other records and settings answer as fast.

        Adding log-probabilities to answers that are there is another pace.
        """
        config, student = self._inputs.config, self._inputs.student
        questions = [question.id for question in self._inputs.labelled(self._split)]
        settings = {name: value for name, value in asdict(self._settings).items() if name not in OF_LIKELIHOOD}
        asked: Spec = {"evaluation": settings, "questions": questions, "dtype": config.training.dtype}
        if self._settings.likelihood:
            references = self._inputs.references(self._split).count
            asked = {**asked, "likelihood": "alone" if self._adds else "too", "references": references}
        model: Spec = {"student": student.revision, **self._train.layers_spec}
        return fingerprint({**asked, **model, "device": config.training.device})

    def is_finished(self, seed: int) -> bool:
        """Whether answers and, where asked for, log-probabilities of a student are there and were made just so."""
        return self._is_answered(seed) and (not self._settings.likelihood or self._is_measured(seed))

    def _is_answered(self, seed: int) -> bool:
        return stored_fingerprint(self.results.predictions(seed)) == self.fingerprint

    def _is_measured(self, seed: int) -> bool:
        """Where it was made of files that are still the same, references need not be read and judged for it."""
        path, sources = self.results.likelihood(seed), self._sources_of_likelihood
        if sources is not None and stored_fingerprint(path, SOURCES) == sources:
            return True
        return stored_fingerprint(path) == self.likelihood_fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that the answers depend on, the seed aside."""
        left_out = {"batch_size", *OF_LIKELIHOOD}
        settings = {name: value for name, value in asdict(self._settings).items() if name not in left_out}
        return fingerprint({"student": self._train.fingerprint, "evaluation": settings, "questions": self._asked()})

    @cached_property
    def likelihood_fingerprint(self) -> str:
        """Hash of everything that the log-probabilities depend on, the seed aside."""
        return self._likelihood_of(list(self._inputs.references(self._split).texts))

    @cached_property
    def _sources_of_likelihood(self) -> str | None:
        sources = self._inputs.sources_of_references(self._split)
        return None if sources is None else self._likelihood_of(sources)

    def _likelihood_of(self, references: JSON) -> str:
        return fingerprint(
            {
                "schema": LIKELIHOOD_SCHEMA,
                "student": self._train.fingerprint,
                "prompts": list(self._settings.prompts),
                "questions": self._asked(),
                "references": references,
            }
        )

    def _asked(self) -> list[Spec]:
        return [asdict(question) for question in self._inputs.labelled(self._split)]

    @property
    def _settings(self) -> EvaluationSettings:
        """The configuration's, with the prompts that the objective teaches: to others a student has no answer."""
        config = self._inputs.config
        taught = objective_of(config.objective).tasks
        return replace(config.evaluation, prompts=tuple(task for task in config.evaluation.prompts if task in taught))

    def _move_stale(self, progress: Progress) -> None:
        """Set aside what was made of other questions, students or references; what is right stays, asked for or not."""
        stale = [
            path
            for seed in self._seeds
            for path, right in (
                (self.results.predictions(seed), self._is_answered),
                (self.results.likelihood(seed), self._is_measured),
            )
            if stored_fingerprint(path) is not None and not right(seed)
        ]
        summary = self.results.summary
        move_to_earlier(self._train.folder, [*stale, *([summary] if stale and summary.exists() else [])], progress)


def chosen_seeds(configured: Sequence[int], chosen: Sequence[int]) -> tuple[int, ...]:
    """The seeds to work on: all that are configured, or those of them that were asked for."""
    if unknown := sorted(set(chosen) - set(configured)):
        raise ConfigError(f"--seed {unknown[0]}: not among training.seeds {list(configured)}")
    return tuple(seed for seed in configured if seed in chosen) if chosen else tuple(configured)


def move_to_earlier(folder: RunFolder, paths: Sequence[Path], progress: Progress) -> None:
    """Set aside results that were made with other settings; nothing that took hours is ever deleted."""
    if not paths:
        return
    earlier = folder.earlier_at(datetime.now(UTC))
    for path in paths:
        target = earlier / path.relative_to(folder.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # a job beside this one, with other seeds, has just moved the summary
            path.rename(target)
    progress.note(f"results made with other settings moved to {earlier}")
