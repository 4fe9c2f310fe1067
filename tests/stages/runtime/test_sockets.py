"""Where sockets of processes go when `TMPDIR` is longer than the path of a socket can be."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.runtime.sockets import LONGEST

OPEN = """
import tempfile
from multiprocessing.connection import Listener
from stages.runtime.sockets import short_temporary_folder, socket_folder

folder = socket_folder()
with Listener(family="AF_UNIX") as listener:
    print(listener.address, folder, tempfile.gettempdir(), short_temporary_folder())
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
    address, folder, temporary, short = run(OPEN, long).stdout.split()
    assert Path(address).parent == Path(folder) and folder.startswith("/tmp/pymp-")
    assert not Path(folder).exists(), "it goes with the process"
    assert (temporary, short) == (str(long), "/tmp")


def test_a_short_folder_holds_sockets_as_everything(tmp_path):
    with_room = tmp_path.parents[2]
    assert len(str(with_room)) <= LONGEST
    address, folder, temporary, short = run(OPEN, with_room).stdout.split()
    assert Path(address).parent == Path(folder) and Path(folder).parent == with_room
    assert temporary == short == str(with_room)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python finds a short folder itself")
def test_without_it_there_is_no_socket(long):
    done = run(OPEN.replace("folder = socket_folder()", "folder = ''"), long)
    assert done.returncode == 1 and "path too long" in done.stderr


def test_loader_workers_load_where_temporary_files_have_a_long_path(long):
    code = """
import torch
from torch.utils.data import DataLoader
from stages.runtime.sockets import socket_folder

socket_folder()
print(sum(batch.sum().item() for batch in DataLoader(torch.arange(6.0), batch_size=2, num_workers=1)))
"""
    assert run(code, long).stdout == "15.0\n"
