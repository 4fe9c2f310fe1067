"""What a killed process leaves behind is ended; what one that lives has started is left alone."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PARENT = """
import subprocess, sys, time
from stages.engines.vllm_guard import start_guard

guard = start_guard()
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
child.stdout.readline()
time.sleep(float(sys.argv[1]))
print(guard.pid, child.pid, flush=True)
if sys.argv[2] == "ends its guard":
    sys.stdin.readline()
    guard.terminate()
    guard.wait()
else:
    time.sleep(600)
"""


def started(seconds: float, then: str) -> tuple["subprocess.Popen[str]", psutil.Process, psutil.Process]:
    """A process with a guard and a child that does not listen to SIGTERM, after so many seconds; guard and child."""
    command = [sys.executable, "-c", PARENT, str(seconds), then]
    parent = subprocess.Popen(
        command, cwd=Path(__file__).parents[3], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    guard, child = map(int, parent.stdout.readline().split())
    return parent, psutil.Process(guard), psutil.Process(child)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are looked up in /proc")
def test_the_children_of_a_killed_process_end_and_then_its_guard(tmp_path: Path) -> None:
    parent, guard, child = started(2, "lives")
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert psutil.wait_procs([child, guard], timeout=30)[1] == []


def test_without_its_guard_nothing_is_ended() -> None:
    parent, guard, child = started(0, "ends its guard")
    parent.communicate("its pid is known\n", timeout=30)
    time.sleep(2)
    assert not guard.is_running() and child.is_running()
    child.kill()
