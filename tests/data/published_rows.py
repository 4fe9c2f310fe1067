"""A row of each published set, as its authors write it and as the hub has it; files of rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.readers import read_questions
from data.records import Question
from data.sets import DatasetName
from data.settings import DataSource

SVAMP_ROW = {
    "ID": "chal-1",
    "Body": "A shop has 5 lamps and 3 desks",
    "Question": "How many lamps?",
    "Equation": "5.0",
    "Answer": 5.0,
    "Type": "Addition",
}
GSM8K_ROW = {
    "question": "How much is 3 boxes at $1,200?",
    "answer": "Each is 1200.\nIt is 3*1200 = $<<3*1200=3600>>3600\n#### 3,600",
}
CHOICES = [{"label": "A", "text": "pond"}, {"label": "B", "text": "oven"}]
CSQA_ROW = {
    "id": "c1",
    "answerKey": "B",
    "question": {"stem": "Where does bread bake?", "question_concept": "bread", "choices": CHOICES},
}
CSQA_HUB_ROW = {
    "id": "c1",
    "answerKey": "B",
    "question": "Where does bread bake?",
    "question_concept": "bread",
    "choices": {"label": ["A", "B"], "text": ["pond", "oven"]},
}
STRATEGY_ROW = {
    "qid": "s1",
    "term": "Bridge over the River Kwai",
    "question": "Is it old?",
    "answer": True,
    "facts": ["It was built long ago", "Long ago is  old."],
}
MULTIARITH_ROW = {
    "iIndex": 0,
    "lAlignments": [4, 9],
    "lEquations": ["X=((32.0+42.0)-35.0)"],
    "lSolutions": [39.0],
    "sQuestion": " Two bags hold 32 and 42 nuts. If 35 are eaten, how many are left? ",
}
SINGLEEQ_ROW = {
    "lEquations": ["0.5 + x = 1.25"],
    "lSolutions": [0.75],
    "grammarCheck": 0,
    "templateNumber": 0,
    "sQuestion": "A jar held 0.5 cups. Now it holds 1.25 cups. How much was added ?",
    "iIndex": 17,
}
ADDSUB_ROW = {
    "iIndex": 3,
    "lEquations": ["X = 8 - 2"],
    "lSolutions": ["6"],
    "sQuestion": "Ida had 8 nuts . She ate 2 . How many has she ? ",
}
AQUA_ROW = {
    "question": "A jar of 20 nuts loses 15%. How many are left?",
    "options": ["A)3", "B)5", "C)15", "D)17", "E)None of these"],
    "rationale": "15% of 20 is 3.\n20 - 3 = 17.\nAnswer: D",
    "correct": "D",
}
ASDIV_XML = """<?xml version="1.0" encoding="UTF-8" ?>
<Machine-Reading-Corpus-File>
<ProblemSet>
	<Problem ID="nluds-1" Grade="1" Source="http://example.org">
		<Body>Seven nuts and two figs lie in a bowl.</Body>
		<Question>How many fruits are in the bowl? </Question>
		<Solution-Type>Addition</Solution-Type>
		<Answer>9 (fruits)</Answer>
		<Formula>7+2=9</Formula>
	</Problem>
	{problems}
</ProblemSet>
</Machine-Reading-Corpus-File>
"""
ASDIV_HUB_ROW = {
    "body": "Seven nuts and two figs lie in a bowl.",
    "question": "How many fruits are in the bowl?",
    "solution_type": "Addition",
    "answer": "9 (fruits)",
    "formula": "7+2=9",
}
CSQA_TEXT = "Where does bread bake?\nAnswer Choices:\n(A) pond\n(B) oven"
HUB_ROWS: dict[DatasetName, Mapping[str, object]] = {
    "svamp": SVAMP_ROW | {"Answer": "5.0", "question_concat": "…"},
    "gsm8k": GSM8K_ROW,
    "asdiv": ASDIV_HUB_ROW,
    "multiarith": {"question": "How many? ", "final_ans": "39"},
    "aqua": AQUA_ROW,
    "commonsenseqa": CSQA_HUB_ROW,
    "strategyqa": STRATEGY_ROW | {"facts": "It was built long ago. Long ago is old.", "description": "A bridge"},
}


def write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_one(name: DatasetName, path: Path) -> Question:
    (question,) = read_questions(DataSource(name=name, path=str(path)))
    return question
