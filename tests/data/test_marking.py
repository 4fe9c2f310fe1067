"""Steps and critical words against examples worked out by hand, then properties that hold for any text."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import ConfigError
from data.lists import Item, list_items
from data.marking import CriticalRule, Keywords, Numbers, Regex, keyword_spans, mark
from data.readers import read_questions
from data.records import Marked
from data.settings import DataSource
from data.steps import StepRule

TEXTS = st.text(alphabet=st.sampled_from(list("ab .?!\n\t\r\"')-+$%/,=x1230½—")), max_size=60)
RULES: list[StepRule] = ["periods", "sentences", "lines"]


def steps(question: str, rationale: str = "", rule: StepRule = "periods") -> list[str]:
    marked = mark(question, rationale, steps=rule)
    return [marked.text[start:end] for start, end in marked.step_spans]


def words(text: str, critical: CriticalRule = Numbers(), question: str = "") -> list[str]:  # noqa: B008
    marked = mark(question, text, critical=critical)
    return [marked.text[start:end] for start, end in marked.critical_spans]


def test_text_is_question_line_break_rationale() -> None:
    marked = mark("How many?", "Three.")
    assert marked.text == "How many?\nThree."
    assert marked.text[marked.rationale_start :] == "Three."


def test_periods_cut_question_and_rationale() -> None:
    found = steps("Tom has 3 apples. How many are left?", "He ate 1. 3 - 1 = 2. The answer is 2.")
    assert found == ["Tom has 3 apples.", "How many are left?", "He ate 1.", "3 - 1 = 2.", "The answer is 2."]


def test_spans_of_a_small_text_are_these_numbers() -> None:
    marked = mark("I have 3.", "So 3.")
    assert marked.step_spans == ((0, 9), (10, 15))
    assert marked.critical_spans == ((7, 8), (13, 14))


@pytest.mark.parametrize("number", ["3.5", "1,000.50", "$.75", "-0.5"])
def test_a_point_inside_a_number_is_no_cut(number: str) -> None:
    assert steps(f"It costs {number} now. Really.") == [f"It costs {number} now.", "Really."]


def test_a_period_after_a_number_is_a_cut() -> None:
    assert steps("3 + 4 = 7.Then he left.") == ["3 + 4 = 7.", "Then he left."]


def test_a_period_between_word_and_digit_is_a_cut() -> None:
    assert steps("He left.5 remain.") == ["He left.", "5 remain."]


def test_a_point_behind_a_closing_mark_ends_the_sentence_and_behind_an_opening_one_begins_a_number() -> None:
    assert steps("He left (at 5).6 remain.") == ["He left (at 5).", "6 remain."]
    assert words("He left (at 5).6 remain.") == ["5", "6"]
    assert steps('It says ".5" here.') == ['It says ".5" here.']
    assert words('It says ".5" here.') == [".5"]


def test_dots_are_one_cut_before_a_capital_letter_and_none_where_the_sentence_goes_on() -> None:
    assert steps("Well... yes. And.. so") == ["Well... yes.", "And.. so"]
    assert steps("Well... Yes. And.. So") == ["Well...", "Yes.", "And..", "So"]


def test_closing_marks_stay_with_their_sentence() -> None:
    assert steps('She said "no." He left (at 5.) Bye') == ['She said "no."', "He left (at 5.)", "Bye"]


CASES = [json.loads(line) for line in (Path(__file__).parent / "steps.jsonl").read_text(encoding="utf-8").splitlines()]
MISSED = pytest.mark.xfail(strict=True, reason="known not to be seen: docs/decisions/0017")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{place}-{case['trouble']}", marks=MISSED if case.get("missed") else ())
        for place, case in enumerate(CASES, start=1)
    ],
)
def test_labelled_cases(case: dict[str, Any]) -> None:
    if "steps" in case:
        assert steps("", case["text"], case["rule"]) == case["steps"]
    else:
        assert words(case["text"]) == case["critical"]


def test_the_labelled_cases_are_many_and_mostly_everyday_or_troublesome_in_a_named_way() -> None:
    assert len(CASES) >= 400
    assert all({"text", "trouble"} < case.keys() for case in CASES)
    assert sum(case["trouble"] == "plain" for case in CASES) >= 50
    assert sum(case.get("missed", False) for case in CASES) < len(CASES) / 40


@pytest.mark.parametrize(
    "bait",
    [
        "1. ",
        "1.",
        "(1) a",
        "Step 1: ",
        "J. ",
        "p.m. ",
        "**",
        "...",
        ". ",
        "x.Y@",
        " -1",
        "1,000",
        "１，２",
        "。",
        "\n1. ",
        "5 ft. ",
    ],
)
def test_long_texts_take_time_in_proportion(bait: str) -> None:
    times = []
    for length in (20_000, 80_000):
        text = bait * (length // len(bait))
        start = process_time()
        mark("", text, steps="sentences")
        times.append(process_time() - start)
    assert times[1] < max(12 * times[0], 1.0)


def test_numbers_of_lists_stay_critical_for_other_rules() -> None:
    assert words("1. Ann has 3. 2. Bob has 4.", Regex("[0-9]")) == ["1", "3", "2", "4"]


def test_a_list_is_numbered_in_question_and_rationale_apart() -> None:
    assert words("2. Bob has 4.", question="1. Ann has 3.") == ["3", "2", "4"]


def test_an_item_tells_where_it_begins_its_number_ends_and_its_content_begins() -> None:
    assert list_items("So:\n**1.** Ann.\n**2.** Bob.") == (
        Item(start=6, number=7, content=11, begins=4),
        Item(start=18, number=19, content=23, begins=16),
    )


def test_an_unpunctuated_question_does_not_run_into_the_rationale() -> None:
    assert steps("How many", "Two of them") == ["How many", "Two of them"]


def test_question_marks_cut_sentences_but_not_periods() -> None:
    text = "Who? Me!? Yes at 3.5."
    assert steps(text, rule="sentences") == ["Who?", "Me!?", "Yes at 3.5."]
    assert steps(text) == [text]


def test_line_ends_cut_sentences_and_lines() -> None:
    text = "One\nTwo. Three\r\n\n Four"
    assert steps(text, rule="sentences") == ["One", "Two.", "Three", "Four"]
    assert steps(text, rule="lines") == ["One", "Two. Three", "Four"]
    assert steps(text, rule="periods") == ["One\nTwo.", "Three\r\n\n Four"]


def test_empty_parts_have_no_steps() -> None:
    assert steps("", "") == []
    assert steps(" \n", "Yes.") == ["Yes."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42 and 7.", ["42", "7"]),
        ("1,000 and 1,234,567.89 and 3.5", ["1,000", "1,234,567.89", "3.5"]),
        ("1,2,3 and 10,20", ["1", "2", "3", "10", "20"]),
        ("3/4 of it, 1/2.", ["3/4", "1/2"]),
        ("1/2/2020", ["1", "2", "2020"]),
        ("45% of $5 and € 6.20", ["45", "5", "6.20"]),
        ("US$5, 5kg, 3rd, 5-year", ["5", "5", "3", "5"]),
        ("H2O, B12 and COVID19", []),
        ("2x3 = 6, 2 x 3 = 6, 2*3=6", ["2", "3", "6"] * 3),
        (".5 of 0.5", [".5", "0.5"]),
        ("½ and 1½", ["½", "1", "½"]),
        ("version 1.2.3", ["1.2", "3"]),
        ("at 3:30", ["3", "30"]),
        ("no digits, only seven", []),
    ],
)
def test_numbers_are_found_whole(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-3 degrees", ["-3"]),
        ("it is -3", ["-3"]),
        ("x = -4, (-2), $-5, 4*-3", ["-4", "-2", "-5", "4", "-3"]),
        ("−7 and +2", ["−7", "+2"]),
        ("8-3 = 5", ["8", "3", "5"]),
        ("8 - 3 = 5", ["8", "3", "5"]),
        ("8 -3 and 8  -3", ["8", "3", "8", "3"]),
        ("8 - -3", ["8", "-3"]),
        ("pages 10-20 and 10–20", ["10", "20", "10", "20"]),
        ("mid-90s, (2) -3, 5% -3, --3", ["90", "2", "3", "5", "3", "3"]),
        ("7\n-3", ["7", "-3"]),
    ],
)
def test_a_minus_is_a_sign_only_where_nothing_stands_to_subtract_from(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_numbers_of_question_and_rationale_are_both_critical() -> None:
    assert words("3 + 4 = 7.", question="Tom has 3. Ann has 4.") == ["3", "4", "3", "4", "7"]


def test_critical_by_name_is_numbers() -> None:
    assert mark("a 1", "b 2", critical="numbers") == mark("a 1", "b 2", critical=Numbers())


def test_keywords_are_whole_words_in_any_case() -> None:
    assert words("The Bank, a riverbank, banks; BANK", Keywords(("bank",))) == ["Bank", "banks", "BANK"]


@pytest.mark.parametrize(
    ("keyword", "text"),
    [("library", "libraries"), ("box", "boxes"), ("populated areas", "populated area"), ("new york", "New\n York")],
)
def test_keywords_take_a_simple_plural_and_any_space(keyword: str, text: str) -> None:
    assert words(f"some {text} here", Keywords((keyword,))) == [text]


@pytest.mark.parametrize(
    ("singular", "plural"),
    [
        ("apple", "apples"),
        ("box", "boxes"),
        ("bus", "buses"),
        ("church", "churches"),
        ("city", "cities"),
        ("day", "days"),
        ("glass", "glasses"),
        ("horse", "horses"),
        ("movie", "movies"),
        ("photo", "photos"),
        ("potato", "potatoes"),
        ("child", "children"),
        ("leaf", "leaves"),
        ("person", "people"),
        ("Woman", "WOMEN"),
        ("swimming pool", "swimming pools"),
        ("driver's license", "driver’s licenses"),
    ],
)
def test_a_keyword_is_found_in_the_other_number(singular: str, plural: str) -> None:
    assert words(f"a {singular}, some {plural}.", Keywords((singular,))) == [singular, plural]
    assert words(f"a {singular}, some {plural}.", Keywords((plural,))) == [singular, plural]


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("glass", "glas"),
        ("news", "new"),
        ("plan", "plane planes"),
        ("can", "canes"),
        ("on", "ones"),
        ("a", "as"),
        ("it", "its"),
        ("bus", "bu"),
        ("day", "daies"),
        ("cave", "cafe"),
        ("child", "childs grandchild"),
        ("5", "5s 55"),
        ("bank", "riverbank banker bank_note"),
    ],
)
def test_a_keyword_is_not_found_in_another_word(keyword: str, text: str) -> None:
    assert words(text, Keywords((keyword,))) == []


@pytest.mark.parametrize("text", ["ice cream", "Ice  Cream", "ice\ncream", "ice-cream", "ice-\ncream", "ICE CREAMS"])
@pytest.mark.parametrize("keyword", ["ice cream", "ice-cream", "Ice creams"])
def test_a_phrase_is_found_across_spaces_line_breaks_and_hyphens(keyword: str, text: str) -> None:
    assert words(f"some {text}.", Keywords((keyword,))) == [text]


@pytest.mark.parametrize("text", ["icecream", "ice, cream", "ice – cream", "nice cream", "ice creamy"])
def test_a_phrase_is_not_found_in_pieces(text: str) -> None:
    assert words(text, Keywords(("ice cream",))) == []


def test_a_keyword_with_a_hyphen_between_digits_keeps_it() -> None:
    assert words("3-4 and 3 4", Keywords(("3-4",))) == ["3-4"]


WORD = st.text("abcehilosxyz", min_size=1, max_size=6)


@given(st.lists(WORD, min_size=1, max_size=3), WORD, st.sampled_from([" ", "\n", "-", "  "]))
def test_a_phrase_is_found_as_it_is_and_never_inside_other_words(phrase: list[str], other: str, gap: str) -> None:
    keyword = " ".join(phrase)
    assert keyword_spans(f"zz {gap.join(phrase).upper()} zz", (keyword,)) != []
    for text in (f"{other}_{keyword}", f"{keyword}7"):
        assert (0, len(text)) not in keyword_spans(text, (keyword,))
        assert all(end <= len(text) - 1 for _, end in keyword_spans(f"{keyword}7", (keyword,)))


@given(st.lists(st.lists(WORD, min_size=1, max_size=2).map(" ".join), max_size=5), st.lists(WORD, max_size=30))
def test_keywords_are_whole_words_apart_from_each_other(keywords: list[str], text: list[str]) -> None:
    joined = " ".join(text)
    borders = {0, len(joined)} | {place for place, letter in enumerate(joined) if letter == " "}
    last = -1
    for start, end in keyword_spans(joined, keywords):
        assert start > last and (start == 0 or start - 1 in borders) and end in borders
        last = end


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("commonsenseqa", "commonsenseqa/train_rand_split.jsonl", {"concept": 9166, "choices": 48705}),
        ("strategyqa", "strategyqa/train.json", {"term": 4268}),
    ],
)
def test_words_that_published_questions_name_are_found_in_their_text(
    benchmark_data: Path, name: Literal["commonsenseqa", "strategyqa"], path: str, expected: dict[str, int]
) -> None:
    """Of 9,741 concepts 575 are not in the words of the question ("having checkup" is "having a check up"), of 4,551
    words of terms 283; every choice is."""
    questions = read_questions(DataSource(name=name, path=str(benchmark_data / path)))
    found = Counter[str]()
    for question in questions:
        for number, word in enumerate(question.keywords):
            kind = "term" if name == "strategyqa" else "choices" if number else "concept"
            found[kind] += bool(keyword_spans(question.text, (word,)))
    assert found == expected


def test_the_longest_keyword_wins() -> None:
    keywords = Keywords(("store", "big department", "department store", "departments"))
    assert words("a big department store and a store", keywords) == ["department store", "store"]


def test_keywords_with_marks_are_taken_literally() -> None:
    assert words("the u.s. is u+s", Keywords(("u.s",))) == ["u.s"]


def test_empty_keywords_find_nothing() -> None:
    assert words("some words", Keywords(("", " "))) == []


def test_keywords_do_not_reach_over_the_border() -> None:
    assert words("york", Keywords(("new york",)), question="new") == []


def test_regex_matches_are_critical_and_empty_ones_are_not() -> None:
    assert words("aab b", Regex(r"a*")) == ["aa"]
    assert words("cat, dog", Regex(r"\w+")) == ["cat", "dog"]


def test_a_broken_regex_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"attention\.pattern.*\(open"):
        Regex("(open")


def test_unknown_rules_are_configuration_errors() -> None:
    with pytest.raises(ConfigError, match="'words'"):
        mark("q", "r", steps="words")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'keywords'"):
        mark("q", "r", critical="keywords")  # type: ignore[arg-type]


@given(TEXTS, TEXTS, st.sampled_from(RULES))
def test_steps_are_ordered_disjoint_trimmed_and_stay_on_their_side(
    question: str, rationale: str, rule: StepRule
) -> None:
    marked = mark(question, rationale, steps=rule)
    assert_ordered(marked.step_spans, marked)
    for start, end in marked.step_spans:
        assert marked.text[start:end] == marked.text[start:end].strip()


@given(TEXTS, TEXTS, st.sampled_from(RULES))
def test_every_visible_character_lies_in_exactly_one_step(question: str, rationale: str, rule: StepRule) -> None:
    marked = mark(question, rationale, steps=rule)
    covered = [sum(start <= place < end for start, end in marked.step_spans) for place in range(len(marked.text))]
    assert all(count == 1 for count, character in zip(covered, marked.text, strict=True) if not character.isspace())
    assert max(covered, default=0) <= 1


@given(TEXTS, TEXTS, st.sampled_from([Numbers(), Keywords(("a", "ab a", "b")), Regex("[ab.]*")]))
def test_critical_words_are_ordered_disjoint_and_stay_on_their_side(
    question: str, rationale: str, critical: CriticalRule
) -> None:
    marked = mark(question, rationale, critical=critical)
    assert_ordered(marked.critical_spans, marked)


@given(TEXTS)
def test_every_digit_that_follows_no_letter_is_in_a_number(text: str) -> None:
    found = {place for start, end in mark("", text).critical_spans for place in range(start - 1, end - 1)}
    for digits in re.finditer(r"(?<![\w½])[0-9]+", text):
        assert set(range(*digits.span())) <= found


@given(TEXTS)
def test_periods_cut_only_behind_periods_that_a_slow_scan_finds_and_before_items_of_lists(text: str) -> None:
    marked = mark("", text)
    begins = {item.begins for item in list_items(text)}
    for (_, end), (start, _) in pairwise(marked.step_spans):
        place = len(marked.text[:end].rstrip("\"'”’)]*$")) - 2
        assert (text[place] == "." and not is_point(text, place)) or any(
            end <= (begin or 0) + 1 <= start for begin in begins
        )
    assert not any(first < end < last for _, end in marked.step_spans for first, last in marked.critical_spans)


SENTENCE = st.lists(st.sampled_from(["figs", "are", "left", "3", "4.5", "so"]), min_size=1, max_size=5)


@given(st.lists(SENTENCE, min_size=1, max_size=5), st.sampled_from(RULES[:2]))
def test_sentences_of_ordinary_words_are_the_steps(sentences: list[list[str]], rule: StepRule) -> None:
    written = [" ".join(["Figs", *words]) + "." for words in sentences]
    assert steps(" ".join(written), rule=rule) == written


def is_point(text: str, place: int) -> bool:
    before, after = text[place - 1 : place] if place else "", text[place + 1 : place + 2]
    letter = before.isalnum() and not before.isdecimal() and not re.search("[0-9][xX]$", text[:place])
    closed = before in tuple(")]\"'”’") and place > 1 and not text[place - 2].isspace()
    return after in tuple("0123456789") and not letter and not closed


def assert_ordered(spans: tuple[tuple[int, int], ...], marked: Marked) -> None:
    last = 0
    for start, end in spans:
        assert last <= start < end <= len(marked.text)
        assert end <= len(marked.question) or start >= marked.rationale_start
        last = end
