import hashlib

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cache.fingerprints import (
    ABSENT,
    ENTRIES,
    Difference,
    canonical,
    describe_differences,
    differences,
    fingerprint,
    fingerprint_with,
    hash_file,
    hash_folder,
)
from data.errors import ConfigError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_fingerprint_is_the_sha256_of_sorted_json_without_white_space():
    assert canonical({"b": 1, "a": ["x", None]}) == b'{"a":["x",null],"b":1}'
    assert fingerprint({"b": 1, "a": ["x", None]}) == hashlib.sha256(b'{"a":["x",null],"b":1}').hexdigest()


def test_a_tuple_and_a_list_have_the_same_fingerprint():
    assert fingerprint({"keywords": ("a", "b")}) == fingerprint({"keywords": ["a", "b"]})


def test_a_number_that_json_does_not_know_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"tau": float("nan")})


@given(st.dictionaries(st.text(), json_values))
@hypothesis_settings(max_examples=25)
def test_the_order_of_fields_does_not_matter(spec):
    assert fingerprint(spec) == fingerprint(dict(reversed(spec.items())))
    assert differences(spec, dict(reversed(spec.items()))) == []


def test_differences_name_nested_fields_with_both_values():
    ours = {"teacher": {"revision": "abc", "dtype": "bfloat16"}, "steps": "periods"}
    theirs = {"teacher": {"revision": "def", "dtype": "bfloat16"}, "max_length": 7, "steps": "periods"}
    found = differences(ours, theirs)
    assert found == [
        Difference(field="max_length", ours=ABSENT, theirs="7"),
        Difference(field="teacher.revision", ours='"abc"', theirs='"def"'),
    ]
    assert describe_differences(found).splitlines() == [
        "  max_length",
        "    ours:   (absent)",
        "    theirs: 7",
        "  teacher.revision",
        '    ours:   "abc"',
        '    theirs: "def"',
    ]


def test_the_hash_of_a_folder_is_that_of_what_sha256sum_prints(tmp_path):
    (tmp_path / "b.bin").write_bytes(b"two")
    (tmp_path / "a.json").write_bytes(b"one")
    (tmp_path / "notes.txt").write_bytes(b"not asked for")
    lines = f"{hashlib.sha256(b'one').hexdigest()}  a.json\n{hashlib.sha256(b'two').hexdigest()}  b.bin\n"
    assert hash_folder(tmp_path, ["*.bin", "*.json", "a*"]) == hashlib.sha256(lines.encode()).hexdigest()


def test_the_hash_of_a_folder_depends_on_names_and_contents_only(tmp_path):
    for name, first, second in (("one", b"x", b"y"), ("same", b"x", b"y"), ("swapped", b"y", b"x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.bin").write_bytes(first)
        (tmp_path / name / "2.bin").write_bytes(second)
    one, same, swapped = (hash_folder(tmp_path / name, ["*.bin"]) for name in ("one", "same", "swapped"))
    assert one == same != swapped


def test_a_folder_without_matching_files_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\*\.safetensors"):
        hash_folder(tmp_path, ["*.safetensors"])


def test_a_file_larger_than_one_read_is_hashed_whole(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "large").write_bytes(content)
    assert hash_file(tmp_path / "large") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("count", [0, 1, ENTRIES - 1, ENTRIES, 2 * ENTRIES + 1])
def test_a_long_list_has_the_same_fingerprint_without_being_one(count: int):
    entries = [f'{number} "ö"' for number in range(count)]
    for spec in ({}, {"a": [1], "z": {"records": []}}, {"records": "replaced", "s": None}):
        assert fingerprint_with(spec, "records", iter(entries)) == fingerprint({**spec, "records": entries})
