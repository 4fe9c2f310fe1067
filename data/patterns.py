"""Regular expressions that are compiled when they are first used.

The answers of nine benchmarks are read by more than a hundred expressions: what parses no answer, as `molsaki status`
of a finished run, need not wait until they are compiled.
"""

import re
from typing import Any, cast

METHODS = ("match", "fullmatch", "search", "finditer", "findall", "split", "sub", "subn")


class _Pattern:
    """Stands for the expression until one of its methods is asked for, and has them itself from then on."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.pattern, self.flags = pattern, flags

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise AttributeError(name)
        compiled = re.compile(self.pattern, self.flags)
        for method in METHODS:
            setattr(self, method, getattr(compiled, method))
        return getattr(compiled, name)


def regex(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """`re.compile`, later: an expression that is none is noticed at its first use."""
    return cast("re.Pattern[str]", _Pattern(pattern, flags))
