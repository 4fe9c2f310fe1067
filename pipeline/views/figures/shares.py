"""Shares of attention by step (Fig. 1b after arXiv 2604.15701).

In: stored totals of all records meant. Out: at each position, counted from where the rationale begins, how much of a
step's attention goes to critical words and to what else: means, and the middle half of the records.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.errors import MissingRecordsError
from pipeline.console.tables import one_line, step_label
from pipeline.views.plot import BAND, COLOURS, Plot, PlotOptions, in_chunks, say, say_missing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.views.choose import Chosen
    from stages.figures.attention_shares import Floats, LayerChoice, StepShares

ALIGNED_BY = (
    "steps are counted from where the rationale begins: 1 is its first, -1 the question's last; each position is over "
    "the records that have such a step"
)
MARKS = {
    "critical": ("critical words", "o"),
    "other": ("other words", "s"),
    "special": ("special tokens", "^"),
    "sinks": ("learned sinks", "D"),
}
"""Name and marker of each group."""
FEW = 0.05
"""Positions that a smaller share of the records has are left out of the drawing; the figures beside it have them."""


@dataclass(frozen=True, kw_only=True)
class SharesFigure:
    """Shares of attention by step: `records` are counted, `not_counted` are stored without what it needs."""

    space: str
    fingerprint: str
    layers: str
    records: int
    not_counted: int
    aligned_by: str
    band: str
    steps: "tuple[StepShares, ...]"


def build(request: PlotOptions, chosen: "Chosen") -> SharesFigure:
    """Add up the shares of all records meant, and say which are not in it."""
    from cache.reader import RECOMPUTE

    figure = shares_figure(chosen, request.layers(chosen))
    if figure.not_counted:
        say(f"{figure.not_counted:,} of {len(chosen.keys):,} records are stored without what this needs; {RECOMPUTE}")
    say_missing(chosen)
    return figure


def shares_figure(chosen: "Chosen", layers: "LayerChoice") -> SharesFigure:
    """Add up the shares; raises `MissingRecordsError` where no record can be counted."""
    import numpy as np

    from cache.reader import RECOMPUTE
    from stages.figures.attention_shares import record_shares, shares_by_step, step_numbers

    store = chosen.attention
    found = []
    for keys in in_chunks(store, chosen.keys):
        any_array: Floats = np.empty((store.layers, 0, 0))
        blocks = store.read(keys) if layers.needs_attention else [any_array] * len(keys)
        for key, totals, block in zip(keys, store.read_totals(keys), blocks, strict=True):
            if totals is not None:
                found.append((step_numbers(store.marked(key)), record_shares(totals, layers.weigh(block))))
    if not found:
        raise MissingRecordsError(
            f"{store.space.path}: all {len(chosen.keys):,} records are stored without what their steps look at in all; "
            f"{RECOMPUTE}"
        )
    return SharesFigure(
        space=store.space.path.name,
        fingerprint=store.space.fingerprint,
        layers=layers.label,
        records=len(found),
        not_counted=len(chosen.keys) - len(found),
        aligned_by=ALIGNED_BY,
        band=BAND,
        steps=tuple(shares_by_step(found)),
    )


def draw(figure: SharesFigure) -> "Figure":
    """Shares of attention by step, with the middle half of the records as a band; below, how many records there are."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    most = max(step.records for step in figure.steps)
    shown = [step for step in figure.steps if step.records >= FEW * most]
    places = np.array([step.step + (step.step < 0) for step in shown])  # there is no step 0
    drawing = Figure(figsize=(max(6.4, 1.8 + 0.45 * len(shown)), 5.2), layout="constrained")
    above, below = drawing.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for group, (name, marker) in MARKS.items():
        spreads = [getattr(step, group) for step in shown]
        if group in {"special", "sinks"} and not any(spread.mean for spread in spreads):
            continue  # most teachers have no sinks, and some no special tokens
        low, high = [spread.p25 for spread in spreads], [spread.p75 for spread in spreads]
        above.fill_between(places, low, high, color=COLOURS[group], alpha=0.18, linewidth=0)
        means = [spread.mean for spread in spreads]
        above.plot(places, means, color=COLOURS[group], marker=marker, markersize=4.5, label=name)
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


PLOT = Plot(
    help="""Share of each step's attention on critical words, other words and special tokens (Fig. 1b).

    CONFIG|SPACE is a configuration file or a run's folder (the records of that run), or a space (all its records): a
    folder, the beginning of a name in the store, a tar file, or an address such as s3://bucket/space. A matrix stands
    for all of its points that share one space of attention; where there are several, it is said which one is drawn, and
    the folder of a point names another.
    """,
    examples=(
        "molsaki plot shares demo/demo.yaml --runs demo/runs --out shares.png",
        "molsaki plot shares attention/Qwen2.5-7B-Instruct --layer 12 --out layer-12.svg",
        "molsaki plot shares qwen.tar --mixture --json",
    ),
    build=build,
    draw=draw,
)
