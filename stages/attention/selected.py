"""A selection kept beside the store, so that it is marked once: read again without a text of it in memory.

In: a `Selection`, the space of rationales that it was made from, and what was asked of that. Out: the same selection,
whose examples are made of a memory map (`cache.arrays`) when somebody asks for one; and what whoever kept it wants to
know of it without reading rationales.

Arrays, n records one after another: `key` (n, 32); `step_spans` and `word_spans` (…, 2), characters, those of record r
from `step_offset[r]` and `word_offset[r]` on; `text`, from `text_offset[r]` on the rationale with its question, all
their fields as canonical JSON; and `about`, JSON too.
"""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from cache.arrays import Array, Arrays, ArraysToFill, arrays_path, make_arrays, part, read_arrays
from cache.derived import code_version
from cache.fingerprints import JSON, Spec, canonical, fingerprint
from cache.keys import Keys, key_rows
from cache.spaces import Space, check_files
from data.records import Marked, Question, Rationale, Span
from stages.attention.select import Example, Selection
from stages.settings import AttentionSettings

SUFFIX = "selection"
PIECE = 1024
"""Records that are written at a time."""
SOURCES = (
    *("data/**/*.py", "data/exemplars/*", "cache/keys.py", "cache/rationales.py"),
    *("stages/rationales/*.py", "stages/attention/select*.py"),
)
"""Which of our own files say what a selection is."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a selection lies: beside the `space` of its rationales, under a name for what was asked (`of`)."""

    space: Space
    of: Spec

    def path(self, suffix: str, more: Spec | None = None) -> Path | None:
        """A file made of the selection, and of `more`."""
        return arrays_path(self.space, {**self.of, **(more or {})}, suffix)

    @cached_property
    def head(self) -> Spec:
        """All that the selection follows from; raises `DamagedCacheError` where a part is not as it was committed."""
        parts: list[JSON] = []
        for commit in self.space.commits():
            if commit.part is not None:
                check_files(self.space, commit)
            parts.append({name: entry.sha256 for name, entry in commit.files.items()})
        found: Spec = {"space": self.space.fingerprint, "parts": fingerprint(parts), "of": fingerprint(self.of)}
        return {**found, "code": code_version(*SOURCES)}


class StoredExamples(Sequence[Example]):
    """The examples of a selection that is kept, or some of them; each is made when it is asked for."""

    def __init__(self, place: Place, arrays: Arrays, rows: Array | None = None) -> None:
        """Serve those at `rows` of the selection, by default all."""
        self.place, self._arrays = place, arrays
        self.rows: npt.NDArray[np.int64] = np.arange(len(arrays["key"])) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, number: int) -> Example: ...
    @overload
    def __getitem__(self, number: slice) -> "StoredExamples": ...
    def __getitem__(self, number: int | slice) -> "Example | StoredExamples":
        """The example of a number, or those of several."""
        if isinstance(number, slice):
            return StoredExamples(self.place, self._arrays, self.rows[number])
        row, arrays = int(self.rows[number]), self._arrays
        rationale = _rationale(json.loads(arrays["text"][part(arrays["text_offset"], row)].tobytes()))
        marked = Marked(
            question=rationale.question.text,
            rationale=rationale.text,
            text=f"{rationale.question.text}\n{rationale.text}",
            step_spans=_spans(arrays["step_spans"][part(arrays["step_offset"], row)]),
            critical_spans=_spans(arrays["word_spans"][part(arrays["word_offset"], row)]),
        )
        return Example(rationale=rationale, marked=marked, key=arrays["key"][row].tobytes().hex())

    @property
    def all(self) -> "StoredExamples":
        """All examples of the selection, of which these are some."""
        return StoredExamples(self.place, self._arrays)

    @property
    def keys(self) -> Keys:
        """Their keys."""
        return Keys(self._arrays["key"][self.rows])

    def take(self, numbers: npt.NDArray[np.int64]) -> "StoredExamples":
        """Those of these numbers."""
        return StoredExamples(self.place, self._arrays, self.rows[numbers])


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A selection that is kept, and what was to be known `about` it."""

    selection: Selection
    about: Mapping[str, Any]  # JSON as it was written


def read_selection(place: Place) -> Kept | None:
    """The selection that lies at a place; None where there is none, or none that is whole and still right."""
    arrays = read_arrays(place.path(SUFFIX), place.head)
    return None if arrays is None else _kept(place, arrays)


def keep_selection(place: Place, selection: Selection, about: Mapping[str, JSON]) -> Kept:
    """Write a selection to its place; where nothing may be written, this process has it for itself."""

    def fill(made: ArraysToFill) -> None:
        made.append("about", _bytes({"dropped": dict(selection.dropped), "about": dict(about)}))
        for first in range(0, len(selection.examples), PIECE):
            _append(made, selection.examples[first : first + PIECE])

    return _kept(place, make_arrays(place.path(SUFFIX), place.head, fill))


def marking_spec(settings: AttentionSettings) -> Spec:
    """The settings that say which steps and critical words a text has."""
    names = ("steps", "critical", "keywords", "keyword_sources", "pattern")
    return {name: value for name, value in asdict(settings).items() if name in names}


def keys_of(examples: Sequence[Example]) -> Sequence[str]:
    """The keys of examples, in their order."""
    return examples.keys if isinstance(examples, StoredExamples) else [example.key for example in examples]


def chosen(examples: Sequence[Example], wanted: npt.NDArray[np.bool_]) -> Sequence[Example]:
    """Those of the examples that are `wanted` (n,), in their order."""
    numbers = np.flatnonzero(wanted)
    if isinstance(examples, StoredExamples):
        return examples.take(numbers)
    return tuple(examples[number] for number in numbers.tolist())


def which(examples: Sequence[Example], wanted: Container[str]) -> npt.NDArray[np.bool_]:
    """Of which of the examples (n,) the key is in `wanted`."""
    return np.fromiter((key in wanted for key in keys_of(examples)), dtype=bool, count=len(examples))


def _append(made: ArraysToFill, examples: Sequence[Example]) -> None:
    made.append("key", key_rows(example.key for example in examples))
    for name, spans in (
        ("step", [example.marked.step_spans for example in examples]),
        ("word", [example.marked.critical_spans for example in examples]),
    ):
        made.append_lengths(f"{name}_offset", [len(one) for one in spans])
        made.append(f"{name}_spans", np.array([span for one in spans for span in one], np.int32).reshape(-1, 2))
    texts = [canonical(_fields(example.rationale)) for example in examples]
    made.append_lengths("text_offset", [len(text) for text in texts])
    made.append("text", np.frombuffer(b"".join(texts), np.uint8))


def _kept(place: Place, arrays: Arrays) -> Kept:
    about = json.loads(arrays["about"].tobytes())
    return Kept(
        selection=Selection(examples=StoredExamples(place, arrays), dropped=about["dropped"]), about=about["about"]
    )


def _bytes(value: JSON) -> Array:
    return np.frombuffer(canonical(value), np.uint8)


def _fields(rationale: Rationale) -> JSON:
    return {**vars(rationale), "question": vars(rationale.question)}  # `asdict` copies each value, which takes longer


def _rationale(fields: Mapping[str, Any]) -> Rationale:
    question = fields["question"]
    lists = {name: tuple(question[name]) for name in ("choices", "keywords")}
    keywords = tuple(fields["keywords"])
    return Rationale(**{**fields, "question": Question(**{**question, **lists}), "keywords": keywords})


def _spans(spans: Array) -> tuple[Span, ...]:
    return tuple((start, end) for start, end in spans.tolist())
