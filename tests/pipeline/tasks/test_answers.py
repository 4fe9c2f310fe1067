"""The expressions that stand for our reading of answers: worked out by hand, beside it, and on long texts."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.answers.canonical import canonical_answer
from data.answers.numbers import number_text
from data.answers.parse import parse_answer
from data.dataset import is_right
from data.prompts import answer_sentence, predict_target
from data.records import AnswerKind, Question
from pipeline.tasks.answers import NOT_FOUND, PATTERNS, accepted, rule_of

PLACES = ("race track", "populated areas", "the desert")
GOLD: dict[AnswerKind, tuple[str, ...]] = {
    "number": ("42", "-3.5", "0.75", "2/3", "1200", "0", "0.05"),
    "numbers": ("8; 128", "9:7", "-1; 0.5"),
    "choice": ("A", "B", "C"),
    "boolean": ("yes", "no"),
    "text": ("Lisbon", "the Danube", "an old man"),
}


def asked(kind: AnswerKind, gold: str) -> Question:
    return Question(
        id="1", dataset="own", text="?", answer=gold, answer_kind=kind, choices=PLACES if kind == "choice" else ()
    )


@pytest.mark.parametrize(
    ("kind", "output", "answer"),
    [
        ("number", "14", "14"),
        ("number", "Tom has 3 + 4 = 7 figs. The answer is 7.", "7"),
        ("number", "The answer is 9. No, the answer is 8.", "8"),
        ("number", "3 + 4 = 7. He eats 2.", "7"),
        ("number", "He has 3, then 5 figs", "5"),
        ("number", "The answer is $1,250.50.", "1,250.50"),
        ("number", "so -1", "-1"),
        ("number", "The answer is -2.", "-2"),
        ("number", "#### 72", "72"),
        ("number", r"\boxed{72}", "72"),
        ("number", "The answer is 7.\n\nQ: And 8?\nA: The answer is 8.", "7"),
        ("number", "no idea", NOT_FOUND),
        ("number", "", NOT_FOUND),
        ("numbers", "8; 128", "8; 128"),
        ("numbers", "They get both. The answer is 8; 128.", "8; 128"),
        ("choice", "(B) populated areas", "B"),
        ("choice", "It is crowded. The answer is (B) populated areas.", "B"),
        ("choice", "The answer is populated areas.", "populated areas"),
        ("choice", "A", "A"),
        ("choice", "A race track", "A"),
        ("boolean", "yes", "yes"),
        ("boolean", "It cannot fly. The answer is no.", "no"),
        ("boolean", "True", "True"),
        ("boolean", "who knows", NOT_FOUND),
        ("text", "It lies on the Tagus. The answer is Lisbon.", "Lisbon"),
        ("text", "Lisbon", "Lisbon"),
        ("text", "It is far.\nLisbon.", "Lisbon"),
    ],
)
def test_the_answer_that_an_expression_takes_out(kind: AnswerKind, output: str, answer: str) -> None:
    assert rule_of(kind).answer(output) == answer


@pytest.mark.parametrize(("kind", "gold"), [(kind, gold) for kind, found in GOLD.items() for gold in found])
def test_what_students_learn_to_write_is_right_and_what_they_learn_of_others_is_wrong(
    kind: AnswerKind, gold: str
) -> None:
    question, rule = asked(kind, gold), rule_of(kind)
    for other in GOLD[kind]:
        for output in (
            predict_target(asked(kind, other)),
            answer_sentence(question, other),
            f"He has 3 or 4, in all 3 + 4 = 7. {answer_sentence(question, other)}",
        ):
            verdict = rule.says(output, accepted(question))
            assert verdict == (other == gold) == is_right(parse_answer(output, question), question), output


@given(st.fractions(min_value=-5000, max_value=5000, max_denominator=40), st.booleans())
def test_any_number_is_judged_as_by_us(value: Fraction, right: bool) -> None:
    gold = canonical_answer(number_text(value), "number")
    assert gold is not None
    question = asked("number", gold)
    said = answer_sentence(question, gold if right else number_text(value + 1))
    assert rule_of("number").says(said, accepted(question)) == right == is_right(parse_answer(said, question), question)


@pytest.mark.parametrize(
    ("gold", "output", "right"),
    [
        ("3.5", "The answer is 3.50.", True),
        ("1200", "The answer is 1,200.", True),
        ("12", "The answer is $12.00", True),
        ("0.75", "The answer is 3/4.", True),
        ("7", "The answer is 07.", True),
        ("70", "The answer is 7.", False),
        ("7", "The answer is 70.", False),
        ("0.5", "The answer is 5.", False),
        ("7", "The answer is -7.", False),
    ],
)
def test_numbers_are_compared_without_signs_of_money_and_idle_zeros(gold: str, output: str, right: bool) -> None:
    assert rule_of("number").says(output, accepted(asked("number", gold))) == right


def test_a_choice_may_be_said_by_its_text_and_a_truth_by_true() -> None:
    assert accepted(asked("choice", "B")) == ("B", "populated areas")
    assert accepted(asked("boolean", "no")) == ("no", "false")
    assert rule_of("boolean").says("False.", accepted(asked("boolean", "no")))
    assert rule_of("choice").says("The answer is Populated areas.", accepted(asked("choice", "B")))


BAITS = (
    "answer is ",
    "= ",
    "1,",
    "1.",
    "\n",
    "\nQ",
    "\n ",
    "(",
    "- ",
    "yes ",
    "answer: \n",
    " ",
    "answer is $ ",
    "1 / ",
)


@pytest.mark.parametrize("kind", PATTERNS)
def test_no_expression_takes_longer_than_a_multiple_of_the_text(kind: AnswerKind) -> None:
    """Quadratic ones take minutes for 20,000 characters of such a kind."""
    rule = rule_of(kind)
    started = time.process_time()
    for bait in BAITS:
        rule.says((bait * 20_000)[:20_000], ("nothing",))
    assert time.process_time() - started < 5
