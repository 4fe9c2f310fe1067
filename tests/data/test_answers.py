"""Answers in the many ways in which models write them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.answers import canonical_answer, is_right, number_text, number_value, parse_answer, same_answer, with_choices
from data.records import AnswerKind, Question

CHOICES = ("race track", "populated areas", "the desert", "apartment", "st. louis")


def question(kind: AnswerKind, answer: str | None = None, choices: tuple[str, ...] = ()) -> Question:
    return Question(id="1", dataset="test", text="?", answer=answer, answer_kind=kind, choices=choices)


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("The answer is 42.", "42"),
        ("3 + 4 = 7. the answer is: 42", "42"),
        ("So the final answer is **42**.", "42"),
        ("**Final Answer:** 42 apples", "42"),
        ("The answer is 42 apples in 3 bags.", "42"),
        ("The answer is:\n\n42", "42"),
        ("Answer: 42", "42"),
        ("The answer (in dollars) is 42", "42"),
        ("The answer to how many apples Tom has is 42.", "42"),
        ("#### 42", "42"),
        ("He pays more.\n#### -70,000", "-70000"),
        ("so \\boxed{42}", "42"),
        ("\\[\\boxed{\\frac{3}{4}}\\]", "0.75"),
        ("The answer is $\\boxed{1{,}000}$.", "1000"),
        ("The answer is $1,000.50.", "1000.5"),
        ("The answer is -$3.", "-3"),
        ("The answer is \u2212 3", "3"),
        ("The answer is \u22123.", "-3"),
        ("The answer is 45%.", "45"),
        ("The answer is 3/4.", "0.75"),
        ("The answer is 1/3 of it.", "1/3"),
        ("The answer is 1 1/2 cups.", "1.5"),
        ("The answer is ½.", "0.5"),
        ("The answer is (84 / 2).", "42"),
        ("The answer is 3 + 4 = 7.", "7"),
        ("The answer is 42.0", "42"),
        ("The answer is 0.10.", "0.1"),
        ("The answer is .5.", "0.5"),
        ("The answer is 007.", "7"),
        ("The answer is -0.", "0"),
        ("The answer is 5. No, wait. The answer is 6.", "6"),
        ("The answer is 6. The answer is unclear.", "6"),
        ("The answer is 6.\n\nQ: How many? The answer is 8.", "6"),
        ("3 + 4 = 7 apples after 2 days", "7"),
        ("8 * $2 = $16 every day for 3 days", "16"),
        ("10 - 3 = 7", "7"),
        ("he has 7 pens and 1,234 apples", "1234"),
        ("42", "42"),
        ("-3.50", "-3.5"),
    ],
)
def test_numbers_are_parsed(output: str, answer: str) -> None:
    assert parse_answer(output, question("number")) == answer


@pytest.mark.parametrize("output", ["", "  \n", "The answer is unclear.", "seven", "9" * 5000, "1/0"])
def test_outputs_without_number_have_no_answer(output: str) -> None:
    assert parse_answer(output, question("number")) is None


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("The answer is (B) populated areas.", "B"),
        ("The answer is B", "B"),
        ("The answer is b) populated areas.", "B"),
        ("The answer is (b).", "B"),
        ("The answer is option D.", "D"),
        ("The correct answer choice is D: apartment", "D"),
        ("The answer is populated areas.", "B"),
        ("The answer is Populated Areas, of course.", "B"),
        ("The answer is A race track", "A"),
        ("The answer is a race track", "A"),
        ("The answer is st. louis.", "E"),
        ("The answer is (E) st. louis.", "E"),
        ("(A) is wrong. (C) is right. The answer is (C).", "C"),
        ("(B) populated areas", "B"),
        ("(E) st. louis", "E"),
        ("populated areas", "B"),
        ("B", "B"),
        ("b.", "B"),
        ("\\boxed{B}", "B"),
        ("A track is loud. Of the choices only the desert is quiet.", "C"),
    ],
)
def test_choices_are_parsed(output: str, answer: str) -> None:
    assert parse_answer(output, question("choice", choices=CHOICES)) == answer


@pytest.mark.parametrize(
    "output",
    [
        "",
        "The answer is (F).",
        "The answer is apartment or race track.",
        "The answer is apartment or.",
        "The answer is a house.",
        "I went to an apartment and a race track",
        "A house is best",
    ],
)
def test_outputs_that_name_no_single_choice_have_no_answer(output: str) -> None:
    assert parse_answer(output, question("choice", choices=CHOICES)) is None


def test_a_choice_inside_a_longer_one_does_not_count() -> None:
    asked = question("choice", choices=("store", "department store"))
    assert parse_answer("The answer is a department store.", asked) == "B"


def test_a_text_listed_twice_means_the_gold_choice() -> None:
    twice = ("home", "office", "home")
    assert parse_answer("The answer is home.", question("choice", "C", twice)) == "C"
    assert parse_answer("The answer is home.", question("choice", "B", twice)) == "A"
    assert parse_answer("The answer is (A) home.", question("choice", "C", twice)) == "A"


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("The answer is yes.", "yes"),
        ("So the answer is No, it cannot.", "no"),
        ("Thus the answer is False", "no"),
        ("The answer is not true.", "no"),
        ("yes", "yes"),
        ("True.", "yes"),
        ("No, it can not. There is no way.", "no"),
        ("He lived later. So yes.", "yes"),
        ("There is no doubt. The answer is yes.", "yes"),
    ],
)
def test_yes_and_no_are_parsed(output: str, answer: str) -> None:
    assert parse_answer(output, question("boolean")) == answer


@pytest.mark.parametrize("output", ["", "There is no way to know it", "No dog can fly", "The answer is unknown."])
def test_no_as_an_ordinary_word_is_no_answer(output: str) -> None:
    assert parse_answer(output, question("boolean")) is None


def test_texts_are_parsed() -> None:
    asked = question("text")
    assert parse_answer("Oslo is north. The answer is  New  York.", asked) == "New York"
    assert parse_answer("Some words\nOslo.", asked) == "Oslo"
    assert parse_answer("", asked) is None


@pytest.mark.parametrize(
    ("first", "second", "kind", "same"),
    [
        ("42.0", "42", "number", True),
        ("3/4", "0.75", "number", True),
        ("1,000", "1000", "number", True),
        ("0.333333333", "1/3", "number", True),
        ("0.33", "1/3", "number", False),
        ("42", "-42", "number", False),
        ("42", "43", "number", False),
        ("B", "b", "choice", True),
        ("A", "B", "choice", False),
        ("yes", "no", "boolean", False),
        ("oslo", "Oslo", "text", True),
    ],
)
def test_answers_are_compared_by_what_they_mean(first: str, second: str, kind: AnswerKind, same: bool) -> None:
    assert same_answer(first, second, kind) is same
    assert same_answer(second, first, kind) is same


@pytest.mark.parametrize(
    ("raw", "kind", "canonical"),
    [
        (145.0, "number", "145"),
        (7, "number", "7"),
        (1e-05, "number", "0.00001"),
        ("$1,200", "number", "1200"),
        ("-$5", "number", "-5"),
        ("45 %", "number", "45"),
        (True, "number", None),
        (float("nan"), "number", None),
        ("seven", "number", None),
        ("3 apples", "number", None),
        (False, "boolean", "no"),
        ("True", "boolean", "yes"),
        ("YES", "boolean", "yes"),
        (1, "boolean", None),
        ("(b)", "choice", "B"),
        ("The Desert", "choice", "C"),
        ("F", "choice", None),
        ("", "choice", None),
        ("  New  York. ", "text", "New York"),
        ("", "text", None),
    ],
)
def test_answers_of_data_files_become_canonical(raw: object, kind: AnswerKind, canonical: str | None) -> None:
    assert canonical_answer(raw, kind, CHOICES if kind == "choice" else ()) == canonical


@given(st.fractions(max_denominator=1000))
def test_a_number_survives_being_written_and_read(value: Fraction) -> None:
    written = number_text(value)
    assert number_value(written) == value
    assert canonical_answer(written, "number") == written
    assert parse_answer(f"The answer is {written}.", question("number")) == written


@given(st.integers(-(10**9), 10**9), st.sampled_from(["The answer is {}.", "#### {}", "x = {}", "{}", "\\boxed{{{}}}"]))
def test_whole_numbers_are_parsed_with_and_without_separators(value: int, form: str) -> None:
    assert parse_answer(form.format(value), question("number")) == str(value)
    assert parse_answer(form.format(f"{value:,}"), question("number")) == str(value)


@given(st.text(max_size=80), st.sampled_from(["number", "choice", "boolean", "text"]))
def test_any_output_gives_a_canonical_answer_or_none(output: str, kind: AnswerKind) -> None:
    asked = question(kind, choices=CHOICES if kind == "choice" else ())
    answer = parse_answer(output, asked)
    assert answer is None or canonical_answer(answer, kind, asked.choices) == answer


def test_choices_are_listed_below_the_question() -> None:
    assert with_choices("Where?", ["here", "there"]) == "Where?\nAnswer Choices:\n(A) here\n(B) there"


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [("7.0000000001", "7", True), ("8", "7", False), (None, "7", False), ("7", None, False), (None, None, False)],
)
def test_an_answer_is_right_where_it_is_the_gold_answer(answer: str | None, gold: str | None, right: bool) -> None:
    assert is_right(answer, question("number", gold)) is right
