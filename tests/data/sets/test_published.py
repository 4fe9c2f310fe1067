"""Every published set: its rows on small files written here, and all rows of the real benchmarks."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from data.answers.parse import parse_answer
from data.errors import ConfigError
from data.marking import Keywords, mark
from data.prompts import answer_sentence, finish_rationale, predict_target
from data.readers import read_questions
from data.records import Question
from data.sets import DatasetName
from data.settings import DataSource
from tests.data.published_rows import (
    ADDSUB_ROW,
    AQUA_ROW,
    ASDIV_XML,
    CSQA_HUB_ROW,
    CSQA_ROW,
    CSQA_TEXT,
    GSM8K_ROW,
    MULTIARITH_ROW,
    SINGLEEQ_ROW,
    STRATEGY_ROW,
    SVAMP_ROW,
    read_one,
    write_lines,
)


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


def test_rows_without_label_have_no_answer(tmp_path: Path) -> None:
    unlabelled = {key: value for key, value in CSQA_ROW.items() if key != "answerKey"}
    rows = [unlabelled, unlabelled | {"id": "c2", "answerKey": ""}]
    read = read_questions(DataSource(name="commonsenseqa", path=str(write_lines(tmp_path / "a.jsonl", rows))))
    assert [question.answer for question in read] == [None, None]


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
