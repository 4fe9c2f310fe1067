"""Keys of content, and the lookup of keys against a dict of strings, which is what it replaces."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.keys import KEY_BYTES, KeyIndex, Keys, are_among, hex_keys, in_order, key_rows, question_key, record_key
from data.records import Marked, Question

QUESTION = Question(id="1", dataset="svamp", text="2 + 2?", answer="4", answer_kind="number")
MARKED = Marked(
    question="2 + 2?",
    rationale="It is 4.",
    text="2 + 2?\nIt is 4.",
    step_spans=((0, 6), (7, 15)),
    critical_spans=((0, 1),),
)

ALIKE = [bytes([first]) + bytes(7) + bytes([middle]) + bytes(22) + bytes([last])
         for first in (0, 255) for middle in (0, 9) for last in (0, 1)]  # fmt: skip
"""Eight keys of which four each begin with the same eight bytes."""


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


def rows(keys: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)


@given(st.lists(st.lists(st.sampled_from(ALIKE), max_size=6), max_size=5))
def test_finds_the_first_of_equal_keys_and_gives_each_once_in_order(parts: list[list[bytes]]):
    expected: dict[str, int] = {}
    for position, key in enumerate(key for part in parts for key in part):
        expected.setdefault(key.hex(), position)
    index = KeyIndex([rows(part) for part in parts])
    assert list(index) == list(expected)
    assert len(index) == len(expected)
    assert {key.hex(): index.find(key.hex()) for key in ALIKE} == {key.hex(): expected.get(key.hex()) for key in ALIKE}


def test_finds_each_of_many_hashes():
    keys = [hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(3000)]
    index = KeyIndex([rows(keys[:1000]), rows(keys[1000:]), rows(keys[500:1500])])
    assert list(hex_keys(rows(keys))) == [key.hex() for key in keys] == list(index)
    assert [index.find(key.hex()) for key in keys] == list(range(3000))
    assert index.find(hashlib.sha256(b"another").hexdigest()) is None


@pytest.mark.parametrize(
    "other", ["", "0", "AB" * 32, "ab" * 31, "ab" * 33, "-1" * 32, " " * 64, "_", b"ab" * 32, 7, None, ("a",)]
)
def test_what_is_no_key_is_not_there(other: object):
    index = KeyIndex([rows([b"\xab" * KEY_BYTES])])
    assert index.find("ab" * 32) == 0
    assert index.find(other) is None


def test_no_parts_hold_no_keys():
    index = KeyIndex([])
    assert (len(index), list(index), index.find("00" * 32)) == (0, [], None)


def test_keys_are_strings_only_as_long_as_somebody_holds_them():
    names = [bytes([number % 251]).hex() * 31 + f"{number:02x}" for number in (0, 255, 7, 0x30)]
    keys = Keys(key_rows(names))
    assert list(keys) == names and [keys[number] for number in range(-4, 4)] == names * 2
    assert list(keys[1:3]) == names[1:3] and len(keys) == 4 and names[2] in keys
    assert key_rows(keys) is keys.rows and list(hex_keys(key_rows(keys))) == names
    assert in_order(keys).tolist() == in_order(names).tolist() == sorted(range(4), key=names.__getitem__)


def test_keys_are_found_among_others_whatever_bytes_they_end_with():
    names = ["ab" * 31 + end for end in ("00", "01", "20")] + ["ab" * 30 + "0000", "00" * 32]
    rows = key_rows(names)
    for number, name in enumerate(names):
        assert are_among(rows, key_rows([name])).tolist() == [number == other for other in range(5)]
    assert not are_among(rows, key_rows([])).any() and are_among(key_rows([]), rows).tolist() == []
