"""The matrix steps × critical words of one record (Fig. 1c, 2b after arXiv 2604.15701), as a heat map.

In: the beginning of a record's key. Out: a `RecordView`, its texts, steps, words and the matrix between them; it is the
same that `molsaki cache show --record` has, so that both show the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING

import click

from data.records import Span
from pipeline.console.tables import one_line, step_label
from pipeline.views.plot import Plot, PlotOptions

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.views.choose import Chosen
    from stages.figures.attention_shares import Group

LATER = "0.88"
"""Grey of what cannot be looked at, for it is written later."""
LONGEST_WORD, LONGEST_STEP = 16, 56
MOST_NUMBERS = 400
"""Cells up to which a heat map has a number in each."""


@dataclass(frozen=True, kw_only=True)
class StepView:
    """One step: its number (−1 is the question's last, 1 the rationale's first), its text, and where it looks.

    `shares` of its attention by who receives it are None where the store does not tell, and where it has no token.
    """

    step: int
    span: Span
    text: str
    tokens: int
    shares: "Mapping[Group, float] | None"


@dataclass(frozen=True, kw_only=True)
class WordView:
    """One critical word."""

    span: Span
    text: str


@dataclass(frozen=True, kw_only=True)
class RecordView:
    """One record; `attention[s][k]` is what word k receives from step s (Eq. 2), layers put together as `layers` says.

    `text` is question, line break, rationale, and spans count characters in it.
    """

    space: str
    key: str
    layers: str
    text: str
    rationale_start: int
    steps: tuple[StepView, ...]
    words: tuple[WordView, ...]
    attention: tuple[tuple[float, ...], ...]

    def is_later(self, step: int, word: int) -> bool:
        """Whether a word (by its place in `words`) begins after a step has ended, so that it cannot be looked at."""
        return self.words[word].span[0] >= self.steps[step].span[1]


def build(request: PlotOptions, chosen: "Chosen", key: str) -> RecordView:
    """Read the record whose key begins so, with its layers put together."""
    from stages.figures.attention_shares import record_shares, step_numbers

    store, key, layers = chosen.attention, chosen.key(key), request.layers(chosen)
    marked, attention_LSK = store.marked(key), store[key]
    weights_L = layers.weigh(attention_LSK)
    (totals,) = store.read_totals([key])
    numbers, tokens = step_numbers(marked).tolist(), store.step_tokens(key).tolist()
    shares = [None] * len(numbers) if totals is None else record_shares(totals, weights_L).tolist()
    steps = zip(numbers, marked.step_spans, tokens, shares, strict=True)
    return RecordView(
        space=store.space.path.name,
        key=key,
        layers=layers.label,
        text=marked.text,
        rationale_start=marked.rationale_start,
        steps=tuple(
            StepView(step=number, span=span, text=marked.text[slice(*span)], tokens=count, shares=_named(shares_G))
            for number, span, count, shares_G in steps
        ),
        words=tuple(WordView(span=span, text=marked.text[slice(*span)]) for span in marked.critical_spans),
        attention=tuple(tuple(row) for row in layers.mixed(attention_LSK).tolist()),
    )


def _named(shares_G: Sequence[float] | None) -> "Mapping[Group, float] | None":
    from stages.figures.attention_shares import GROUPS

    return None if shares_G is None or any(map(isnan, shares_G)) else dict(zip(GROUPS, shares_G, strict=True))


def draw(view: RecordView) -> "Figure":
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
        "molsaki plot record demo/demo.yaml --record 3fa9 --out record.svg",
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
