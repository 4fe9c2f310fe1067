"""Packages that molsaki runs without: a name enters, and where it is missing an error that says how to install it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from data.errors import ConfigError, MolsakiError, first_line

WANTED: Mapping[str, str] = {
    "openai": "'molsaki[server]'",
    "ray": "'molsaki[ray]', beside vLLM",
    "vllm": "'molsaki[gpu]' (without a GPU 'molsaki[cpu]'), or take engine `transformers`",
}
"""What pip is asked for, where that is not the package by its name."""


def not_installed(package: str, option: str) -> str:
    """What a user is told whose `option` needs a package that is not there."""
    return f"{option}: {package} is not installed; install it with: pip install {WANTED.get(package, package)}"


@contextmanager
def needed(package: str, option: str, error: type[MolsakiError] = ConfigError) -> Iterator[None]:
    """Around the import of a package: raises `error` where it is not there, and says why where it is and fails."""
    try:
        yield
    except ImportError as failed:
        reason = "" if failed.name == package else f" ({first_line(failed)})"
        raise error(not_installed(package, option) + reason) from failed
