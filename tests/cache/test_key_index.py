"""The lookup of keys against a dict of strings, which is what it replaces."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.key_index import KEY_BYTES, KeyIndex, hex_keys

ALIKE = [bytes([first]) + bytes(7) + bytes([middle]) + bytes(22) + bytes([last])
         for first in (0, 255) for middle in (0, 9) for last in (0, 1)]  # fmt: skip
"""Eight keys of which four each begin with the same eight bytes."""


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
