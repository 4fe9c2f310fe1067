"""Made-up problems: solved again from their words alone, and compared with what the generator says."""

import re

import pytest

from data.answers.parse import parse_answer
from data.errors import ConfigError
from data.marking import mark
from data.prompts import finish_rationale
from data.sets.synthetic import NAMES, THINGS, synthetic_problems, synthetic_questions

SPLITS = ["train", "dev", "test"]


def solve(text: str) -> int:
    """The answer from the words of a problem, by the roles of its names and things; knows nothing of the generator."""
    asked = re.search(r"How many (more )?(\w+) (?:does|do) (\w+) (?:and (\w+) )?have(?: than (\w+))?", text)
    assert asked
    more, thing, person, friend, rival = asked.groups()
    total = 0
    for name, verb, to, number in re.findall(
        rf"(\w+) (starts with|has|finds|loses|sells|gives) (\w+ )?(\d+) {thing}\.", text
    ):
        gained = name in (person, friend) and verb in ("starts with", "has", "finds")
        if gained or (verb == "gives" and to.strip() == person):
            total += int(number)
        elif (name == person and verb in ("loses", "sells")) or (more and name == rival and verb == "has"):
            total -= int(number)
    return total


@pytest.mark.parametrize("split", SPLITS)
def test_answers_follow_from_the_words_alone(split: str) -> None:
    for question in synthetic_questions(700, seed=3, split=split):
        assert question.answer == str(solve(question.text)), question.text


def test_rationales_are_exact_and_end_in_the_answer() -> None:
    for question in synthetic_questions(500, seed=1, split="train"):
        assert question.reference is not None and question.answer is not None
        sums = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)\.", question.reference)
        assert sums
        for first, sign, second, result in sums:
            assert int(first) + (1 if sign == "+" else -1) * int(second) == int(result)
        assert sums[-1][3] == question.answer
        finished = finish_rationale(question.reference, question, question.answer)
        assert finished == f"{question.reference} The answer is {question.answer}."
        assert parse_answer(finished, question) == question.answer


def test_every_problem_has_one_distractor_whose_number_is_no_other() -> None:
    for problem in synthetic_problems(500, seed=2, split="train"):
        distractors = [fact for fact in problem.facts if fact.role == "distractor"]
        assert len(distractors) == 1
        assert distractors[0].amount not in {abs(fact.amount) for fact in problem.relevant}
        assert problem.answer == sum(fact.amount for fact in problem.facts if fact.role != "distractor")


def test_distractors_and_starts_stand_in_every_place() -> None:
    problems = synthetic_problems(500, seed=0, split="train")
    for role in ("distractor", "start"):
        places = {[fact.role for fact in problem.facts].index(role) for problem in problems}
        assert {0, 1, 2} <= places


def test_numbers_and_results_stay_small() -> None:
    for question in synthetic_questions(500, seed=4, split="train"):
        assert all(1 <= int(number) <= 10 for number in re.findall(r"\d+", question.text))
        assert all(0 <= int(number) <= 30 for number in re.findall(r"\d+", question.reference or ""))


def test_texts_are_short_and_use_few_words() -> None:
    questions = synthetic_questions(1000, seed=5, split="train")
    texts = [f"{question.text} {question.reference}" for question in questions]
    assert max(len(text.split()) for text in texts) <= 60
    vocabulary = {word for text in texts for word in re.findall(r"\w+|[^\w\s]", text) if not word.isdigit()}
    assert len(vocabulary) < 60
    assert set(NAMES) | set(THINGS) < vocabulary
    for question in questions[:100]:
        assert len(mark(question.text, question.reference or "").step_spans) <= 8


def test_the_same_seed_gives_the_same_questions_everywhere() -> None:
    first = synthetic_questions(2, seed=0, split="train")
    assert [question.text for question in first] == [
        "The cards cost 6 dollars. Sam starts with 10 cards. Tom gives Sam 4 cards. Sam finds 4 cards. "
        "How many cards does Sam have now?",
        "Eva has 2 books. The books cost 7 dollars. Tom has 3 books. How many more books does Tom have than Eva?",
    ]
    assert first[0].reference == (
        "Sam starts with 10 cards. Tom gives Sam 4 cards so 10 + 4 = 14. Sam finds 4 cards so 14 + 4 = 18."
    )


def test_a_longer_list_begins_with_the_shorter() -> None:
    assert synthetic_questions(50, seed=0, split="train")[:20] == synthetic_questions(20, seed=0, split="train")


def test_seeds_differ() -> None:
    assert synthetic_questions(5, seed=1, split="train") != synthetic_questions(5, seed=-1, split="train")


def test_no_text_occurs_twice_or_in_two_splits_whatever_the_seeds() -> None:
    texts = {
        split: [question.text for seed in (0, 1) for question in synthetic_questions(400, seed=seed, split=split)]
        for split in SPLITS
    }
    for split in SPLITS:
        assert len(set(texts[split][:400])) == 400
        assert all(set(texts[split]).isdisjoint(texts[other]) for other in SPLITS if other != split)


def test_identifiers_are_different_and_belong_to_the_text() -> None:
    questions = synthetic_questions(300, seed=0, split="test")
    assert len({question.id for question in questions}) == 300


def test_an_unknown_split_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"train.*'validation'"):
        synthetic_questions(1, seed=0, split="validation")
