"""Everything about the questions of a run that can be known before its teacher is asked.

In: a matrix. Out: a `Check` for every group of points that ask the same of their questions: what each source holds,
what training and measuring share, questions without critical words, lengths in tokens. No model is loaded; of
tokenizers those that are there, and a note for the others. What would end the run is collected in `errors`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from data.check import Findings, Found, Questions, Shared, check_questions, read_all, shared_questions, some
from data.errors import MolsakiError
from data.marking import mark
from data.prompts import answer_sentence
from data.records import Question
from data.settings import DataSource
from pipeline.check.lengths import Lengths, Measure
from pipeline.config.matrix import Matrix
from pipeline.config.schema import Config
from pipeline.run.inputs import Split
from stages.attention.select import marking_rule
from stages.runtime.progress import Progress

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
PAIRS: tuple[tuple[Split, Split], ...] = (("train", "dev"), ("train", "test"), ("dev", "test"))


@dataclass(frozen=True, kw_only=True)
class SourceCheck:
    """One source of a split, counted from 1 there; `refused` rows cannot be read, `errors` are the first of them."""

    split: Split
    number: int
    name: str
    place: str
    refused: int
    errors: tuple[str, ...]
    findings: Findings


@dataclass(frozen=True, kw_only=True)
class SharedSplits:
    """What two splits have in common."""

    first: Split
    second: Split
    shared: Shared


@dataclass(frozen=True, kw_only=True)
class Critical:
    """Training questions without a critical word; `in_none` have none in the sentence with their answer either.

    With `asked` the teacher is to name more words, which cannot be known yet.
    """

    rule: str
    questions: int
    in_question: Found
    in_none: Found
    asked: bool


@dataclass(frozen=True, kw_only=True)
class Check:
    """What is to be known of the questions of some points, all of which ask the same of them."""

    points: tuple[str, ...]
    sources: tuple[SourceCheck, ...]
    shared: tuple[SharedSplits, ...]
    critical: Critical | None
    lengths: tuple[Lengths, ...]
    notes: tuple[str, ...]
    errors: tuple[str, ...]


def check_data(matrix: Matrix, progress: Progress) -> list[Check]:
    """Look at the questions of all points; what several of them ask for is looked at once."""
    groups: dict[str, list[str]] = {}
    configs: dict[str, Config] = {}
    for point in matrix.points:
        asked = _asked(point.config)
        groups.setdefault(asked, []).append(point.name)
        configs.setdefault(asked, point.config)
    gather = _Gather(progress=progress, measure=Measure(progress=progress))
    return [gather.check(configs[asked], names) for asked, names in groups.items()]


def _asked(config: Config) -> str:
    """Equal for configurations that ask the same of their questions."""
    attention = {
        name: getattr(config.attention, name) for name in ("critical", "keywords", "keyword_sources", "pattern")
    }
    parts = [
        config.data.model_dump(mode="json"),
        attention,
        *_teacher_key(config),
        config.attention.max_length,
        config.student.model,
        config.student.revision,
        config.student.max_length,
    ]
    return json.dumps(parts, sort_keys=True, default=str)


def _teacher_key(config: Config) -> tuple[object, ...]:
    """What the lengths of a teacher's prompts depend on."""
    rationales = config.rationales
    window = rationales.engine_arguments.get("max_model_len")
    writer = (rationales.engine == "file", rationales.author)
    asked = (rationales.shots, rationales.as_student, rationales.chat, rationales.keywords)
    return config.teacher.model, config.teacher.revision, config.teacher.trust_remote_code, *writer, *asked, window


@dataclass(kw_only=True)
class _Gather:
    """What was read and measured so far, so that it is done once."""

    progress: Progress
    measure: Measure
    questions: dict[DataSource, Questions] = field(default_factory=dict)
    findings: dict[DataSource, Findings] = field(default_factory=dict)

    def check(self, config: Config, points: Sequence[str]) -> Check:
        """Look at the questions of one configuration."""
        sources = [
            self._source(split, number, source)
            for split in SPLITS
            for number, source in enumerate(getattr(config.data, split), start=1)
        ]
        splits = {split: self._split(config, split) for split in SPLITS}
        errors = [error for source in sources for error in _listed(source)]
        errors += [error for split in SPLITS for error in self._twice(config, split)]
        shared = [
            SharedSplits(first=first, second=second, shared=shared_questions(splits[first], splits[second]))
            for first, second in PAIRS
            if splits[first] and splits[second]
        ]
        asked = [question for question in splits["train"] if question.answer is not None]
        notes: list[str] = []
        lengths: list[Lengths] = []
        try:
            for length in self.measure.lengths(config, asked, notes) if asked else ():
                lengths.append(length)  # noqa: PERF402  what came before an error stays
        except MolsakiError as error:
            errors += str(error).splitlines()
        return Check(
            points=tuple(points),
            sources=tuple(sources),
            shared=tuple(shared),
            critical=self._critical(config, asked) if asked else None,
            lengths=tuple(lengths),
            notes=tuple(notes),
            errors=tuple(errors),
        )

    def _read(self, source: DataSource) -> Questions:
        if source not in self.questions:
            self.questions[source] = read_all(source)
        return self.questions[source]

    def _split(self, config: Config, split: Split) -> list[Question]:
        return [question for source in getattr(config.data, split) for question in self._read(source).read]

    def _source(self, split: Split, number: int, source: DataSource) -> SourceCheck:
        questions = self._read(source)
        if source not in self.findings:
            self.findings[source] = check_questions(self._counted(f"labels of {split}", questions.read))
        return SourceCheck(
            split=split,
            number=number,
            name=source.name,
            place=source.path or f"{source.hub or source.name} ({source.split})",
            refused=questions.refused,
            errors=questions.errors,
            findings=self.findings[source],
        )

    def _twice(self, config: Config, split: Split) -> Iterator[str]:
        """Sources of a split with a question of an earlier one, which a run refuses."""
        places: dict[tuple[str, str], int] = {}
        for number, source in enumerate(getattr(config.data, split), start=1):
            keys = {(question.dataset, question.id): number for question in self._read(source).read}
            if twice := [" ".join(key) for key in keys if key in places]:
                more = f" and {len(twice) - 1:,} more" if len(twice) > 1 else ""
                yield f"data.{split}.{number - 1}: {twice[0]}{more} stands in an earlier source too"
            places = keys | places

    def _counted(self, task: str, questions: Sequence[Question]) -> Iterator[Question]:
        """The same questions, with progress."""
        self.progress.start(task, len(questions))
        for question in questions:
            yield question
            self.progress.advance()

    def _critical(self, config: Config, questions: Sequence[Question]) -> Critical:
        settings = config.attention
        in_question, in_none = [], []
        for question in self._counted("critical words", questions):
            sentence = answer_sentence(question, question.answer or "")
            marked = mark(question.text, sentence, steps=settings.steps, critical=marking_rule(settings, question))
            if not any(start < len(question.text) for start, _ in marked.critical_spans):
                in_question.append(question.id)
            if not marked.critical_spans:
                in_none.append(question.id)
        asked = settings.critical == "keywords" and "teacher" in settings.keyword_sources and config.rationales.keywords
        return Critical(
            rule=settings.critical,
            questions=len(questions),
            in_question=some(in_question),
            in_none=some(in_none),
            asked=asked,
        )


def _listed(source: SourceCheck) -> list[str]:
    """The errors of a source, and how many more there are."""
    more = source.refused - len(source.errors)
    return [*source.errors, *([f"  and {more:,} more rows of {source.place}"] if more else [])]
