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
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
own = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
child = subprocess.Popen(
    [sys.executable, "-c", deaf + own + "print(child.pid, flush=True); time.sleep(600)"], stdout=subprocess.PIPE
)
grandchild = int(child.stdout.readline())
time.sleep(float(sys.argv[1]))
print(guard.pid, child.pid, grandchild, flush=True)
if sys.argv[2] == "ends its guard":
    sys.stdin.readline()
    guard.terminate()
    guard.wait()
else:
    time.sleep(600)
"""


def started(seconds: float, then: str) -> tuple["subprocess.Popen[str]", list[psutil.Process]]:
    """A process that has a guard and a child deaf to SIGTERM with one of its own, after some seconds; these three."""
    command = [sys.executable, "-c", PARENT, str(seconds), then]
    parent = subprocess.Popen(
        command, cwd=Path(__file__).parents[3], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    return parent, [psutil.Process(int(number)) for number in parent.stdout.readline().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are looked up in /proc")
def test_the_children_of_a_killed_process_end_and_then_its_guard(tmp_path: Path) -> None:
    parent, others = started(2, "lives")
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert len(others) == 3 and psutil.wait_procs(others, timeout=30)[1] == []


def test_without_its_guard_nothing_is_ended() -> None:
    parent, (guard, child, grandchild) = started(0, "ends its guard")
    parent.communicate("its pid is known\n", timeout=30)
    time.sleep(2)
    assert not guard.is_running() and child.is_running() and grandchild.is_running()
    child.kill()
    grandchild.kill()
