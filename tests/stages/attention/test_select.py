"""From rationales to records: several of one question, key words of several sources, and what is left out."""

from dataclasses import replace

import pytest

from data.errors import ConfigError
from data.records import Question, Rationale
from stages.attention.select import NO_CRITICAL_WORD, SAME_RECORD, select_examples
from stages.settings import AttentionSettings

COLD = Question(
    id="cold",
    dataset="made-up",
    text="Where is ice cream kept?\nAnswer Choices:\n(A) oven\n(B) freezer",
    answer="B",
    answer_kind="choice",
    choices=("oven", "freezer"),
    keywords=("ice cream", "oven", "freezer"),
)
FIRST = Rationale(
    question=COLD,
    text="It melts when it is warm. The answer is (B) freezer.",
    answer="B",
    phase="plain",
    keywords=("melts", "ice creams", "frost"),
)
SECOND = replace(FIRST, text="A freezer is cold. The answer is (B) freezer.", keywords=("cold",))
KEYWORDS = AttentionSettings(critical="keywords")


def words(rationale: Rationale, settings: AttentionSettings) -> list[str]:
    (example,) = select_examples([rationale], settings).examples
    return [example.marked.text[start:end] for start, end in example.marked.critical_spans]


def test_each_rationale_of_a_question_is_a_record_of_its_own() -> None:
    selection = select_examples([FIRST, SECOND], KEYWORDS)
    assert [example.rationale for example in selection.examples] == [FIRST, SECOND]
    assert len({example.key for example in selection.examples}) == 2 and not selection.dropped


def test_the_same_text_twice_is_one_record() -> None:
    assert select_examples([FIRST, replace(FIRST, phase="gold_shown")], KEYWORDS).dropped == {SAME_RECORD: 1}


def test_words_of_the_teacher_count_beside_those_of_the_data_set() -> None:
    assert words(FIRST, KEYWORDS) == ["ice cream", "oven", "freezer", "melts", "freezer"]


@pytest.mark.parametrize(
    ("sources", "configured", "expected"),
    [
        (("teacher",), (), ["ice cream", "melts"]),
        (("data",), (), ["ice cream", "oven", "freezer", "freezer"]),
        (("teacher",), ("warm",), ["ice cream", "melts", "warm"]),
        ((), ("warm",), ["warm"]),
    ],
)
def test_sources_are_chosen(sources: tuple[str, ...], configured: tuple[str, ...], expected: list[str]) -> None:
    settings = AttentionSettings(critical="keywords", keyword_sources=sources, keywords=configured)  # type: ignore[arg-type]
    assert words(FIRST, settings) == expected


def test_equal_spans_are_one_record_whoever_named_the_words() -> None:
    named = replace(FIRST, keywords=("ice cream", "oven", "freezer"))
    teacher, data = (AttentionSettings(critical="keywords", keyword_sources=(one,)) for one in ("teacher", "data"))  # type: ignore[arg-type]
    (first,), (second,) = (select_examples([named], settings).examples for settings in (teacher, data))
    assert first.key == second.key


def test_a_rationale_without_a_word_that_was_found_is_left_out_and_counted() -> None:
    settings = AttentionSettings(critical="keywords", keyword_sources=("teacher",))
    nothing = replace(FIRST, keywords=())
    assert select_examples([SECOND, nothing], settings).dropped == {NO_CRITICAL_WORD: 1}
    with pytest.raises(ConfigError, match="those of teacher finds no critical word in any of 1 records"):
        select_examples([nothing], settings)
