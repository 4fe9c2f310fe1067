"""Lengths of texts in tokens, under the tokenizers of teacher and student, beside the limits of the configuration.

In: a configuration and its labelled training questions. Out: a `Lengths` for each kind of text, and a note for each
tokenizer that cannot be had. Rationales are not there yet, so that of records and explanations these are the shortest.
"""

from collections.abc import Callable, Iterator, Sequence
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


@dataclass(kw_only=True)
class Measure:
    """Measures texts; tokenizers are loaded once."""

    progress: Progress
    tokenizers: "dict[Named, Tokenizer | str]" = field(default_factory=dict)

    def lengths(self, config: Config, questions: Sequence[Question], notes: list[str]) -> Iterator[Lengths]:
        """Lengths of what both models read; `notes` takes what keeps one from being known."""
        rationales, teacher, student = config.rationales, config.teacher, config.student
        of_teacher = (teacher.model, teacher.revision, teacher.trust_remote_code)
        of_student = (student.model, student.revision, False)
        measured = partial(self._measured, questions, notes)
        if rationales.engine == "file" or rationales.author is not None:
            notes.append("the teacher writes no rationales here, so the length of prompts is not known")
        else:
            # A prompt that fills the window leaves no room for a single token.
            window = rationales.engine_arguments.get("max_model_len")
            limit = window - 1 if isinstance(window, int) else None
            prompts = partial(prompt_lengths, chat=rationales.chat, shots=rationales.shots)
            yield from measured("prompt", of_teacher, prompts, limit, "rationales.engine_arguments.max_model_len")
        yield from measured("record", of_teacher, record_lengths, config.attention.max_length, "attention.max_length")
        yield from measured("predict", of_student, predict_lengths, config.student.max_length, "student.max_length")
        yield from measured("explain", of_student, explain_lengths, config.student.max_length, "student.max_length")

    def _measured(
        self,
        questions: Sequence[Question],
        notes: list[str],
        text: str,
        model: Named,
        count: Counting,
        limit: int | None,
        setting: str,
    ) -> Iterator[Lengths]:
        """One kind of text, or none where the tokenizer cannot be had."""
        tokenizer = self._tokenizer(model)
        if isinstance(tokenizer, str):
            notes.extend([tokenizer] if tokenizer not in notes else [])
            return
        lengths: list[int] = []
        self.progress.start(f"lengths of {text}", len(questions))
        left = iter(questions)
        while chunk := list(islice(left, CHUNK)):
            lengths += count(tokenizer, chunk)
            self.progress.advance(len(chunk))
        ordered, measured = sorted(lengths), zip(questions, lengths, strict=True)
        yield Lengths(
            text=text,
            model=model[0],
            texts=len(questions),
            median=median(ordered),
            most=ordered[-(-len(ordered) * 95 // 100) - 1],
            longest=ordered[-1],
            limit=limit,
            setting=setting,
            over=some([each.id for each, length in measured if limit is not None and length > limit]),
        )

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
