"""What came of a case, and how it is shown: results enter, a table with what went wrong below it, or JSON, leaves."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass(kw_only=True)
class Result:
    """What came of one case: integers are counts, `problems` says what went wrong, `skipped` why nothing was tried."""

    skipped: str = ""
    problems: list[str] = field(default_factory=list)

    def bad(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.problems)

    def counts(self) -> dict[str, int]:
        """What was counted, by name."""
        return {name: count for name, count in asdict(self).items() if isinstance(count, int)}

    def summary(self) -> str:
        """One line of counts, or why there are none."""
        if self.skipped:
            return f"skipped: {self.skipped}"
        return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in self.counts().items())


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that was tried, on a kind of store or on the stage, and how long it took."""

    kind: str
    name: str
    result: Result
    seconds: float


def timed(kind: str, results: Iterable[tuple[str, Result]]) -> Iterator[Case]:
    """Give each named result as a case, with the time until it came."""
    before = time.monotonic()
    for name, result in results:
        yield Case(kind=kind, name=name, result=result, seconds=time.monotonic() - before)
        before = time.monotonic()


def print_json(cases: Sequence[Case]) -> None:
    """Print a list with one object a case."""
    rows = [
        {
            "kind": case.kind,
            "case": case.name,
            "seconds": round(case.seconds, 1),
            "bad": case.result.bad(),
            **asdict(case.result),
        }
        for case in cases
    ]
    print(json.dumps(rows, indent=1))


def print_table(cases: Sequence[Case]) -> None:
    """Print a table with one row a case, and below it what went wrong."""
    table = Table("kind", "case", "counts", "seconds", "", show_lines=True)
    for case in cases:
        verdict = "BAD" if case.result.bad() else "ok"
        table.add_row(case.kind, case.name, case.result.summary(), f"{case.seconds:.0f}", verdict)
    Console().print(table)
    for case in cases:
        for problem in case.result.problems:
            print(f"{case.kind}, {case.name}: {problem}")
