"""A command that is forked is one that was started, seen from outside."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.forks import PYTHON, Molsaki, run


@pytest.mark.parametrize("arguments", [["--version"], ["rationales", "none.yaml"], ["no-such-command"]], ids=" ".join)
def test_it_says_the_same_and_ends_with_the_same_code(arguments: list[str], tmp_path: Path) -> None:
    forked = run(arguments, tmp_path)
    started = subprocess.run([*PYTHON, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_it_has_its_own_folder_environment_and_process_group(tmp_path: Path) -> None:
    own = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with Molsaki(["config", "init", "mine.yaml"], cwd=tmp_path, env=own, stdout=subprocess.DEVNULL) as process:
        assert os.getpgid(process.pid) == process.pid
        assert process.wait(60) == 0
    assert (tmp_path / "mine.yaml").is_file()


def test_a_signal_that_ends_it_is_its_exit_code(tmp_path: Path) -> None:
    with Molsaki(["data", "--help"], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL and process.poll() == -signal.SIGKILL
        process.kill()
