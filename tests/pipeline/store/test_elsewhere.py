"""`molsaki cache` with addresses, as processes: what cannot be had is one line and a code, without a traceback."""

import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cache.spaces import Space
from tests.buckets import Buckets
from tests.cache.exchange.test_exporting_and_importing import assert_holds, write
from tests.cache.exchange.test_hostile_archives import sound_block
from tests.forks import Molsaki, run

NOBODY = "http://127.0.0.1:9"


def says(folder: Path, *arguments: str) -> tuple[int, str]:
    done = run(["cache", *arguments, "--store", "ours"], folder)
    assert "Traceback" not in done.stderr + done.stdout
    assert not list(folder.rglob("*.log*"))
    return done.returncode, done.stderr


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Space:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return write(tmp_path / "ours", range(3))


@pytest.mark.parametrize("end", ["space", "space.tar"])
def test_a_space_goes_to_a_bucket_and_comes_back(tmp_path: Path, bucket: str, space: Space, end: str) -> None:
    address = f"{bucket}/{end}"
    assert says(tmp_path, "export", "attention/", address) == (0, "")
    assert run(["cache", "import", address, "--store", "theirs"], tmp_path).returncode == 0
    (taken,) = (tmp_path / "theirs" / "attention").iterdir()
    assert_holds(taken, range(3))
    key = sound_block(1).key
    assert run(["cache", "show", address, "--record", key], tmp_path).stdout.startswith(f"record {key}\n")


@pytest.mark.parametrize("end", ["space", "space.tar"])
@pytest.mark.parametrize("way", ["export", "import"])
def test_a_bucket_without_a_server_is_one_line(
    tmp_path: Path, buckets: Buckets, space: Space, monkeypatch: pytest.MonkeyPatch, way: str, end: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOBODY)
    address = f"s3://bucket/{end}"
    code, said = says(tmp_path, *(["export", "attention/"] if way == "export" else ["import"]), address)
    assert code == 2
    assert said.startswith(f"error: {address}: cannot be reached: EndpointConnectionError: ") and said.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "verify"])
def test_what_lies_elsewhere_is_not_looked_for_in_the_store(tmp_path: Path, space: Space, command: str) -> None:
    code, said = says(tmp_path, command, "https://me:geheim@127.0.0.1:9/space.tar?signature=geheim")
    assert code == 2
    assert said == (
        "error: https://127.0.0.1:9/space.tar: lies elsewhere; "
        "`molsaki cache import` checks it and takes it into a store\n"
    )


@pytest.mark.parametrize("arguments", [["import"], ["export", "attention/"], ["show", "--record", "0"]])
def test_no_secret_of_an_address_is_printed(tmp_path: Path, space: Space, arguments: list[str]) -> None:
    address = "http://me:geheim@127.0.0.1:9/space.tar?signature=verborgen"
    for debug in ([], ["--debug"]):
        done = run([*debug, "cache", *arguments, address, "--store", "ours"], tmp_path)
        assert done.returncode == 2
        assert "error: http://127.0.0.1:9/space.tar: " in done.stderr
        assert "geheim" not in done.stderr and "verborgen" not in done.stderr


def test_a_signal_leaves_the_tar_file_that_was_there(tmp_path: Path, buckets: Buckets, bucket: str, s3: Any) -> None:
    space, address, asked = write(tmp_path / "ours", range(3)), f"{bucket}/keep.tar", threading.Event()
    assert says(tmp_path, "export", "attention/", address) == (0, "")
    before = s3.cat_file(address)
    write(tmp_path / "ours", range(3, 5))

    def slow(method: str, _path: str) -> None:
        if method in ("HEAD", "GET"):
            asked.set()
            time.sleep(0.3)

    buckets.fault = slow
    command = ["cache", "export", space.path.name, address, "--store", "ours"]
    with Molsaki(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(60)
    assert process.returncode == 75
    assert said == (
        "error: stopped by SIGTERM after saving nothing, for a tar file is written as a whole; "
        "run the same command to go on\n"
    )
    assert s3.cat_file(address) == before
