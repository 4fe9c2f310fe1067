"""A selection beside the store: the same examples, and none where it is no longer right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.keys import record_key
from cache.rationales import Attempt, RationaleStore
from cache.spaces import Space
from data.errors import DamagedCacheError
from data.records import Question, Rationale
from stages.attention.select import Selection, select_examples
from stages.attention.selected import Place, chosen, keep_selection, keys_of, marking_spec, read_selection
from stages.settings import AttentionSettings

SETTINGS = AttentionSettings(critical="keywords", keywords=("Tom",))
TEXTS = (
    ("Tom has 3 figs.", "Tom has 3. The answer is 3."),
    ("Tom 🦉 has\r\n 4 figs </s> and <|im_end|>.", "  Tom.\n\n. 4 \ud83d figs.\u2028 The answer is 4."),
    ("Nobody is here.", "Nothing to mark."),
    ("Tom has 3 figs.", "Tom has 3. The answer is 3."),
)


def rationale(question: str, text: str) -> Rationale:
    asked = Question(
        id="q 1",
        dataset="made",
        text=question,
        answer=None,
        answer_kind="choice",
        choices=("a", "b"),
        keywords=("fig",),
        reference="so",
        benchmark="aqua",
    )
    return Rationale(question=asked, text=text, answer="3", phase="gold_shown", keywords=("fig", "figs"))


RATIONALES = tuple(rationale(*texts) for texts in TEXTS)


def attempt(number: int) -> Attempt:
    return Attempt(
        key=f"{number:064x}",
        question_id=str(number),
        dataset="made",
        question="?",
        gold="3",
        phase="plain",
        output="3",
        rationale="3",
        answer="3",
        outcome="kept",
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    space = Space.open_or_create(tmp_path, "rationales", "teacher", {"schema": 1})
    RationaleStore(space).append([attempt(1)])
    return Place(space=space, of={"marking": marking_spec(SETTINGS)})


@pytest.fixture
def selection() -> Selection:
    return select_examples(RATIONALES, SETTINGS)


def again(place: Place) -> Place:
    """The same place as a later process sees it."""
    return Place(space=place.space, of=place.of)


def test_every_example_is_read_as_it_was_selected(place: Place, selection: Selection):
    assert len(selection.examples) == 2 and selection.dropped == {"no critical word": 1, "same record twice": 1}
    keep_selection(place, selection, {"done": 4})
    found = read_selection(again(place))
    assert found is not None and found.about == {"done": 4} and found.selection.dropped == selection.dropped
    assert list(found.selection.examples) == list(selection.examples)
    keys = [record_key(example.marked) for example in found.selection.examples]
    assert [*keys_of(found.selection.examples)] == keys == [*keys_of(selection.examples)]


def test_some_of_the_examples_are_chosen_alike_in_memory_and_from_the_store(place: Place, selection: Selection):
    stored = keep_selection(place, selection, {}).selection.examples
    for examples in (selection.examples, stored):
        assert list(chosen(examples, np.array([False, True]))) == [selection.examples[1]]
        assert list(examples[1:]) == [selection.examples[1]] and examples[-1] == selection.examples[1]
        with pytest.raises(IndexError):
            examples[2]


def test_a_selection_is_none_once_anything_that_it_follows_from_is_another(place: Place, selection: Selection):
    keep_selection(place, selection, {})
    other = marking_spec(replace(SETTINGS, steps="lines"))
    assert read_selection(Place(space=place.space, of={"marking": other})) is None
    assert read_selection(again(place)) is not None
    RationaleStore(place.space).append([attempt(2)])
    assert read_selection(again(place)) is None


def test_settings_that_mark_nothing_share_a_selection():
    assert marking_spec(SETTINGS) == marking_spec(replace(SETTINGS, batch_tokens=5, keep_bits=3, max_length=7))


def test_a_changed_rule_of_ours_is_noticed(place: Place, selection: Selection, monkeypatch: pytest.MonkeyPatch):
    keep_selection(place, selection, {})
    monkeypatch.setattr("stages.attention.selected.code_version", lambda *_: "another")
    assert read_selection(again(place)) is None


def test_a_part_that_is_gone_is_damage_and_no_selection(place: Place, selection: Selection):
    keep_selection(place, selection, {})
    (file,) = place.space.path.glob("parts/*/attempts.parquet")
    file.unlink()
    with pytest.raises(DamagedCacheError, match="missing"):
        read_selection(again(place))
