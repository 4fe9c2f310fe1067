"""Spaces in buckets: what other tests hold of any place, and what only a server far away can do to us."""

import gc
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

import cache
from cache.exchange.exporting import export_space
from cache.exchange.importing import import_space
from cache.exchange.remote import appearing_elsewhere, file_system
from cache.spaces import Space
from data.errors import ConfigError, DamagedCacheError, Interrupted
from tests.buckets import SECRET, Buckets
from tests.cache.exchange.test_exporting_and_importing import PROCESSES, StopAfter, assert_holds, kill_at, write


def flip(space: Space) -> None:
    path = space.part_path(space.commits()[-1]) / "attention/c/0/0"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def refuse(method: str, code: str = "AccessDenied") -> Callable[[str, str], str | None]:
    return lambda asked, _path: code if asked == method else None


@pytest.mark.parametrize("reason", ["refused", "damaged", "stopped"])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_tar_file_in_a_bucket_is_the_earlier_one_until_the_new_one_is_whole(
    tmp_path: Path, buckets: Buckets, bucket: str, s3: Any, reason: str, earlier: bool
) -> None:
    space, address = write(tmp_path / "ours", range(3)), f"{bucket}/keep.tar"
    if earlier:
        export_space(space, address)
    before = s3.cat_file(address) if earlier else None
    write(tmp_path / "ours", range(3, 5))
    meter = None
    if reason == "refused":
        buckets.fault = refuse("PUT")
    elif reason == "damaged":
        flip(space)
    else:
        meter = StopAfter(5)
    with pytest.raises((ConfigError, DamagedCacheError, Interrupted), match=r"written|not what was committed|stopped"):
        export_space(space, address, meter=meter)
    buckets.fault = None
    if earlier:
        assert s3.cat_file(address) == before
        assert_holds(import_space(address, tmp_path / "theirs").path, range(3))
    else:
        assert s3.find(bucket) == []


@pytest.mark.parametrize("refused", [False, True])
def test_of_a_large_tar_file_that_is_given_up_no_part_stays(
    buckets: Buckets, bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """Files of more than one block are uploaded in parts, for which somebody pays until they are put together."""
    address = f"{bucket}/large.tar"
    s3.pipe_file(address, b"earlier")
    files, path = file_system(address)
    files.default_block_size = 5 << 20
    with pytest.raises((ConfigError, KeyError)), appearing_elsewhere(address, files, path) as file:
        for _ in range(3):
            file.write(b"x" * (4 << 20))
        assert s3.call_s3("list_multipart_uploads", Bucket=bucket[5:])["Uploads"]
        if refused:
            buckets.fault = refuse("POST")  # the request that puts the parts together
        else:
            raise KeyError
    buckets.fault = None
    assert not s3.call_s3("list_multipart_uploads", Bucket=bucket[5:]).get("Uploads")
    assert s3.cat_file(address) == b"earlier"
    with appearing_elsewhere(address, *file_system(address)) as file:
        file.write(b"later")
    assert s3.cat_file(address) == b"later"


def test_what_is_written_to_a_file_system_without_parts_waits_as_well() -> None:
    memory, address = fsspec.filesystem("memory"), "memory://keep.tar"
    memory.pipe_file(address, b"earlier")
    with pytest.raises(KeyError), appearing_elsewhere(address, *file_system(address)) as file:
        file.write(b"half")
        raise KeyError
    assert memory.cat_file(address) == b"earlier"
    with appearing_elsewhere(address, *file_system(address)) as file:
        file.write(b"later")
        assert memory.cat_file(address) == b"earlier"
    assert memory.cat_file(address) == b"later"
    memory.rm_file(address)


class Publishing(fsspec.spec.AbstractBufferedFile):
    """As `hf://` has it: whatever is closed is there, transaction or not."""

    places: dict[str, bytes] = {}  # noqa: RUF012  of all files

    def _initiate_upload(self) -> None:
        self.sent = b""

    def _upload_chunk(self, final: bool = False) -> None:
        self.sent += self.buffer.getvalue()
        if final:
            self.places[self.path] = self.sent


class PublishingFiles(fsspec.AbstractFileSystem):
    protocol = "publishing"

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Publishing:
        return Publishing(self, path, mode, **options)


def test_a_library_that_publishes_whatever_is_closed_publishes_no_half_file() -> None:
    fsspec.register_implementation("publishing", PublishingFiles, clobber=True)
    address = "publishing://x.tar"
    with pytest.raises(KeyError), appearing_elsewhere(address, *file_system(address)) as file:
        file.write(b"half")
        raise KeyError
    del file
    gc.collect()  # fsspec's files close themselves when they are collected
    assert Publishing.places == {}
    with appearing_elsewhere(address, *file_system(address)) as file:
        file.write(b"all")
    assert Publishing.places == {"x.tar": b"all"}


def test_what_somebody_else_has_added_since_this_process_looked_is_seen(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    address = f"{bucket}/space"
    export_space(write(tmp_path / "ours", range(3)), address)
    kept = fsspec.filesystem("s3")
    kept.find(address)
    assert len(cache.open_attention(address)) == 3
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    process = PROCESSES.Process(
        target=export_elsewhere, args=(environment, write(tmp_path / "ours", range(3, 5)), address, None, tmp_path)
    )
    process.start()
    process.join()
    with pytest.raises(FileNotFoundError):  # fsspec keeps listings
        kept.info(f"{address}/commits/00000001.json")
    assert len(cache.open_attention(address)) == 5
    assert_holds(import_space(address, tmp_path / "theirs").path, range(5))


def test_empty_objects_that_consoles_make_as_folders_are_no_files(tmp_path: Path, bucket: str, s3: Any) -> None:
    space, address = write(tmp_path / "ours", range(3)), f"{bucket}/space"
    for name in ("", "commits/", "parts/", "parts/00000000-0123456789ab/"):
        s3.call_s3("put_object", Bucket=bucket[5:], Key=f"space/{name}", Body=b"")
    assert export_space(space, address).written == 22
    assert export_space(space, address).written == 0
    assert_holds(import_space(address, tmp_path / "theirs").path, range(3))
    s3.call_s3("put_object", Bucket=bucket[5:], Key="space/odd/", Body=b"content")
    with pytest.raises(DamagedCacheError, match="odd/: no commit lists this file"):
        import_space(address, tmp_path / "theirs")


def test_an_export_that_is_interrupted_while_it_grows_leaves_what_was_there_readable(
    tmp_path: Path, bucket: str, s3: Any
) -> None:
    space, address = write(tmp_path / "ours", range(3)), f"{bucket}/space"
    export_space(space, address)
    write(tmp_path / "ours", range(3, 5))
    with pytest.raises(Interrupted):
        export_space(space, address, meter=StopAfter(10))
    assert len(s3.find(address)) == 22 + 11
    assert_holds(import_space(address, tmp_path / "theirs").path, range(3))
    assert export_space(space, address).written == 21 - 11
    assert_holds(import_space(address, tmp_path / "theirs").path, range(5))


def test_a_file_more_in_a_part_that_counts_is_refused(tmp_path: Path, bucket: str, s3: Any) -> None:
    space, address = write(tmp_path / "ours", range(3)), f"{bucket}/space"
    export_space(space, address)
    part = space.commits()[0].part
    s3.pipe_file(f"{address}/parts/{part}/evil.sh", b"x")
    with pytest.raises(DamagedCacheError, match=r"evil\.sh: no commit lists this file"):
        import_space(address, tmp_path / "theirs")


def export_elsewhere(environment: dict[str, str], space: Space, address: str, calls: int | None, folder: Path) -> None:
    """Export in a process of its own, which is killed after so many files."""
    os.environ.update(environment)
    tempfile.tempdir = str(folder)  # what is left there is no test's business but this one's
    export_space(space, address, meter=None if calls is None else kill_at(calls))


def be_killed(space: Space, address: str, buckets: Buckets, calls: int, folder: Path) -> None:
    process = PROCESSES.Process(target=export_elsewhere, args=(buckets.environment(), space, address, calls, folder))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("end", ["", ".tar"])
def test_a_killed_export_to_a_bucket_is_what_was_there_before_and_goes_on(
    tmp_path: Path, buckets: Buckets, bucket: str, end: str
) -> None:
    space, address = write(tmp_path / "ours", range(3)), f"{bucket}/space{end}"
    be_killed(space, address, buckets, 3 if end else 20, tmp_path)
    with pytest.raises(ConfigError, match=r"no spec\.json there|there is no such file"):
        import_space(address, tmp_path / "none")
    assert export_space(space, address).written == (22 if end else 1)
    write(tmp_path / "ours", range(3, 5))
    be_killed(space, address, buckets, 41 if end else 8, tmp_path)
    assert_holds(import_space(address, tmp_path / "before").path, range(3))
    export_space(space, address)
    assert_holds(import_space(address, tmp_path / "theirs").path, range(5))


FAULTS: dict[str, tuple[Callable[[str, str], Any] | None, dict[str, str | None], str]] = {
    "no server": (None, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "EndpointConnectionError: Could not connect"),
    "no credentials": (
        None,
        {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
        "NoCredentialsError: Unable to locate credentials",
    ),
    "expired credentials": (lambda *_: "ExpiredToken", {}, "it says ExpiredToken|Bad Request"),
    "no bucket of that name": (None, {}, "NoSuchBucket|specified bucket does not exist"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("end", ["", ".tar"])
@pytest.mark.parametrize("way", ["export", "import"])
def test_a_bucket_that_cannot_be_had_is_one_line_with_its_address(
    tmp_path: Path, buckets: Buckets, bucket: str, monkeypatch: pytest.MonkeyPatch, fault: str, end: str, way: str
) -> None:
    space, address = write(tmp_path / "ours", range(1)), f"{bucket}/space{end}"
    if "bucket" in fault:
        address = f"s3://nowhere-at-all/space{end}"
    buckets.fault, environment, expected = FAULTS[fault]
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match=expected) as caught:
        export_space(space, address) if way == "export" else import_space(address, tmp_path / "theirs")
    assert one_line(caught.value).startswith(f"{address}: cannot be ")


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert SECRET not in text
    return text


@pytest.mark.parametrize("end", ["", ".tar"])
def test_a_bucket_that_may_only_be_read_is_named(tmp_path: Path, buckets: Buckets, bucket: str, end: str) -> None:
    space, address = write(tmp_path / "ours", range(1)), f"{bucket}/space{end}"
    buckets.fault = refuse("PUT")
    with pytest.raises(ConfigError, match=f"^{address}: cannot be written: PermissionError: ") as caught:
        export_space(space, address)
    one_line(caught.value)


@pytest.mark.parametrize("end", ["", ".tar"])
@pytest.mark.parametrize("answer", ["AccessDenied", 3])
def test_objects_that_cannot_be_read_to_their_end_are_no_damage(
    tmp_path: Path, buckets: Buckets, bucket: str, end: str, answer: str | int
) -> None:
    """An answer that is refused, and one that breaks off: the store is as it was, and the address is named."""
    space, address = write(tmp_path / "ours", range(1)), f"{bucket}/space{end}"
    export_space(space, address)
    buckets.fault = lambda method, path: answer if method == "GET" and path.count("/") > 1 else None
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"^{address}: cannot be read: ") as caught:
            import_space(address, tmp_path / "theirs")
        one_line(caught.value)
    assert not (tmp_path / "theirs").exists()
    with pytest.raises(ConfigError, match=f"^{address}: cannot be read: "):
        export_space(space, address)


def test_an_object_where_a_space_was_meant_is_named(tmp_path: Path, bucket: str, s3: Any) -> None:
    address = f"{bucket}/space"
    s3.pipe_file(address, b"somebody's")
    for act in (
        lambda: export_space(write(tmp_path / "ours", range(1)), address),
        lambda: import_space(address, tmp_path),
    ):
        with pytest.raises(ConfigError, match=f"^{address}: is a file; name a folder, or a file that ends in .tar$"):
            act()
    assert s3.cat_file(address) == b"somebody's"
