"""A small disk of our own, on which this package runs once more: its options enter, the result that it printed leaves.

The disk is a tmpfs that nobody else sees and that goes with its process. Where none can be mounted the result says so.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.faults.processes import command, environment
from benchmarks.faults.results import Result

SMALL = "1m"
LARGER = "64m"
NAMESPACES = (("unshare", "--map-root-user", "--mount"), ("unshare", "--mount"))
"""Ways to a mount that nobody else sees and that goes with its process: without and with the rights of root."""

AnyResult = TypeVar("AnyResult", bound=Result)


def run_on_small_disk(result: type[AnyResult], options: Sequence[str], disk: Path) -> AnyResult:
    """Run this package with `options` where the folder `disk` is a small tmpfs, and read the result that it prints."""
    disk.mkdir(parents=True, exist_ok=True)
    mounted, reason = _on_small_disk(command(options), disk)
    if not mounted:
        return result(skipped=reason)
    done = subprocess.run(mounted, env=environment(), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return result(problems=[f"ended with {done.returncode}: {done.stderr.strip()}"])
    return result(**json.loads(done.stdout.splitlines()[-1]))


def _on_small_disk(python: Sequence[str], disk: Path) -> tuple[list[str], str]:
    """Return the command that runs `python` where `disk` is a small tmpfs, or why there is none."""
    mount = f"mount -t tmpfs -o size={SMALL} small"
    for namespace in NAMESPACES:
        if shutil.which(namespace[0]) is None:
            continue
        tried = subprocess.run([*namespace, *mount.split(), disk], capture_output=True, check=False)  # noqa: S603
        if tried.returncode == 0:
            return [*namespace, "sh", "-c", f'{mount} "$0" && exec "$@"', str(disk), *python], ""
    return [], "no small tmpfs can be mounted here (neither as root nor with `unshare --map-root-user --mount`)"


def make_larger(disk: Path) -> None:
    """Make the small disk larger."""
    subprocess.run(["mount", "-o", f"remount,size={LARGER}", str(disk)], check=True)  # noqa: S603, S607


def wrong_refusal(disk: Path, exit_code: int, said: str) -> str:
    """Say how a command on a full disk ended if not as it has to: exit code 1, one line that names it and helps on."""
    said = said.strip()
    if exit_code == 1 and len(said.splitlines()) == 1 and str(disk) in said and "go on" in said:
        return ""
    return f"expected one line that names {disk} and exit code 1, found {exit_code}: {said}"
