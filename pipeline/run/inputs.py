"""What a configuration names, read and identified once: questions and models.

In: a `Config`. Out: the questions of each split and the identities of teacher and student, each on first use, so
that a command pays for what it needs only. `check` touches everything that the stages ahead will need, because a
test file with a typo in its name should not be found out after a night of training.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from cache.derived import code_version
from cache.fingerprints import JSON, Spec, fingerprint
from data.check import shared_questions
from data.errors import ConfigError
from data.readers import read_questions
from data.records import Question
from data.settings import DataSource
from pipeline.config.matrix import Matrix
from pipeline.config.schema import Config
from pipeline.run.plan import StageName
from stages.engines.openai_server import server_address, server_key
from stages.models.identity import ModelIdentity, identify_model
from stages.models.size import layer_count, require_layers, require_pair
from stages.rationales.references import References, find_references
from stages.rationales.spec import named_file, rationale_file
from stages.runtime.kept_hashes import kept_hash
from stages.settings import SinglePair
from stages.soft_labels.vocabulary import require_one_vocabulary, vocabulary_of
from stages.student.objective import objective_of

Split = Literal["train", "dev", "test"]
CODE_OF_REFERENCES = ("data/**/*.py", "data/exemplars/*", "stages/rationales/*.py")
"""Which of our own files say what a reference rationale is."""


class Inputs:
    """The inputs of one run.

    With `alike`, the inputs of another run, what both name is read once: the points of a matrix agree on most of it.
    """

    def __init__(self, config: Config, alike: "Inputs | None" = None) -> None:
        self.config = config
        self._questions: dict[tuple[Split, tuple[DataSource, ...]], tuple[Question, ...]] = {}
        self._models: dict[tuple[str, str, str | None, bool], ModelIdentity] = {}
        self._references: dict[object, References] = {}
        if alike is not None:
            self._questions, self._models, self._references = alike._questions, alike._models, alike._references

    def questions(self, split: Split) -> tuple[Question, ...]:
        """All questions of a split, source after source; raises `ConfigError` or `DataError` as the readers do."""
        key = (split, getattr(self.config.data, split))
        if key not in self._questions:
            self._questions[key] = _read(*key)
        return self._questions[key]

    def described(self, split: Split) -> JSON:
        """What the questions of a split follow from: the content of files, seeds, or the questions themselves.

        Files and seeds are not read as questions for it.
        """
        sources = getattr(self.config.data, split)
        described = [_described(source) for source in sources]
        if None not in described:
            return {"sources": described}
        return {"questions": fingerprint([asdict(question) for question in self.questions(split)])}

    def forget(self, split: Split) -> None:
        """Let go of the questions of a split; they are read again when somebody asks for them."""
        self._questions.pop((split, getattr(self.config.data, split)), None)

    def labelled(self, split: Split) -> tuple[Question, ...]:
        """The questions of a split that can be scored."""
        return tuple(question for question in self.questions(split) if question.answer is not None)

    def references(self, split: Split) -> References:
        """Reference rationales of the labelled questions of a split, in their order."""
        data, rationales, named = self.config.data, self.config.rationales, self.config.evaluation.references
        file = (rationales.path, rationales.fields) if rationales.engine == "file" else None
        key = (split, getattr(data, split), data.train, named, file)
        if key not in self._references:
            learned = self.questions("train")
            self._references[key] = find_references(self.labelled(split), learned, named, rationales)
        return self._references[key]

    def sources_of_references(self, split: Split) -> Spec | None:
        """What the reference rationales follow from beside the labelled questions; None where that is not known.

        None of it is read as questions or rationales for it.
        """
        named, rationales = self.config.evaluation.references, self.config.rationales
        code: Spec = {"code": code_version(*CODE_OF_REFERENCES)}
        try:
            if named is not None:
                file = {"file": kept_hash(named_file(named.path, "evaluation.references"))}
                return {**code, **file, "fields": asdict(named.fields)}
            if rationales.engine != "file":
                return code
            file = {"file": kept_hash(rationale_file(rationales))}
            return {**code, **file, "fields": asdict(rationales.fields), "training": self.described("train")}
        except (OSError, ConfigError):  # which whoever reads it explains
            return None

    @cached_property
    def teacher(self) -> ModelIdentity:
        """Which teacher it is, exactly."""
        return self._identify("teacher.model", self.config.teacher.model, self.config.teacher.revision, weights=True)

    @cached_property
    def student(self) -> ModelIdentity:
        """Which student it is, exactly; one that starts from fresh weights needs none in its folder.

        Raises `ConfigError` where it has fewer layers than `student.layers` keeps.
        """
        settings = self.config.student
        pretrained = settings.initialise == "pretrained"
        student = self._identify("student.model", settings.model, settings.revision, weights=pretrained)
        if settings.layers is not None:
            require_layers(student, settings.layers)
        return student

    def _identify(self, key: str, model: str, revision: str | None, *, weights: bool) -> ModelIdentity:
        known = (key, model, revision, weights)
        if known not in self._models:
            try:
                self._models[known] = identify_model(model, revision, weights=weights)
            except ConfigError as error:
                raise ConfigError(f"{key}: {error}") from error
        return self._models[known]

    def check(self, stages: Sequence[StageName], *, known: bool = False) -> None:
        """Raise the first `ConfigError` or `DataError` that `stages` would meet in their inputs.

        `known` are training questions that have been read before, just as they are now.
        """
        if not known:
            self.questions("train")
        _ = self.teacher
        if self.config.rationales.engine == "file":
            rationale_file(self.config.rationales)
        if "evaluate" in stages and self.config.evaluation.references is not None:
            self.references("test")
        if self.config.rationales.engine == "openai":
            server_address(self.config.rationales.server)
            server_key()
        if {"train", "evaluate"} & set(stages):
            _ = self.student
        if {"soft-labels", "train"} & set(stages):
            self._require_one_vocabulary()
        if "train" in stages:
            self._check_training()
        if "evaluate" in stages and self.questions("test") and not self.labelled("test"):
            raise ConfigError(f"data.test: none of {len(self.questions('test')):,} questions has a gold answer")

    def _check_training(self) -> None:
        self._require_pair()
        if self.config.student.peft:
            from stages.student.adapters import adapter_config  # loads torch, which other runs have no need of here

            adapter_config(self.config.student.peft)
        if self.config.training.early_stopping is not None and not self.labelled("dev"):
            none = f"none of {len(self.questions('dev')):,} questions has a gold answer"
            raise ConfigError(f"data.dev: {none}, which training.early_stopping needs")
        if self.config.training.report_to:
            from stages.student.trackers import require_trackers

            require_trackers(self.config.training.report_to)

    def _require_one_vocabulary(self) -> None:
        """Raise `ConfigError` where distributions are to be compared that are over different tokens."""
        term = objective_of(self.config.objective).soft_labels
        if term is not None and term.match == "tokens":
            require_one_vocabulary(self.student, vocabulary_of(self.teacher).hash)

    def _require_pair(self) -> None:
        """Raise `ConfigError` where the attention loss pairs a layer that a model's configuration says it lacks."""
        attention = objective_of(self.config.objective).attention
        if attention is not None and isinstance(attention.alignment, SinglePair):
            student = self.config.student.layers or layer_count(self.student)
            require_pair(attention.alignment.single, layer_count(self.teacher) or sys.maxsize, student or sys.maxsize)

    def tokenizers(self, stages: Sequence[StageName]) -> list[tuple[str, str | None, bool]]:
        """Whose tokenizers `stages` read texts by: path or hub id, revision, and whether a model's code is trusted."""
        read = []
        if {"attention", "soft-labels"} & set(stages):
            read.append((self.teacher, self.config.teacher.trust_remote_code))
        if {"train", "evaluate"} & set(stages):
            read.append((self.student, False))
        return [(model.path, model.hub_revision, trusted) for model, trusted in read]

    def overlap(self) -> int:
        """How many test questions are training questions too."""
        return shared_questions(self.questions("train"), self.questions("test")).same_text.count


def limited(matrix: Matrix, limit: int) -> list[str]:
    """Overrides that leave the first training questions of a run, source after source, under a name of its own."""
    if varied := sorted({key for point in matrix.points for key in point.values if key.startswith("data")}):
        raise ConfigError(f"--limit: {varied[0]} varies in the matrix; give its sources a limit: instead")

    sources, left = [], limit
    for source in matrix.base.data.train:
        taken = len(read_questions(replace(source, limit=min(left, source.limit or left))))
        sources.append(asdict(source) | {"limit": taken})
        if not (left := left - taken):
            break
    return [f"name={matrix.name}-limit-{limit}", f"data.train={json.dumps(sources)}"]


def _described(source: DataSource) -> JSON:
    """A source by its content, as far as that is known without making questions of it; None where it is not."""
    if source.path is None:
        return asdict(source) if source.name == "synthetic" else None
    path = Path(source.path)
    try:
        return {**asdict(source), "path": path.name, "content": kept_hash(path)}
    except OSError:  # which whoever reads it explains
        return None


def _read(split: Split, sources: Sequence[DataSource]) -> tuple[Question, ...]:
    """Source after source; within a data set ids differ, for predictions are told apart by them."""
    found: dict[tuple[str, str], Question] = {}
    for number, source in enumerate(sources):
        for question in read_questions(source):
            key = (question.dataset, question.id)
            if key in found:
                raise ConfigError(f"data.{split}.{number}: {' '.join(key)} stands in an earlier source too")
            found[key] = question
    return tuple(found.values())
