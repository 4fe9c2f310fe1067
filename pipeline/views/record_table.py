"""One record in the terminal: its text with steps and critical words, and the heat map between them.

In: a `RecordView`. Out: lines on stdout. Colour only adds: where there is none (no terminal, NO_COLOR) words stand in
brackets and every cell has its number. Text of data sets is never read as markup.

The heat map has steps as rows while the words fit beside each other; else words as rows; else it goes on below.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from pipeline.console.tables import one_line, print_json, step_label
from pipeline.views.figures.record import RecordView, StepView, build
from pipeline.views.plot import PlotOptions
from stages.figures.attention_shares import GROUPS

WITHOUT_TERMINAL = 160
"""Columns where nobody watches, so that a log file is not cut to 80."""
NARROWEST, WIDEST = 5, 8
"""Columns of a cell, the blank beside it included."""
LABEL = 16
"""Columns for the name of a row and for both edges."""
LEAST = 54
"""Columns that are taken however narrow the terminal is."""
LATER = "·"
"""Stands in a cell whose word is written after the step."""
RAMP = ((0, 34, 78), (65, 77, 107), (125, 124, 120), (188, 174, 108), (254, 232, 56))
"""Colours from little to much attention, after `cividis`, which is the same to the colour-blind."""


def show_record(what: str, store: Path | None, key: str, *, layer: int | None, mixture: bool, as_json: bool) -> None:
    """Print the record whose key begins so, with its heat map, or its numbers."""
    request = PlotOptions(
        what=what, store=store, runs=Path("runs"), overrides=(), layer=layer, mixture=mixture, out=None, as_json=as_json
    )
    request.check_layers()
    view = build(request, request.open(), key)
    if as_json:
        print_json(view)
    else:
        print_record(view)


def print_record(view: RecordView) -> None:
    """Print one record."""
    terminal = Console()
    # A number that is cut off would be a wrong one; a line too long is only ugly.
    width = max(terminal.width, LEAST) if terminal.is_terminal else WITHOUT_TERMINAL
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    with console.capture() as capture:
        for part in _parts(view, width=width, plain=not console.is_terminal or console.no_color):
            console.print(part)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n"))


def _parts(view: RecordView, *, width: int, plain: bool) -> Iterator[RenderableType]:
    yield Text(f"record {view.key}")
    yield Text(f"space {one_line(view.space)}")
    yield Text("")
    for step in view.steps:
        yield _marked_text(view, step, plain=plain)
    yield Text("")
    yield Text(
        f"attention of each step to each critical word, summed over the step's tokens (Eq. 2), {view.layers}; "
        f"{LATER} is a word that is written later"
    )
    for grid in grids(view, width):
        yield _heat_map(grid, plain=plain)
    if any(step.shares for step in view.steps):
        yield Text("share of each step's attention, in %")
        yield _shares(view)


def _marked_text(view: RecordView, step: StepView, *, plain: bool) -> Text:
    """A step with its number, critical words underlined, or in brackets where there is no style."""
    start, end = step.span
    text = Text(f"{step_label(step.step):>3}  ", style="bold")
    place = start
    for word in view.words:
        first, last = max(word.span[0], start), min(word.span[1], end)
        if first < last:
            text.append(_between(view.text[place:first]), style="not bold")
            inside = one_line(view.text[first:last])
            text.append(f"[{inside}]" if plain else inside, style="not bold" if plain else "not bold yellow underline")
            place = last
    return text.append(_between(view.text[place:end]), style="not bold")


def _between(text: str) -> str:
    """As `one_line`, keeping a blank at either end, for words stand on both sides."""
    inside = one_line(text)
    if not inside:
        return " " if text else ""
    return f"{' ' * text[0].isspace()}{inside}{' ' * text[-1].isspace()}"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A piece of the heat map: names of rows and columns, and values, None where nothing can be looked at."""

    corner: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]
    largest: float


def grids(view: RecordView, width: int) -> list[Grid]:
    """The heat map in as many pieces as it takes to fit into `width` columns."""
    steps = tuple(step_label(step.step) for step in view.steps)
    words = tuple(one_line(word.text, WIDEST - 1) for word in view.words)
    cells = tuple(
        tuple(None if view.is_later(step, word) else value for word, value in enumerate(row))
        for step, row in enumerate(view.attention)
    )
    largest = max((value for row in view.attention for value in row), default=0.0)
    if _needed(words) <= width or _needed(steps) > width:
        cut = [(words[piece], tuple(row[piece] for row in cells)) for piece in _pieces(words, width - LABEL)]
        return [Grid(corner="step", rows=steps, columns=some, cells=of, largest=largest) for some, of in cut]
    names = tuple(one_line(word.text, LABEL - 2) for word in view.words)
    turned = tuple(zip(*cells, strict=True))
    return [Grid(corner="word, step", rows=names, columns=steps, cells=turned, largest=largest)]


def _cell_width(name: str) -> int:
    return min(max(len(name) + 1, NARROWEST), WIDEST)


def _needed(columns: Sequence[str]) -> int:
    return LABEL + sum(map(_cell_width, columns))


def _pieces(columns: Sequence[str], width: int) -> list[slice]:
    """Cut columns so that each piece fits; one column at least."""
    pieces: list[slice] = []
    start = used = 0
    for place, name in enumerate(columns):
        if place > start and used + _cell_width(name) > width:
            pieces.append(slice(start, place))
            start, used = place, 0
        used += _cell_width(name)
    return [*pieces, slice(start, len(columns))]


def _heat_map(grid: Grid, *, plain: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0))
    table.add_column(Text(grid.corner), width=LABEL - 2, no_wrap=True)
    for name in grid.columns:
        table.add_column(Text(name), justify="right", width=_cell_width(name) - 1, no_wrap=True)
    for name, row in zip(grid.rows, grid.cells, strict=True):
        table.add_row(Text(name), *(_cell(value, grid.largest, plain=plain) for value in row))
    return table


def _cell(value: float | None, largest: float, *, plain: bool) -> Text:
    if value is None:
        return Text(LATER)
    number = f"{value:.2f}" if value < 10 else f"{value:.1f}"
    if plain:
        return Text(number)
    red, green, blue = _shade(value / largest if largest else 0.0)
    ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 110 else "white"
    return Text(number, style=Style.parse(f"{ink} on rgb({red},{green},{blue})"))


def _shade(share: float) -> tuple[int, int, int]:
    """The colour at `share` of the ramp, from 0 to 1."""
    place = min(max(share, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(place), len(RAMP) - 2)
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(RAMP[low], RAMP[low + 1], strict=True))
    return red, green, blue


def _shares(view: RecordView) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("step", "tokens", *GROUPS):
        table.add_column(name, justify="right")
    for step in view.steps:
        shares = ("",) * len(GROUPS) if step.shares is None else (f"{100 * step.shares[name]:.1f}" for name in GROUPS)
        table.add_row(step_label(step.step), str(step.tokens), *shares)
    return table
