"""Keys of questions and records: a question or marked record enters, the hash of its content leaves.

Since a key says nothing about position or file, stores grow, are shared and are merged by content alone.
"""

import re

from cache.fingerprints import fingerprint
from data.records import Marked, Question

KEY = re.compile(r"[0-9a-f]{64}")
"""What every key looks like, written out."""


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


def keywords_key(prompt: str, max_tokens: int) -> str:
    """Return the key (64 hex digits) of a question for key words: what is asked, which holds question and rationale."""
    return fingerprint({"key": "keywords", "prompt": prompt, "max_tokens": max_tokens})
