"""Files in any packing, and files that are something else: each is read, or named as what it is."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from data.errors import ConfigError, DataError
from data.readers import read_questions, read_rationales
from data.records import Question
from data.rows import contents
from data.settings import DataSource, RationaleFields

LINES = b'{"question": "q", "answer": 5}\n\n{"question": "r", "answer": "1,200"}\n'


def zipped(files: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return archive.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
    "zip": lambda content: zipped({"some/folder/mine.jsonl": content, "__MACOSX/some/._mine.jsonl": b"\x00"}),
}


def read(path: Path) -> list[Question]:
    return read_questions(DataSource(name="jsonl", path=str(path)))


def refused(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        read(path)
    return str(raised.value).removeprefix(str(path.parent) + "/")


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_file_is_read_as_the_plain_one(tmp_path: Path, suffix: str) -> None:
    plain, packed = tmp_path / "mine.jsonl", tmp_path / f"mine.jsonl.{suffix}"
    plain.write_bytes(LINES)
    packed.write_bytes(PACKERS[suffix](LINES))
    assert read(packed) == read(plain)
    assert [(question.dataset, question.id) for question in read(packed)] == [("mine", "mine-1"), ("mine", "mine-3")]


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_file_that_is_cut_off_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine.jsonl.{suffix}"
    path.write_bytes(PACKERS[suffix](LINES)[:-9])
    assert refused(path).startswith(f"mine.jsonl.{suffix}: a file of ")
    assert "that cannot be unpacked: " in refused(path)


def test_a_line_of_a_packed_file_is_named_as_that_of_a_plain_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl.gz"
    path.write_bytes(gzip.compress(LINES + b"{"))
    assert refused(path).startswith("mine.jsonl.gz:4: no JSON: ")


def test_two_files_of_gzip_and_zstd_one_after_the_other_are_one(tmp_path: Path) -> None:
    for suffix in ("gz", "zst"):
        path = tmp_path / f"mine.jsonl.{suffix}"
        path.write_bytes(PACKERS[suffix](LINES) + PACKERS[suffix](b'{"question": "s"}'))
        assert [question.text for question in read(path)] == ["q", "r", "s"]


def test_the_name_below_that_of_the_packing_says_the_form(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv.gz"
    table.write_bytes(gzip.compress(b"question,answer\nq,3\n"))
    archive = tmp_path / "all.zip"
    archive.write_bytes(zipped({"mine.tsv": b"question\tanswer\nq\t3\n"}))
    array = tmp_path / "mine.json.xz"
    array.write_bytes(lzma.compress(b'[{"question": "q", "answer": 3}]'))
    found = [(question.id, question.answer) for path in (table, archive, array) for question in read(path)]
    assert found == [("mine-2", "3"), ("all-2", "3"), ("mine-1", "3")]


def test_packing_is_told_by_the_content_and_names_stay_where_there_is_none(tmp_path: Path) -> None:
    packed, plain = tmp_path / "mine.jsonl", tmp_path / "plain.jsonl.gz"
    packed.write_bytes(gzip.compress(LINES))
    plain.write_bytes(LINES)
    assert [question.id for question in read(packed)] == ["mine-1", "mine-3"]
    assert [question.id for question in read(plain)] == ["plain.jsonl-1", "plain.jsonl-3"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (zipped({"a.jsonl": b"", "b.jsonl": b"", "c": b"", "d": b""}), "4 files (a.jsonl, b.jsonl, c, …); unpack it"),
        (zipped({}), "a zip archive of 0 files; unpack it"),
        (
            zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}),
            "found an Excel workbook; save the sheet as CSV",
        ),
        (zipped({"mimetype": b"", "content.xml": b""}), "found an OpenDocument file"),
        (gzip.compress(gzip.compress(LINES, mtime=0), mtime=0), "gzip has packed what gzip has packed"),
        (zipped({"a.jsonl.xz": lzma.compress(LINES)}), "zip has packed what xz has packed"),
        (gzip.compress(b"a.jsonl".ljust(257, b"\0") + b"ustar", mtime=0), "found a tar archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "found a file of Microsoft Office, such as .xls"),
        (b"%PDF-1.7\n", "found a PDF document"),
        (b"SQLite format 3\x00", "found an SQLite database"),
        (pickle.dumps([1]), "found a pickle of Python, which is never read"),
        (b"\x93NUMPY\x01\x00", "found an array of NumPy"),
        ("question,answer\nq,1\n".encode("utf-16"), "found text in UTF-16; save it as UTF-8"),
        (b"\n<!DOCTYPE html>\n<html>", "found a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "found a pointer of Git LFS"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "found a 7-Zip archive; unpack it"),
    ],
)
def test_what_is_no_file_of_questions_is_named_as_what_it_is(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    assert refused(path).startswith("mine.jsonl: ")
    assert found in refused(path)


@pytest.mark.parametrize("name", ["PARENT", "PAR1", "BZh", "PK", "Rar", "Obj", "FEA1", "ARROW1", "ORC"])
def test_a_table_may_begin_as_other_files_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"{name},question,answer\nx,q,3\n")
    assert read(path)[0].answer == "3"


def test_an_archive_with_a_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.zip"
    content = bytearray(zipped({"mine.jsonl": LINES}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + offset] |= 1
    path.write_bytes(content)
    assert "a file of zip that cannot be unpacked" in refused(path) and "password" in refused(path)


@pytest.mark.parametrize("suffix", PACKERS)
def test_what_unpacks_without_end_is_given_up(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "LARGEST", 4 << 20)
    path = tmp_path / f"mine.jsonl.{suffix}"
    path.write_bytes(PACKERS[suffix](bytes(48 << 20)))
    tracemalloc.start()
    assert "unpacks to more than 4 MiB; name a JSON Lines file that is not packed" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 24 << 20
    tracemalloc.stop()


@pytest.fixture(params=["parquet", "feather", "arrow"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[pa.Table], Path]:
    """Writes a table in one of the forms that hold columns."""
    path = tmp_path / f"mine.{request.param}"

    def write(table: pa.Table) -> Path:
        if request.param == "parquet":
            pa.parquet.write_table(table, path)
        elif request.param == "feather":
            pa.feather.write_feather(table, path)
        else:
            with pa.ipc.new_stream(str(path), table.schema) as stream:
                stream.write_table(table, max_chunksize=2)
        return path

    return write


def test_columns_are_read_as_json_would_have_them(written: Callable[[pa.Table], Path]) -> None:
    table = pd.DataFrame(
        {
            "question": ["q", "r", "s"],
            "answer": ["5", None, "1,200"],
            "choices": [None, np.array(["red", "blue"]), None],
            "id": [7, 8, 9],
        }
    )
    table["answer"] = ["5", "B", "1,200"]
    read_again = read(written(pa.Table.from_pandas(table)))
    assert [(question.id, question.answer, question.choices) for question in read_again] == [
        ("7", "5", ()),
        ("8", "B", ("red", "blue")),
        ("9", "1200", ()),
    ]


def test_what_is_missing_in_a_column_is_no_label(written: Callable[[pa.Table], Path]) -> None:
    table = pa.table({"question": ["q", "r", "s"], "answer": pa.array([2.5, float("nan"), None], pa.float64())})
    assert [question.answer for question in read(written(table))] == ["2.5", None, None]


def test_whole_numbers_decimals_categories_and_truth_values_stay_what_they_are(
    written: Callable[[pa.Table], Path],
) -> None:
    decimals = pa.array([1, 2]).cast(pa.decimal128(24, 2))
    for answers, expected in (
        (pa.array([3, 2**40]), ["3", "1099511627776"]),
        (decimals, ["1", "2"]),
        (pa.array([True, False]), ["yes", "no"]),
        (pa.array(["Oslo", "Bergen"]).dictionary_encode(), ["Oslo", "Bergen"]),
    ):
        read_again = read(written(pa.table({"question": ["q", "r"], "answer": answers})))
        assert [question.answer for question in read_again] == expected


def test_rows_of_columns_are_named_by_their_number(written: Callable[[pa.Table], Path]) -> None:
    path = written(pa.table({"question": ["q", "r", None], "answer": [1, 2, 3]}))
    assert refused(path) == f"{path.name}, row 3: expected text in the field 'question', found None"


def test_columns_under_other_names_are_refused(written: Callable[[pa.Table], Path]) -> None:
    path = written(pa.table({"question": ["q"], "Answer": [1]}))
    assert "found the column 'Answer', expected 'answer'" in refused(path)


def test_a_file_of_columns_that_is_cut_off_is_refused(written: Callable[[pa.Table], Path]) -> None:
    path = written(pa.table({"question": ["q", "r", "s", "t"], "answer": [1, 2, 3, 4]}))
    whole = path.read_bytes()
    for length in (len(whole) // 3, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert refused(path).startswith(f"{path.name}: ")


def test_columns_that_point_beyond_their_values_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.feather"
    pa.feather.write_feather(pa.table({"question": ["aaaa", "bbbb", "cccc"]}), path, compression="uncompressed")
    content = path.read_bytes()
    offsets = np.array([0, 4, 8, 12], dtype=np.int32).tobytes()
    assert content.count(offsets) == 1
    wrong = np.array([0, 8, 4, 12], dtype=np.int32)
    path.write_bytes(content.replace(offsets, wrong.tobytes()))
    assert refused(path).startswith("mine.feather: Arrow that cannot be read after row 0: ")


def test_columns_that_unpack_without_end_are_given_up(
    written: Callable[[pa.Table], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "LARGEST", 1 << 20)
    path = written(pa.table({"question": ["q"] * 100_000}))
    assert "unpacks to more than 1 MiB" in refused(path)


@pytest.mark.parametrize("nested", [False, True])
def test_one_long_text_a_thousand_times_fills_no_memory(
    written: Callable[[pa.Table], Path], nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "LARGEST", 8 << 20)
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * (512 << 10)]))
    listed = pa.ListArray.from_arrays(pa.array(range(1001), pa.int32()), shared)
    path = written(pa.table({"question": listed if nested else shared}))
    tracemalloc.start()
    assert "unpacks to more than 8 MiB" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 128 << 20
    tracemalloc.stop()


def test_columns_within_gzip_are_read(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"question": ["q"], "answer": [3]}), tmp_path / "mine.parquet")
    path = tmp_path / "mine.parquet.gz"
    path.write_bytes(gzip.compress((tmp_path / "mine.parquet").read_bytes()))
    assert read(path) == read(tmp_path / "mine.parquet")


def test_a_published_set_is_read_from_columns(tmp_path: Path) -> None:
    row = {
        "question": "Where?",
        "question_concept": "bread",
        "choices": {"label": ["A", "B"], "text": ["pond", "oven"]},
    }
    path = tmp_path / "train.parquet"
    pa.parquet.write_table(pa.Table.from_pylist([row | {"id": "x", "answerKey": "B"}]), path)
    (question,) = read_questions(DataSource(name="commonsenseqa", path=str(path)))
    assert (question.id, question.answer, question.choices) == ("x", "B", ("pond", "oven"))


@pytest.mark.parametrize("form", ["jsonl.gz", "jsonl.zst", "parquet", "csv"])
def test_rationales_come_from_files_of_every_form(tmp_path: Path, form: str) -> None:
    rows = [{"id": "x", "rationale": "2 and 3 make 5.", "answer": "5"}, {"id": "y", "rationale": "So.", "answer": "1"}]
    path = tmp_path / f"rationales.{form}"
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if form == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif form == "csv":
        path.write_text("id,rationale, answer\nx,2 and 3 make 5.,5\n")
    else:
        path.write_bytes(PACKERS[form.rpartition(".")[2]](lines))
    question = Question(id="x", dataset="d", text="What is 2 + 3?", answer="5", answer_kind="number")
    found = read_rationales(str(path), [question], fields=RationaleFields())
    assert found == {"x": "2 and 3 make 5. The answer is 5."}


def test_a_field_of_rationales_may_be_named_as_the_file_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "rationales.csv"
    path.write_text('id, "why so"\nx,2 and 3 make 5. The answer is 5.\n')
    question = Question(id="x", dataset="d", text="What is 2 + 3?", answer="5", answer_kind="number")
    for name in (' "why so"', "why so"):
        found = read_rationales(str(path), [question], fields=RationaleFields(rationale=name))
        assert found == {"x": "2 and 3 make 5. The answer is 5."}


def test_a_file_that_may_not_be_read_is_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "mine.jsonl"
    path.write_bytes(LINES)
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(ConfigError, match=r"data jsonl: path: .*mine\.jsonl: Permission denied"):
        read(path)
