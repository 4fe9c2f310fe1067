"""Which rationales let on that their answer was shown."""

from pathlib import Path

import pytest

from data.answers.parse import parse_answer
from data.dataset import is_right
from data.leaks import lets_on
from data.prompts import finish_rationale
from data.readers import read_questions, read_rationales
from data.records import Question
from data.sets import DatasetName
from data.settings import DataSource, RationaleFields

NUMBER = Question(
    id="1", dataset="made-up", text="Tom has 3 figs and buys 4. How many has he?", answer="7", answer_kind="number"
)
CHOICE = Question(
    id="2",
    dataset="made-up",
    text="Where is it cold?\nAnswer Choices:\n(A) oven\n(B) freezer",
    answer="B",
    answer_kind="choice",
    choices=("oven", "freezer"),
)
YES = Question(id="3", dataset="made-up", text="Is ice cold?", answer="yes", answer_kind="boolean")


@pytest.mark.parametrize(
    "rationale",
    [
        "3 + 4 must be the given answer.",
        "The correct answer is given.",
        "The correct answer is given as 7, so we add.",
        "The answer was already provided.",
        "The correct answer provided is 7.",
        "We need the expected answer of 7.",
        "We are told that the correct answer is 7.",
        "It is stated that the answer is 7.",
        "We know that the answer is 7.",
        "I already know the correct answer.",
        "Since the answer is 7, he bought 4.",
        "He bought 4 because the correct answer is 7.",
        "Given that the correct answer is 7, we add.",
        "This matches the correct answer.",
        "3 + 4 = 7, which is in agreement with the answer.",
        "According to the answer, he has 7.",
        "Working backwards from the correct answer, 7 - 3 = 4.",
        "The hint says 7.",
        "The answer is given by the problem.",
        "As given, the answer is 7, so 3 + 4.",
        "As stated in the question, the correct answer is 7.",
        "The question states that the correct answer is 7.",
        "The user provided the answer, so we work towards it.",
        "Given the correct answer of 7, we see 3 + 4.",
        "To arrive at the correct answer of 7, we add.",
        "The correct answer being 7, he bought 4.",
        "This confirms that the correct answer is 7.",
        "3 + 4 = 7, which is the correct answer as given in the problem.",
        "Since 7 is the correct answer, he bought 4.",
        "The answer in brackets is 7.",
    ],
)
def test_a_text_that_appeals_to_the_answer_lets_on(rationale: str) -> None:
    assert lets_on(rationale, rationale, NUMBER)


@pytest.mark.parametrize(
    "rationale",
    [
        "He has 3 and buys 4 more. 3 + 4 = 7.",
        "The answer must be a number above 4.",
        "The answer is given by 3 + 4.",
        "To find the answer we add 3 and 4.",
        "The correct answer must count both.",
        "He was given 4 figs. He knows the price.",
        "Since the answer is a sum, we add.",
        "Because the answer is 7.5 times smaller, no.",
        "We know that he has 3 figs. We are told that he buys 4.",
        "As the number of figs is 7, we are done.",
        "As shown above, the answer follows from both numbers.",
        "As given in the text, he has 3 figs. We need the answer to both.",
        "Given 3 figs and 4 more, we get to the answer.",
        "To get the answer, add both.",
        "The question asks for the answer of a sum.",
    ],
)
def test_reasoning_about_numbers_does_not(rationale: str) -> None:
    assert not lets_on(rationale, rationale, NUMBER)


@pytest.mark.parametrize(
    ("rationale", "expected"),
    [
        ("Of the given answer choices, only a freezer is cold.", False),
        ("The answer must be a place that is cold.", False),
        ("Based on the answer choices, an oven is hot.", False),
        ("The correct answer would have to be a cold place.", False),
        ("Since the answer is freezer, it is cold there.", True),
        ("Because the correct answer is (B) freezer, it is cold.", True),
        ("As the answer is B, the oven is out.", True),
        ("Since the answer is a cold place, the oven is out.", False),
        ("As stated, the correct answer is (B).", True),
        ("Since freezer is the correct answer, it is cold there.", True),
        ("Given the answer choices, a freezer is cold.", False),
    ],
)
def test_choices_may_be_spoken_of_but_not_the_gold_one_as_a_reason(rationale: str, expected: bool) -> None:
    assert lets_on(rationale, rationale, CHOICE) is expected


def test_the_copied_line_lets_on_though_it_is_cleaned_away() -> None:
    assert lets_on("(The correct answer is 7.) 3 + 4 = 7.", "3 + 4 = 7.", NUMBER)
    assert lets_on("(The correct answer is yes.) It is.", "It is.", YES)


def test_no_published_rationale_lets_on(benchmark_data: Path) -> None:
    """PaLM's right ones on SVAMP and CommonsenseQA, people's on GSM8K and StrategyQA: nobody was shown an answer."""
    read = found = 0
    for name, files, rationales in PUBLISHED:
        sources = [DataSource(name=name, path=str(benchmark_data / file)) for file in files]
        questions = [question for source in sources for question in read_questions(source)]
        texts = {question.id: question.reference for question in questions if question.reference}
        if rationales is not None:
            path, fields = rationales
            texts = dict(read_rationales(str(benchmark_data / path), questions, fields=fields))
        for question in questions:
            text = texts.get(question.id)
            if text is not None and (rationales is None or is_right(parse_answer(text, question), question)):
                read += 1
                found += lets_on(text, finish_rationale(text, question, question.answer or ""), question)
    assert (read, found) == (18563, 0)


PUBLISHED: tuple[tuple[DatasetName, tuple[str, ...], tuple[str, RationaleFields] | None], ...] = (
    (
        "svamp",
        ("svamp/chilled_train.jsonl", "svamp/chilled_test.jsonl"),
        (
            "palm_rationales/svamp_palm_joined.jsonl",
            RationaleFields(id="ID", rationale="palm_rationale", answer="palm_value"),
        ),
    ),
    (
        "commonsenseqa",
        ("commonsenseqa/train_rand_split.jsonl", "commonsenseqa/dev_rand_split.jsonl"),
        (
            "palm_rationales/cqa_palm_joined.jsonl",
            RationaleFields(rationale="palm_rationale", answer="palm_label"),
        ),
    ),
    ("gsm8k", ("gsm8k/train.jsonl",), None),
    ("strategyqa", ("strategyqa/train.json",), None),
)


@pytest.mark.parametrize(
    "text",
    [
        "Each correct answer gives 3 points. Ann has 2 right answers. How many points has she?",
        "Tom answered 3 questions and then 4. How many did he answer?",
        "A solution of salt is given to 3 people. How many people?",
    ],
)
def test_where_the_question_speaks_of_answers_only_the_copied_line_lets_on(text: str) -> None:
    question = Question(id="4", dataset="made-up", text=text, answer="6", answer_kind="number")
    rationale = "The correct answer is given 3 points. 2 * 3 = 6."
    assert not lets_on(rationale, rationale, question)
    assert lets_on(f"(The correct answer is 6.) {rationale}", rationale, question)
