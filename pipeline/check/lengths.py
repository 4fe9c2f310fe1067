"""Lengths of texts in tokens, under the tokenizers of teacher and student, beside the limits of the configuration.

In: a configuration and its labelled training questions. Out: a `Lengths` for each kind of text, and a note for each
tokenizer that cannot be had. Rationales are not there yet, so that of records and explanations these are the shortest.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from statistics import median
from typing import TypeAlias

from data.check import Found, some
from data.errors import MolsakiError, first_line
from data.records import Question
from pipeline.config.schema import Config
from stages.models.lengths import Tokenizer, explain_lengths, predict_lengths, prompt_lengths, record_lengths
from stages.models.tokenizer import load_tokenizer
from stages.runtime.progress import Progress

CHUNK = 256
"""Texts tokenized together."""
Named: TypeAlias = tuple[str, str | None, bool]
"""A model, its revision, and whether its code is trusted."""
Counting: TypeAlias = "Callable[[Tokenizer, Sequence[Question]], list[int]]"


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long texts are in tokens; `over` have more than `limit`, which the key `setting` says."""

    text: str
    model: str
    texts: int
    median: float
    most: int
    """What 95 in 100 do not exceed."""
    longest: int
    limit: int | None
    setting: str
    over: Found


@dataclass(frozen=True, kw_only=True)
class Text:
    """A kind of text: who reads it, how its tokens are counted, and how many are allowed by which key.

    `key` is what the count depends on beside the model and the questions.
    """

    name: str
    model: Named
    count: Counting
    limit: int | None
    setting: str
    key: Hashable = None


@dataclass(kw_only=True)
class Measure:
    """Measures texts; tokenizers are loaded, and the texts of several configurations measured, once."""

    progress: Progress
    tokenizers: "dict[Named, Tokenizer | str]" = field(default_factory=dict)
    measured: dict[Hashable, list[int]] = field(default_factory=dict)

    def lengths(self, config: Config, questions: Sequence[Question], notes: list[str]) -> Iterator[Lengths]:
        """Lengths of what both models read of the training questions; `notes` takes what keeps one from being known."""
        for text in _texts(config, notes):
            tokenizer = self._tokenizer(text.model)
            if isinstance(tokenizer, str):
                notes.extend([tokenizer] if tokenizer not in notes else [])
                continue
            key = (config.data.train, text.name, text.model, text.key)
            if key not in self.measured:
                self.measured[key] = self._measure(tokenizer, text, questions)
            yield _lengths(text, questions, self.measured[key])

    def _measure(self, tokenizer: Tokenizer, text: Text, questions: Sequence[Question]) -> list[int]:
        found: list[int] = []
        self.progress.start(f"lengths of {text.name}", len(questions))
        left = iter(questions)
        while chunk := list(islice(left, CHUNK)):
            found += text.count(tokenizer, chunk)
            self.progress.advance(len(chunk))
        return found

    def _tokenizer(self, model: Named) -> "Tokenizer | str":
        """A model's tokenizer, or why it cannot be had."""
        if model not in self.tokenizers:
            name, revision, trusted = model
            self.progress.start(f"tokenizer of {name}", 1)
            try:
                self.tokenizers[model] = load_tokenizer(name, revision, trust_remote_code=trusted)
            except MolsakiError as error:
                self.tokenizers[model] = f"lengths under {name} are not known: {first_line(error)}"
        return self.tokenizers[model]


def _texts(config: Config, notes: list[str]) -> Iterator[Text]:
    """What teacher and student read."""
    rationales, teacher, student = config.rationales, config.teacher, config.student
    of_teacher = (teacher.model, teacher.revision, teacher.trust_remote_code)
    if rationales.engine == "file" or rationales.author is not None:
        notes.append("the teacher writes no rationales here, so the length of prompts is not known")
    else:
        window = rationales.engine_arguments.get("max_model_len")
        yield Text(
            name="prompt",
            model=of_teacher,
            count=partial(prompt_lengths, asked=rationales),
            # A prompt that fills the window leaves no room for a single token.
            limit=window - 1 if isinstance(window, int) else None,
            setting="rationales.engine_arguments.max_model_len",
            key=(
                rationales.chat,
                rationales.shots,
                rationales.as_student,
                repr(rationales.template_arguments),
                rationales.template_date,
            ),
        )
    longest = config.attention.max_length
    begins = config.attention.begin_token
    yield Text(
        name="record",
        model=of_teacher,
        count=partial(record_lengths, begins=begins),
        limit=longest,
        setting="attention.max_length",
        key=(begins,),
    )
    for name, count in (("predict", predict_lengths), ("explain", explain_lengths)):
        of_student = (student.model, student.revision, False)
        yield Text(name=name, model=of_student, count=count, limit=student.max_length, setting="student.max_length")


def _lengths(text: Text, questions: Sequence[Question], measured: Sequence[int]) -> Lengths:
    ordered, pairs = sorted(measured), zip(questions, measured, strict=True)
    return Lengths(
        text=text.name,
        model=text.model[0],
        texts=len(questions),
        median=median(ordered),
        most=ordered[-(-len(ordered) * 95 // 100) - 1],
        longest=ordered[-1],
        limit=text.limit,
        setting=text.setting,
        over=some([each.id for each, length in pairs if text.limit is not None and length > text.limit]),
    )
