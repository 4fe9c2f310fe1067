"""Spaces from strangers: each is refused with one clear line, and neither the store nor anything beside it changes.

Every archive begins as a sound export and is then changed in one way; where the lie has to be told consistently, hashes
and the commit's checksum are made to fit, as somebody would who means harm.
"""

import dataclasses
import io
import json
import os
import random
import struct
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

import cache.exchange.archive
import cache.exchange.bounds
import cache.exchange.incoming
from cache.exchange.bounds import part_files
from cache.exchange.exporting import export_space
from cache.exchange.importing import import_space
from cache.fingerprints import fingerprint, hash_bytes
from cache.layout import LAYOUTS
from cache.rationales import SCHEMA, Attempt, RationaleStore, as_row
from cache.reader import AttentionStore
from cache.spaces import Space
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import ConfigError, DamagedCacheError, MismatchError, MolsakiError
from tests.cache.truth import make_block, make_space, stored

COMMIT = "commits/00000000.json"
PART_FILES = part_files("attention", {"step_attention/zarr.json"})
FILES = dict[str, bytes]


def sound_block(number: int, **shape: int) -> AttentionBlock:
    block = make_block(number, **shape)
    return dataclasses.replace(block, attention=np.minimum(block.attention, 0.4))


def told_block(number: int) -> AttentionBlock:
    """The same with what its steps look at in all, so that every array there is can be tampered with."""
    block = sound_block(number)
    receivers = np.tile(np.array([0.0, 0.1, 0.0], dtype=np.float32), (*block.attention.shape[:2], 1))
    return dataclasses.replace(block, receivers=receivers)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> FILES:
    """The files of a sound export: one part of five records."""
    folder = tmp_path_factory.mktemp("sound")
    space = make_space(folder / "store")
    AttentionWriter(space).append([told_block(number) for number in range(5)], {"k": "too long"})
    return files_of(space, folder / "exported")


def files_of(space: Space, folder: Path) -> FILES:
    export_space(space, str(folder))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def files(exported) -> FILES:
    return dict(exported)


@pytest.fixture
def place(tmp_path) -> Iterator[Path]:
    """A folder with a store that holds one record already, and something beside it; afterwards all is as it was."""
    AttentionWriter(make_space(tmp_path / "store")).append([sound_block(99)])
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "precious").write_text("as it was")
    before = everything(tmp_path)
    yield tmp_path
    (tmp_path / "hostile.tar").unlink(missing_ok=True)
    assert everything(tmp_path) == before


def everything(folder: Path) -> dict[str, bytes | str | None]:
    return {
        path.relative_to(folder).as_posix(): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type = kind
    for field, value in fields.items():
        setattr(header, field, value)
    return header


def write_tar(
    path: Path, files: FILES, extra: Sequence[tuple[tarfile.TarInfo, bytes]] = (), form: int = tarfile.GNU_FORMAT
) -> str:
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in files.items():
            tar.addfile(member(name, size=len(content)), io.BytesIO(content))
        for header, content in extra:
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return str(path)


def refuse(address: str, store: Path, error: type[MolsakiError], line: str) -> None:
    with pytest.raises(error) as caught:
        import_space(address, store)
    assert line in str(caught.value), str(caught.value)
    assert str(caught.value).startswith(address)
    if error is not MismatchError:
        assert "\n" not in str(caught.value)


def refuse_tar(place: Path, files: FILES, error: type[MolsakiError], line: str, **options: Any) -> None:
    refuse(write_tar(place / "hostile.tar", files, **options), place / "store", error, line)


def change_commit(files: FILES, change: Callable[[dict[str, Any]], None]) -> FILES:
    """Change a commit, and its checksum with it."""
    content = json.loads(files[COMMIT])
    change(content)
    del content["checksum"]
    content["checksum"] = fingerprint(content)
    return {**files, COMMIT: json.dumps(content).encode() + b"\n"}


def change_file(files: FILES, name: str, content: bytes) -> FILES:
    """Change a file of the part, and what the commit says of it."""
    path = f"{part_of(files)}/{name}"
    entry = {"size": len(content), "sha256": hash_bytes(content)}
    return change_commit({**files, path: content}, lambda commit: commit["files"].update({name: entry}))


def part_of(files: FILES) -> str:
    return f"parts/{json.loads(files[COMMIT])['part']}"


def change_metadata(files: FILES, array: str, change: Callable[[dict[str, Any]], None]) -> FILES:
    name = f"{array}/zarr.json".removeprefix("/")
    content = json.loads(files[f"{part_of(files)}/{name}"])
    change(content)
    return change_file(files, name, json.dumps(content).encode())


def set_at(*path: str | int, to: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = to

    return change


def test_the_archive_that_all_others_are_made_from_is_taken(files, tmp_path):
    imported = import_space(write_tar(tmp_path / "sound.tar", files), tmp_path / "store")
    assert (imported.records, imported.parts) == (5, 1)
    assert not list((tmp_path / "store").rglob(".import*"))


def test_plain_archives_of_other_tools_are_taken(files, tmp_path):
    folders = [(member("parts", tarfile.DIRTYPE), b""), (member("./commits/", tarfile.DIRTYPE), b"")]
    dotted = {f"./{name}": content for name, content in files.items()}
    address = write_tar(tmp_path / "x.tar", dotted, folders, tarfile.USTAR_FORMAT)
    assert import_space(address, tmp_path / "store").records == 5


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a fifo"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (tarfile.CONTTYPE, "of the unknown type"),
        (b"Z", "of the unknown type"),
    ],
)
@pytest.mark.parametrize("name", ["parts/evil", "spec.json", "../../etc/passwd"])
def test_what_is_no_plain_file_is_refused(place, files, kind, what, name):
    header = member(name, kind, linkname="../beside/precious")
    refuse_tar(place, files, DamagedCacheError, f"{name!r} is {what}", extra=[(header, b"")])


def test_an_extended_header_is_refused_whatever_it_says(place, files):
    header = member("parts/" + "n" * 200)
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        refuse_tar(place, files, DamagedCacheError, "is an extended header", extra=[(header, b"x")], form=form)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../beside/precious", "parts/../../x", "..", "a\\..\\b", "parts/x/../y", "line\nbreak"]
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_a_name_that_leads_out_is_refused(place, files, name, kind):
    content = b"" if kind == tarfile.DIRTYPE else b"evil"
    refuse_tar(place, files, DamagedCacheError, "is no path inside a space", extra=[(member(name, kind), content)])


@pytest.mark.parametrize(
    "name", ["run.sh", "commits/evil.json", "commits/0.json", "parts/evil", ".bashrc", "SPEC.json"]
)
def test_a_file_that_no_commit_lists_is_refused(place, files, name):
    refuse_tar(place, {**files, name: b"x"}, DamagedCacheError, f"{name}: no commit lists this file")


def test_a_file_more_in_a_part_is_refused(place, files):
    name = f"{part_of(files)}/attention/c/0/1"
    refuse_tar(place, {**files, name: b"x"}, DamagedCacheError, f"{name}: no commit lists this file")


def test_a_listed_file_of_an_unknown_name_is_refused(place, files):
    evil = change_file(files, "attention/evil.so", b"x")
    refuse_tar(place, evil, DamagedCacheError, "'attention/evil.so' is no file of a part of attention")


@pytest.mark.parametrize("name", sorted(PART_FILES))
def test_a_listed_file_that_is_missing_is_refused(place, files, name):
    path = f"{part_of(files)}/{name}"
    without = {other: content for other, content in files.items() if other != path}
    refuse_tar(place, without, DamagedCacheError, f"{path}: missing")


@pytest.mark.parametrize("content", [b"", b"more"])
def test_a_size_that_is_not_the_declared_one_is_refused_unread(place, files, content, monkeypatch):
    path = f"{part_of(files)}/attention/c/0/0"
    monkeypatch.setattr(cache.exchange.incoming, "stage", None)
    evil = {**files, path: files[path] + content if content else b""}
    size = len(files[path])
    refuse_tar(place, evil, DamagedCacheError, f"{path}: {len(evil[path]):,} bytes, {size:,} were committed")


@pytest.mark.parametrize("name", sorted(PART_FILES))
def test_a_changed_byte_is_refused(place, files, name):
    path = f"{part_of(files)}/{name}"
    changed = bytearray(files[path])
    changed[len(changed) // 2] ^= 1
    refuse_tar(
        place, {**files, path: bytes(changed)}, DamagedCacheError, f"{path}: the content is not what was committed"
    )


def test_a_name_that_comes_twice_is_refused(place, files):
    extra = [(member(name), files[name]) for name in ("spec.json",)]
    refuse_tar(place, files, DamagedCacheError, "spec.json is in it twice", extra=extra)
    extra = [(member("./spec.json"), b"{}")]
    refuse_tar(place, files, DamagedCacheError, "spec.json is in it twice", extra=extra)


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_a_compressed_archive_is_refused(place, files, mode):
    path = place / "hostile.tar"
    with tarfile.open(path, f"w:{mode}") as tar:
        tar.addfile(member("spec.json"), io.BytesIO())
    refuse(str(path), place / "store", ConfigError, "compressed with")


def test_a_truncated_archive_is_refused(place, files):
    path = place / "hostile.tar"
    write_tar(path, files)
    content = path.read_bytes()
    end = content.rstrip(b"\0")
    for length in (1, 511, 512, 700, len(end) // 2, len(end) // 2 // 512 * 512, -(-len(end) // 512) * 512):
        path.write_bytes(content[:length])
        with pytest.raises((DamagedCacheError, ConfigError), match=r"breaks off|not a tar file"):
            import_space(str(path), place / "store")


def test_what_is_no_archive_is_refused(place):
    path = place / "hostile.tar"
    for content, line in ((b"", "breaks off"), (b"no tar" * 1000, "not a tar file"), (b"PK\3\4" + b"x" * 600, "zip")):
        path.write_bytes(content)
        with pytest.raises((DamagedCacheError, ConfigError), match=line):
            import_space(str(path), place / "store")
    path.unlink()
    refuse(str(path), place / "store", ConfigError, "there is no such file")


@pytest.mark.parametrize("size", [1 << 40, (1 << 80) - 1, -1, -(1 << 60)])
def test_an_impossible_size_in_a_header_is_refused(place, files, size):
    path = place / "hostile.tar"
    header = bytearray(member("spec.json", size=1).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = bytes([0x80 if size >= 0 else 0xFF]) + (size % (1 << 88)).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + b"\0" * 10240)
    refuse(str(path), place / "store", DamagedCacheError, "spec.json")


def test_a_damaged_header_is_refused(place, files):
    path = place / "hostile.tar"
    write_tar(path, files)
    content = bytearray(path.read_bytes())
    second = 512 + -(-len(next(iter(files.values()))) // 512) * 512
    content[second] ^= 1
    path.write_bytes(content)
    refuse(str(path), place / "store", DamagedCacheError, f"no tar header at byte {second:,}")


def test_too_many_files_are_refused(place, files, monkeypatch):
    monkeypatch.setattr(cache.exchange.archive, "MAX_MEMBERS", 10)
    refuse_tar(place, files, DamagedCacheError, "more than 10 files")


def change_spec(files: FILES, **fields: Any) -> FILES:
    return {**files, "spec.json": json.dumps({**json.loads(files["spec.json"]), **fields}).encode() + b"\n"}


def test_a_spec_without_its_fingerprint_is_a_mismatch_that_names_both(place, files):
    spec = {"schema": 1, "teacher": {"source": "another"}}
    declared = json.loads(files["spec.json"])["fingerprint"]
    line = f'  fingerprint\n    ours:   "{fingerprint(spec)}"\n    theirs: "{declared}"'
    refuse_tar(place, change_spec(files, spec=spec), MismatchError, line)


@pytest.mark.parametrize(("schema", "theirs"), [({"schema": 2}, "2"), ({}, "(absent)"), ({"schema": "1"}, '"1"')])
def test_a_spec_of_another_schema_is_a_mismatch_that_names_both(place, files, schema, theirs):
    evil = change_spec(files, spec=schema, fingerprint=fingerprint(schema))
    refuse_tar(place, evil, MismatchError, f"  schema\n    ours:   1\n    theirs: {theirs}")


def test_a_commit_of_another_schema_is_a_mismatch_that_names_both(place, files):
    evil = change_commit(files, set_at("schema", to=2))
    refuse_tar(place, evil, MismatchError, "  schema\n    ours:   1\n    theirs: 2")


@pytest.mark.parametrize("kind", ["targets", "", None, ["attention"], "../attention"])
def test_an_unknown_kind_is_refused(place, files, kind):
    refuse_tar(place, change_spec(files, kind=kind), DamagedCacheError, "expected rationales or attention")


@pytest.mark.parametrize("slug", ["../up", "", ".hidden", "a/b", None, 7, "x" * 101])
def test_an_unknown_slug_is_refused(place, files, slug):
    refuse_tar(place, change_spec(files, slug=slug), DamagedCacheError, "slug is")


def test_spec_json_that_is_none_is_refused(place, files):
    for content, line in (
        (b"[]\n", "kind is None"),
        (b"null", "kind is None"),
        (b"\xff", "not a description of a space"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"spec": ' * 40 + b"1" + b"}" * 40, "nested more than 32 deep"),
        (b'{"kind": NaN}', "NaN is no number in JSON"),
        (b'{"kind": 1e999}', "too large a number"),
        (b'{"kind": "attention", "kind": "rationales"}', "a name comes twice"),
        (b'{"kind": ' + b"1" * 10_000 + b"}", "not a description of a space"),
        (b" " * ((1 << 20) + 1), "1,048,576 at most are taken"),
    ):
        refuse_tar(place, {**files, "spec.json": content}, DamagedCacheError, line)
    without = {name: content for name, content in files.items() if name != "spec.json"}
    refuse_tar(place, without, ConfigError, "no spec.json there")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "not a commit record"),
        (b"{}\n", "not a commit record"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"note": ' * 40 + b"1" + b"}" * 40, "nested more than 32 deep"),
        (b'{"checksum": "x", "note": NaN}\n', "NaN is no number in JSON"),
    ],
)
def test_a_commit_that_is_none_is_refused(place, files, content, line):
    refuse_tar(place, {**files, COMMIT: content}, DamagedCacheError, line)


def test_a_commit_too_large_is_refused_unread(place, files, monkeypatch):
    monkeypatch.setattr(cache.exchange.incoming, "MAX_COMMIT_BYTES", 100)
    refuse_tar(place, files, DamagedCacheError, f"{COMMIT}: {len(files[COMMIT]):,} bytes, 100 at most are taken")


def test_a_commit_with_a_wrong_checksum_is_refused(place, files):
    changed = files[COMMIT].replace(b"too long", b"too lonG")
    refuse_tar(place, {**files, COMMIT: changed}, DamagedCacheError, "does not match the checksum inside it")


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "", ".", "a\\b"])
def test_a_commit_that_names_a_file_outside_its_part_is_refused(place, files, name):
    evil = change_commit(files, lambda commit: commit["files"].update({name: {"size": 1, "sha256": "0"}}))
    refuse_tar(place, evil, DamagedCacheError, "no path inside a part")


@pytest.mark.parametrize("part", ["../../etc", "/etc", "", "00000000-0123456789ab/..", 7])
def test_a_commit_of_a_part_with_a_strange_name_is_refused(place, files, part):
    refuse_tar(place, change_commit(files, set_at("part", to=part)), DamagedCacheError, "no name of a part")


def test_two_commits_of_one_part_or_index_are_refused(place, files):
    refuse_tar(place, {**files, "commits/00000001.json": files[COMMIT]}, DamagedCacheError, "the same part")
    only_dropped = change_commit(files, lambda commit: commit.update(part=None, files={}, counts={"records": 0}))
    evil = {**files, "commits/000000000.json": only_dropped[COMMIT]}
    refuse_tar(place, evil, DamagedCacheError, "the same index")


def test_layers_that_differ_are_refused(place, files, tmp_path):
    other = make_space(tmp_path / "other")
    AttentionWriter(other).append([sound_block(7, layers=3)])
    refuse(str(other.path), place / "store", MismatchError, "layers\n    ours:   [2]\n    theirs: [3]")
    AttentionWriter(other).append([sound_block(8)])
    refuse(str(other.path), place / "store", DamagedCacheError, "parts of [2, 3] layers side by side")
    for path in sorted((tmp_path / "other").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "other").rmdir()


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"records": 0}, "0 records, expected 1 to 4,096"),
        ({"records": 4097}, "4,097 records, expected 1 to 4,096"),
        ({"layers": 32768}, "32,768 layers, expected 1 to 32,767"),
        ({"layers": 0}, "0 layers"),
        ({"steps": 10**18}, "steps, expected"),
        ({"words": 5 * 32768}, "words, expected"),
        ({"text_bytes": 1 << 50}, "text_bytes, expected"),
        ({"cells": 1 << 62}, "cells, expected"),
        ({"cells": 1 << 31, "layers": 4}, "decoded bytes, expected"),
        ({"layers": 32767, "cells": 1 << 20}, "decoded bytes, expected"),
        ({"records": -1}, "impossible field"),
        ({"records": 1.5}, "impossible field"),
        ({"records": True}, "impossible field"),
        ({"evil": 1}, "count 'evil' is unknown"),
    ],
)
def test_counts_beyond_all_bounds_are_refused(place, files, counts, line):
    refuse_tar(place, change_commit(files, lambda commit: commit["counts"].update(counts)), DamagedCacheError, line)


@pytest.mark.parametrize("count", ["records", "cells", "layers", "steps", "words", "text_bytes"])
def test_shapes_that_are_not_those_of_the_counts_are_refused(place, files, count):
    def more(commit: dict[str, Any]) -> None:
        commit["counts"][count] += 1

    refuse_tar(place, change_commit(files, more), DamagedCacheError, "shape is [")


def test_a_note_that_no_command_could_show_is_refused(place, files):
    refuse_tar(
        place, change_commit(files, set_at("note", "rounding", to="evil")), DamagedCacheError, "expected an object"
    )


INNER = ("codecs", 0, "configuration")


@pytest.mark.parametrize(
    ("array", "change", "line"),
    [
        ("", set_at("zarr_format", to=2), "zarr format 2, only format 3 is read"),
        ("attention", set_at("zarr_format", to=2), "zarr format 2, only format 3 is read"),
        ("", set_at("consolidated_metadata", to={"metadata": {}}), "consolidated_metadata in the metadata of a part"),
        ("attention", set_at("codecs", to=[{"name": "pickle"}]), "unknown codec pickle"),
        ("key", set_at(*INNER, "codecs", 1, "name", to="gzip"), "unknown codec gzip"),
        ("key", set_at(*INNER, "index_codecs", 0, "name", to="evil"), "unknown codec evil"),
        ("text", set_at(*INNER, "codecs", 1, to={"name": "zstd"}), 'codecs is ["bytes", "zstd", "crc32c"]'),
        ("text", set_at(*INNER, "codecs", 2, to={"name": "sharding_indexed"}), "codecs is"),
        ("text", set_at("codecs", to=[{"name": "bytes"}]), "codec is "),
        ("attention", set_at("data_type", to="float64"), "data_type is float64, expected float16"),
        ("text", set_at("data_type", to="object"), "data_type is object, expected uint8"),
        ("attention", set_at("shape", to=[1 << 60, 2]), "shape is [1152921504606846976, 2]"),
        ("attention", set_at("node_type", to="group"), "node_type is group"),
        ("attention", set_at(*INNER, "chunk_shape", to=[1 << 40, 2]), "chunk_shape is"),
        ("attention", set_at("chunk_grid", "configuration", "chunk_shape", to=[1 << 40, 2]), "chunk_grid is"),
        ("attention", set_at("chunk_key_encoding", "name", to="v2"), "chunk_key_encoding is"),
        ("attention", set_at("chunk_key_encoding", "configuration", "separator", to="../"), "chunk_key_encoding is"),
        ("attention", set_at("storage_transformers", to=[{"name": "evil"}]), "storage_transformers is"),
        ("attention", set_at(*INNER, "index_location", to="start"), "index_location is"),
    ],
)
def test_metadata_that_are_not_ours_are_refused(place, files, array, change, line):
    refuse_tar(place, change_metadata(files, array, change), DamagedCacheError, line)


def test_metadata_that_are_no_json_are_refused(place, files):
    for content, line in ((b"[" * 100_000, "nested too deeply"), (b"[]", "no zarr metadata"), (b"\xff", "no zarr")):
        refuse_tar(place, change_file(files, "key/zarr.json", content), DamagedCacheError, line)
    large = change_file(files, "key/zarr.json", b" " * ((1 << 20) + 1))
    refuse_tar(place, large, DamagedCacheError, "1,048,576 at most are taken")


def shard_of(files: FILES, array: str) -> bytes:
    return files[f"{part_of(files)}/{cache.exchange.bounds.shard_file(array)}"]


def with_crc(content: bytes) -> bytes:
    import google_crc32c

    return content + google_crc32c.value(content).to_bytes(4, "little")


@pytest.mark.parametrize("array", sorted(LAYOUTS))
def test_a_chunk_that_claims_to_be_larger_is_refused_before_it_is_decoded(place, files, array, monkeypatch):
    def decode(*_: object) -> None:
        raise AssertionError("a bomb was about to be decoded")

    monkeypatch.setattr(zarr.Array, "__getitem__", decode)
    shard = shard_of(files, array)
    chunk = bytearray(shard[: -20 - 4])
    struct.pack_into("<I", chunk, 4, 0x7FFFFFFF)
    evil = change_file(files, cache.exchange.bounds.shard_file(array), with_crc(bytes(chunk)) + shard[-20:])
    refuse_tar(place, evil, DamagedCacheError, "a chunk claims to be 2,147,483,647 bytes")


@pytest.mark.parametrize(
    ("offset", "length", "line"),
    [
        ((1 << 64) - 1, (1 << 64) - 1, "chunk 0 is missing"),
        (0, 1 << 63, "chunk 0 is missing or lies outside"),
        ((1 << 64) - 10, 40, "chunk 0 is missing or lies outside"),
        (0, 3, "chunk 0 is missing"),
    ],
)
def test_a_shard_whose_index_leads_out_of_it_is_refused(place, files, offset, length, line):
    shard = shard_of(files, "attention")
    index = with_crc(struct.pack("<QQ", offset, length))
    refuse_tar(place, change_file(files, "attention/c/0/0", shard[:-20] + index), DamagedCacheError, line)
    refuse_tar(place, change_file(files, "attention/c/0/0", b"short"), DamagedCacheError, "too short for the index")


def test_a_chunk_without_its_checksum_is_refused(place, files):
    shard = bytearray(shard_of(files, "attention"))
    shard[-21] ^= 1
    refuse_tar(place, change_file(files, "attention/c/0/0", bytes(shard)), DamagedCacheError, "does not decode")


def rewritten(files: FILES, tmp_path: Path, array: str, change: Callable[[np.ndarray], None]) -> FILES:
    """Write one array anew with other numbers in it, everything else made to fit."""
    folder = tmp_path / "beside" / "rewritten"
    for name in PART_FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(files[f"{part_of(files)}/{name}"])
    opened = zarr.open_array(folder / array, mode="r+", zarr_format=3)
    content = opened[...]
    change(content)
    opened[...] = content
    shard = (folder / cache.exchange.bounds.shard_file(array)).read_bytes()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    return change_file(files, cache.exchange.bounds.shard_file(array), shard)


@pytest.mark.parametrize(
    ("array", "value", "line"),
    [
        ("attention", np.inf, "not finite"),
        ("attention", np.nan, "not finite"),
        ("attention", -0.5, "below zero"),
        ("key", 7, "the hash of its record is"),
        ("text", ord("X"), "the hash of its record is"),
        ("step_spans", 1000, "the hash of its record is"),
        ("steps", 2, "the arrays hold"),
        ("words", 0, "a record without steps or words"),
        ("cell_offset", 3, "does not fit steps and words"),
        ("step_tokens", -1, "tokens in a step"),
        ("step_attention", np.nan, "not finite"),
        ("step_attention", -0.5, "below zero"),
        ("step_attention", 30, "to several words at once"),
    ],
)
def test_records_that_are_not_sound_are_refused(place, files, array, value, line):
    def change(content: np.ndarray) -> None:
        content.flat[0] = value

    refuse_tar(place, rewritten(files, place, array, change), DamagedCacheError, line)


def test_a_link_in_a_folder_is_refused(place, files, tmp_path):
    folder = place / "beside" / "folder"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    shard = folder / part_of(files) / "attention/c/0/0"
    for path in (shard, folder / COMMIT, folder / "spec.json", folder / "parts"):
        moved = place / "beside" / "moved"
        path.rename(moved)
        path.symlink_to(moved)
        refuse(str(folder), place / "store", DamagedCacheError, "is a symbolic link")
        path.unlink()
        moved.rename(path)
    shard.unlink()
    os.mkfifo(shard)
    refuse(str(folder), place / "store", DamagedCacheError, "no plain file")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def test_a_file_at_an_address_that_no_commit_lists_is_refused(place, files):
    memory = fsspec.filesystem("memory")
    for name, content in {**files, "evil.sh": b"x"}.items():
        memory.pipe_file(f"/hostile/{name}", content)
    refuse("memory://hostile", place / "store", DamagedCacheError, "evil.sh: no commit lists this file")
    memory.rm("/hostile", recursive=True)


def test_an_address_that_lists_a_file_beside_it_is_refused(place, files, monkeypatch):
    memory = fsspec.filesystem("memory")
    for name, content in files.items():
        memory.pipe_file(f"/lying/{name}", content)
    listed = {**memory.find("/lying", detail=True), "/beside": {"name": "/beside", "type": "file", "size": 1}}
    with monkeypatch.context() as patched:
        patched.setattr(type(memory), "find", lambda self, *_, **__: listed)
        refuse("memory://lying", place / "store", DamagedCacheError, "lists what lies outside of it")
    memory.rm("/lying", recursive=True)


def test_an_address_that_gives_more_than_it_lists_is_bounded(place, files, monkeypatch):
    """Whatever a server sends, no more than the declared size is read."""
    memory = fsspec.filesystem("memory")
    for name, content in files.items():
        memory.pipe_file(f"/lying/{name}", content)
    path = f"{part_of(files)}/attention/c/0/0"
    size = len(files[path])
    listed = memory.find("/lying", detail=True)
    memory.pipe_file(f"/lying/{path}", b"x" * (size + 10_000_000))
    monkeypatch.setattr(type(memory), "find", lambda self, *_, **__: listed)
    refuse("memory://lying", place / "store", DamagedCacheError, f"{path}: the content is not what was committed")
    memory.rm("/lying", recursive=True)


def test_a_flipped_bit_anywhere_in_an_archive_is_refused_or_harmless(tmp_path, files):
    path = tmp_path / "flipped.tar"
    content = Path(write_tar(path, files)).read_bytes().rstrip(b"\0") + b"\0" * 1024
    chance = random.Random(0)
    outcomes = []
    for number in range(60):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        store = tmp_path / f"store-{number}"
        try:
            folder = import_space(str(path), store).path
        except (DamagedCacheError, MismatchError, ConfigError):
            outcomes.append("refused")
            assert not store.exists()
        else:
            outcomes.append("harmless")
            found = AttentionStore.open(folder)
            assert {key: found[key].tobytes() for key in found} == {
                block.key: stored(block).tobytes() for block in map(sound_block, range(5))
            }
    assert set(outcomes) == {"refused", "harmless"}  # padding and the card carry nothing


def test_a_bomb_costs_no_memory(place, files):
    """An array that claims to be 4 GiB large: counts that admit it are beyond all bounds, lower ones do not fit it."""
    cells = 1 << 31
    evil = change_commit(files, lambda commit: commit["counts"].update(cells=cells, layers=1))
    tracemalloc.start()
    refuse_tar(place, evil, DamagedCacheError, "decoded bytes, expected 1 to 4,294,967,296")
    whole = change_metadata(files, "attention", set_at("shape", to=[cells // 2, 1]))
    whole = change_metadata(
        whole, "attention", set_at("chunk_grid", "configuration", "chunk_shape", to=[cells // 2, 1])
    )
    whole = change_metadata(whole, "step_attention", set_at("shape", to=[15, 3, 1]))
    whole = change_commit(whole, lambda commit: commit["counts"].update(cells=cells // 2, layers=1))
    refuse_tar(place, whole, DamagedCacheError, "chunk_shape is [4096, 2], expected [4096, 1]")
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


ATTEMPT = Attempt(
    key="a" * 64,
    question_id="7",
    dataset="svamp",
    question="2 + 2?",
    gold="4",
    phase="plain",
    output=" It is 4.",
    rationale="It is 4.",
    answer="4",
    outcome="kept",
)


@pytest.fixture
def attempts(tmp_path_factory) -> FILES:
    """The files of a sound export of rationales."""
    folder = tmp_path_factory.mktemp("rationales")
    space = Space.open_or_create(folder, "rationales", "teacher", {"schema": 1})
    RationaleStore(space).append([dataclasses.replace(ATTEMPT, key=f"{number:064x}") for number in range(3)])
    return files_of(space, folder / "exported")


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **{"compression": "zstd", **options})
    return file.getvalue()


def table_of(**columns: list[str] | list[int]) -> pa.Table:
    rows = [as_row(dataclasses.replace(ATTEMPT, key=f"{number:064x}")) for number in range(3)]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    for name, values in columns.items():
        number = SCHEMA.names.index(name)
        table = table.set_column(number, SCHEMA.field(number), pa.array(values, SCHEMA.field(number).type))
    return table


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (parquet(table_of(), compression="gzip"), "unknown codec GZIP"),
        (parquet(table_of().slice(1)), "2 attempts, 3 were committed"),
        (parquet(table_of().drop_columns("gold")), "columns"),
        (parquet(table_of().drop_columns("keywords")), "columns"),
        (parquet(table_of().append_column("more", pa.array(["x"] * 3))), "columns"),
        (parquet(table_of().set_column(10, "sample", pa.array(["0"] * 3))), "columns"),
        (parquet(table_of(sample=[0, -1, 0])), "sample -1 of 0000"),
        (parquet(table_of(sample=[0, 2**30, 0])), "sample 1073741824 of 0000"),
        (parquet(table_of(phase=["plain", "plain", "evil"])), "unknown phase"),
        (parquet(table_of(key=["x", "y", "z"])), "is no key of 64 hex digits"),
        (parquet(table_of(outcome=["kept", "kept", "wrong"])), "2 attempts were kept, 3 by the commit"),
        (b"PAR1" + b"x" * 100 + b"PAR1", "does not decode"),
        (b"", "bytes, expected 1 to"),
    ],
)
def test_attempts_that_are_not_ours_are_refused(place, attempts, content, line):
    refuse_tar(place, change_file(attempts, "attempts.parquet", content), DamagedCacheError, line)


def test_texts_that_are_larger_than_their_file_are_refused_before_they_are_spread_out(place, attempts, monkeypatch):
    monkeypatch.setattr(cache.exchange.bounds, "MAX_TEXT_BYTES", 1_000_000)
    plain = parquet(table_of(output=["x" * 600_000, "y" * 600_000, ""]))
    assert len(plain) < 10_000
    refuse_tar(
        place, change_file(attempts, "attempts.parquet", plain), DamagedCacheError, "1,000,000 at most are taken"
    )
    once = parquet(table_of(output=["x" * 400_000] * 3))
    refuse_tar(
        place, change_file(attempts, "attempts.parquet", once), DamagedCacheError, "when decoded, 1,000,000 at most"
    )
