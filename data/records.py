"""The records that travel through the pipeline, in the order in which they come to be.

    Question -> Rationale -> Marked -> attention block (L, S, K) -> batch -> Prediction, Likelihood

Every record is immutable. Character spans are half-open `(start, end)` pairs into the text that the record itself
holds.
"""

from dataclasses import dataclass
from typing import Literal

from data.sets import DatasetName

AnswerKind = Literal["number", "numbers", "choice", "boolean", "text"]
Phase = Literal["plain", "gold_shown", "imported", "keywords"]
"""What a teacher was asked: for a rationale, for one with the answer shown, nothing by us, for key words."""
Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One problem of a data set.

    `text` is what teacher and student read, answer choices included. `answer` is the canonical gold answer (see
    `data.answers`): a plain number such as "42" or "3.5", several such as "8; 128" or "9:7", the letter of a choice,
    "yes" or "no"; None where the data set has no label. `keywords` are the words that the data set itself names as
    central, `reference` is the rationale that it brings along, without the sentence that states the answer.
    `benchmark` is the published data set whose worked examples and scoring apply; None for questions that are made up
    and for a user's own file, whatever its name.
    """

    id: str
    dataset: str
    text: str
    answer: str | None
    answer_kind: AnswerKind
    choices: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    reference: str | None = None
    benchmark: DatasetName | None = None


@dataclass(frozen=True, kw_only=True)
class Rationale:
    """A chain of thought that reaches the gold answer; `text` ends with the sentence that states it.

    `keywords` are the words of question and rationale that the teacher named as key, where it was asked.
    """

    question: Question
    text: str
    answer: str
    phase: Phase
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Marked:
    """Question and rationale as one text, with the reasoning steps and the critical words found in it.

    `text` is `question`, a line break, `rationale`. Steps are in order, do not overlap, and no step crosses
    `rationale_start`. Critical spans are in order and do not overlap.
    """

    question: str
    rationale: str
    text: str
    step_spans: tuple[Span, ...]
    critical_spans: tuple[Span, ...]

    @property
    def rationale_start(self) -> int:
        """Character at which the rationale begins in `text`."""
        return len(self.text) - len(self.rationale)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a student answered to one question under one prompt; `parsed` is None where no answer was found."""

    question_id: str
    dataset: str
    prompt: Literal["predict", "explain"]
    output: str
    parsed: str | None
    gold: str
    correct: bool


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """How likely a student finds a text that it should have written after one prompt.

    `log_probability` is the sum over its `tokens`, in nats, with the token that ends a text where the tokenizer has
    one; None where the text is longer than the student's positions, or the sum is no number. `target` is the text.
    """

    question_id: str
    dataset: str
    prompt: Literal["predict", "explain"]
    target: str
    log_probability: float | None
    tokens: int

    @property
    def bytes(self) -> int:
        """Bytes of the text in UTF-8, which do not depend on a tokenizer; the end of a text has none."""
        return len(self.target.encode())
