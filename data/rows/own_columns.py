"""Columns of a user's own file: question, answer, id, choices, and what others call them.

Enters: the rows of a file. Leaves: those that have what they need under its own name. A column that says the same under
another name is refused and named, for otherwise its answers would be read as none, and the letter of a choice as a
text. An `answer` that is there and empty says that there is no label, whatever else the file holds.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from data.errors import DataError
from data.patterns import regex
from data.rows.row import Refuse, Row, shown

OTHER_NAMES = {
    "question": "questions questiontext input inputs problem prompt body query instruction stem text",
    "answer": "answers label labels target targets gold output outputs solution solutions response completion correct "
    "correctanswer finalanswer goldanswer groundtruth answerkey expected expectedanswer",
    "choices": "choice options option answerchoices answeroptions",
    "id": "",
}
"""As others write them, without blanks and marks between words; each also in any case."""
SEPARATE_CHOICES = regex(r"(?:option|choice|op)[ab12]|(?:answer|ans)[ab]|sol[12]|[ab]")
"""The first columns of a file that has one for each choice: A and B, option1 and option2."""
HELP = {
    "question": "rename it",
    "answer": "rename it, or add an empty 'answer' where there is no label",
    "choices": "rename it, or add empty 'choices' if it holds none",
    "id": "rename it",
}
"""The names that are ours, and what to do about another."""
NAMED = 8
"""So many columns are named where there is no question."""


def with_known_columns(rows: Sequence[Row], place: str, refuse: Refuse) -> list[Row]:
    """The rows whose columns are ours; what is wrong with every row is said once, of the `place`."""
    problems = [_problem(tuple(row.fields)) for row in rows]
    if rows and all(problems):
        refuse(DataError(f"{place}: {problems[0]}"))
        return []
    if rows and all("question" not in row.fields for row in rows):
        names = list(dict.fromkeys(name for row in rows for name in row.fields))
        found = ", ".join([*map(shown, names[:NAMED]), *["…"] * (len(names) > NAMED)])
        refuse(DataError(f"{place}: expected the column 'question', found {found or 'none'}"))
        return []
    for row, problem in zip(rows, problems, strict=True):
        if problem:
            refuse(row.error(problem))
    return [row for row, problem in zip(rows, problems, strict=True) if not problem]


@lru_cache(maxsize=4096)
def _problem(columns: tuple[str, ...]) -> str:
    """What is wrong with the columns of a row; empty where nothing is."""
    plain = {column: re.sub(r"[\W_]+", "", column).casefold() for column in columns if column not in HELP}
    missing = [known for known in HELP if known not in columns]
    return "; ".join(filter(None, (_misnamed(known, plain) for known in missing)))


def _misnamed(known: str, plain: Mapping[str, str]) -> str:
    """What to do about the columns, given with their plain names, that say what `known` should."""
    names = {known, *OTHER_NAMES[known].split()}
    found = [column for column, name in plain.items() if name in names]
    apart = [column for column, name in plain.items() if known == "choices" and SEPARATE_CHOICES.fullmatch(name)]
    if found:
        listed = " and ".join(map(repr, found))
        return f"found the column{'s' * (len(found) > 1)} {listed}, expected {known!r}: {HELP[known]}"
    if len(apart) > 1:
        listed = " and ".join(map(repr, apart))
        return f"found the columns {listed}, expected one column 'choices', where a | stands between them"
    return ""
