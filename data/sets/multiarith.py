"""MultiArith: problems of two steps with whole numbers (Roy and Roth, EMNLP 2015).

One JSON array of this form:

    {"iIndex": 0, "lAlignments": [4, 9], "lEquations": ["X=((32.0+42.0)-35.0)"], "lSolutions": [39.0],
     "sQuestion": " Two bags hold 32 and 42 nuts. If 35 are eaten, how many are left? "}

On the hub the fields are `question` and `final_ans`. SingleEq and AddSub have the same form.
"""

from data.dataset import published
from data.records import Question
from data.rows.row import Row


def read(row: Row) -> Question:
    """The question and its one solution."""
    return row.question(
        id_fields=("iIndex", "id"),
        text=row.text("sQuestion", "question"),
        answer=_solution(row),
        kind="number",
    )


def _solution(row: Row) -> object:
    """The one solution, None where there is none."""
    solutions = row.optional("lSolutions", "final_ans", "answer")
    if not isinstance(solutions, list):
        return solutions
    if len(solutions) > 1:
        raise row.error(f"expected one number in 'lSolutions', found {solutions!r}")
    return next(iter(solutions), None)


SET = published(hub="ChilleD/MultiArith", read=read)
