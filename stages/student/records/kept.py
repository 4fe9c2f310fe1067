"""What students read, tokenized once for a selection and a tokenizer: kept beside the store for every seed and process.

In: examples, a tokenizer, and targets by key. Out: a sequence of training records. Those of a selection that is kept
(`stages.attention.selected`) are cut out of a memory map when somebody asks for one, so that a process holds none of
them; other examples are tokenized into memory.

Arrays of the map, T tokens of a record: of each task `<task>_ids`, and `<task>_written`, 1 where the student has to
write the token, those of record r from `<task>_offset[r]` on. Of the texts of `explain` also `text_tokens` (n), how
many of these tokens are of the text and no added end token, `step_of_token` and `spans` (…, 2), which have zeros behind
them; `steps` (n), and `word_tokens`, those of word w from `word_token_offset[w]` on, where the words of record r begin
with number `word_offset[r]`.

Shapes: T tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import get_args, overload

import numpy as np
import numpy.typing as npt
import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from cache.arrays import Array, Arrays, ArraysToFill, make_arrays, part, read_arrays
from cache.derived import code_version
from cache.fingerprints import Spec, fingerprint
from cache.keys import Keys
from data.prompts import explain_prompt
from stages.attention.select import Example
from stages.attention.selected import StoredExamples
from stages.attention.tokens import Located
from stages.head import IGNORED
from stages.mixture import Target
from stages.runtime.progress import TEXTS, Progress
from stages.settings import Task
from stages.student.texts import TrainingRecord, TrainingText, answer_from, explain_prefix, name_of, training_records

SUFFIX = "tokens"
PIECE = 1024
"""Records that are tokenized together."""
SOURCES = ("data/prompts.py", "data/answers/*.py", "stages/attention/tokens.py", "stages/student/texts.py")
"""Which of our own files say, beside those of a selection, what tokens its records have."""
TASKS: tuple[Task, ...] = get_args(Task)


class KeptRecords(Sequence[TrainingRecord]):
    """The training records of examples, of which each is made when it is asked for."""

    def __init__(self, examples: StoredExamples, arrays: Arrays, targets: Mapping[str, Target]) -> None:
        """Serve the records of `examples`, whose tokens lie in `arrays`, with their `targets`, or without any."""
        self._examples, self._arrays, self._targets = examples, arrays, targets

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, number: int) -> TrainingRecord: ...
    @overload
    def __getitem__(self, number: slice) -> "KeptRecords": ...
    def __getitem__(self, number: int | slice) -> "TrainingRecord | KeptRecords":
        """The record of a number, or those of several."""
        if isinstance(number, slice):
            return KeptRecords(self._examples[number], self._arrays, self._targets)
        example, row = self._examples[number], int(self._examples.rows[number])
        return TrainingRecord(
            key=example.key,
            name=name_of(example),
            predict=self._text("predict", row),
            explain=self._text("explain", row),
            located=self._located(example, row),
            target=self._targets.get(example.key),
            rationale_from=len(explain_prompt(example.marked.question)),
            answer_from=answer_from(example),
        )

    @property
    def keys(self) -> Keys:
        """Their keys."""
        return self._examples.keys

    @property
    def largest_id(self) -> int:
        """The largest token id of the selection, of which these may be some."""
        return max(int(self._arrays[f"{task}_ids"].max()) for task in TASKS)

    def lengths(self, task: Task) -> npt.NDArray[np.int64]:
        """Tokens of the texts of a task (n,)."""
        lengths: npt.NDArray[np.int64] = np.diff(self._arrays[f"{task}_offset"])[self._examples.rows]
        return lengths

    def take(self, numbers: npt.NDArray[np.int64]) -> "KeptRecords":
        """Those of these numbers."""
        return KeptRecords(self._examples.take(numbers), self._arrays, self._targets)

    def _text(self, task: Task, row: int) -> TrainingText:
        tokens = part(self._arrays[f"{task}_offset"], row)
        ids = self._arrays[f"{task}_ids"][tokens].astype(np.int64)
        written = self._arrays[f"{task}_written"][tokens].astype(bool)
        return TrainingText(ids=ids, labels=np.where(written, ids, IGNORED))

    def _located(self, example: Example, row: int) -> Located:
        arrays = self._arrays
        first = int(arrays["explain_offset"][row])
        tokens = slice(first, first + int(arrays["text_tokens"][row]))
        words = part(arrays["word_offset"], row)
        marked = example.marked
        return Located(
            ids=arrays["explain_ids"][tokens].astype(np.int64),
            step_of_token=arrays["step_of_token"][tokens].astype(np.int64),
            tokens_of_word=tuple(
                arrays["word_tokens"][part(arrays["word_token_offset"], word)].astype(np.int64)
                for word in range(words.start, words.stop)
            ),
            steps=int(arrays["steps"][row]),
            text=explain_prefix(marked.question) + marked.text,
            spans=arrays["spans"][tokens].astype(np.int64),
        )


def read_records(
    tokenizer: PreTrainedTokenizerBase,
    tokenizer_hash: str,
    examples: Sequence[Example],
    targets: Mapping[str, Target],
    progress: Progress,
) -> Sequence[TrainingRecord]:
    """The training records of examples, in their order; `tokenizer_hash` says which tokenizer it is.

    Those of a selection that is kept are tokenized if no earlier process has done so, all of the selection at once.
    """
    if not isinstance(examples, StoredExamples):
        found = [targets.get(example.key) for example in examples]
        return [
            record
            for first in range(0, len(examples), PIECE)
            for record in training_records(tokenizer, examples[first : first + PIECE], found[first : first + PIECE])
        ]
    place = examples.place
    of: Spec = {"tokenizer": tokenizer_hash}
    head: Spec = {
        "selection": fingerprint(place.head),
        **of,
        "class": type(tokenizer).__name__,
        "libraries": {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__},
        "code": code_version(*SOURCES, f"{__name__.replace('.', '/')}.py"),
    }
    path = place.path(SUFFIX, of)
    arrays = read_arrays(path, head)
    if arrays is None:
        arrays = make_arrays(path, head, _tokenizing(tokenizer, examples.all, progress))
    return KeptRecords(examples, arrays, targets)


def largest_id(records: Sequence[TrainingRecord]) -> int:
    """The largest token id in any text."""
    if isinstance(records, KeptRecords):
        return records.largest_id
    return max(int(record.text(task).ids.max()) for record in records for task in TASKS)


def keys_of_records(records: Sequence[TrainingRecord]) -> Sequence[str]:
    """The keys of records, in their order."""
    return records.keys if isinstance(records, KeptRecords) else [record.key for record in records]


def lengths_of(records: Sequence[TrainingRecord], task: Task) -> npt.NDArray[np.int64]:
    """Tokens of the texts of a task (n,)."""
    if isinstance(records, KeptRecords):
        return records.lengths(task)
    return np.array([len(record.text(task).ids) for record in records], dtype=np.int64)


def longest_of(records: Sequence[TrainingRecord]) -> npt.NDArray[np.int64]:
    """Tokens of the longer text of each record (n,)."""
    longest: npt.NDArray[np.int64] = np.maximum(lengths_of(records, "predict"), lengths_of(records, "explain"))
    return longest


def take_records(records: Sequence[TrainingRecord], numbers: npt.NDArray[np.int64]) -> Sequence[TrainingRecord]:
    """Those of the records that have these numbers."""
    return records.take(numbers) if isinstance(records, KeptRecords) else [records[n] for n in numbers.tolist()]


def _tokenizing(
    tokenizer: PreTrainedTokenizerBase, examples: StoredExamples, progress: Progress
) -> Callable[[ArraysToFill], None]:
    """What fills the arrays with the records of examples, some at a time."""

    def fill(made: ArraysToFill) -> None:
        progress.start(TEXTS, len(examples))
        for first in range(0, len(examples), PIECE):
            some = list(examples[first : first + PIECE])
            _append(made, training_records(tokenizer, some, [None] * len(some)))
            progress.advance(len(some))

    return fill


def _append(made: ArraysToFill, records: Sequence[TrainingRecord]) -> None:
    for task in TASKS:
        texts = [record.text(task) for record in records]
        made.append_lengths(f"{task}_offset", [len(text.ids) for text in texts])
        made.append(f"{task}_ids", _int32([text.ids for text in texts]))
        made.append(f"{task}_written", np.concatenate([text.labels != IGNORED for text in texts]).astype(np.uint8))
    places = [record.located for record in records]
    ends = [len(record.explain.ids) - len(record.located.ids) for record in records]
    made.append("text_tokens", np.array([len(place.ids) for place in places], np.int32))
    made.append("steps", np.array([place.steps for place in places], np.int32))
    for name, values in (
        ("step_of_token", [place.step_of_token for place in places]),
        ("spans", [place.spans for place in places]),
    ):
        made.append(name, _int32([_padded(*each) for each in zip(values, ends, strict=True)]))
    words = [tokens for place in places for tokens in place.tokens_of_word]
    made.append_lengths("word_offset", [len(place.tokens_of_word) for place in places])
    made.append_lengths("word_token_offset", [len(tokens) for tokens in words])
    made.append("word_tokens", _int32(words))


def _int32(rows: Sequence[Array]) -> Array:
    whole = np.concatenate([np.empty((0, *rows[0].shape[1:]) if rows else 0, np.int64), *rows])
    narrow: Array = whole.astype(np.int32)
    assert np.array_equal(narrow, whole), "a number of more than 32 bits"
    return narrow


def _padded(values: Array, more: int) -> Array:
    return np.concatenate([values, np.zeros((more, *values.shape[1:]), values.dtype)])
