"""The matrix steps × critical words of one record (Fig. 1c, 2b after arXiv 2604.15701), as a heat map.

In: the beginning of a record's key. Out: a `RecordView`, the same as `molsaki cache show --record` has.
"""

from typing import TYPE_CHECKING

import click

from pipeline.console.tables import one_line, step_label
from pipeline.views.plot import Plot, PlotRequest

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.views.choose import Chosen
    from pipeline.views.record import RecordView

LATER = "0.88"
"""Grey of what cannot be looked at, for it is written later."""
LONGEST_WORD, LONGEST_STEP = 16, 56
MOST_NUMBERS = 400
"""Cells up to which a heat map has a number in each."""


def build(request: PlotRequest, chosen: "Chosen", key: str) -> "RecordView":
    """The record whose key begins so."""
    from pipeline.views.record import view_record

    return view_record(chosen.attention, chosen.key(key), request.layers(chosen))


def draw(view: "RecordView") -> "Figure":
    """Heat map steps × words; grey where a word is written after the step."""
    import matplotlib as mpl
    import numpy as np
    from matplotlib.figure import Figure

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


def _write_numbers(axes: "Axes", attention_SK: "np.ndarray", later: "np.ndarray") -> None:
    half = attention_SK.max() / 2
    for step, word in zip(*(~later).nonzero(), strict=True):
        value = attention_SK[step, word]
        colour = "black" if value > half else "white"
        axes.text(word, step, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)


PLOT = Plot(
    help="Heat map of one record, steps × critical words (Fig. 1c, 2b); CONFIG|SPACE as in `molsaki plot shares`.",
    examples=(
        "molsaki plot record demo/molsaki.yaml --record 3fa9 --out record.svg",
        "molsaki plot record attention/Qwen2.5-7B-Instruct --record 3fa9 --mixture --out record.png",
    ),
    build=build,
    draw=draw,
    options=(
        click.option(
            "--record", "key", metavar="KEY", required=True, help="Which record; the beginning of its key will do."
        ),
    ),
)
