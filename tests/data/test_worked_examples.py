"""The worked examples of every list: right, in the form that the steps rule expects, and in no benchmark."""

import re
from fractions import Fraction
from pathlib import Path
from typing import get_args

import pytest

from data.answers.numbers import number_text, numbers_in_digits
from data.answers.parse import parse_answer
from data.errors import DataError
from data.marking import mark
from data.prompts import answer_sentence, finish_rationale, predict_target, rationale_messages, rationale_prompt
from data.readers import read_questions
from data.records import AnswerKind, Question
from data.sets import DatasetName, names
from data.settings import DataSource
from data.worked_examples import FOLDER, read_examples, worked_examples

KINDS = get_args(AnswerKind)
PUBLISHED = [name for name in names() if name not in ("synthetic", "jsonl", "csv")]
LISTS = {name: worked_examples(name) for name in (*KINDS, *PUBLISHED, "keywords")}
ALL = [pytest.param(worked, id=f"{name}-{place}") for name, each in LISTS.items() for place, worked in enumerate(each)]
FEWEST = {"aqua": 4, "commonsenseqa": 7, "strategyqa": 6}
NUMBER = r"\d+(?:\.\d+)?(?:/\d+)?"
EQUATION = re.compile(rf"({NUMBER}(?: [-+*/] {NUMBER})+) = ({NUMBER})")


def value_of(terms: str) -> Fraction:
    """A chain of sums, or of products, from left to right."""
    first, *rest = terms.split(" ")
    value = Fraction(first)
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        match sign:
            case "+":
                value += Fraction(term)
            case "-":
                value -= Fraction(term)
            case "*":
                value *= Fraction(term)
            case _:
                value /= Fraction(term)
    return value


def normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_every_data_set_has_its_own_list() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.yaml" for name in LISTS}
    assert all(len(LISTS[name]) >= FEWEST.get(name, 8) for name in PUBLISHED)
    texts = [normal(worked.text) for each in LISTS.values() for worked in each]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("worked", ALL)
def test_every_equation_of_a_rationale_holds(worked: Question) -> None:
    reference = worked.reference or ""
    equations = EQUATION.findall(reference)
    assert reference.count("=") == len(equations), "an equation of another form"
    for terms, result in equations:
        assert not ({"+", "-"} & set(terms.split()) and {"*", "/"} & set(terms.split())), "mixed signs"
        assert value_of(terms) == Fraction(result)


@pytest.mark.parametrize("worked", ALL)
def test_a_rationale_leads_to_its_answer(worked: Question) -> None:
    results = [Fraction(result) for _, result in EQUATION.findall(worked.reference or "")]
    match worked.answer_kind:
        case "number":
            assert number_text(results[-1]) == worked.answer
        case "numbers" if worked.answer != "9:15":
            asked = [value for _, value in numbers_in_digits((worked.answer or "").replace(":", " "))]
            assert all(value in results for value in asked)
        case "choice" if results:
            assert parse_answer(worked.reference or "", worked) == worked.answer
        case _:
            assert worked.reference


@pytest.mark.parametrize("worked", ALL)
def test_the_answer_is_read_back_from_a_finished_rationale(worked: Question) -> None:
    assert worked.answer is not None
    finished = finish_rationale(worked.reference or "", worked, worked.answer)
    assert finished == f"{worked.reference} {answer_sentence(worked, worked.answer)}"
    assert parse_answer(finished, worked) == worked.answer
    assert parse_answer(predict_target(worked), worked) == worked.answer


@pytest.mark.parametrize("worked", ALL)
def test_a_rationale_is_short_sentences_each_a_step(worked: Question) -> None:
    marked = mark("", worked.reference or "")
    steps = [marked.text[start:end] for start, end in marked.step_spans]
    assert 2 <= len(steps) <= 5
    assert all(step.endswith(".") and len(step.split()) <= 20 for step in steps)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_question_is_asked_after_the_examples_of_its_own_set(name: DatasetName) -> None:
    worked = worked_examples(name)
    asked = Question(id="1", dataset="any", text="How?", answer=None, answer_kind="number", benchmark=name)
    blocks = rationale_prompt(asked, shots=len(worked)).split("\n\n")
    assert [block.startswith(f"Q: {each.text}\nA: ") for block, each in zip(blocks, worked, strict=False)] == [
        True
    ] * len(worked)
    turns = rationale_messages(asked, shots=len(worked))
    assert [turn["content"] for turn in turns[1::2]] == [*(each.text for each in worked), "How?"]


def test_a_users_own_file_is_asked_after_the_examples_of_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "svamp.jsonl"
    path.write_text('{"question": "How many?", "answer": 3}\n')
    (asked,) = read_questions(DataSource(name="jsonl", path=str(path)))
    assert asked.dataset == "svamp" and asked.benchmark is None
    assert rationale_messages(asked, shots=1)[1]["content"] == worked_examples("number")[0].text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a list of worked examples, found NoneType"),
        ("- question: a\n  rationale: [", "no YAML: .*line [23]"),
        ("- {question: a, rationale: b, answer: c}\n- {question: a, rationale: b}", "entry 2: expected question, rat"),
        ("- {question: a, rationale: b, answer: c, key: d}", "entry 1: expected question, rationale, answer"),
        ("- {question: a, rationale: b, answer: }", "entry 1: expected texts that are not empty"),
        ("- {question: a, rationale: b, answer: A, choices: c}", "entry 1: .*and lists of them"),
    ],
)
def test_a_malformed_list_is_named_by_file_and_entry(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"(?s)mine\.yaml.*{message}"):
        read_examples(path)


def test_answers_stay_what_is_written() -> None:
    assert [each.answer for name in ("boolean", "numbers") for each in worked_examples(name)][-5:] == [
        *("yes", "3:5", "19; 11", "36; 81", "9:15")
    ]


FILES = [
    *(("svamp", f"svamp/chilled_{split}.jsonl") for split in ("train", "test")),
    *(("gsm8k", f"gsm8k/{split}.jsonl") for split in ("train", "test")),
    *(("commonsenseqa", f"commonsenseqa/{split}_rand_split.jsonl") for split in ("train", "dev")),
    ("commonsenseqa", "commonsenseqa/test_rand_split_no_answers.jsonl"),
    *(("strategyqa", f"strategyqa/{file}.json") for file in ("train", "dev", "strategyqa_test_unlabelled")),
]


def test_no_example_is_a_question_of_a_benchmark(benchmark_data: Path) -> None:
    worked = {normal(each.text.partition("\n")[0]) for every in LISTS.values() for each in every}
    read = [
        normal(question.text.partition("\n")[0])
        for name, file in FILES
        for question in read_questions(DataSource(name=name, path=str(benchmark_data / file)))  # type: ignore[arg-type]
    ]
    assert len(read) == 24674
    assert not worked & set(read)
