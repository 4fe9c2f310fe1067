r"""GSM8K: word problems of several steps, each with a worked solution (arXiv 2110.14168).

Lines such as

    {"question": "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of babysitting. How much
     did she earn?", "answer": "Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.\nWorking 50 minutes, she earned
     0.2 x 50 = $<<0.2*50=10>>10.\n#### 10"}
"""

from data.dataset import published
from data.patterns import regex
from data.records import Question
from data.rows.row import Row

_CALCULATION = regex(r"<<[^>]*>>")


def read(row: Row) -> Question:
    """The solution without its <<calculations>> is the reference; its last line, "#### 10", is the answer."""
    solution = row.optional("answer")
    reference, mark, answer = str(solution or "").rpartition("####")
    if solution is not None and not mark:
        raise row.error("expected a line '#### number' at the end of 'answer', found none")
    return row.question(
        text=row.text("question"),
        answer=answer if mark else None,
        kind="number",
        reference=_CALCULATION.sub("", reference).strip() or None,
    )


SET = published(hub="openai/gsm8k:main", read=read)
