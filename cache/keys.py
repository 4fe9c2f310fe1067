"""Keys of questions and records: a question or marked record enters, the hash of its content leaves; and their lookup.

Since a key says nothing about position or file, stores grow, are shared and are merged by content alone.

A dict of half a million strings takes seconds of every opening and 100 MB of every worker. In a `KeyIndex` the first
eight bytes of the keys are sorted as numbers and searched; the full key decides. Keys are hashes, so that hardly two of
them begin alike, and where they do, the lookup goes through those that do.

n keys, those of a record that two jobs computed counted twice.
"""

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from cache.fingerprints import fingerprint
from data.records import Marked, Question

KEY = re.compile(r"[0-9a-f]{64}")
"""What every key looks like, written out."""

KEY_BYTES = 32
WORD = np.dtype(">u8")
"""Eight bytes as the number that their hex digits write."""

KeyRows = npt.NDArray[np.uint8]


def question_key(question: Question, prompt: str) -> str:
    """Return the key (64 hex digits) of a question as it is put with `prompt`: its text, its choices, its gold answer.

    Its id and the name of its data set are no content: the same question in a file of another name is the same.
    """
    return fingerprint(
        {
            "key": "question",
            "text": question.text,
            "choices": question.choices,
            "answer": question.answer,
            "answer_kind": question.answer_kind,
            "prompt": prompt,
        }
    )


def record_key(marked: Marked) -> str:
    """Return the key (64 hex digits) of a marked record: its question, its rationale and the spans found in both."""
    return fingerprint(
        {
            "key": "record",
            "question": marked.question,
            "rationale": marked.rationale,
            "step_spans": marked.step_spans,
            "critical_spans": marked.critical_spans,
        }
    )


def records_without(known: Container[str], records: Iterable[Marked]) -> dict[str, Marked]:
    """Return the marked records whose keys are not in `known`, each once, by their keys."""
    keyed = ((record_key(marked), marked) for marked in records)
    return {key: marked for key, marked in keyed if key not in known}


def keywords_key(prompt: str, max_tokens: int) -> str:
    """Return the key (64 hex digits) of a question for key words: what is asked, which holds question and rationale."""
    return fingerprint({"key": "keywords", "prompt": prompt, "max_tokens": max_tokens})


def hex_keys(rows: KeyRows) -> Iterator[str]:
    """Yield keys (n, 32) as strings of 64 hex digits, which exist only as long as somebody holds them."""
    digits = rows.tobytes().hex()
    return (digits[start : start + 2 * KEY_BYTES] for start in range(0, len(digits), 2 * KEY_BYTES))


class Keys(Sequence[str]):
    """Keys (n, 32) as strings of 64 hex digits, which exist only as long as somebody holds them."""

    def __init__(self, rows: KeyRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> "Keys": ...
    def __getitem__(self, number: int | slice) -> "str | Keys":
        """The key of a number, or those of several."""
        return Keys(self.rows[number]) if isinstance(number, slice) else self.rows[number].tobytes().hex()

    def __iter__(self) -> Iterator[str]:
        return hex_keys(self.rows)


def key_rows(keys: Iterable[str]) -> KeyRows:
    """Return keys of 64 hex digits as bytes (n, 32)."""
    if isinstance(keys, Keys):
        return keys.rows
    return np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(-1, KEY_BYTES)


def are_among(rows: KeyRows, others: KeyRows) -> npt.NDArray[np.bool_]:
    """Return which of the keys (n, 32) are among others (m, 32), as (n,)."""
    return np.isin(_whole(rows), _whole(others))


def in_order(keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the numbers of keys in the order in which they sort."""
    if isinstance(keys, Keys):
        return np.argsort(_whole(keys.rows), kind="stable")
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


class KeyIndex:
    """Positions of keys in the order given; of equal keys the first one counts."""

    def __init__(self, parts: Sequence[KeyRows]) -> None:
        """Index the keys of several parts, each (n, 32)."""
        self.rows: KeyRows = np.concatenate([np.empty((0, KEY_BYTES), np.uint8), *parts])
        heads = _columns(self.rows)[:, 0]
        self._order = np.argsort(heads, kind="stable")
        self._heads = heads[self._order].astype(np.uint64)
        self._again = self._repeated()

    def _repeated(self) -> npt.NDArray[np.int64]:
        """Positions, in order, of keys that have been there before."""
        alike = np.flatnonzero(self._heads[1:] == self._heads[:-1])
        earlier, later = self._order[alike], self._order[alike + 1]
        columns = _columns(self.rows)
        if not np.array_equal(columns[earlier], columns[later]):  # different keys that begin alike
            suspects = np.union1d(earlier, later)
            order = np.lexsort(columns[suspects].T)  # stable: of equal keys the first comes first
            same = (columns[suspects[order[1:]]] == columns[suspects[order[:-1]]]).all(axis=1)
            later = suspects[order[1:][same]]
        repeated: npt.NDArray[np.int64] = np.sort(later)
        return repeated

    def find(self, key: object) -> int | None:
        """Return the first position of a key of 64 hex digits; None where it is not there."""
        try:
            head = np.uint64(int(key[:16], 16))  # type: ignore[index]
        except (TypeError, ValueError, OverflowError):
            return None
        place = int(self._heads.searchsorted(head))
        while place < len(self._heads) and self._heads[place] == head:
            position = int(self._order[place])
            if self.rows[position].tobytes().hex() == key:
                return position
            place += 1
        return None

    def __len__(self) -> int:
        return len(self.rows) - len(self._again)

    def __iter__(self) -> Iterator[str]:
        """Yield every key once, in order."""
        return hex_keys(np.delete(self.rows, self._again, axis=0) if len(self._again) else self.rows)


def _whole(rows: KeyRows) -> npt.NDArray[np.bytes_]:
    """Keys (n, 32) as one value each, which compares as they do: all are as long, so no zero at an end is lost."""
    whole: npt.NDArray[np.bytes_] = np.ascontiguousarray(rows).view(f"S{KEY_BYTES}")[:, 0]
    return whole


def _columns(rows: KeyRows) -> npt.NDArray[np.uint64]:
    """Keys (n, 32) as four numbers each, (n, 4)."""
    columns: npt.NDArray[np.uint64] = np.ascontiguousarray(rows).view(WORD)
    return columns
