"""Worked examples that a teacher is shown before a question: a list's name enters, its questions with rationales leave.

A list is a file of `data/exemplars/`: one for each published data set that has its own, in that set's manner, and one
for each kind of answer, which stands before questions of a user's own files, of made-up ones, and of sets without a
list. `keywords` is shown where key words are asked for. All were written for this project, in the form that the steps
rule `periods` expects: short sentences, one thought each, one to a line. Every equation in them holds, and the last one
gives the answer.

    - question: Where would someone most likely keep milk so that it does not spoil?
      choices: [cupboard, refrigerator, oven]      # where there are any; the answer is then the letter
      rationale: >-
        Milk spoils quickly when it is warm.
        Of the choices, only a refrigerator is kept cold.
      answer: B
      keywords: [milk, spoil, refrigerator]        # where key words are asked for

The kind of an answer follows from what it says: a number, yes or no, several numbers, else words.
"""

from functools import cache
from pathlib import Path

from data.answers.canonical import kind_of
from data.answers.choices import with_choices
from data.errors import DataError
from data.records import Question

FOLDER = Path(__file__).with_name("exemplars")
_TEXTS, _LISTS = ("question", "rationale", "answer"), ("choices", "keywords")


@cache
def worked_examples(name: str) -> tuple[Question, ...]:
    """The list of a data set or of a kind of answer; empty where there is none of that name."""
    path = FOLDER / f"{name}.yaml"
    return read_examples(path) if path.is_file() else ()


def read_examples(path: Path) -> tuple[Question, ...]:
    """All entries of a file; raises DataError that names the file and the entry."""
    import yaml  # who renders no prompt needs none of it

    try:
        # Plain text alone: `no`, `7` and `9:15` stay what is written. The parser in C is ten times as fast.
        loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise DataError(f"{path}: no YAML: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: expected a list of worked examples, found {type(entries).__name__}")
    return tuple(_question(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, start=1))


def _question(entry: object, where: str) -> Question:
    if not isinstance(entry, dict) or entry.keys() - set(_LISTS) != set(_TEXTS):
        raise DataError(f"{where}: expected {', '.join(_TEXTS)}, if wanted {' and '.join(_LISTS)}, found {entry!r}")
    texts, lists = [entry[field] for field in _TEXTS], [entry.get(field, []) for field in _LISTS]
    parts = [*texts, *(text for listed in lists if isinstance(listed, list) for text in listed)]
    if not all(isinstance(part, str) and part for part in parts) or not all(isinstance(each, list) for each in lists):
        raise DataError(f"{where}: expected texts that are not empty and lists of them, found {entry!r}")
    (text, rationale, answer), (choices, keywords) = texts, lists
    return Question(
        id="exemplar",
        dataset="exemplar",
        text=with_choices(text, choices) if choices else text,
        answer=answer,
        answer_kind="choice" if choices else kind_of(answer),
        choices=tuple(choices),
        keywords=tuple(keywords),
        reference=rationale,
    )
