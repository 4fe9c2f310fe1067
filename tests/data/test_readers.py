"""Every reader: on small files written here, on the hub's layout, and on all rows of the real benchmarks."""

import gzip
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from data.answers import parse_answer, same_answer
from data.errors import ConfigError, DataError
from data.marking import Keywords, mark
from data.prompts import answer_sentence, finish_rationale, predict_target
from data.readers import read_questions, read_rationales
from data.records import Question
from data.settings import DatasetName, DataSource

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


def write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_one(name: DatasetName, path: Path) -> Question:
    (question,) = read_questions(DataSource(name=name, path=str(path)))
    return question


def test_svamp_joins_body_and_question_and_adds_the_missing_period(tmp_path: Path) -> None:
    question = read_one("svamp", write_lines(tmp_path / "a.jsonl", [SVAMP_ROW]))
    assert question == Question(
        id="chal-1",
        dataset="svamp",
        text="A shop has 5 lamps and 3 desks. How many lamps?",
        answer="5",
        answer_kind="number",
        benchmark="svamp",
    )


def test_svamp_keeps_a_period_that_is_there(tmp_path: Path) -> None:
    row = SVAMP_ROW | {"Body": "A shop has 5 lamps. ", "Answer": "5.0"}
    assert read_one("svamp", write_lines(tmp_path / "a.jsonl", [row])).text == "A shop has 5 lamps. How many lamps?"


def test_gsm8k_solution_loses_calculations_and_answer_line(tmp_path: Path) -> None:
    question = read_one("gsm8k", write_lines(tmp_path / "train.jsonl", [GSM8K_ROW]))
    assert (question.id, question.answer) == ("gsm8k-train-1", "3600")
    assert question.reference == "Each is 1200.\nIt is 3*1200 = $3600"


def test_commonsenseqa_lists_its_choices(tmp_path: Path) -> None:
    question = read_one("commonsenseqa", write_lines(tmp_path / "a.jsonl", [CSQA_ROW]))
    assert question == Question(
        id="c1",
        dataset="commonsenseqa",
        text=CSQA_TEXT,
        answer="B",
        answer_kind="choice",
        choices=("pond", "oven"),
        keywords=("bread", "pond", "oven"),
        benchmark="commonsenseqa",
    )


def test_commonsenseqa_of_the_hub_gives_the_same_question(tmp_path: Path) -> None:
    local = read_one("commonsenseqa", write_lines(tmp_path / "a.jsonl", [CSQA_ROW]))
    assert read_one("commonsenseqa", write_lines(tmp_path / "b.jsonl", [CSQA_HUB_ROW])) == local


def test_strategyqa_joins_facts_and_names_the_words_of_its_term(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps([STRATEGY_ROW], indent=4))
    question = read_one("strategyqa", path)
    assert (question.id, question.answer, question.answer_kind) == ("s1", "yes", "boolean")
    assert question.reference == "It was built long ago. Long ago is old."
    assert question.keywords == ("Bridge over the River Kwai", "Bridge", "over", "River", "Kwai")


def asdiv(tmp_path: Path, body: str, asked: str, answer: str | None) -> Question:
    """The second question of a file, made of these parts."""
    label = "" if answer is None else f"<Answer>{answer}</Answer>"
    problem = f'<Problem ID="nluds-2"><Body>{body}</Body><Question>{asked}</Question>{label}</Problem>'
    path = tmp_path / "ASDiv.xml"
    path.write_text(ASDIV_XML.format(problems=problem))
    return read_questions(DataSource(name="asdiv", path=str(path)))[1]


def test_asdiv_is_read_from_its_xml(tmp_path: Path) -> None:
    path = tmp_path / "ASDiv.xml"
    path.write_text(ASDIV_XML.format(problems=""))
    assert read_one("asdiv", path) == Question(
        id="nluds-1",
        dataset="asdiv",
        text="Seven nuts and two figs lie in a bowl. How many fruits are in the bowl?",
        answer="9",
        answer_kind="number",
        benchmark="asdiv",
    )


@pytest.mark.parametrize(
    ("answer", "kind", "canonical"),
    [
        ("12 (inches of snow)", "number", "12"),
        ("119", "number", "119"),
        ("65.0 (dollars)", "number", "65"),
        ("1/8 (of the cake)", "number", "0.125"),
        ("1,200 (km)", "number", "1200"),
        ("8 (ft); 128 (sq. ft)", "numbers", "8; 128"),
        ("30 (degrees); 60 (degrees); 90 (degrees)", "numbers", "30; 60; 90"),
        ("18; 12", "numbers", "18; 12"),
        ("10:1", "numbers", "10:1"),
        ("8:05 (a.m.)", "numbers", "8:05"),
        ("Mrs. Hilt", "text", "Mrs. Hilt"),
        ("Brand B", "text", "Brand B"),
        ("The men's track team", "text", "The men's track team"),
        ("Yes", "boolean", "yes"),
        (None, "number", None),
    ],
)
def test_answers_of_asdiv_are_numbers_several_of_them_or_names(
    tmp_path: Path, answer: str | None, kind: str, canonical: str | None
) -> None:
    question = asdiv(tmp_path, "Some facts.", "What is it?", answer)
    assert (question.answer_kind, question.answer) == (kind, canonical)


@pytest.mark.parametrize(
    ("body", "asked", "text"),
    [
        ("If they sold 2 games,", "how much did they earn?", "If they sold 2 games, how much did they earn?"),
        ("They sold 2 games", "How much was it?", "They sold 2 games. How much was it?"),
        ("", "What is 2 &lt; 3?", "What is 2 < 3?"),
    ],
)
def test_a_body_of_asdiv_may_run_on_into_the_question(tmp_path: Path, body: str, asked: str, text: str) -> None:
    assert asdiv(tmp_path, body, asked, "3").text == text


@pytest.mark.parametrize(
    ("name", "row", "identifier", "text", "answer"),
    [
        ("multiarith", MULTIARITH_ROW, "0", str(MULTIARITH_ROW["sQuestion"]).strip(), "39"),
        ("singleeq", SINGLEEQ_ROW, "17", SINGLEEQ_ROW["sQuestion"], "0.75"),
        ("addsub", ADDSUB_ROW, "3", str(ADDSUB_ROW["sQuestion"]).strip(), "6"),
        ("multiarith", {"question": "How many? ", "final_ans": "39"}, "multiarith-a-1", "How many?", "39"),
        ("singleeq", SINGLEEQ_ROW | {"lSolutions": []}, "17", SINGLEEQ_ROW["sQuestion"], None),
    ],
)
def test_sets_with_solutions_are_read_from_one_json_array(
    tmp_path: Path, name: DatasetName, row: Mapping[str, object], identifier: str, text: str, answer: str | None
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row]))
    assert read_one(name, path) == Question(
        id=identifier,
        dataset=name,
        text=text,
        answer=answer,
        answer_kind="number",
        benchmark=name,  # type: ignore[arg-type]
    )


def test_options_of_aqua_lose_their_letters_and_its_rationale_the_last_one(tmp_path: Path) -> None:
    choices = ("3", "5", "15", "17", "None of these")
    question = read_one("aqua", write_lines(tmp_path / "test.json", [AQUA_ROW]))
    assert question == Question(
        id="aqua-test-1",
        dataset="aqua",
        text="A jar of 20 nuts loses 15%. How many are left?\nAnswer Choices:\n(A) 3\n(B) 5\n(C) 15\n(D) 17"
        "\n(E) None of these",
        answer="D",
        answer_kind="choice",
        choices=choices,
        keywords=choices,
        reference="15% of 20 is 3.\n20 - 3 = 17.",
        benchmark="aqua",
    )


@pytest.mark.parametrize(
    ("rationale", "reference"),
    [
        ("It is 3.\nThe answer is (D).", "It is 3."),
        ("It is 3. Option B", "It is 3."),
        ("It is 3.\ncorrect option is C", "It is 3."),
        ("It is 3.\nD", "It is 3."),
        ("It is 3.\nFinal Answer:\nA", "It is 3."),
        ("Take vitamin A every day", "Take vitamin A every day"),
        ("A", None),
    ],
)
def test_the_end_of_a_rationale_of_aqua_is_taken_off(tmp_path: Path, rationale: str, reference: str | None) -> None:
    row = AQUA_ROW | {"rationale": rationale}
    assert read_one("aqua", write_lines(tmp_path / "a.json", [row])).reference == reference


def test_odd_options_of_aqua_stay_as_they_are(tmp_path: Path) -> None:
    row = AQUA_ROW | {"options": ["A) 1/2", "B)", "(C)-3", "5", "E)(99,10)"]}
    assert read_one("aqua", write_lines(tmp_path / "a.json", [row])).choices == ("1/2", "", "-3", "5", "(99,10)")


@pytest.mark.parametrize("name", ["singleeq", "addsub"])
def test_a_set_without_a_dependable_place_on_the_hub_needs_a_file(name: DatasetName) -> None:
    with pytest.raises(ConfigError, match=rf"^data {name}: expected path, found none; the hub holds no dependable"):
        read_questions(DataSource(name=name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<Set>\n<Problem", r"ASDiv\.xml:2: no XML: unclosed token"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>\n<Set/>", r"ASDiv\.xml:1: .*no document type declaration"),
        ("<Set>\n<Problem><Body>B.</Body></Problem></Set>", r"ASDiv\.xml:2: .*'Question' or 'question', found None"),
    ],
)
def test_a_broken_xml_file_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ASDiv.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_questions(DataSource(name="asdiv", path=str(path)))


def test_rows_without_label_have_no_answer(tmp_path: Path) -> None:
    unlabelled = {key: value for key, value in CSQA_ROW.items() if key != "answerKey"}
    rows = [unlabelled, unlabelled | {"id": "c2", "answerKey": ""}]
    read = read_questions(DataSource(name="commonsenseqa", path=str(write_lines(tmp_path / "a.jsonl", rows))))
    assert [question.answer for question in read] == [None, None]


@pytest.mark.parametrize(
    ("answers", "kind", "canonical"),
    [
        (["1,000", 3.5, "-2"], "number", ["1000", "3.5", "-2"]),
        (["yes", "False", True], "boolean", ["yes", "no", "yes"]),
        (["yes", 3, "Oslo."], "text", ["yes", "3", "Oslo"]),
        ([None, 4], "number", [None, "4"]),
        ([None], "text", [None]),
    ],
)
def test_answers_of_a_users_file_tell_their_kind(
    tmp_path: Path, answers: list[object], kind: str, canonical: list[str | None]
) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [{"question": "What?", "answer": answer} for answer in answers])
    read = read_questions(DataSource(name="jsonl", path=str(path)))
    assert [question.answer for question in read] == canonical
    assert {question.answer_kind for question in read} == {kind}


def test_rows_without_id_are_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "a", "answer": 1}\n\n{"question": "b", "answer": 2, "id": 7}\n{"question": "c"}\n')
    read = read_questions(DataSource(name="jsonl", path=str(path)))
    assert [(question.id, question.dataset) for question in read] == [
        ("mine-1", "mine"),
        ("7", "mine"),
        ("mine-4", "mine"),
    ]


def test_choices_of_a_users_file_may_be_a_list_or_one_text(tmp_path: Path) -> None:
    lines = write_lines(
        tmp_path / "a.jsonl", [{"question": "Where does bread bake?", "answer": "oven", "choices": ["pond", "oven"]}]
    )
    table = tmp_path / "b.csv"
    table.write_text("id,question,answer,choices\nx,Where does bread bake?,b,pond | oven\n")
    for question in (read_one("jsonl", lines), read_one("csv", table)):
        assert (question.text, question.answer, question.choices) == (CSQA_TEXT, "B", ("pond", "oven"))


def test_csv_with_line_breaks_quotes_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes('question,answer\r\n"Two\r\nlines, ""so""?",3\r\nOne?,4\r\n'.encode("utf-8-sig"))
    read = read_questions(DataSource(name="csv", path=str(path)))
    assert [(question.text, question.answer, question.id) for question in read] == [
        ('Two\nlines, "so"?', "3", "mine-3"),
        ("One?", "4", "mine-4"),
    ]


def test_skip_and_limit_choose_questions(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": f"q{number}", "answer": number} for number in range(10)])
    read = read_questions(DataSource(name="jsonl", path=str(path), skip=3, limit=2))
    assert [question.answer for question in read] == ["3", "4"]


def test_synthetic_questions_come_from_seed_and_split() -> None:
    whole = read_questions(DataSource(name="synthetic", split="test", limit=8, seed=2))
    assert len(whole) == 8
    assert read_questions(DataSource(name="synthetic", split="test", limit=3, skip=5, seed=2)) == whole[5:]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("svamp", '{"ID": 1', "no JSON"),
        ("svamp", "[1]", "expected one JSON object, found list"),
        ("svamp", json.dumps({key: value for key, value in SVAMP_ROW.items() if key != "Body"}), "'Body', found None"),
        ("svamp", json.dumps(SVAMP_ROW | {"Answer": "five"}), "of the kind number, found 'five'"),
        ("gsm8k", '{"question": "q", "answer": "3"}', "'#### number'"),
        ("commonsenseqa", json.dumps(CSQA_ROW | {"answerKey": "F"}), "of the kind choice, found 'F'"),
        ("commonsenseqa", json.dumps(CSQA_HUB_ROW | {"choices": ["a"]}), "choices with 'label' and 'text'"),
        (
            "commonsenseqa",
            json.dumps(CSQA_HUB_ROW | {"choices": {"label": ["B", "A"], "text": ["a", "b"]}}),
            "labelled A, B, C",
        ),
        ("strategyqa", json.dumps(STRATEGY_ROW | {"answer": "maybe"}), "of the kind boolean"),
        ("multiarith", json.dumps(MULTIARITH_ROW | {"lSolutions": [1, 2]}), "one number in 'lSolutions', found [1, 2]"),
        ("singleeq", json.dumps(SINGLEEQ_ROW | {"lSolutions": ["x"]}), "of the kind number, found 'x'"),
        ("addsub", json.dumps({"iIndex": 1, "lSolutions": [1]}), "'sQuestion' or 'question', found None"),
        ("aqua", json.dumps(AQUA_ROW | {"options": "A)1"}), "2 to 26 options, found 'A)1'"),
        ("aqua", json.dumps(AQUA_ROW | {"correct": "F"}), "of the kind choice, found 'F'"),
        ("jsonl", '{"question": "", "answer": 3}', "'question', found None"),
        ("jsonl", '{"question": "q", "answer": "a", "choices": ["a"]}', "2 to 26 choices"),
        ("jsonl", '{"question": "q", "id": "first"}', "the id 'first' is taken by"),
        ("jsonl", '{"question": "q", "answer": [1, 2]}', "of the kind text, found [1, 2]"),
        ("jsonl", '{"question": "q", "answer": NaN}', "of the kind text, found nan"),
        ("jsonl", '{"question": "q", "answer": 1e999}', "of the kind text, found inf"),
        ("jsonl", f'{{"question": "q", "answer": {"1" * 5000}}}', "no JSON: a number of 5,000 digits"),
        ("svamp", json.dumps(SVAMP_ROW | {"Answer": 10**90}).replace("1000", "1000000000000000"), "of 103 digits"),
        ("svamp", json.dumps(SVAMP_ROW | {"Answer": 1e300}), "of the kind number, found 1e+300"),
        ("jsonl", '{"question": "q", "answer": ' + "[" * 100_000, "no JSON: brackets within brackets"),
        ("jsonl", '{"question": "half of \\ud800 it"}', "half of a character"),
        ("jsonl", '{"question": "q"} {"question": "r"}', "no JSON: Extra data (column 19)"),
        ("jsonl", '{"question": "q", "answer": "a", "choices": [["b"], "a"]}', "2 to 26 choices"),
        ("jsonl", '{"question": "q", "answer": "a", "choices": [null, "a"]}', "2 to 26 choices"),
        (
            "jsonl",
            '{"question": "q", "answer": "a", "choices": ["b", "a"]}',
            "the letter of one choice and the text of",
        ),
        ("commonsenseqa", json.dumps(CSQA_HUB_ROW | {"choices": {"label": [], "text": []}}), "labelled A, B, C"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, name: DatasetName, line: str, message: str) -> None:
    first = {
        **{"svamp": SVAMP_ROW, "gsm8k": GSM8K_ROW, "commonsenseqa": CSQA_ROW, "strategyqa": STRATEGY_ROW},
        **{"multiarith": MULTIARITH_ROW, "singleeq": SINGLEEQ_ROW, "addsub": ADDSUB_ROW, "aqua": AQUA_ROW},
    }
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(first.get(name, {"question": "q", "id": "first"}) | {"ID": "0", "qid": "0"}))
    path.write_text(path.read_text() + f"\n\n{line}\n")
    with pytest.raises(DataError) as raised:
        read_questions(DataSource(name=name, path=str(path)))
    assert str(raised.value).startswith(f"{path}:3: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[\n{"question": "q"},\n{"question" "r"}\n]', 3),
        ('[\n{"question": "q"}\n{"question": "r"}\n]', 2),
        ('[\n{"question": "q"},\n3\n]', 3),
        ('[\n{"question": "q"},\n', 3),
        ('{"question": "q"}\n{"question"', 2),
        ('[\n{"question": "q"}\n]\n[{"question": "r"}]', 4),
        (f'[\n{{"question": "q"}},\n{"[" * 100_000}', 3),
        (f'[\n{{"question": "q"}},\n{{"question": "q", "answer": {"1" * 5000}}}]', 3),
    ],
)
def test_a_broken_array_is_named_by_line(tmp_path: Path, content: str, line: int) -> None:
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"some\.json:{line}: "):
        read_questions(DataSource(name="jsonl", path=str(path)))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("question,answer\nq,1\nq,1,2\n", 3),
        ("question,answer\nq\n", 2),
        ('question,answer\n"q"x,1\n', 2),
        ("question,answer,question\nq,1,r\n", 1),
    ],
)
def test_a_broken_table_is_named_by_line(tmp_path: Path, content: str, line: int) -> None:
    path = tmp_path / "some.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"some\.csv:{line}: "):
        read_questions(DataSource(name="csv", path=str(path)))


def test_bytes_that_are_no_text_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(b'{"question": "q"}\n{"question": "\xff"}\n')
    with pytest.raises(DataError, match=r"some\.jsonl:2: expected UTF-8, found the byte 0xff"):
        read_questions(DataSource(name="jsonl", path=str(path)))


def test_a_compressed_file_is_named_as_one(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"question": "q"}'))
    with pytest.raises(DataError, match=r"some\.jsonl\.gz: .* gzip has compressed; unpack it first"):
        read_questions(DataSource(name="jsonl", path=str(path)))


def test_a_table_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("question,answer\nq,1\n")
    assert read_one("csv", path).answer == "1"


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", ""), ("a.json", "[]"), ("a.csv", "question,answer\n")])
def test_a_file_without_questions_says_so(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=rf"{name} holds no question$"):
        read_questions(DataSource(name="jsonl", path=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DataSource(name="jsonl", path="a" * 5000), "File name too long"),
        (DataSource(name="svamp", path="no/such.jsonl"), r"data svamp: path: no/such\.jsonl is not there"),
        (DataSource(name="jsonl", path="."), "is a folder, no file"),
        (DataSource(name="csv"), "data csv: expected path"),
        (DataSource(name="synthetic"), "expected limit"),
        (DataSource(name="synthetic", limit=1, path="a.jsonl"), "path and hub mean nothing"),
        (
            DataSource(name="synthetic", limit=1, split="validation"),
            "expected one of train, dev, test|test, dev, train",
        ),
    ],
)
def test_a_source_that_cannot_be_used_is_a_configuration_error(source: DataSource, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_questions(source)


def test_a_source_with_nothing_left_is_a_configuration_error(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "q"}])
    with pytest.raises(ConfigError, match="skip: 5"):
        read_questions(DataSource(name="jsonl", path=str(path), skip=5))


HUB_ROWS: dict[DatasetName, Mapping[str, object]] = {
    "svamp": SVAMP_ROW | {"Answer": "5.0", "question_concat": "…"},
    "gsm8k": GSM8K_ROW,
    "asdiv": ASDIV_HUB_ROW,
    "multiarith": {"question": "How many? ", "final_ans": "39"},
    "aqua": AQUA_ROW,
    "commonsenseqa": CSQA_HUB_ROW,
    "strategyqa": STRATEGY_ROW | {"facts": "It was built long ago. Long ago is old.", "description": "A bridge"},
}


@pytest.mark.parametrize("name", list(HUB_ROWS))
def test_the_hub_gives_the_questions_that_a_file_gives(
    name: DatasetName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write_lines(tmp_path / "hub" / "train.jsonl", [HUB_ROWS[name]])
    write_lines(tmp_path / "hub" / "test.jsonl", [HUB_ROWS[name]] * 2)
    (question,) = read_questions(DataSource(name=name, hub=str(tmp_path / "hub"), split="train"))
    assert question == read_one(name, tmp_path / "hub" / "train.jsonl")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("svamp", ("ChilleD/SVAMP", None)),
        ("gsm8k", ("openai/gsm8k", "main")),
        ("asdiv", ("EleutherAI/asdiv", None)),
        ("multiarith", ("ChilleD/MultiArith", None)),
        ("aqua", ("deepmind/aqua_rat", "raw")),
        ("commonsenseqa", ("tau/commonsense_qa", None)),
        ("strategyqa", ("ChilleD/StrategyQA", None)),
    ],
)
def test_the_usual_hub_ids_are_asked_for_with_split_and_revision(
    name: DatasetName, expected: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def load(hub_id: str, configuration: str | None, *, split: str, revision: str | None) -> list[Mapping[str, object]]:
        asked.extend([(hub_id, configuration), split, revision])
        return [HUB_ROWS[name]]

    monkeypatch.setattr("datasets.load_dataset", load)
    assert len(read_questions(DataSource(name=name, split="test", revision="abc"))) == 1
    assert asked == [expected, "test", "abc"]


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach\nthe Hub")

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(ConfigError, match=r"^data svamp: ChilleD/SVAMP \(train\) .*Couldn't reach the Hub; .*$"):
        read_questions(DataSource(name="svamp"))


def test_a_split_that_the_hub_lacks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write_lines(tmp_path / "hub" / "train.jsonl", [SVAMP_ROW])
    with pytest.raises(ConfigError, match="Unknown split"):
        read_questions(DataSource(name="svamp", hub=str(tmp_path / "hub"), split="best"))


def test_reading_files_needs_neither_datasets_nor_pandas() -> None:
    check = "import sys, data.readers; sys.exit(bool({'datasets', 'pandas', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", check], cwd=Path(__file__).parents[2], check=False).returncode == 0


BENCHMARKS: list[tuple[DatasetName, str, int, bool]] = [
    ("svamp", "svamp/chilled_train.jsonl", 700, True),
    ("svamp", "svamp/chilled_test.jsonl", 300, True),
    ("gsm8k", "gsm8k/train.jsonl", 7473, True),
    ("gsm8k", "gsm8k/test.jsonl", 1319, True),
    ("commonsenseqa", "commonsenseqa/train_rand_split.jsonl", 9741, True),
    ("commonsenseqa", "commonsenseqa/dev_rand_split.jsonl", 1221, True),
    ("commonsenseqa", "commonsenseqa/test_rand_split_no_answers.jsonl", 1140, False),
    ("strategyqa", "strategyqa/train.json", 2061, True),
    ("strategyqa", "strategyqa/dev.json", 229, True),
    ("strategyqa", "strategyqa/strategyqa_test_unlabelled.json", 490, False),
]


@pytest.mark.parametrize(("name", "file", "count", "labelled"), BENCHMARKS)
def test_all_rows_of_the_benchmarks_are_read(
    benchmark_data: Path, name: DatasetName, file: str, count: int, labelled: bool
) -> None:
    read = read_questions(DataSource(name=name, path=str(benchmark_data / file)))
    assert len(read) == count
    assert all((question.answer is not None) is labelled for question in read)
    assert all(question.keywords for question in read if name == "commonsenseqa")
    assert all(question.reference for question in read if labelled and name in ("gsm8k", "strategyqa"))


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, file, _, labelled in BENCHMARKS if labelled])
def test_every_gold_answer_is_read_back_from_what_is_written(
    benchmark_data: Path, name: DatasetName, file: str
) -> None:
    for question in read_questions(DataSource(name=name, path=str(benchmark_data / file))):
        assert question.answer is not None
        finished = finish_rationale(question.reference or "Think of it", question, question.answer)
        sentence = answer_sentence(question, question.answer)
        assert finished.endswith(sentence) and finished.count(sentence) == 1
        for output in (predict_target(question), sentence, finished):
            assert parse_answer(output, question) == question.answer


def test_every_benchmark_problem_has_critical_words(benchmark_data: Path) -> None:
    for file in ("chilled_train.jsonl", "chilled_test.jsonl"):
        for question in read_questions(DataSource(name="svamp", path=str(benchmark_data / "svamp" / file))):
            assert len(mark(question.text, "").critical_spans) >= 1
            assert len(mark(question.text, "").step_spans) >= 2
    dev = DataSource(name="commonsenseqa", path=str(benchmark_data / "commonsenseqa" / "dev_rand_split.jsonl"))
    for question in read_questions(dev):
        assert len(mark(question.text, "", critical=Keywords(question.keywords)).critical_spans) >= 5


def test_imported_rationales_are_joined_by_id(tmp_path: Path) -> None:
    asked = [Question(id=str(number), dataset="d", text="?", answer="7", answer_kind="number") for number in range(8)]
    path = write_lines(
        tmp_path / "r.jsonl",
        [
            {"id": "0", "rationale": "3 + 4 = 7."},
            {"ID": 1, "rationale": "3 + 4 = 7.", "answer": 7.0},
            {"question_id": "2", "rationale": "The answer is 7.", "answer": "7"},
            {"id": "3", "palm_rationale": "3 + 4 = 7.", "palm_value": 8.0},
            {"id": "4", "rationale": "The answer is 7.", "answer": "both"},
            {"id": "5", "rationale": None, "answer": 7},
            {"id": "6", "rationale": "3 + 4 = 7.", "answer": None},
            {"id": "other", "rationale": "?"},
        ],
    )
    found = read_rationales(str(path), asked)
    assert found == {
        "0": "3 + 4 = 7.",
        "1": "3 + 4 = 7. The answer is 7.",
        "2": "The answer is 7.",
        "3": "3 + 4 = 7. The answer is 8.",
        "4": "The answer is 7. The answer is both.",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"rationale": "r"}', "'question_id', found rationale"),
        ('{"id": 1}', "'palm_rationale', found id"),
        ('{"id": 1, "rationale": "r"}\n{"id": 1, "rationale": "r"}', "a second rationale"),
        ("{", "no JSON"),
        ('{"id": 1, "rationale": ["r"]}', "expected text in the field 'rationale'"),
        ('{"id": 1, "rationale": "r", "answer": NaN}', "expected an answer, found nan"),
        ('{"id": 1, "rationale": "r", "answer": [7]}', "expected an answer, found"),
    ],
)
def test_broken_rationale_files_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(line)
    asked = [Question(id="1", dataset="d", text="?", answer="7", answer_kind="number")]
    with pytest.raises(DataError, match=rf"r\.jsonl:\d: .*{message}"):
        read_rationales(str(path), asked)


def test_a_missing_rationale_file_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"rationales\.path: no/such\.jsonl is not there"):
        read_rationales("no/such.jsonl", [])


def judged(questions: list[Question], rationales: dict[str, str]) -> dict[str, bool]:
    """Which imported rationales reach the gold answer."""
    return {
        question.id: same_answer(parse_answer(rationales[question.id], question) or "", question.answer or "", kind)
        for question in questions
        if question.id in rationales and (kind := question.answer_kind)
    }


def palm_correct(path: Path, key: str) -> set[str]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return {row[key] for row in rows if row["palm_correct"]}


def test_palm_rationales_of_svamp_are_judged_as_published(benchmark_data: Path) -> None:
    questions = [
        question
        for split in ("train", "test")
        for question in read_questions(
            DataSource(name="svamp", path=str(benchmark_data / "svamp" / f"chilled_{split}.jsonl"))
        )
    ]
    path = benchmark_data / "palm_rationales" / "svamp_palm_joined.jsonl"
    verdicts = judged(questions, read_rationales(str(path), questions))
    assert len(verdicts) == 959  # the other 41 have no rationale or no answer
    assert {identifier for identifier, right in verdicts.items() if right} == palm_correct(path, "ID")
    assert sum(verdicts.values()) == 733


def test_palm_rationales_of_commonsenseqa_are_judged_as_published_but_for_capitals(benchmark_data: Path) -> None:
    questions = [
        question
        for split in ("train", "dev")
        for question in read_questions(
            DataSource(name="commonsenseqa", path=str(benchmark_data / "commonsenseqa" / f"{split}_rand_split.jsonl"))
        )
    ]
    path = benchmark_data / "palm_rationales" / "cqa_palm_joined.jsonl"
    verdicts = judged(questions, read_rationales(str(path), questions))
    published = palm_correct(path, "id")
    assert len(published) == 8177
    assert len(verdicts) == 10962 - 3  # three have no answer
    right = {identifier for identifier, verdict in verdicts.items() if verdict}
    assert published <= right
    assert len(right - published) == 119  # "Canada" for the choice "canada", "trunk," for "trunk"
