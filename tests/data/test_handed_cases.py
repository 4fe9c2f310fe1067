"""What teachers, benchmarks and users were seen to write, each under its kind of trouble, with the right value."""

from typing import get_args

import pytest

from data.answers.canonical import canonical_answer, same_answer
from data.answers.parse import parse_answer
from data.marking import mark
from data.prompts import finish_rationale
from data.records import AnswerKind, Question

PLACES = ("race track", "populated areas", "the desert", "apartment", "roadblock")


def asked(kind: AnswerKind, answer: str | None = None, choices: tuple[str, ...] = ()) -> Question:
    assert kind in get_args(AnswerKind)
    return Question(id="1", dataset="own", text="?", answer=answer, answer_kind=kind, choices=choices)


@pytest.mark.parametrize(
    ("output", "answer", "kept"),
    [
        (
            "Each correct answer is 5 points. She has 8 of them. 8 * 5 = 40. The answer is 40.",
            "40",
            "Each correct answer is 5 points. She has 8 of them. 8 * 5 = 40.",
        ),
        ("His right answers are 15. 15 + 1 = 16.", "16", "His right answers are 15. 15 + 1 = 16."),
        (
            "The answer for Monday is 4. The answer for Tuesday is 5. 4 + 5 = 9. The answer is 9.",
            "9",
            "The answer for Monday is 4. The answer for Tuesday is 5. 4 + 5 = 9.",
        ),
        (
            "The best option is 9 dollars a pack. 2 * 9 = 18.",
            "18",
            "The best option is 9 dollars a pack. 2 * 9 = 18.",
        ),
        ("She reads x**2 pages: 3**2 = 9. The answer is 9.", "9", "She reads x**2 pages: 3**2 = 9."),
    ],
)
def test_reasoning_is_not_taken_for_the_final_answer(output: str, answer: str, kept: str) -> None:
    assert finish_rationale(output, asked("number", answer), answer) == f"{kept} The answer is {answer}."


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("The answer must be 7. I started with 3.", "7"),
        ("The answer should be 7, from 3 and 4.", "7"),
        ("Result: 7 after 2 days", "7"),
        ("3 + 4 = 7 apples. He eats 2, so he has 5 left.", "5"),
        ("20 - 2 = 18. He pays 3, which leaves 15 dollars. 15 is the answer.", "15"),
        ("The answer is (84 / 2).", "42"),
        ("42k", "42000"),
        ("3 trillion", "3000000000000"),
        ("2 dozen", "24"),
        ("10 000 km", "10000"),
        ("1'250 francs", "1250"),
        ("472/10,000", "0.0472"),
        ("5²", "25"),
        ("It measures 5 cm².", "5"),
        ("\\boxed{- 5}", "-5"),
        ("所以一共有7个。", "7"),
        ("所以一共有７个。", "7"),
    ],
)
def test_the_number_that_is_meant_is_read(output: str, answer: str) -> None:
    assert parse_answer(output, asked("number")) == answer


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("The answer is most likely B.", "B"),
        ("The answer is clearly B.", "B"),
        ("ANSWER B", "B"),
        ("B) populated areas is correct because roadblock (E) is not.", "B"),
        ("I pick (B). (A) is loud.", "B"),
        ("The answer is A, B.", None),
    ],
)
def test_the_letter_that_is_meant_is_read(output: str, answer: str | None) -> None:
    assert parse_answer(output, asked("choice", choices=PLACES)) == answer


@pytest.mark.parametrize(
    ("choices", "output"),
    [
        (("$\\frac{1}{2}$", "$\\frac{3}{4}$"), "The answer is $\\frac{3}{4}$."),
        (("1 : 2", "2 : 3"), "2:3"),
        (("1 : 2", "2 : 3"), "The answer is 2:3."),
    ],
)
def test_formal_choices_are_told_apart(choices: tuple[str, ...], output: str) -> None:
    assert parse_answer(output, asked("choice", choices=choices)) == "B"


def test_a_name_with_initials_is_read_whole() -> None:
    assert parse_answer("The answer is J. K. Rowling.", asked("text")) == "J. K. Rowling"


@pytest.mark.parametrize(
    ("label", "kind", "canonical"),
    [
        ("\\frac{3}{4}", "number", "0.75"),
        ("$\\frac{3}{4}$", "number", "0.75"),
        ("10\\%", "number", "10"),
        ("\\boxed{7}", "number", "7"),
        ("\\text{7}", "number", "7"),
        ("\\sqrt{16}", "number", "4"),
        ("N/A", "number", None),
        ("5 apples", "number", None),
        ("\\text{Oslo}", "text", "Oslo"),
        ("\\text{Yes}", "boolean", "yes"),
    ],
)
def test_labels_in_latex_are_what_they_say(label: str, kind: AnswerKind, canonical: str | None) -> None:
    assert canonical_answer(label, kind) == canonical


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2\\sqrt{3}", "\\sqrt{12}", True),
        ("\\frac{\\pi}{2}", "π/2", True),
        ("x + 1", "1 + x", True),
        ("x + 1", "x - 1", False),
        ("(3, 4)", "(4, 3)", False),
        ("well-known", "known well", False),
        ("2^{2^{3}}", "2^{2^{4}}", False),
    ],
)
def test_formulas_are_the_same_where_they_come_to_the_same(first: str, second: str, same: bool) -> None:
    assert same_answer(first, second, "text") is same


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("analysis", "assistantfinal"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("[THINK]", "[/THINK]"),
        ("<thought>", "</thought>"),
        ("<seed:think>", "</seed:think>"),
        ("◁think▷", "◁/think▷"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<reasoning>", "</reasoning>"),
        ("<think>", "</think>"),
    ],
)
def test_thoughts_stay_out_whatever_marks_them(opening: str, closing: str) -> None:
    question = asked("number", "9")
    written = f"{opening}We could say that the answer is 5.{closing}4 + 5 = 9. The answer is 9."
    assert finish_rationale(written, question, "9") == "4 + 5 = 9. The answer is 9."
    assert parse_answer(f"{opening}The answer is 5.", question) is None
    assert parse_answer(f"{opening}Is it 5?{closing}\n9", question) == "9"


def test_digits_between_letters_of_scripts_without_spaces_are_critical() -> None:
    marked = mark("?", "小明有3个苹果，又买了12个。")
    assert [marked.text[start:end] for start, end in marked.critical_spans] == ["3", "12"]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1. Ann has 3 figs. 2. She buys 4 more.", ["1. Ann has 3 figs.", "2. She buys 4 more."]),
        ("Mr. Lee left at 3:30 p.m.", ["Mr. Lee left at 3:30 p.m."]),
        ("小明有3个苹果。他吃了1个！还剩几个？", ["小明有3个苹果。", "他吃了1个！", "还剩几个？"]),
    ],
)
@pytest.mark.parametrize("rule", ["periods", "sentences"])
def test_steps_end_where_sentences_do(text: str, steps: list[str], rule: str) -> None:
    marked = mark("", text, steps=rule)  # type: ignore[arg-type]
    assert [marked.text[start:end] for start, end in marked.step_spans] == steps
