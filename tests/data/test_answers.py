"""Answers in the many ways in which models write them."""

import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.answers.canonical import canonical_answer, same_answer
from data.answers.choices import with_choices
from data.answers.numbers import number_text, number_value
from data.answers.parse import parse_answer
from data.dataset import is_right
from data.records import AnswerKind, Question
from data.sets import DatasetName
from tests.ways_of_answering import WAYS

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
        ("The answer is 42 km/h.", "42"),
        ("The answer is € 5.", "5"),
        ("The answer is $ -5.", "-5"),
        ("The answer is minus 5 degrees.", "-5"),
        ("The answer is negative five.", "-5"),
        ("8 minus 5 is 3", "3"),
        ("The answer is 1.234,5.", "1234.5"),
        ("The answer is Rs. 1,00,000.", "100000"),
        ("The answer is 1\u202f234.", "1234"),
        ("The answer is 1½ cups.", "1.5"),
        ("The answer is 1\\frac{1}{2} cups.", "1.5"),
        ("The answer is \\frac34.", "0.75"),
        ("The answer is -\\dfrac{3}{4}.", "-0.75"),
        ("\\boxed{\\text{42 apples}}", "42"),
        ("\\boxed{1\\,000}", "1000"),
        ("\\boxed{45\\%}", "45"),
        ("The answer is 3 × 10^4.", "30000"),
        ("The answer is $3 \\times 10^{4}$.", "30000"),
        ("The answer is 1.5e-3.", "0.0015"),
        ("The answer is 2.5 million dollars.", "2500000"),
        ("The answer is five.", "5"),
        ("The answer is twenty-five dollars.", "25"),
        ("The answer is one hundred and five.", "105"),
        ("The answer is three quarters of the cake.", "0.75"),
        ("The answer is two and a half hours.", "2.5"),
        ("The answer is not 5 but 6.", "6"),
        ("Seven.", "7"),
        ("So Tom has five apples left.", "5"),
        ("Tom gave each one away and kept 3", "3"),
        ("He keeps 12 of the 30 pens.", "30"),
        ("They need 3 hours, which is 180 minutes.", "180"),
        ("Final Answer: The final answer is 42. I hope it is correct.", "42"),
        ("The answer is 42 (= 40 + 2).", "42"),
        ("\\boxed{\\frac{-3}{4}}", "-0.75"),
        ("\\boxed{\\frac{1{,}200}{2}}", "600"),
        ("x + 3 = 10\nx = 10 - 3\nx = 7", "7"),
        ("The answer is 42 (since 40 + 2 = 42).", "42"),
        ("The answer is 42 because x = 3.", "42"),
        ("The answer is 42, where x = 3.", "42"),
        ("The answer is 40 + 2 (= 42).", "42"),
        ("The answer is 42 = 40 + 2.", "42"),
        ("So 42 = 40 + 2", "42"),
        ("The total = 40 + 2. So he has 42 apples.", "42"),
        ("The answer is not 5, it is 6.", "6"),
        ("The answer is 8:00.", "8"),
        ("The answer is \u20135.", "-5"),
        ("The answer is $5k.", "5000"),
        ("The answer is $2.5M.", "2500000"),
        ("The answer is 1.5 \\cdot 10^3.", "1500"),
        ("The answer is _42_.", "42"),
        ("**__42__**", "42"),
        ("Ans: 42. There are 3 more.", "42"),
        ("<think>The answer is 41?</think>\n\nIt is 42.", "42"),
        ("Is it 41?\nThe answer is 41.\n</think>\n42", "42"),
        ("<think>40 + 1</think><answer>42</answer> as 40 + 2 = 42 of 50", "42"),
        ("The answer is 42.\n\nQuestion: How many?\nAnswer: The answer is 8.", "42"),
        ("The answer is 42.\n### Instruction:\nCount.\n### Response:\nThe answer is 8.", "42"),
        ("The answer is 42.\nHuman: And 8?\nAssistant: The answer is 8.", "42"),
        ("\\boxed{42}\n\n## Problem 2\n\n\\boxed{8}", "42"),
        ("Question: How many?\nAnswer: 42", "42"),
        ("The answer is 42. Q: How many are 8? A: The answer is 8.", "42"),
        ("Let us see.\n\n**Problem:** 40 and 2.\n\n**Solution:** 40 + 2 = 42", "42"),
    ],
)
def test_numbers_are_parsed(output: str, answer: str) -> None:
    assert parse_answer(output, question("number")) == answer


@pytest.mark.parametrize(
    "output",
    [
        "",
        "  \n",
        "The answer is unclear.",
        "No one can tell.",
        "I don't know.",
        "The answer cannot be found.",
        "The answer is 5 or 6.",
        "The answer is between 5 and 6.",
        "The answer is not 5.",
        "One has two, another has three.",
        "9" * 5000,
        "1/0",
        "The answer is 10-12.",
        "The answer is \\sqrt{2}.",
        "The answer is 2^{1000}.",
        "The answer is (some - 3).",
        "The answer is 1/0.",
        "x + 3 = 10\nx = 10 - 3",
        "The total = 7 - 3",
        "The answer is 3:2.",
        "The answer is 8:30.",
        "<think>3 + 4 = 7",
    ],
)
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
        ("**C**", "C"),
        ("C)", "C"),
        ("c) the desert", "C"),
        ("option C", "C"),
        ("The correct option is C", "C"),
        ("So option C is correct.", "C"),
        ("I choose C.", "C"),
        ("C is the right one.", "C"),
        ("The answer is C because it is quiet.", "C"),
        ("The answer is (C), not (A).", "C"),
        ("\\boxed{\\text{(C)}}", "C"),
        ("It is (C) the desert", "C"),
        ("The answer is not A, it is C.", "C"),
        ("The answer is not (A) but (C).", "C"),
        ("The answer is neither (A) race track nor apartment but (C).", "C"),
        ("The answer is (C) because (A) and (B) are wrong.", "C"),
        ("The answer is the desert because a race track is loud, or an apartment.", "C"),
        ("The answer is (C), since (A) or (B) would be loud.", "C"),
        ("The answer is (C) the desert rather than (A) race track.", "C"),
        ("Therefore, C is correct.", "C"),
        ("So, C.", "C"),
        ("I think it's C", "C"),
        ("I'd go with C.", "C"),
        ("C. It is dry there.", "C"),
        ("(C) the desert. It is dry there, unlike (A).", "C"),
        ("(C)\nBecause nobody lives there.", "C"),
        ("<think>The answer is (A).</think>\n\nThe desert is quiet. The answer is (C).", "C"),
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
        "The answer is (A) or (B).",
        "It may be (A) or (B).",
        "I don't know.",
        "The answer is a house.",
        "I went to an apartment and a race track",
        "A house is best",
        "The answer is not (C).",
        "The answer is not the desert.",
        "The answer is (A), (B).",
        "The answer is (A)/(B).",
        "(A) race track is loud, (C) the desert is quiet.",
        "(A)\n(C)\nThat is all",
        "The answer is neither A nor B.",
        "Take vitamin C.",
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
        ("The statement is not true.", "no"),
        ("No, that isn't true.", "no"),
        ("It was never false.", "yes"),
        ("There is no doubt. The answer is yes.", "yes"),
        ("Yes because it is old.", "yes"),
        ("No – it is young.", "no"),
        ("**No**", "no"),
        ("\\boxed{\\text{Yes}}", "yes"),
        ("#### false", "no"),
        ("The answer is yes, no dog can.", "yes"),
        ("The answer is yes, not no.", "yes"),
        ("The answer is no it cannot.", "no"),
        ("So yes, he could.", "yes"),
        ("Therefore no, he could not", "no"),
        ("No it would not.", "no"),
    ],
)
def test_yes_and_no_are_parsed(output: str, answer: str) -> None:
    assert parse_answer(output, question("boolean")) == answer


@pytest.mark.parametrize(
    "output",
    [
        "",
        "There is no way to know it",
        "No dog can fly",
        "The answer is unknown.",
        "The answer is no one knows.",
        "The answer is yes or no.",
        "I don't know.",
        "That is not quite true.",
        "The answer is not necessarily yes.",
        "The answer is neither yes nor no.",
        "The answer is that there is no such thing.",
        "Yes and no.",
        "yes/no",
        "No Exit is a play.",
    ],
)
def test_no_as_an_ordinary_word_is_no_answer(output: str) -> None:
    assert parse_answer(output, question("boolean")) is None


def test_texts_are_parsed() -> None:
    asked = question("text")
    assert parse_answer("Oslo is north. The answer is  New  York.", asked) == "New York"
    assert parse_answer("Some words\nOslo.", asked) == "Oslo"
    for written in ('"Oslo"', "'Oslo'.", "(Oslo)", "“Oslo.”", "Oslo?", "\\boxed{\\text{Oslo}}"):
        assert parse_answer(f"The answer is {written}", asked) == "Oslo"
    assert parse_answer("", asked) is None


@pytest.mark.parametrize(
    ("asked", "output", "answer"),
    [
        ("How many millions did it earn?", "The answer is 26 million.", "26"),
        ("What is the value in billions of dollars?", "So 14 + 12 = 26 billion dollars", "26"),
        ("How many million miles are left?", "The answer is four million.", "4"),
        ("How much did it earn?", "The answer is 26 million.", "26000000"),
        ("How many thousands is it?", "The answer is 26 million.", "26000000"),
        ("How much, in thousands of dollars, is it?", "It is $52k / 2 = $26k.", "26"),
        ("It made $32 million. How many dollars is half of it?", "The answer is 16 million.", "16000000"),
    ],
)
def test_a_scale_that_the_question_asks_for_is_its_unit(asked: str, output: str, answer: str) -> None:
    assert parse_answer(output, replace(question("number"), text=asked)) == answer


def test_an_abbreviated_title_does_not_end_an_answer() -> None:
    assert parse_answer("She has 32 cents. The answer is Mrs. Hilt.", question("text")) == "Mrs. Hilt"


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("The answer is 8 ft and 128 sq. ft.", "8; 128"),
        ("The answer is 30, 60 and 90 degrees.", "30; 60; 90"),
        ("So x = 18 and y = 12.", "18; 12"),
        ("The answer is 9:7.", "9:7"),
        ("The ratio is 10 to 1.", "10:1"),
        ("The answer is 8:05.", "8:05"),
        ("The answer is 1,000:2.", "1000:2"),
        ("The answer is 9∶7.", "9:7"),
        ("The answer is 8 ft and 128 sq. ft (8 x 16 = 128).", "8; 128"),
        ("The answer is unclear.", None),
    ],
)
def test_several_numbers_and_ratios_are_parsed(output: str, answer: str | None) -> None:
    assert parse_answer(output, question("numbers")) == answer


AMOUNTS = ("$61", "$65", "$67.40", "1,000", "None of these")
MINUTES = ("24 minutes", "32 minutes", "24 hours", "3/4 of an hour", "72 minutes")
PERCENT = ("25%", "0.25%", "2.5%", "0.25", "250")
SIGNED = ("-30", "+30", "0", "15", "-15")
FORMULAS = ("5(√3 + 1)", "5(√3 - 1)", "7!", "2x - 7", "2x + 7")


@pytest.mark.parametrize(
    ("choices", "output", "answer"),
    [
        (AMOUNTS, "The answer is 65.", "B"),
        (AMOUNTS, "The answer is $67.4.", "C"),
        (AMOUNTS, "So he paid 1000 dollars.", "D"),
        (AMOUNTS, "The answer is none of these.", "E"),
        (AMOUNTS, "The answer is 66.", None),
        (MINUTES, "The answer is 32.", "B"),
        (MINUTES, "The answer is 24.", None),
        (MINUTES, "The answer is 24 hours.", "C"),
        (PERCENT, "The answer is 25%.", "A"),
        (PERCENT, "The answer is 25.", "A"),
        (PERCENT, "The answer is 250.", "E"),
        (("25%", "30%", "35%"), "The answer is 0.25.", None),
        (SIGNED, "The answer is 15.", "D"),
        (SIGNED, "The answer is -15.", "E"),
        (SIGNED, "The answer is \u221230.", "A"),
        (SIGNED, "The answer is (A) -30.", "A"),
        (FORMULAS, "The answer is 5(√3 + 1).", "A"),
        (FORMULAS, "(B) 5(√3 – 1)", "B"),
        (FORMULAS, "The answer is 7!.", "C"),
        (FORMULAS, "The answer is 2x - 7.", "D"),
        (("21", "21.5", "22"), "The answer is (A)21.", "A"),
        (("21", "21.5", "22"), "The total is 42 / 2 = 21.", "A"),
    ],
)
def test_choices_that_are_numbers_are_told_apart_by_value(
    choices: tuple[str, ...], output: str, answer: str | None
) -> None:
    assert parse_answer(output, question("choice", "A", choices)) == answer


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
        ("2000000", "2000001", "number", False),
        ("2000000", "2000000.5", "number", True),
        ("B", "b", "choice", True),
        ("A", "B", "choice", False),
        ("yes", "no", "boolean", False),
        ("oslo", "Oslo", "text", True),
        ("the men's team", "The men's team", "text", True),
        ("men's team", "The men's team", "text", True),
        ("8; 128", "8.0; 128", "numbers", True),
        ("8; 128", "128; 8", "numbers", False),
        ("8", "8; 128", "numbers", False),
        ("9; 7", "9:7", "numbers", True),
        ("18:14", "9:7", "numbers", False),
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
        (10**400, "number", None),
        ("1" * 400, "number", None),
        (float("nan"), "text", None),
        ([1, 2], "text", None),
        ({"a": 1}, "number", None),
        (None, "text", None),
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
        ("1 1/2", "number", "1.5"),
        ("8 (ft); 128 (sq. ft)", "numbers", "8; 128"),
        ("9 : 7", "numbers", "9:7"),
        ("8; wide", "numbers", None),
    ],
)
def test_answers_of_data_files_become_canonical(raw: object, kind: AnswerKind, canonical: str | None) -> None:
    assert canonical_answer(raw, kind, CHOICES if kind == "choice" else ()) == canonical


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("x^2 + y^2", "y^2+x^2", True),
        ("\\sqrt{18}", "3\\sqrt{2}", True),
        ("x >= 3", "x \\ge 3", True),
        ("x < 3", "x > 3", False),
        ("f(x) = 2x", "2x", True),
        ("2-1", "1-2", False),
        ("\\sqrt{2x}", "√2 x", False),
        ("(3,4)", "(3, 4)", True),
        ("(0, 1)", "[0, 1]", False),
        ("\\int_0^1 x dx", "\\frac{1}{2}", False),
        ("(a+b)(c+d)(e+f)(g+h)(i+j)(k+l)(m+n)", "x^9", False),
    ],
)
def test_formulas_are_compared_by_what_they_come_to(answer: str, gold: str, same: bool) -> None:
    assert same_answer(answer, gold, "text") is same


def test_formulas_are_compared_in_any_thread_and_in_silence(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGINT)]
    with ThreadPoolExecutor(max_workers=1) as threads:
        assert threads.submit(same_answer, "x + 1", "1 + x", "text").result() is True
    assert [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGINT)] == handlers
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


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


@given(st.integers(0, 10**12 - 1), st.sampled_from(range(10)))
def test_a_whole_number_is_read_back_from_every_way_of_writing_it(value: int, way: int) -> None:
    asked = question("number", str(value))
    assert parse_answer(WAYS["number"][way](asked), asked) == str(value)


@given(st.decimals(-(10**6), 10**6, places=2), st.sampled_from([0, 1, 2, 3, 4, 5, 6, 9]))
def test_a_decimal_is_read_back_from_every_way_of_writing_it(value: Decimal, way: int) -> None:
    asked = question("number", number_text(Fraction(value)))
    assert parse_answer(WAYS["number"][way](asked), asked) == asked.answer


@given(st.text(max_size=80), st.sampled_from(["number", "numbers", "choice", "boolean", "text"]))
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


@pytest.mark.parametrize(
    ("benchmark", "answer", "gold", "right"),
    [
        ("asdiv", "114/7", "16.3", True),
        ("asdiv", "16.29", "16.3", True),
        ("asdiv", "16.35", "16.3", True),
        ("asdiv", "16.36", "16.3", False),
        ("asdiv", "16", "16.3", False),
        ("asdiv", "16.4", "16", False),
        ("asdiv", "7.96; 98", "8; 98", False),
        ("gsm8k", "16.29", "16.3", False),
        (None, "16.29", "16.3", False),
    ],
)
def test_labels_that_are_rounded_take_what_rounds_to_them(
    benchmark: DatasetName | None, answer: str, gold: str, right: bool
) -> None:
    kind: AnswerKind = "numbers" if ";" in gold else "number"
    assert is_right(answer, replace(question(kind, gold), benchmark=benchmark)) is right
