from dataclasses import replace

from cache.keys import question_key, record_key
from data.records import Marked, Question

QUESTION = Question(id="1", dataset="svamp", text="2 + 2?", answer="4", answer_kind="number")
MARKED = Marked(
    question="2 + 2?",
    rationale="It is 4.",
    text="2 + 2?\nIt is 4.",
    step_spans=((0, 6), (7, 15)),
    critical_spans=((0, 1),),
)


def test_keys_are_64_hex_digits_and_stay_the_same_between_versions():
    assert question_key(QUESTION, "2 + 2?\n") == "68adb0f32eac4314282124643b34600eb54b400ea4de485eacfee10788870fba"
    assert record_key(MARKED) == "d153b97c99ff691950061bbed5209bfe0e2f9cb034bc926848a39bb0213ff2ef"


def test_all_that_a_question_says_and_its_prompt_change_the_key():
    others = [
        replace(QUESTION, text="2 + 3?"),
        replace(QUESTION, answer=None),
        replace(QUESTION, answer_kind="text"),
        replace(QUESTION, choices=("4",)),
    ]
    keys = {question_key(question, "2 + 2?\n") for question in [QUESTION, *others]}
    assert len(keys) == 1 + len(others)
    assert question_key(QUESTION, "Q: 2 + 2?\nA:") not in keys


def test_the_same_question_from_another_file_has_the_same_key():
    elsewhere = replace(QUESTION, id="2", dataset="mine", keywords=("4",), reference="It is 4.")
    assert question_key(elsewhere, "2 + 2?\n") == question_key(QUESTION, "2 + 2?\n")


def test_question_rationale_and_spans_change_the_key_of_a_record():
    others = [
        replace(MARKED, question="2 + 2!", text="2 + 2!\nIt is 4."),
        replace(MARKED, rationale="It is 5.", text="2 + 2?\nIt is 5."),
        replace(MARKED, step_spans=((0, 15),)),
        replace(MARKED, critical_spans=((4, 5),)),
    ]
    assert len({record_key(marked) for marked in [MARKED, *others]}) == 1 + len(others)


def test_text_that_moves_between_question_and_rationale_changes_the_key():
    moved = replace(MARKED, question="2 + 2?\nIt", rationale=" is 4.")
    assert record_key(moved) != record_key(MARKED)
