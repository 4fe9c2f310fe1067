"""Other tools that ours is compared with: each in a folder of its own below the user's cache, beside what is installed.

In: a package and its version. Out: the folder that it was installed into, once. What it needs is what is installed here
already, so that both sides compute with the same torch and transformers.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from cache.spaces import default_store
from data.errors import MolsakiError
from stages.runtime.progress import Progress


def installed(package: str, progress: Progress) -> Path:
    """The folder of `package`, a requirement such as `trl==1.16.0`; raises `MolsakiError` where pip has it not."""
    folder = default_store() / "bench" / package
    if folder.is_dir():
        return folder
    progress.note(f"installing {package} into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        fresh = Path(scratch) / "packages"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(fresh), package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own command
        if done.returncode != 0:
            raise MolsakiError(f"bench: pip cannot install {package}: {done.stderr.strip().splitlines()[-1]}")
        if not folder.is_dir():
            fresh.rename(folder)
    return folder
