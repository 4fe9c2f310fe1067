"""Signals while a command is loaded, and while its process ends: neither kills it, and a stage hears of both."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from data.errors import Interrupted
from pipeline.run.processes import our_command
from stages.runtime.early import STOPPED
from tests.pipeline.conftest import Experiment

SEES_USR1 = 1 << (signal.SIGUSR1 - 1)


def caught(process: int) -> int:
    """The signals that a process has said what becomes of, by handler or by ignoring them, as bits."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines if line.startswith(("SigCgt", "SigIgn")))


def bombarded(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a command that gets SIGUSR1 from its first look for it until its end."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    while process.poll() is None and not caught(process.pid) & SEES_USR1:
        time.sleep(0.001)
    while process.poll() is None:
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.002)
    assert process.stderr is not None
    return process.returncode, process.stderr.read().decode()


def test_a_command_without_stage_ends_as_if_nothing_had_come(experiment: Experiment) -> None:
    assert bombarded(our_command("config", "show", "run.yaml"), experiment.folder) == (0, "")


def test_a_stage_hears_of_a_signal_that_came_while_it_was_loaded(experiment: Experiment) -> None:
    code, said = bombarded(our_command("run", "run.yaml", "--quiet"), experiment.folder)
    assert (code, said) == (
        75,
        "error: stopped by SIGUSR1 after saving all that was committed; run the same command to go on\n",
    )


ENDS_LATE = """
import atexit, os, signal
atexit.register(lambda: [os.kill(os.getpid(), number) for number in (signal.SIGUSR1, signal.SIGTERM)])
from pipeline.cli.main import main
main()
"""


def test_a_signal_after_the_work_is_done_does_not_change_how_it_ended() -> None:
    command = [sys.executable, "-P", "-c", ENDS_LATE, "--version"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")


INTERRUPTED = """
import os, signal, sys
from stages.runtime.early import end_while_loading, raise_stopped
end_while_loading()
{later}
try:
    exec("os.kill(os.getpid(), signal.SIGINT)\\nfor _ in range(1000): pass")
except KeyboardInterrupt:
    print("caught", flush=True)
sys.exit(75)
"""
LINE = f"error: {STOPPED}\n"


@pytest.mark.parametrize(("later", "printed", "said"), [("", "", LINE), ("raise_stopped()", "caught\n", "")])
def test_control_c_is_no_traceback_and_no_other_exit_code(later: str, printed: str, said: str, tmp_path: Path) -> None:
    """As it comes while modules are loaded, and later: Python's own would make a process of `-m` end by the signal."""
    (tmp_path / "interrupted.py").write_text(INTERRUPTED.format(later=later))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[3]}"}
    command = [sys.executable, "-P", "-m", "interrupted"]
    default = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # tests may run where it is ignored
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, preexec_fn=default)
    assert (done.returncode, done.stdout, done.stderr) == (Interrupted.exit_code, printed, said)


def test_control_c_stays_ignored_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(INTERRUPTED.format(later="raise_stopped(); print('on')"))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[3]}"}
    command = [sys.executable, "-P", "-m", "interrupted"]
    ignored = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, preexec_fn=ignored)
    assert (done.returncode, done.stdout, done.stderr) == (75, "on\n", "")


def test_output_that_nobody_reads_any_more_ends_the_command_quietly(experiment: Experiment) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = our_command("config", "show", "run.yaml")
    with subprocess.Popen(
        command, cwd=experiment.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
