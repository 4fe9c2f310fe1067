"""What a process that works on the students of many points leaves for the one that waits for it.

In: errors by point, and the point that it is at. Out: a small file, there also when the process was killed.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from cache.durable import replace_file


@dataclass(kw_only=True)
class Failures:
    """What failed of the points in a process: errors by name, and the point that it is at."""

    failed: dict[str, str] = field(default_factory=dict)
    at: str | None = None
    path: Path | None = None

    def reach(self, point: str | None) -> None:
        """Save that `point` is next for the process that waits, which wants to know also if this one is killed."""
        self.at = point
        if self.path is not None:
            replace_file(self.path, json.dumps({"failed": self.failed, "at": self.at}).encode())

    @classmethod
    def read(cls, path: Path) -> "Failures":
        """Read what a process has reported; empty where it has not come to that."""
        if not path.exists():
            return cls()
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(failed=content["failed"], at=content["at"])
