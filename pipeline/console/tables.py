"""What commands print: tables for people, JSON for machines, both from the same records.

In: plans, accuracies, spaces. Out: text on stdout. Where stdout is no terminal a table takes the width it needs, so
that a log file is not cut to 80 columns.
"""

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType


WIDE = 160
MARK = "\N{REPLACEMENT CHARACTER}"
MINUS = "\N{MINUS SIGN}"


def print_json(value: object) -> None:
    """Print records as JSON."""
    click.echo(json_text(value))


def json_text(value: object) -> str:
    """Records as JSON."""
    return json.dumps(value, default=_plain, indent=1, ensure_ascii=False)


def size(count: float) -> str:
    """Bytes for people."""
    return _in_units(count, 1000, ("B", "kB", "MB", "GB", "TB"))


def binary_size(count: float) -> str:
    """Bytes for people, in powers of 1,024 as memory and job schedulers count."""
    return _in_units(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def _in_units(count: float, step: int, units: Sequence[str]) -> str:
    power = 0
    while abs(count) >= step and power < len(units) - 1:
        count, power = count / step, power + 1
    return f"{count:.3g} {units[power]}" if count < 1000 else f"{count:.0f} {units[power]}"


def print_rows(columns: Sequence[str], rows: "Iterable[Sequence[RenderableType]]") -> None:
    """Print a table of these rows to stdout, in the look of all of ours; headings that are all empty are left out."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_header=any(columns), pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDE
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n"))


def fill(text: str) -> str:
    """A paragraph of 80 columns, further lines indented; names and numbers stay whole."""
    return textwrap.fill(text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _plain(value: object) -> Any:  # whatever json asks for next
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def one_line(text: str, limit: int | None = None) -> str:
    """`text` in one line, shortened to `limit` characters with an ellipsis."""
    line = " ".join("".join(letter if letter.isprintable() or letter.isspace() else MARK for letter in text).split())
    return line if limit is None or len(line) <= limit else line[: max(limit - 1, 0)] + "…"


def step_label(number: int) -> str:
    """The number of a step, with a minus sign that is as wide as a digit."""
    return f"{MINUS}{-number}" if number < 0 else str(number)
