"""Rounding to fewer bits of float16's mantissa: values by hand, then what holds for all of them, then on disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cache.certificates import NOTE, Certificate, add_up, read_certificate
from cache.reader import AttentionStore
from cache.rounding import kept_bits, largest_value, stored_values
from cache.spaces import Space, describe
from cache.writer import AttentionWriter
from data.errors import ConfigError, DamagedCacheError, MismatchError, ModelError
from tests.cache.truth import SPEC, make_block, make_space, stored

ROUNDED = {**SPEC, "rounding": {"bitround": 3}}
FIRST = Certificate(
    tau=0.1,
    records=2,
    values=10,
    sampled_records=1,
    largest_relative_error=0.5,
    mean_relative_error=0.1,
    largest_weight_change=0.01,
    mean_weight_distance=0.002,
    largest_target_divergence=1e-9,
    mean_target_divergence=1e-9,
)
SECOND = replace(
    FIRST, records=3, values=30, sampled_records=3, largest_relative_error=0.25, mean_relative_error=0.2,
    largest_weight_change=0.03, mean_weight_distance=0.006, largest_target_divergence=5e-9, mean_target_divergence=3e-9,
)  # fmt: skip


def rounded_space(store: Path) -> Space:
    return Space.open_or_create(store, "attention", "teacher", ROUNDED)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, 0.0),
        (1.0, 1.0),
        (1.0625, 1.0),  # half way from 1 to 1.125: to the even one
        (1.0634765625, 1.125),  # the next float16
        (1.1875, 1.25),  # half way from 1.125 to 1.25: to the even one
        (0.1, 0.1015625),  # 1.6 / 16, and 1.6 is nearest to 1.625
        (3.9, 4.0),  # 1.95 · 2: the mantissa overflows into the exponent, as it should
        (-3.9, -4.0),
        (2.0**-24, 0.0),  # below 2^-14 the steps are 2^-17
        (2.0**-17, 2.0**-17),
        (61440.0, 61440.0),  # the largest number of three bits
    ],
)
def test_three_bits_by_hand(value: float, expected: float):
    assert stored_values(np.array([value], dtype=np.float32), 3).tolist() == [expected]


@pytest.mark.parametrize("value", [63488.0, 65504.0, 1e30, np.inf, -np.inf, np.nan])
def test_what_rounds_beyond_the_largest_value_is_no_number(value: float):
    assert not np.isfinite(stored_values(np.array([value], dtype=np.float32), 3)).any()


def test_every_bit_pattern_that_is_no_number_stays_none():
    special = np.arange(2**16, dtype=np.uint16).view(np.float16)
    special = special[~np.isfinite(special)]
    for bits in range(1, 11):
        assert not np.isfinite(stored_values(special, bits)).any()


@pytest.mark.parametrize(("bits", "largest"), [(10, 65504), (3, 61440), (1, 49152)])
def test_largest_value(bits: int, largest: int):
    assert largest_value(bits) == largest
    assert stored_values(np.array([largest], dtype=np.float32), bits).tolist() == [largest]
    assert np.isinf(stored_values(np.array([(largest + 65536) / 2], dtype=np.float32), bits)).all()


@given(arrays(np.float32, (3, 4), elements=st.floats(0, 2**15, width=32)), st.integers(1, 10))
def test_rounding_is_close_keeps_zero_and_changes_nothing_the_second_time(values: np.ndarray, bits: int):
    once = stored_values(values, bits)
    np.testing.assert_array_equal(stored_values(once, bits), once, strict=True)
    assert (once[values == 0] == 0).all()
    errors = np.abs(once - values.astype(np.float64)) / np.maximum(values, 2**-14)
    assert errors.max() <= 2.0 ** -(bits + 1) + (bits < 10) * 2.0**-11
    dropped = once.view(np.uint16) & ((1 << (10 - bits)) - 1)
    assert not dropped.any()


def test_all_bits_are_the_nearest_float16():
    values = np.random.default_rng(0).gamma(0.5, size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(stored_values(values, 10), values.astype(np.float16), strict=True)


def test_a_space_without_rounding_stores_the_nearest_float16(tmp_path):
    space = make_space(tmp_path)
    block = make_block(1)
    AttentionWriter(space).append([block])
    np.testing.assert_array_equal(AttentionStore(space)[block.key], stored(block), strict=True)


def test_a_space_rounds_as_its_spec_says_and_zarr_alone_reads_it(tmp_path):
    space = rounded_space(tmp_path)
    block = make_block(1, layers=2, steps=1, words=2)
    block = replace(block, attention=np.array([[[0.1, 0.0]], [[3.9, 1.1875]]], dtype=np.float32))
    commit = AttentionWriter(space).append([block])
    assert AttentionStore(space)[block.key].tolist() == [[[0.1015625, 0.0]], [[4.0, 1.25]]]
    part = zarr.open_group(space.part_path(commit), mode="r", zarr_format=3)
    assert part["attention"].dtype == np.float16
    assert part["attention"][:].tolist() == [[0.1015625, 4.0], [0.0, 1.25]]


def test_a_value_that_rounding_takes_beyond_float16_is_refused(tmp_path):
    block = make_block(1)
    block.attention[1, 2, 1] = 65504
    with pytest.raises(ModelError, match="cannot be stored, float16 with 3 bits of mantissa ends at 61440"):
        AttentionWriter(rounded_space(tmp_path)).append([block])
    AttentionWriter(make_space(tmp_path)).append([block])


def test_another_rounding_is_another_space_and_says_so(tmp_path):
    space = rounded_space(tmp_path)
    assert space.path != make_space(tmp_path).path
    with pytest.raises(MismatchError) as caught:
        Space.open(space.path, expected={**SPEC, "rounding": {"bitround": 5}})
    assert str(caught.value).endswith("  rounding.bitround\n    ours:   5\n    theirs: 3")
    with pytest.raises(
        MismatchError, match=r"rounding\n    ours:   null\n    theirs: \(absent\)\n  rounding\.bitround"
    ):
        Space.open(space.path, expected={**SPEC, "rounding": None})


@pytest.mark.parametrize("rounding", [{"bitround": 0}, {"bitround": 11}, {"bitround": True}, {"quantize": 3}, 3, {}])
def test_a_rounding_that_is_not_known_is_refused(rounding):
    with pytest.raises(ConfigError, match="rounding: expected nothing or bitround with 1 to 10 bits, found"):
        kept_bits({"rounding": rounding})


def test_no_rounding_keeps_all_bits():
    assert kept_bits({}) == kept_bits({"rounding": None}) == kept_bits({"rounding": {"bitround": 10}}) == 10


def test_certificates_add_up_by_what_was_measured():
    (total,) = add_up([FIRST, SECOND])
    assert (total.records, total.values, total.sampled_records) == (5, 40, 4)
    assert (total.largest_relative_error, total.largest_weight_change) == (0.5, 0.03)
    assert total.largest_target_divergence == 5e-9
    assert total.mean_relative_error == pytest.approx((10 * 0.1 + 30 * 0.2) / 40)
    assert total.mean_weight_distance == pytest.approx((0.002 + 3 * 0.006) / 4)
    assert total.mean_target_divergence == pytest.approx(2.5e-9)


def test_certificates_of_different_temperatures_are_not_mixed():
    other = replace(SECOND, tau=0.5)
    assert [(one.tau, one.records) for one in add_up([FIRST, other, FIRST])] == [(0.1, 4), (0.5, 3)]
    assert add_up([]) == []


def test_certificates_are_read_back_and_left_out_of_the_notes(tmp_path):
    space = make_space(tmp_path)
    for certificate in (FIRST, SECOND):
        blocks = [make_block(number) for number in range(certificate.records)]
        AttentionWriter(space).append(blocks, note={"kernel": "x", NOTE: certificate.as_note()})
    assert read_certificate(json.loads(json.dumps(FIRST.as_note()))) == FIRST
    described = describe(Space.open(space.path))
    assert list(described.certificates) == add_up([FIRST, SECOND])
    (note,) = described.notes
    assert note["kernel"] == "x" and NOTE not in note


def test_a_certificate_counts_for_the_records_that_were_measured_only(tmp_path):
    space = make_space(tmp_path)
    note = {NOTE: FIRST.as_note()}
    AttentionWriter(space).append([make_block(1)], note=note)  # what was left of two records
    AttentionWriter(space).append([], {"0" * 64: "too long"}, note=note)
    assert describe(space).certificates == ()
    AttentionWriter(space).append([make_block(2), make_block(3)], note=note)
    assert describe(space).certificates == (FIRST,)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"values": -1}, "values: expected a count, found -1"),
        ({"records": 1.5}, "records: expected a count, found 1.5"),
        ({"tau": "low"}, "tau: expected a finite number of at least 0, found 'low'"),
        ({"mean_relative_error": -0.5}, "mean_relative_error: expected a finite number"),
        ({"more": 1}, "missing or unknown: more"),
    ],
)
def test_a_note_that_is_no_certificate_is_damage(tmp_path, change, complaint):
    space = make_space(tmp_path)
    AttentionWriter(space).append([make_block(0)], note={NOTE: {**FIRST.as_note(), **change}})
    with pytest.raises(DamagedCacheError, match=rf"commit 0: note\.rounding is no certificate \({complaint}"):
        describe(space)
