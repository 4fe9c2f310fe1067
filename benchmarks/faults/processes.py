"""The processes that this package starts of itself, and waiting for what they do.

In: options, or a condition. Out: a command line and an environment with which the package runs in any folder, and a
return as soon as the condition holds.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
"""Seconds after which a process that has not done what it is waited for counts as hanging."""


def command(options: Sequence[str]) -> list[str]:
    """Return the command line that runs this package with `options`; it needs `environment`."""
    return [sys.executable, "-P", "-m", "benchmarks.faults", *options]


def environment() -> dict[str, str]:
    """Return the environment of this process, with the repository where Python looks for modules in any folder."""
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{before}" if before else str(ROOT)}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return once `condition` holds; raises `TimeoutError` where it does not for too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {PATIENCE:.0f} s")
        time.sleep(0.002)
