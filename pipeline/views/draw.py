"""Drawing with matplotlib: the numbers of a figure enter, a drawing leaves, as PNG or SVG.

This file alone imports matplotlib, and without pyplot: no display, no window, no state. Text comes from data sets, so
nothing in it is ever read as mathematics. The same numbers give the same SVG, byte by byte: no date, no random names.

Colours are told apart by the colour-blind: those of Okabe and Ito for kinds, `cividis` and `viridis` for amounts.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.console.tables import one_line, step_label
from pipeline.views.plot import LayersFigure, SharesFigure, StudentWeights
from pipeline.views.record import RecordView
from stages.figures.shares import GROUPS, Group
from stages.figures.statistics import Spread

STYLE: Any = {  # matplotlib types it otherwise in every release
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
    "text.usetex": False,
    "svg.fonttype": "none",  # text stays text, and whoever shows it has the glyphs that we lack
    "svg.hashsalt": "molsaki",
    "savefig.dpi": 150,
}
COLOURS: dict[Group, str] = {"critical": "#D55E00", "other": "#0072B2", "special": "#555555", "sinks": "#CC79A7"}
NAMES: dict[Group, str] = {
    "critical": "critical words",
    "other": "other words",
    "special": "special tokens",
    "sinks": "learned sinks",
}
MARKERS: dict[Group, str] = {"critical": "o", "other": "s", "special": "^", "sinks": "D"}
FEW = 0.05
"""Positions that a smaller share of the records has are left out of the drawing; the figures beside it have them."""
LATER = "0.88"
"""Grey of what cannot be looked at, for it is written later."""
LONGEST_WORD, LONGEST_STEP, LONGEST_RUN = 16, 56, 48
MOST_ROWS = 20
"""Points of a matrix whose students are drawn."""
MOST_NUMBERS = 400
"""Cells up to which a heat map has a number in each."""


def encode(draw: Callable[[], Figure], suffix: str) -> bytes:
    """Draw, and return the file; `suffix` is .png or .svg."""
    written = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A glyph that the font lacks is drawn as a box, and in an SVG it is the viewer's: neither is an error.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        metadata = {"Date": None} if suffix == ".svg" else {}
        draw().savefig(written, format=suffix.removeprefix("."), metadata=metadata)
    return written.getvalue()


def draw_shares(figure: SharesFigure) -> Figure:
    """Shares of attention by step, with the middle half of the records as a band; below, how many records there are."""
    most = max(step.records for step in figure.steps)
    shown = [step for step in figure.steps if step.records >= FEW * most]
    places = np.array([step.step + (step.step < 0) for step in shown])  # there is no step 0
    drawing = Figure(figsize=(max(6.4, 1.8 + 0.45 * len(shown)), 5.2), layout="constrained")
    above, below = drawing.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for group in GROUPS:
        spreads = [getattr(step, group) for step in shown]
        if group in {"special", "sinks"} and not any(spread.mean for spread in spreads):
            continue  # most teachers have no sinks, and some no special tokens
        _band(above, places, spreads, COLOURS[group], MARKERS[group], NAMES[group])
    for axes in (above, below):
        axes.axvline(0.5, color="0.6", linestyle=":", linewidth=1)
    above.set(ylim=(0, 1), ylabel="share of the step's attention")
    above.set_title(f"{one_line(figure.space, 60)}\n{figure.layers}", fontsize=10)
    above.legend(frameon=False, ncols=2, title="mean; band: the middle half of the records", title_fontsize=9)
    below.bar(places, [step.records for step in shown], color="0.7", width=0.7)
    below.set_ylabel("records")
    below.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    below.set_xticks(places, [step_label(step.step) for step in shown])
    left_out = (
        f"\npositions of fewer than {FEW:.0%} of {most:,} records left out" if len(shown) < len(figure.steps) else ""
    )
    below.set_xlabel(
        f"step, counted from where the rationale begins (dotted); each over the records that have it{left_out}",
        fontsize=9,
    )
    return drawing


def _band(axes: Axes, places: "np.ndarray", spreads: Sequence[Spread], colour: str, marker: str, label: str) -> None:
    low, high = [spread.p25 for spread in spreads], [spread.p75 for spread in spreads]
    axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(places, [spread.mean for spread in spreads], color=colour, marker=marker, markersize=4.5, label=label)


def draw_record(view: RecordView) -> Figure:
    """Heat map steps × words; grey where a word is written after the step."""
    attention_SK = np.array(view.attention)
    steps, words = attention_SK.shape
    later = np.array([[view.is_later(step, word) for word in range(words)] for step in range(steps)])
    size = (min(4.6 + 0.42 * words, 40), min(2.0 + 0.34 * steps, 40))
    drawing = Figure(figsize=size, layout="constrained")
    axes = drawing.subplots()
    colours = mpl.colormaps["cividis"].with_extremes(bad=LATER)
    edges = np.arange(words + 1) - 0.5, np.arange(steps + 1) - 0.5
    mesh = axes.pcolormesh(*edges, np.where(later, np.nan, attention_SK), cmap=colours, vmin=0)
    axes.invert_yaxis()
    axes.set_xticks(range(words), [one_line(word.text, LONGEST_WORD) for word in view.words], rotation=90)
    labels = [f"{step_label(step.step)}   {one_line(step.text, LONGEST_STEP)}" for step in view.steps]
    axes.set_yticks(range(steps), labels)
    axes.tick_params(length=0)
    question = sum(step.step < 0 for step in view.steps)
    axes.axhline(question - 0.5, color="white", linewidth=2)
    if attention_SK.size <= MOST_NUMBERS:
        _write_numbers(axes, attention_SK, later)
    axes.set_xlabel("critical words in the order of the text (grey: written after the step)", fontsize=9)
    axes.set_title(f"{one_line(view.space, 60)}, record {view.key[:16]}\n{view.layers}", fontsize=10)
    drawing.colorbar(mesh, ax=axes, label="attention, summed over the step's tokens (Eq. 2)")
    return drawing


def _write_numbers(axes: Axes, attention_SK: "np.ndarray", later: "np.ndarray") -> None:
    half = attention_SK.max() / 2
    for step, word in zip(*np.nonzero(~later), strict=True):
        value = attention_SK[step, word]
        colour = "black" if value > half else "white"
        axes.text(word, step, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)


def draw_layers(figure: LayersFigure) -> Figure:
    """The teacher's layers; beside them those of the students, after training and while it went on, a row a run."""
    runs = {run: list(students) for run, students in groupby(figure.students, lambda student: student.run)}
    shown = list(runs.items())[:MOST_ROWS]
    count = len(figure.teacher)
    size = (max(5.5, 2 + 0.22 * count) + (9.0 if runs else 0), 4.2 * max(1, len(shown)))
    drawing = Figure(figsize=size, layout="constrained")
    left_out = f"\nthe first {len(shown)} of {len(runs)} points; the figures beside it have all"
    drawing.suptitle(one_line(figure.space, 60) + (left_out if len(shown) < len(runs) else ""), fontsize=10)
    rows = drawing.subplots(max(1, len(shown)), 3 if runs else 1, squeeze=False)
    teacher = rows[0][0]
    numbers = np.arange(1, count + 1)
    teacher.bar(numbers, [spread.mean for spread in figure.teacher], color=COLOURS["other"], width=0.7)
    _quartiles(teacher, numbers, figure.teacher)
    _finish_layers(teacher, count, f"teacher, Eq. 4 with tau {figure.tau:g}\n{figure.records:,} records")
    for (run, students), (below, *others) in zip(shown, rows, strict=False):
        if below is not teacher:
            below.set_axis_off()
        _draw_students(others[0], students, one_line(run, LONGEST_RUN))
        _draw_course(others[1], drawing, students, one_line(run, LONGEST_RUN))
    return drawing


def _quartiles(axes: Axes, places: "np.ndarray", spreads: Sequence[Spread]) -> None:
    axes.vlines(places, [spread.p25 for spread in spreads], [spread.p75 for spread in spreads], color="black")


def _finish_layers(axes: Axes, count: int, title: str) -> None:
    axes.axhline(1 / count, color="0.5", linestyle=":", linewidth=1)
    axes.set(xlabel="layer (dotted: all alike)", ylabel="weight (mean and middle half)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axes.set_title(title, fontsize=10)


def _draw_students(axes: Axes, students: Sequence[StudentWeights], run: str) -> None:
    """Each student of a run beside the others at every layer."""
    width = 0.7 / len(students)
    count = max(len(student.layers) for student in students)
    for place, student in enumerate(students):
        numbers = np.arange(1, len(student.layers) + 1) + (place - (len(students) - 1) / 2) * width
        axes.bar(numbers, [spread.mean for spread in student.layers], color=COLOURS["critical"], width=0.9 * width)
        _quartiles(axes, numbers, student.layers)
    seeds = ", ".join(str(student.seed) for student in students)
    _finish_layers(axes, count, f"{run}\nstudents after training, Eq. 5; {one_line(f'seeds {seeds}', 30)}")


def _draw_course(axes: Axes, drawing: Figure, students: Sequence[StudentWeights], run: str) -> None:
    """A line for each layer of each student, coloured by the layer."""
    count = max(len(student.layers) for student in students)
    # The lightest colours would not be seen on white.
    colours = mpl.colors.ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.88, count)))
    scale = mpl.colors.BoundaryNorm(np.arange(count + 1) + 0.5, colours.N)
    for student in students:
        for layer, weights in enumerate(zip(*student.course, strict=True), start=1):
            axes.plot(student.steps, weights, color=colours(scale(layer)), linewidth=1, alpha=0.8)
    axes.set(xlabel="optimizer step", ylabel="weight (mean of the batches logged)", ylim=(0, None))
    axes.set_title(f"{run}\nstudents while training, a line for each layer of each seed", fontsize=10)
    ticks = MaxNLocator(nbins=8, integer=True).tick_values(1, count)
    drawing.colorbar(
        mpl.cm.ScalarMappable(norm=scale, cmap=colours), ax=axes, label="layer",
        ticks=[tick for tick in ticks if 1 <= tick <= count],
    )  # fmt: skip
