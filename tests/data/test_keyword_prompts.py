"""How a teacher's list of key words is asked for and read: by hand first, then what holds for any output."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.keyword_prompts import MOST_WORDS, keyword_messages, keyword_prompt, read_keywords
from data.marking import keyword_spans
from data.prompts import worked_rationale
from data.worked_examples import worked_examples

WORKED = worked_examples("keywords")

QUESTION = "Where does a child keep ice cream?\nAnswer Choices:\n(A) freezer\n(B) sock drawer"
RATIONALE = "Ice cream melts when it is warm. Children and parents keep it cold. The answer is (A) freezer."


def read(output: str, *, whole: bool = True) -> tuple[str, ...]:
    return read_keywords(output, QUESTION, RATIONALE, whole=whole).words


def test_the_prompt_ends_where_the_list_begins() -> None:
    prompt = keyword_prompt(QUESTION, RATIONALE)
    assert prompt.endswith(f"\n\nQ: {QUESTION}\nA: {RATIONALE}\nKey words:")
    assert prompt.count("Key words: ") == len(WORKED)


def test_chat_models_are_shown_the_same_examples_as_turns() -> None:
    system, *turns = keyword_messages(QUESTION, RATIONALE)
    assert system["role"] == "system"
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * len(WORKED) + ["user"]
    assert turns[-1]["content"] == f"Q: {QUESTION}\nA: {RATIONALE}"


@pytest.mark.parametrize("worked", WORKED, ids=lambda worked: worked.keywords[0])
def test_every_worked_example_names_words_of_its_text_and_no_others(worked) -> None:  # type: ignore[no-untyped-def]
    named = read_keywords(", ".join(worked.keywords), worked.text, worked_rationale(worked))
    assert (named.words, named.missing) == (worked.keywords, 0)


@pytest.mark.parametrize(
    "output",
    [
        " child, ice cream, freezer",
        "child, ice cream, freezer.\n\nQ: What else?",
        "Key words: child, ice cream, freezer",
        "**Key words:** child, ice cream, freezer",
        "The key words are: child, ice cream, and freezer.",
        "The key words are child, ice cream and freezer",
        "Here are the key words of both:\n- child\n- ice cream\n- freezer",
        "1. child\n2. ice cream\n3. freezer",
        "1) **child**; 2) **ice cream**; 3) **freezer**",
        "* “child”\n* 'ice cream'\n* `freezer`",
        "child (a young person), ice cream: it melts, the freezer - a cold place",
        "CHILD, child, Ice cream, ice cream, the freezer",
        "child,\nice cream,\nfreezer,\n",
        "child | ice cream | freezer",
        "child • ice cream • (A) freezer",
        "[child, ice cream, freezer]",
        '```json\n{"keywords": ["child", "ice cream", "freezer"]}\n```',
        "(child), <ice cream>, #freezer",
        "1. child 2. ice cream 3. freezer",
        "A: child, ice cream, freezer",
        "Question: child, ice cream\nExplanation: freezer",
        "child -> a person, ice cream -> sweet, freezer",
        "child，ice cream、freezer",
        "<think>It is about warm socks. Key words: cold</think>\n\nchild, ice cream, freezer",
    ],
)
def test_lists_of_all_kinds_are_read_alike(output: str) -> None:
    assert tuple(word.casefold() for word in read(output)) == ("child", "ice cream", "freezer")


def test_words_that_do_not_occur_are_left_out_and_counted() -> None:
    named = read_keywords("child, refrigerator, freezer, snow", QUESTION, RATIONALE)
    assert (named.words, named.missing) == (("child", "freezer"), 2)


def test_another_number_and_case_are_found_in_question_and_rationale() -> None:
    assert read("children, parent, Freezers") == ("children", "parent", "Freezers")


def test_an_and_that_stands_in_the_text_joins_a_phrase() -> None:
    assert read("children and parents, warm") == ("children and parents", "warm")


def test_what_a_thing_belongs_to_is_the_word_itself() -> None:
    assert read("parent's, freezers’") == ("parent", "freezers")


def test_a_thought_without_end_names_nothing() -> None:
    assert read("<think>child, freezer", whole=False) == ()


def test_a_whole_sentence_is_no_key_word() -> None:
    assert len(["Ice", "cream", "melts", "when", "it", "is", "warm"]) > MOST_WORDS
    assert read("Ice cream melts when it is warm") == ()


def test_a_list_that_was_cut_off_loses_its_last_word() -> None:
    assert read("child, freezer, so", whole=False) == ("child", "freezer")
    assert read("child, freezer, sock", whole=True) == ("child", "freezer", "sock")


@pytest.mark.parametrize("output", ["", " \n", ",,,", "...", "none of them", "Key words:"])
def test_an_output_without_a_word_of_the_text_names_nothing(output: str) -> None:
    assert read(output) == ()


@given(st.text(max_size=200), st.booleans())
def test_whatever_is_named_occurs_once_and_in_one_line(output: str, whole: bool) -> None:
    words = read(output, whole=whole)
    assert len({word.casefold() for word in words}) == len(words)
    for word in words:
        assert keyword_spans(f"{QUESTION}\n{RATIONALE}", (word,))
        assert "\n" not in word and word == word.strip()


@given(st.lists(st.sampled_from(["child", "ice cream", "freezer", "warm", "nonsense", "cold"]), max_size=8))
def test_a_plain_list_comes_back_without_what_is_not_there(words: list[str]) -> None:
    expected = tuple(dict.fromkeys(word for word in words if word != "nonsense"))
    assert read(", ".join(words)) == expected
