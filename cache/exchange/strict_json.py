"""JSON from strangers: bytes enter, a value of bounded depth leaves, with no name twice and no number that JSON lacks.

Python's own reader takes NaN, lets the later of two equal names win, and ends in a `RecursionError` on deep nesting.
"""

import json
from typing import Any, NoReturn

from cache.fingerprints import JSON

MAX_DEPTH = 32


def load_strictly(content: bytes) -> JSON:
    """Return the value in `content`; raises `ValueError` with the reason where it is not plain JSON."""
    try:
        value: JSON = json.loads(content, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_number)
        depth = _depth(value)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice in one object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")


def _number(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is too large a number")
    return value


def _depth(value: Any) -> int:  # whatever JSON can hold
    """How many values lie within each other."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside), default=0)
