"""Numbers in digits and in words, with values worked out by hand."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.answers.numbers import (
    number_text,
    number_value,
    numbers_in_digits,
    numbers_in_words,
    plain_numbers,
    words_as_digits,
)
from tests.ways_of_answering import spelled


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("1,234,567.5", ["1234567.5"]),
        ("1,00,000 and 12,34,567", ["100000", "1234567"]),
        ("1.234,5 and 1.234.567", ["1234.5", "1234567"]),
        ("1.234", ["1.234"]),
        ("3,5", ["3", "5"]),
        ("1\u2009234\u2009567", ["1234567"]),
        ("1 234", ["1", "234"]),
        ("2e3 2E-3 2e+3", ["2000", "0.002", "2000"]),
        ("2.5 x 10^3, 3×10⁴, 3 * 10**-2, 10^2", ["2500", "30000", "0.03", "100"]),
        ("1½ 2 ¾ ½", ["1.5", "2.75", "0.5"]),
        ("1 1/2, 3 and 1/4, 5 3/2", ["1.5", "3.25", "5", "1.5"]),
        ("3 and a half, 2 and a quarter", ["3.5", "2.25"]),
        ("3 million, 2.5 thousand, 7 hundred", ["3000000", "2500", "700"]),
        ("it is minus 5, negative $3, and 8 minus 5", ["-5", "-3", "8", "5"]),
        ("x minus 5, eight minus 5", ["5", "5"]),
        ("3⁄4", ["0.75"]),
        ("1e99", ["1"]),
        ("v2 B12 H2O", []),
    ],
)
def test_numbers_in_digits_by_hand(written: str, values: list[str]) -> None:
    assert [number_text(value) for _, value in numbers_in_digits(plain_numbers(written))] == values


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("five", ["5"]),
        ("twenty-five, twenty five", ["25", "25"]),
        ("one hundred and five", ["105"]),
        ("a hundred, a thousand", ["100", "1000"]),
        ("two thousand three hundred forty-one", ["2341"]),
        ("three million two hundred thousand", ["3200000"]),
        ("twelve hundred", ["1200"]),
        ("minus seven", ["-7"]),
        ("three quarters, two thirds, one half, half, a quarter", ["0.75", "2/3", "0.5", "0.5", "0.25"]),
        ("two and a half", ["2.5"]),
        ("two three", []),
        ("ten five", []),
        ("twenty eleven", []),
        ("thousand two thousand", []),
        ("two quarter", []),
        ("one quarters", []),
        ("one of them", []),
        ("no one, each one, the half, that quarter", []),
        ("someone, often, weight, twenty-first, tension", []),
    ],
)
def test_numbers_in_words_by_hand(written: str, values: list[str]) -> None:
    assert [number_text(value) for value in numbers_in_words(written)] == values


def test_words_become_digits_in_their_place() -> None:
    assert words_as_digits("One of the five boxes holds twenty-one pens.") == "1 of the 5 boxes holds 21 pens."
    assert words_as_digits("The first one, no one and each one.") == "The first one, no one and each one."


@given(st.integers(-(10**12) + 1, 10**12 - 1))
def test_a_spelled_number_is_read_back(value: int) -> None:
    assert words_as_digits(f"It is {spelled(value)} apples.") == f"It is {value} apples."


@given(st.integers(0, 10**9), st.integers(1, 40), st.integers(2, 41))
def test_a_mixed_number_is_read_back(whole: int, upper: int, lower: int) -> None:
    if upper < lower:
        found = numbers_in_digits(plain_numbers(f"It is {whole} {upper}/{lower} cups."))
        assert [value for _, value in found] == [whole + Fraction(upper, lower)]


@given(st.text(alphabet="0123456789.,/ -+−eE^x×10½minus andhalfthreequarters", max_size=60))
def test_any_text_becomes_one_whose_numbers_are_found_whole(text: str) -> None:
    plain = plain_numbers(text)
    assert all(number_value(plain[start:end]) == value for (start, end), value in numbers_in_digits(plain))
    assert any(map(str.isdigit, text)) or "½" in text or plain == text
