"""Where sockets of processes go when `TMPDIR` is longer than the path of a socket can be."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.runtime.sockets import LONGEST, VARIABLES

OPEN = f"""
import os, tempfile
from multiprocessing.connection import Listener
from stages.runtime.sockets import keep_sockets_short

keep_sockets_short()
with Listener(family="AF_UNIX") as listener:
    print(listener.address, tempfile.gettempdir(), *(os.environ.get(name) for name in {VARIABLES}))
"""
ROOT = Path(__file__).parents[3]


def run(code: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT), **more}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def long(tmp_path: Path) -> Path:
    folder = tmp_path / ("job-" + "7" * 100)
    folder.mkdir()
    return folder


def test_below_a_long_folder_sockets_go_elsewhere_and_nothing_else_does(long):
    address, temporary, vllm, ray = run(OPEN, long).stdout.split()
    assert address.startswith("/tmp/pymp-") and not Path(address).parent.exists()
    assert temporary == str(long)
    assert (vllm, ray) == ("/tmp", "/tmp")


def test_what_the_environment_names_for_sockets_stays(long):
    assert run(OPEN, long, RAY_TMPDIR="/dev/shm").stdout.split()[2:] == ["/tmp", "/dev/shm"]


def test_a_short_folder_holds_sockets_as_everything(tmp_path):
    with_room = tmp_path.parents[2]
    assert len(str(with_room)) <= LONGEST
    address, temporary, *variables = run(OPEN, with_room).stdout.split()
    assert Path(address).is_relative_to(with_room) and temporary == str(with_room)
    assert variables == ["None", "None"]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python finds a short folder itself")
def test_without_it_there_is_no_socket(long):
    done = run(OPEN.replace("keep_sockets_short()", ""), long)
    assert done.returncode == 1 and "path too long" in done.stderr


def test_loader_workers_load_where_temporary_files_have_a_long_path(long):
    code = """
import torch
from torch.utils.data import DataLoader
from stages.runtime.sockets import keep_sockets_short

keep_sockets_short()
print(sum(batch.sum().item() for batch in DataLoader(torch.arange(6.0), batch_size=2, num_workers=1)))
"""
    assert run(code, long).stdout == "15.0\n"
