"""Prompts, targets and finished rationales, to the letter."""

import time
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import prompts
from data.answers.choices import with_choices
from data.answers.parse import parse_answer
from data.errors import ConfigError, DataError
from data.prompts import (
    answer_sentence,
    explain_prompt,
    finish_rationale,
    hint,
    predict_prompt,
    predict_target,
    prompts_version,
    rationale_messages,
    rationale_prompt,
)
from data.records import AnswerKind, Question
from data.worked_examples import worked_examples

NUMBER = Question(id="1", dataset="test", text="T has 40 and 2. How many?", answer="42", answer_kind="number")
BOOLEAN = Question(id="2", dataset="test", text="Is it?", answer="yes", answer_kind="boolean")
TEXT = Question(id="4", dataset="test", text="Where?", answer="Washington D.C", answer_kind="text")
PLACES = ("race track", "populated areas", "st. louis", "u.s.")
CHOICE = Question(
    id="3",
    dataset="test",
    text=with_choices("Where?", PLACES),
    answer="B",
    answer_kind="choice",
    choices=PLACES,
)
SEVERAL = Question(id="5", dataset="test", text="How wide and long?", answer="8; 42", answer_kind="numbers")
RATIO = Question(id="6", dataset="test", text="What is the ratio?", answer="9:7", answer_kind="numbers")
KINDS = [NUMBER, CHOICE, BOOLEAN, TEXT]


def test_without_shots_the_prompt_is_the_question_and_a_line_break() -> None:
    assert rationale_prompt(NUMBER, shots=0) == "T has 40 and 2. How many?\n"
    assert (
        rationale_prompt(NUMBER, shots=0, gold_shown=True) == "(The correct answer is 42.)\nT has 40 and 2. How many?\n"
    )


@pytest.mark.parametrize("question", KINDS)
@pytest.mark.parametrize("gold_shown", [False, True])
def test_shots_come_as_blocks_before_the_open_question(question: Question, gold_shown: bool) -> None:
    *blocks, last = rationale_prompt(question, shots=4, gold_shown=gold_shown).split("\n\n")
    assert len(blocks) == 4
    assert last == f"Q: {question.text}\n{hint(question) + chr(10) if gold_shown else ''}A:"
    for block, exemplar in zip(blocks, worked_examples(question.answer_kind), strict=False):
        assert block.startswith(f"Q: {exemplar.text}\n")
        assert block.endswith(answer_sentence(exemplar, exemplar.answer or ""))
        assert (hint(exemplar) in block) is gold_shown


def test_messages_alternate_and_end_with_the_question() -> None:
    messages = rationale_messages(CHOICE, shots=2)
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert messages[-1]["content"] == CHOICE.text
    assert rationale_messages(CHOICE, shots=0, gold_shown=True)[-1]["content"] == f"{CHOICE.text}\n{hint(CHOICE)}"


def test_more_shots_than_exemplars_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"rationales\.shots: there are 8 .* found 9"):
        rationale_prompt(NUMBER, shots=9)


@pytest.mark.parametrize("kind", get_args(AnswerKind))
def test_there_are_four_exemplars_of_each_kind_and_their_answers_are_read_back(kind: str) -> None:
    worked = worked_examples(kind)
    assert len(worked) >= 4
    for exemplar in worked:
        finished = finish_rationale(exemplar.reference or "", exemplar, exemplar.answer or "")
        assert finished == f"{exemplar.reference} {answer_sentence(exemplar, exemplar.answer or '')}"
        assert parse_answer(finished, exemplar) == exemplar.answer
        assert parse_answer(predict_target(exemplar), exemplar) == exemplar.answer


def test_the_version_changes_with_a_template_and_with_an_exemplar(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prompts_version()
    assert len(before) == 64 and before == prompts_version()
    monkeypatch.setattr(prompts, "_INSTRUCTION", "Think.")
    with_other_instruction = prompts_version()
    monkeypatch.setattr(prompts, "worked_examples", lambda name: changed if name == "number" else worked_examples(name))
    first, *others = worked_examples("number")
    changed = (*others, replace(first, reference="Think."))
    assert len({before, with_other_instruction, prompts_version()}) == 3


def test_student_prompts_carry_their_task() -> None:
    assert predict_prompt("How many?") == "predict: How many?\n"
    assert explain_prompt("How many?") == "explain: How many?\n"


def test_targets_sentences_and_hints_to_the_letter() -> None:
    assert [predict_target(question) for question in KINDS] == ["42", "(B) populated areas", "yes", "Washington D.C"]
    assert [answer_sentence(question, question.answer or "") for question in KINDS] == [
        "The answer is 42.",
        "The answer is (B) populated areas.",
        "The answer is yes.",
        "The answer is Washington D.C.",
    ]
    assert hint(CHOICE) == "(The correct answer is (B) populated areas.)"
    assert answer_sentence(CHOICE, "D") == "The answer is (D) u.s."


def test_a_question_without_label_has_no_target() -> None:
    with pytest.raises(DataError, match="'1' has no gold answer"):
        predict_target(replace(NUMBER, answer=None))


@pytest.mark.parametrize(
    ("output", "reasoning"),
    [
        ("40 + 2 = 42. The answer is 42.", "40 + 2 = 42."),
        ("A: 40 + 2 = 42. So the final answer is **42**.", "40 + 2 = 42."),
        ("40 + 2 = 42\n#### 42", "40 + 2 = 42."),
        ("40 + 2 = 42, so the answer is 42.", "40 + 2 = 42."),
        ("It is 40 and 2.\n\nTherefore:\n\n\\[\\boxed{42}\\]\n", "It is 40 and 2."),
        ("It grows. Thus, the answer is: $\\boxed{42}$.", "It grows."),
        ("It is 40 and 2 (the answer is 42).", "It is 40 and 2."),
        ("It grows. Answer: 42 apples\nThat was it", "It grows.\nThat was it."),
        ("The answer is 41. It grows. The answer is 42.", "It grows."),
        ("It costs 42$, ", "It costs 42$."),
        ('She said "42."', 'She said "42."'),
        ("(The correct answer is 42.)\nIt grows.", "It grows."),
        ("It grows. The answer is 42.\n\nQ: Next? The answer is 3.", "It grows."),
        ("First.\n\n\nSecond.", "First.\nSecond."),
        ("The answer is the sum of both. It is 42.", "The answer is the sum of both. It is 42."),
        ("The answer is 42 because 40 + 2 = 42.", "The answer is 42 because 40 + 2 = 42."),
        ("It grows. The answer is 40 + 2 = 42.", "It grows. The answer is 40 + 2 = 42."),
        ("It grows by 2.\n\nHence T has \\(\\boxed{42}\\) figs.", "It grows by 2.\nHence T has 42 figs."),
        ("It grows, so x = \\boxed{42}.", "It grows, so x = 42."),
        ("It grows. The answer is $\\boxed{42}$ figs.", "It grows."),
        ("\\[\n40 + 2 = 42\n\\]\nSo it is.", "40 + 2 = 42\nSo it is."),
        ("$$40 + 2 = 42$$\n\n**Final Answer:** $\\boxed{42}$", "40 + 2 = 42."),
        ("<think>40 and 2?\nThe answer is 42.</think>\n\nIt grows. The answer is 42.", "It grows."),
        ("40 and 2?\n</think>\nIt grows. <answer>42</answer>", "It grows."),
        ("It grows. The answer is 42.\n\nQuestion: Next?\nAnswer: 3", "It grows."),
        ("It grows. The answer is 42.\n### Problem 2\nNext? 3", "It grows."),
        ("Problem: T has 40.\nSolution: It grows. The answer is 42.", "Problem: T has 40.\nSolution: It grows."),
    ],
)
def test_a_finished_rationale_ends_in_one_answer_sentence(output: str, reasoning: str) -> None:
    assert finish_rationale(output, NUMBER, "42") == f"{reasoning} The answer is 42."


@pytest.mark.parametrize(
    "output",
    [
        *(
            "",
            "42",
            "The answer is 42.",
            "#### 42",
            "\\boxed{42}",
            "So the answer is 42",
            "= 42",
            "So 42.",
            "$42 dollars",
        ),
        *(
            "T has 42.",
            "So T has a total of 42.",
            "Sure! Here is the solution:\nThe answer is 42.",
            "How many has T? 42.",
        ),
        *("Let's think step by step. The answer is 42.", "<think>40 + 2 = 42</think>\n\nThe answer is 42."),
    ],
)
def test_a_bare_answer_leaves_the_sentence_alone(output: str) -> None:
    assert finish_rationale(output, NUMBER, "42") == "The answer is 42."


@pytest.mark.parametrize("output", ["Yes, it is.", "It is true.", "Is it? Yes."])
def test_a_question_said_again_with_its_answer_leaves_the_sentence_alone(output: str) -> None:
    assert finish_rationale(output, BOOLEAN, "yes") == "The answer is yes."


def test_picking_a_number_out_of_the_question_is_reasoning() -> None:
    asked = replace(NUMBER, text="T has 42 figs and 3 pears. How many figs?")
    assert finish_rationale("T has 42 figs.", asked, "42") == "T has 42 figs. The answer is 42."


def test_a_model_that_repeats_itself_is_cleaned_in_time() -> None:
    started = time.perf_counter()
    assert (
        finish_rationale("It grows. " + "#### " * 600 + "The answer is 42.", NUMBER, "42")
        == "It grows. The answer is 42."
    )
    assert time.perf_counter() - started < 20, "it took minutes once"


@pytest.mark.parametrize(
    ("output", "reasoning"),
    [
        ("Sam went out. The answer is B", "Sam went out."),
        ("Sam went out. So the answer is populated areas.", "Sam went out."),
        ("Sam went out. Answer: (B) populated areas", "Sam went out."),
        ("Sam went out. The answer is (C) st. louis.", "Sam went out."),
        ("Sam went out. So the most likely answer is **(B) populated areas**.", "Sam went out."),
        ("The closest answer is populated areas.", "The closest answer is populated areas."),
        ("Sam went out. So the answer is (B).A:,", "Sam went out."),
    ],
)
def test_sentences_that_name_a_choice_are_replaced(output: str, reasoning: str) -> None:
    assert finish_rationale(output, CHOICE, "B") == f"{reasoning} The answer is (B) populated areas."


@pytest.mark.parametrize(
    "output",
    [
        *("B", "(b)", "B) populated areas", "populated areas.", "**(B) populated areas**"),
        "So it must be populated areas.",
    ],
)
def test_a_bare_choice_leaves_the_sentence_alone(output: str) -> None:
    assert finish_rationale(output, CHOICE, "B") == "The answer is (B) populated areas."


def test_yes_and_text_sentences_are_replaced() -> None:
    assert finish_rationale("He was old. So the answer is True.", BOOLEAN, "yes") == "He was old. The answer is yes."
    assert (
        finish_rationale("It has a river. The answer is Washington D.C.", TEXT, "Washington D.C")
        == "It has a river. The answer is Washington D.C."
    )


@pytest.mark.parametrize(
    ("output", "question", "finished"),
    [
        ("It is 8 ft. The answer is 8 ft and 42 sq. ft.", SEVERAL, "It is 8 ft. The answer is 8; 42."),
        ("x = 8, y = 42. So the answer is 8; 42", SEVERAL, "x = 8, y = 42. The answer is 8; 42."),
        ("63 / 49 is 9 / 7. The answer is 9 to 7.", RATIO, "63 / 49 is 9 / 7. The answer is 9:7."),
        ("9:7", RATIO, "The answer is 9:7."),
    ],
)
def test_sentences_with_several_numbers_are_replaced(output: str, question: Question, finished: str) -> None:
    assert finish_rationale(output, question, question.answer or "") == finished


PIECES = st.sampled_from(
    ["The answer is 42.", "So the answer is (B).", "#### 42", "It is 3.5", ". ", ", ", "\n", "\\boxed{42}", " so ", "$",
     "The answer is", "yes", "(", ")", "A:", " populated areas", "The answer is yes.", "(The correct answer is 42.)"]
)  # fmt: skip


STORIES = (
    "Each correct answer is 5 points.",
    "A wrong answer costs 2 points.",
    "His right answers are 15.",
    "The answer for Monday is 4.",
    "The answer for Tuesday is 5.",
    "Mia's answer is 12.",
    '"The answer is 12," said Mia.',
    "The answer to the first riddle is 7 letters long.",
    "The number of correct answers is 18.",
    "If the answer is yes, he gets a point.",
    "He thinks that the answer is no.",
    "The best option is 9 dollars a pack.",
    "Her first answer was (A).",
    "The teacher wrote that the answer is B.",
    "The result of the first game is 21.",
    "Nobody knew the answer.",
    "The answer must be an even number.",
    "The final answer sheet has 30 lines.",
    "Is the answer 9?",
    "For each answer he pays 2 dollars.",
    "To find the answer, we add both.",
)
REASONS = (
    "He has 40 figs.",
    "40 + 2 = 42.",
    "She reads x**2 pages.",
    "So he gets 2 more.",
    "(A) is loud.",
    "It lies on the Potomac.",
    "Dr. Lee has 3 dogs.",
    "That leaves 7 of them.",
)
CLOSINGS = (
    "So the answer is {}.",
    "#### {}",
    "Answer: {}",
    "The final answer is {}.",
    "**The answer is {}.**",
    "Therefore, the answer is: {}.",
    "",
)


@given(
    st.lists(st.sampled_from(STORIES + REASONS), max_size=7),
    st.sampled_from([NUMBER, BOOLEAN, CHOICE, TEXT, SEVERAL, RATIO]),
    st.sampled_from(CLOSINGS),
    st.sampled_from([" ", "\n", "\n\n"]),
)
def test_no_sentence_of_a_story_with_answers_is_lost(
    said: list[str], question: Question, closing: str, between: str
) -> None:
    sentence = answer_sentence(question, question.answer or "")
    answer = sentence.removeprefix("The answer is ").removesuffix(".")
    kept = ["We count the figs.", *said]
    finished = finish_rationale(between.join([*kept, closing.format(answer)]), question, question.answer or "")
    assert finished == ("\n" if "\n" in between else " ").join(kept) + f" {sentence}"


@pytest.mark.parametrize(
    "bait",
    [
        *("the answer is ", "The answer is 5. ", "Answer: 5 ", "#### 5 ", "#", "\n##", "\n", " ", "half ", "5/"),
        *("1 1/2 ", "answer to ", "( ", "**a", "~~", "$", "\\frac", "or ", "is the ", "and ", "7", "not 5, "),
        *("minus ", "(A) ", "The best option is ", "<think>", "\nQ:", "he has 5 left ", "so ", "Check: ", "5 or "),
        "\\boxed{5} ",
    ],
)
def test_what_long_outputs_take_grows_with_their_length_not_with_its_square(bait: str) -> None:
    def seconds(output: str, question: Question) -> float:
        started = time.process_time()
        parse_answer(output, question)
        finish_rationale(output, question, question.answer or "")
        return time.process_time() - started

    for question in (NUMBER, BOOLEAN, CHOICE, TEXT, SEVERAL):
        for start in ("", "The answer is "):
            short, long = (start + bait * (length // len(bait)) for length in (2_500, 10_000))
            # Four times as much takes four times as long, or sixteen times. Only what takes long is compared, and
            # more than once, for a search for garbage among all that other tests have loaded takes seconds.
            if seconds(long, question) > 1:
                assert min(seconds(long, question) for _ in range(3)) < 10 * seconds(short, question)


@given(st.lists(PIECES, max_size=8).map("".join), st.sampled_from([*KINDS[:3], SEVERAL, RATIO]))
def test_finishing_twice_changes_nothing_and_the_answer_is_read_back(output: str, question: Question) -> None:
    sentence = answer_sentence(question, question.answer or "")
    finished = finish_rationale(output, question, question.answer or "")
    assert finished.endswith(sentence)
    assert finished.count(sentence) == 1
    assert parse_answer(finished, question) == question.answer
    assert finish_rationale(finished, question, question.answer or "") == finished
