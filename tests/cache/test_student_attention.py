"""The file of where a student looked: what goes in comes out, and what was never written by us is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cache.student_attention import (
    OLD_SCHEMA,
    STUDENT_ATTENTION,
    StudentLook,
    read_student_attention,
    write_student_attention,
)
from data.errors import DamagedCacheError


def look(key: str, when: str, shape: tuple[int, int, int], *, weights: bool = True) -> StudentLook:
    source = np.random.default_rng(len(key))
    attention = source.random(shape).astype(np.float16)
    layer_weights = source.random(shape[0]).astype(np.float32) if weights else None
    return StudentLook(key=key, when=when, attention=attention, layer_weights=layer_weights)


LOOKS = [look("a", "before", (3, 2, 4)), look("bb", "before", (3, 1, 1)), look("a", "after", (3, 2, 4), weights=False)]


def test_what_was_written_is_read_to_the_bit(tmp_path: Path):
    write_student_attention(tmp_path, LOOKS)
    found = read_student_attention(tmp_path)
    assert [(one.key, one.when) for one in found] == [(one.key, one.when) for one in LOOKS]
    for one, expected in zip(found, LOOKS, strict=True):
        assert one.attention.dtype == np.float16
        np.testing.assert_array_equal(one.attention, expected.attention)
    np.testing.assert_array_equal(found[0].layer_weights, LOOKS[0].layer_weights)
    assert found[2].layer_weights is None


def test_pandas_reads_it_too(tmp_path: Path):
    write_student_attention(tmp_path, LOOKS)
    frame = pd.read_parquet(tmp_path / STUDENT_ATTENTION)
    assert list(frame) == ["key", "when", "layers", "steps", "words", "values", "layer_weights"]
    row = frame.iloc[0]
    block = row["values"].reshape(row["layers"], row["steps"], row["words"])
    np.testing.assert_array_equal(block, LOOKS[0].attention)


def test_values_are_stored_as_numbers_that_every_reader_adds_up(tmp_path: Path):
    """polars may add 30,000 halves of 0.1 up to 256 in a group, and pyarrow has no sum for them at all."""
    tenths = StudentLook(key="a", when="after", attention=np.full((3, 100, 100), 0.1, np.float16), layer_weights=None)
    write_student_attention(tmp_path, [tenths])
    values = pq.read_table(tmp_path / STUDENT_ATTENTION)["values"].combine_chunks().flatten()
    assert values.type == pa.float32()
    assert pc.sum(values).as_py() == pytest.approx(30_000 * float(np.float16(0.1)))


def test_files_of_halves_are_read_as_before(tmp_path: Path):
    write_student_attention(tmp_path, LOOKS)
    table = pq.read_table(tmp_path / STUDENT_ATTENTION)
    pq.write_table(table.cast(OLD_SCHEMA), tmp_path / STUDENT_ATTENTION)
    found = read_student_attention(tmp_path)
    for one, expected in zip(found, LOOKS, strict=True):
        np.testing.assert_array_equal(one.attention, expected.attention, strict=True)


def test_a_student_without_the_file_has_nothing_to_show(tmp_path: Path):
    assert read_student_attention(tmp_path) == []


def test_no_look_at_all_is_a_file_without_rows(tmp_path: Path):
    write_student_attention(tmp_path, [])
    assert read_student_attention(tmp_path) == []


def spoil(folder: Path, column: str, value: object) -> None:
    table = pq.read_table(folder / STUDENT_ATTENTION)
    at = table.schema.get_field_index(column)
    spoiled = pa.array([value] * len(table), table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), spoiled), folder / STUDENT_ATTENTION)


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("steps", 3, "cannot reshape"),
        ("words", -1, "reshape"),
        ("when", "never", "expected before or after, found never"),
        ("layer_weights", [0.5], "1 layer weights for 3 layers"),
        ("values", [np.nan] * 24, "not finite"),
        ("values", [0.1] * 24, "float16 does not hold"),
        ("values", [1e6] * 24, "float16 does not hold"),
    ],
)
def test_a_row_that_cannot_be_is_refused_by_name(tmp_path: Path, column: str, value: object, problem: str):
    write_student_attention(tmp_path, LOOKS[:1])
    spoil(tmp_path, column, value)
    with pytest.raises(DamagedCacheError, match=rf"{STUDENT_ATTENTION}: does not decode \(.*{problem}"):
        read_student_attention(tmp_path)


def test_bytes_that_are_no_parquet_are_refused(tmp_path: Path):
    write_student_attention(tmp_path, LOOKS)
    path = tmp_path / STUDENT_ATTENTION
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedCacheError, match="the student itself does not need it"):
        read_student_attention(tmp_path)


def test_other_columns_are_refused(tmp_path: Path):
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / STUDENT_ATTENTION)
    with pytest.raises(DamagedCacheError, match="does not decode"):
        read_student_attention(tmp_path)
