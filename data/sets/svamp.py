"""SVAMP: one-step word problems with numbers that do not matter (arXiv 2103.07191).

    {"ID": "chal-508", "Body": "Marco and his dad went strawberry picking. Marco's dad's strawberries weighed 11 pounds.
     If together their strawberries weighed 30 pounds.", "Question": "How much did Marco's strawberries weigh?",
     "Equation": "( 30.0 - 11.0 )", "Answer": 19.0, "Type": "Subtraction"}

The body often lacks its final period.
"""

from data.dataset import published
from data.records import Question
from data.rows.row import Row


def read(row: Row) -> Question:
    """Body and question, apart by a period; the answer is a number."""
    body = row.text("Body")
    return row.question(
        id_fields=("ID", "id"),
        text=f"{body if body[-1] in '.!?' else body + '.'} {row.text('Question')}",
        answer=row.optional("Answer"),
        kind="number",
    )


SET = published(hub="ChilleD/SVAMP", read=read)
