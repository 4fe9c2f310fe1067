"""One record of a file or of the hub, and what every data set does with it: find fields, make a question of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from data.answers.canonical import canonical_answer
from data.errors import DataError
from data.records import AnswerKind, Question

Refuse: TypeAlias = Callable[[DataError], None]
"""What becomes of a row that cannot be read: whoever reads raises the error, or keeps it and goes on to the next."""
LONGEST_SHOWN = 200
"""Characters of a value in a message."""


def raise_it(error: DataError) -> NoReturn:
    """End with the first row that cannot be read."""
    raise error


def shown(value: object) -> str:
    """A value as a message shows it: not all of what may be pages."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


def bare_name(name: str) -> str:
    """The name of a field without what stands around it by accident: blanks, quotes, a mark of the byte order."""
    bare = name.replace("\ufeff", "").strip()
    quoted = len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'"
    return bare[1:-1].strip() if quoted else bare


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record of a file or hub data set, not yet understood."""

    where: str
    """File and line, or data set and row number, for messages."""
    name: str
    """What the question is called where it has no identifier of its own."""
    dataset: str
    """Which data set the question counts to."""
    fields: Mapping[str, object]

    def text(self, *names: str) -> str:
        """The first of these fields that is there, as text that is not empty."""
        value = self.optional(*names)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"expected text in the field {' or '.join(map(repr, names))}, found {shown(value)}")
        return value.strip()

    def optional(self, *names: str) -> object:
        """The first of these fields that is there and not empty, else None."""
        return next((self.fields[name] for name in names if self.fields.get(name) not in (None, "")), None)

    def identifier(self, *names: str) -> str:
        """The row's own identifier, else its name."""
        value = self.optional(*names)
        return self.name if value is None else str(value)

    def gold(self, raw: object, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
        """The canonical gold answer, None where the row has no label."""
        if raw is None:
            return None
        answer = canonical_answer(raw, kind, choices)
        if answer is None:
            raise self.error(f"expected an answer of the kind {kind}, found {shown(raw)}")
        return answer

    def question(
        self,
        *,
        text: str,
        answer: object,
        kind: AnswerKind,
        id_fields: Sequence[str] = ("id",),
        choices: Sequence[str] = (),
        keywords: Sequence[str] = (),
        reference: str | None = None,
    ) -> Question:
        """The question of a published data set, whose worked examples and scoring apply; `answer` is the raw label."""
        return Question(
            id=self.identifier(*id_fields),
            dataset=self.dataset,
            text=text,
            answer=self.gold(answer, kind, choices),
            answer_kind=kind,
            choices=tuple(choices),
            keywords=tuple(keywords),
            reference=reference,
            benchmark=self.dataset,
        )

    def error(self, what: str) -> DataError:
        """A DataError that says where this row stands."""
        return DataError(f"{self.where}: {what}")
