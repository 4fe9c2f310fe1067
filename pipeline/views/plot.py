"""`molsaki plot`: what a user asks for enters, a figure and the numbers in it leave, both made from the store alone.

In: a configuration or a space, and one of the figures of `pipeline.views.figures`. Out: a PNG or SVG file, and beside
it, or on stdout, the figures in it as JSON. No model is loaded, and neither is torch; what is heavy is imported inside
functions, because figures declare themselves with what is here.

Figures are drawn with matplotlib, without pyplot: no display, no window, no state. Text comes from data sets, so
nothing in it is ever read as mathematics. The same numbers give the same SVG, byte by byte: no date, no random names.
All look alike. Colours are told apart by the colour-blind: those of Okabe and Ito for kinds, `cividis` and `viridis`
for amounts.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from data.errors import ConfigError
from pipeline.console.tables import json_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cache.reader import AttentionStore
    from pipeline.views.choose import Chosen
    from stages.figures.attention_shares import LayerChoice

Numbers = TypeVar("Numbers")
FORMATS = (".png", ".svg")
CHUNK = 1024
"""Records that are decoded at once."""
BAND = "over records: mean, and the middle half between the percentiles 25 and 75"
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
COLOURS = {"critical": "#D55E00", "other": "#0072B2", "special": "#555555", "sinks": "#CC79A7"}


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """What the options shared by all figures say."""

    what: str
    store: Path | None
    runs: Path
    overrides: tuple[str, ...]
    layer: int | None = None
    mixture: bool = False
    tau: float | None = None
    out: Path | None
    as_json: bool

    def check(self) -> None:
        """Raise `ConfigError` for what cannot be drawn, before anything is read."""
        if self.out is None and not self.as_json:
            raise ConfigError("--out: name a file that ends in .png or .svg, or ask for the figures alone with --json")
        if self.out is not None and self.out.suffix not in FORMATS:
            raise ConfigError(f"--out {self.out}: expected a name that ends in {' or '.join(FORMATS)}")
        self.check_layers()

    def check_layers(self) -> None:
        """Raise `ConfigError` for options about layers that contradict each other."""
        if self.layer is not None and self.mixture:
            raise ConfigError("--layer and --mixture: one or the other; without them it is the mean of all layers")
        if self.tau is not None and self.layer is not None:
            raise ConfigError("--tau: a temperature for mixing layers, and --layer names one")

    def open(self) -> "Chosen":
        """The records to look at; raises `ConfigError` for a layer that is not there."""
        from pipeline.views.choose import choose

        chosen = choose(self.what, store=self.store, runs=self.runs, overrides=self.overrides)
        store = chosen.attention
        if self.layer is not None and not 1 <= self.layer <= store.layers:
            name = store.space.path.name
            raise ConfigError(f"--layer {self.layer}: expected 1 to {store.layers}, the layers of {name}")
        for note in chosen.notes:
            say(note)
        return chosen

    def layers(self, chosen: "Chosen") -> "LayerChoice":
        """How the layers of a record are put together: one, the teacher's mixture, or by default the mean of all."""
        from stages.figures.attention_shares import mean_of_layers, one_layer, teachers_mixture

        if self.layer is not None:
            return one_layer(self.layer)
        return teachers_mixture(self.temperature(chosen)) if self.mixture else mean_of_layers()

    def temperature(self, chosen: "Chosen") -> float:
        """The temperature of Eq. 4: as asked for, else the configuration's, else the default."""
        return chosen.tau if self.tau is None else self.tau


@dataclass(frozen=True, kw_only=True)
class Plot(Generic[Numbers]):
    """One figure: `build` makes its numbers of what was asked and chosen, `draw` a drawing of these.

    `help` is what its command says, its first line also beside its name; `options` are click's, of this figure alone,
    and reach `build` by name. With `layers`, the user may choose how a record's layers are put together.
    """

    help: str
    examples: tuple[str, ...]
    build: "Callable[..., Numbers]"
    draw: "Callable[[Numbers], Figure]"
    options: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = ()  # click's own types
    layers: bool = True

    def make(self, request: PlotOptions, **own: Any) -> None:  # the figure's own options
        """Write the drawing and the figures in it beside each other, or print the figures, or both."""
        request.check()
        numbers = self.build(request, request.open(), **own)
        text = json_text(numbers)
        if request.out is not None:
            from cache.durable import replace_file

            beside = request.out.with_suffix(".json")
            request.out.parent.mkdir(parents=True, exist_ok=True)
            replace_file(request.out, encode(lambda: self.draw(numbers), request.out.suffix))
            replace_file(beside, f"{text}\n".encode())
            say(f"{request.out} written, and its figures to {beside}")
        if request.as_json:
            click.echo(text)


def encode(draw: "Callable[[], Figure]", suffix: str) -> bytes:
    """Draw, and return the file; `suffix` is .png or .svg."""
    import matplotlib as mpl

    written = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A glyph that the font lacks is drawn as a box, and in an SVG it is the viewer's: neither is an error.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        metadata = {"Date": None} if suffix == ".svg" else {}
        draw().savefig(written, format=suffix.removeprefix("."), metadata=metadata)
    return written.getvalue()


def in_chunks(store: "AttentionStore", keys: Sequence[str]) -> Iterator[list[str]]:
    """Give keys in the order in which they are stored, so that no part is decoded again and again."""
    wanted = set(keys)
    ordered = [key for key in store if key in wanted]
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))


def say(line: str) -> None:
    """Tell the user what is not in the figure's own text."""
    click.echo(line, err=True)


def say_missing(chosen: "Chosen") -> None:
    """Say how many of a run's records are not stored yet."""
    if chosen.missing:
        total = len(chosen.keys) + chosen.missing
        say(f"{chosen.missing:,} of the run's {total:,} records are not stored yet and not in the figure")
