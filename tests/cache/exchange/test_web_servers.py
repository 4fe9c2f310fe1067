"""Spaces that a web server gives: a tar file, with parts of it on request or only as a whole, and nothing else."""

import tarfile
from pathlib import Path

import fsspec.implementations.http
import pytest

from cache.exchange import remote
from cache.exchange.exporting import export_space
from cache.exchange.importing import import_space
from cache.exchange.metering import Unmetered
from data.errors import ConfigError, DamagedCacheError, Interrupted
from tests.buckets import Buckets
from tests.cache.exchange.test_exporting_and_importing import StopAfter, assert_holds, write

Served = tuple[Path, str]
NOBODY = "http://127.0.0.1:9"
"""Where no server listens."""


def test_a_tar_file_of_a_server_that_gives_only_whole_files_is_read_as_it_comes(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    export_space(write(tmp_path / "ours", range(3), range(3, 5)), str(folder / "space.tar"))
    monkeypatch.setattr(remote, "READ_SIZE", 1000)
    monkeypatch.setattr(fsspec.implementations.http, "DEFAULT_BLOCK_SIZE", 1000)
    assert_holds(import_space(f"{address}/space.tar", tmp_path / "theirs").path, range(5))


def test_of_a_server_that_gives_parts_of_files_only_what_is_new_is_asked_for(
    tmp_path: Path, buckets: Buckets, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_space(write(tmp_path / "ours", range(3)), f"{bucket}/space.tar")
    address = f"{buckets.endpoint}/{bucket[5:]}/space.tar"
    monkeypatch.setattr(remote, "_Kept", None)
    assert_holds(import_space(address, tmp_path / "theirs").path, range(3))


def test_what_signs_an_address_of_the_web_is_used_and_not_shown(tmp_path: Path, served: Served) -> None:
    folder, address = served
    export_space(write(tmp_path / "ours", range(3)), str(folder / "space.tar"))
    assert_holds(import_space(f"{address}/space.tar?signature=geheimnis", tmp_path / "theirs").path, range(3))
    with pytest.raises(ConfigError) as caught:
        import_space(f"{NOBODY}/space.tar?signature=geheimnis", tmp_path / "theirs")
    assert str(caught.value).startswith(f"{NOBODY}/space.tar: cannot be reached: ")
    assert "geheimnis" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"), [("cut", "breaks off"), ("flip", "attention/c/0/0: the content is not what was committed")]
)
def test_a_stream_is_believed_no_more_than_a_file(tmp_path: Path, served: Served, change: str, problem: str) -> None:
    folder, address = served
    path = folder / "space.tar"
    export_space(write(tmp_path / "ours", range(3)), str(path))
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        shard = next(each for each in tar if each.name.endswith("attention/c/0/0"))
    content[shard.offset_data + shard.size // 2] ^= 1
    path.write_bytes(content[: len(content) // 2] if change == "cut" else content)
    with pytest.raises(DamagedCacheError, match=problem):
        import_space(f"{address}/space.tar", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_what_follows_the_end_of_an_archive_is_not_asked_for(tmp_path: Path, served: Served) -> None:
    folder, address = served
    export_space(write(tmp_path / "ours", range(3)), str(folder / "space.tar"))
    with (folder / "space.tar").open("ab") as file:
        file.truncate(1 << 40)
    assert_holds(import_space(f"{address}/space.tar", tmp_path / "theirs").path, range(3))


def test_a_signal_ends_the_reading_of_a_stream(tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = served
    export_space(write(tmp_path / "ours", range(3)), str(folder / "space.tar"))
    monkeypatch.setattr(remote, "READ_SIZE", 1000)
    with pytest.raises(Interrupted):
        import_space(f"{address}/space.tar", tmp_path / "theirs", meter=StopAfter(2))
    assert not (tmp_path / "theirs").exists()


def test_the_length_of_a_stream_is_what_the_server_says(tmp_path: Path, served: Served) -> None:
    folder, address = served
    export_space(write(tmp_path / "ours", range(1)), str(folder / "space.tar"))
    started: list[tuple[str, int]] = []

    class Started(Unmetered):
        def start(self, task: str, total: int) -> None:
            started.append((task, total))

    import_space(f"{address}/space.tar", tmp_path / "theirs", meter=Started())
    assert started[0] == ("received bytes", (folder / "space.tar").stat().st_size)


@pytest.mark.parametrize(
    ("end", "line"),
    [
        (
            "/space",
            "a web server lists no files, which a folder needs; export to a file that ends in .tar, and name that",
        ),
        ("/none.tar", "there is no such file"),
        ("/notes.tar", "not a tar file"),
    ],
)
def test_what_cannot_be_taken_from_a_web_server_is_said(tmp_path: Path, served: Served, end: str, line: str) -> None:
    folder, address = served
    (folder / "notes.tar").write_text("nothing of ours" * 100)
    with pytest.raises(ConfigError) as caught:
        import_space(address + end, tmp_path / "theirs")
    assert str(caught.value) == f"{address}{end}: {line}"


def test_a_server_that_is_down_is_not_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{NOBODY}/x.tar: cannot be reached: ClientConnectorError: Cannot connect"):
        import_space(f"{NOBODY}/x.tar", tmp_path / "theirs")


def test_a_server_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(remote, "SILENT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/x.tar"
        with pytest.raises(ConfigError, match=f"^{address}: cannot be reached: [^\n]*[Tt]imeout"):
            import_space(address, tmp_path / "theirs")


@pytest.mark.parametrize("answer", ["AccessDenied", 3])
def test_an_answer_that_is_refused_or_cut_names_the_address(
    tmp_path: Path, buckets: Buckets, bucket: str, answer: str | int
) -> None:
    export_space(write(tmp_path / "ours", range(1)), f"{bucket}/space.tar")
    address = f"{buckets.endpoint}/{bucket[5:]}/space.tar"
    buckets.fault = lambda method, _path: answer if method == "GET" else None
    with pytest.raises(ConfigError, match=f"^{address}: cannot be read: "):
        import_space(address, tmp_path / "theirs")
    buckets.fault = lambda *_: "AccessDenied"
    with pytest.raises(ConfigError, match=f"^{address}: cannot be reached: ClientResponseError: 403, "):
        import_space(address, tmp_path / "theirs")


@pytest.mark.parametrize("end", ["/space", "/space.tar", "/space.tar?signature=geheimnis"])
def test_nothing_is_exported_to_a_web_server(tmp_path: Path, served: Served, end: str) -> None:
    folder, address = served
    with pytest.raises(ConfigError, match=r"^http://127[^?]*: a web server cannot be written to; export to a folder"):
        export_space(write(tmp_path / "ours", range(1)), address + end)
    assert list(folder.iterdir()) == []
