"""A user's own table, with a line of column names; otherwise like `data.sets.jsonl`.

    id,question,answer,choices
    x,Where does bread bake?,b,pond | oven

Choices in one cell are separated by |.
"""

from functools import partial

from data.dataset import DataSet
from data.rows.files import csv_rows
from data.sets.jsonl import own_questions

SET = DataSet(questions=partial(own_questions, usual=csv_rows))
