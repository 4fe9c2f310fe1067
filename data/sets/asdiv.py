"""ASDiv: problems of primary school in many wordings, with answers of several kinds (arXiv 2106.15772).

Elements of this form in XML:

    <Problem ID="nluds-1" Grade="1" Source="http://example.org">
        <Body>Seven nuts and two figs lie in a bowl.</Body>
        <Question>How many fruits are in the bowl? </Question>
        <Solution-Type>Addition</Solution-Type>
        <Answer>9 (fruits)</Answer>
        <Formula>7+2=9</Formula>
    </Problem>

On the hub the fields have small letters. Labels are rounded results, "16.3" for 114 / 7.
"""

import re

from data.answers.canonical import kind_of
from data.dataset import published
from data.records import Question
from data.rows.row import Row


def read(row: Row) -> Question:
    """Body and question, which may be one sentence, and an answer with its unit in brackets.

    Most answers are one number, "9 (apples)". Some are several, "8 (ft); 128 (sq. ft)", or a ratio, "9:7"; those to
    "which" and "who" are names, "Mrs. Hilt".
    """
    body, raw = str(row.optional("Body", "body") or "").strip(), row.optional("Answer", "answer")
    answer = None if raw is None else _without_unit(str(raw))
    return row.question(
        id_fields=("ID", "id"),
        text=f"{_running_on(body)}{row.text('Question', 'question')}",
        answer=answer,
        kind="number" if answer is None else kind_of(answer),
    )


def _without_unit(raw: str) -> str:
    """An answer without what stands in brackets behind it, unless there is nothing else."""
    return re.sub(r"\s*\([^()]*\)\s*$", "", raw) or raw


def _running_on(body: str) -> str:
    return "" if not body else f"{body} " if body[-1] in ".!?,;:" else f"{body}. "


SET = published(hub="EleutherAI/asdiv", read=read, rounded_labels=True)
