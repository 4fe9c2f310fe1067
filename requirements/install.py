"""Install packages into the environment that runs this file, for `make setup` and `make test-newest`.

    python requirements/install.py cpu|gpu|newest

cpu and gpu are what is pinned for such a machine; newest is all of direct.in, that is neither vLLM nor Ray, in the
newest releases that go together.

uv downloads and unpacks in parallel what pip does one by one. It is pinned, comes by pip, and is told what pip is told:
indexes, folders of wheels, constraints, certificates and proxy, from the environment or a configuration file. Where pip
finds no uv, or uv cannot install what is listed, pip does. Only the standard library is imported, since nothing else is
there yet.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
UV = "uv==0.13.9"
KINDS = ("cpu", "gpu", "newest")
TORCH_ON_CPU = "torch==2.13.0"
"""What vLLM for CPUs was built with; cpu.txt leaves it out, since what it asks for depends on where it comes from."""
PIP = (sys.executable, "-m", "pip", "install", "--quiet")
UV_PIP = (str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--python", sys.executable)
OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraints",
    "trusted-host": "--allow-insecure-host",
}
"""Settings of pip that take several values, and what uv calls them."""
VARIABLES = {"cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY"}
SETTING = re.compile(r"^[\w:-]+?\.(?P<name>[a-z-]+)=(?P<value>.*)$")


def main() -> None:
    """Install what is asked for, and this project."""
    if sys.argv[1:] not in [[kind] for kind in KINDS]:
        sys.exit(f"error: expected one of {', '.join(KINDS)}: python requirements/install.py cpu")
    kind = sys.argv[1]
    if install(PIP, [UV]):
        arguments, variables = translated(pip_settings())
        if all(install([*UV_PIP, *arguments], asked, variables) for asked in steps(kind, by_uv=True)):
            return
    sys.stderr.write("note: uv cannot be used here; pip installs, which takes longer\n")
    if not all(install(PIP, asked) for asked in steps(kind)):
        sys.exit(1)


def steps(kind: str, *, by_uv: bool = False) -> list[list[str]]:
    """What is installed one after another: exactly what is listed, or (newest) all that goes together, upgraded.

    pip knows no overrides. It finds an older release of what one is about, in which nothing is wrong.
    """
    project = ["--no-deps", "--editable", str(HERE.parent)]
    if kind == "newest":
        overrides = ["--overrides", str(HERE / "overrides.txt")] if by_uv else []
        return [["--upgrade", *overrides, "-r", str(HERE / "direct.in")], project]
    listed = ["--no-deps", "-r", str(HERE / f"{kind}.txt")]
    return [[TORCH_ON_CPU], listed, project] if kind == "cpu" else [listed, project]


def install(command: Sequence[str], asked: Sequence[str], variables: Mapping[str, str] | None = None) -> bool:
    """Whether a command could install what is asked; it says itself why not."""
    environment = {**os.environ, **(variables or {})}
    return subprocess.run([*command, *asked], env=environment, check=False).returncode == 0  # noqa: S603  our own command


def pip_settings() -> dict[str, str]:
    """What pip is told by files and the environment; the environment is listed last and wins."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()  # noqa: S603
    ordered = sorted(lines, key=lambda line: line.startswith(":env:"))
    found = (SETTING.match(line) for line in ordered)
    return {each["name"]: " ".join(ast.literal_eval(each["value"]).split()) for each in found if each}


def translated(settings: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Settings of pip as arguments and variables of uv.

    pip takes the newest version of all indexes, uv that of the first one that has the package unless told otherwise.
    """
    arguments = ["--index-strategy", "unsafe-best-match"]
    for name, option in OPTIONS.items():
        for value in settings.get(name, "").split():
            arguments += [option, value]
    if settings.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        arguments.append("--no-index")
    return arguments, {name: settings[key] for key, name in VARIABLES.items() if key in settings}


if __name__ == "__main__":
    main()
