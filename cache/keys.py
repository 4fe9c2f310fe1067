"""Keys of questions and records: a question or marked record enters, the hash of its content leaves.

Since a key says nothing about position or file, stores grow, are shared and are merged by content alone.
"""

from dataclasses import asdict

from cache.fingerprints import fingerprint
from data.records import Marked, Question


def question_key(question: Question, prompt: str) -> str:
    """Return the key (64 hex digits) of a question as it is put with `prompt`, over every field of the question."""
    return fingerprint({"key": "question", "question": asdict(question), "prompt": prompt})


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
