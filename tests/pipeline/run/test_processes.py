"""A stage's process gets the signals of its parent, and its exit code comes back."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data.errors import Interrupted
from pipeline.run.processes import ForwardingStop, stage_command

SAVES_AND_EXITS_75 = """
import pathlib, signal, sys, time
def stop(number, frame):
    pathlib.Path(sys.argv[2]).write_text(signal.Signals(number).name)
    sys.exit(75)
for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(each, stop)
pathlib.Path(sys.argv[1]).touch()
time.sleep(30)
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def signal_when_ready(ready: Path, number: int) -> threading.Thread:
    def send() -> None:
        wait_for(ready)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signal_reaches_the_stage_and_its_code_comes_back(tmp_path: Path, number: signal.Signals) -> None:
    ready, received = tmp_path / "ready", tmp_path / "received"
    sender = signal_when_ready(ready, number)
    with ForwardingStop() as stop:
        code = stop.run([sys.executable, "-c", SAVES_AND_EXITS_75, str(ready), str(received)])
    sender.join()
    assert (code, received.read_text()) == (75, number.name)


def test_stage_that_dies_of_the_forwarded_signal_counts_as_stopped(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    sender = signal_when_ready(ready, signal.SIGTERM)
    with ForwardingStop() as stop:
        code = stop.run(["/bin/sh", "-c", f"touch {ready}; sleep 30"])
    sender.join()
    assert code == 75


@pytest.mark.parametrize("code", [0, 1, 2, 65])
def test_exit_code_of_a_stage_comes_back(code: int) -> None:
    with ForwardingStop() as stop:
        assert stop.run(["/bin/sh", "-c", f"exit {code}"]) == code


def test_no_stage_is_started_after_a_signal(tmp_path: Path) -> None:
    with ForwardingStop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"):
            stop.run(["touch", str(tmp_path / "started")])
    assert not (tmp_path / "started").exists()


def test_stage_command_keeps_the_current_folder_off_the_import_path() -> None:
    command = stage_command("train", ["a.yaml"])
    assert command[:4] == [sys.executable, "-P", "-m", "pipeline"]
    assert command[4:] == ["train", "a.yaml", "--supervised"]


def test_stage_stops_when_the_process_that_started_it_is_gone() -> None:
    code = "import time\nfrom pipeline.run.processes import stop_with_parent\nstop_with_parent()\ntime.sleep(30)"
    stage = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert stage.stdin is not None
    stage.stdin.close()
    assert stage.wait(timeout=20) == -signal.SIGTERM
