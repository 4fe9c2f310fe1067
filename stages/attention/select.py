"""What the student stage consumes: a kept rationale, its marked text and the key of its attention."""

from dataclasses import dataclass

from data.records import Marked, Rationale


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training record."""

    rationale: Rationale
    marked: Marked
    key: str
