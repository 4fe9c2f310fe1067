"""`molsaki plot`: what a user asks for enters, a figure and the numbers in it leave, both made from the store alone.

In: a configuration or a space, and how layers are put together. Out: a PNG or SVG file, and beside it, or on stdout,
the figures in it as JSON. No model is loaded, and neither is torch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from cache.durable import replace_file
from cache.reader import RECOMPUTE, AttentionStore
from data.errors import ConfigError, MissingRecordsError
from pipeline.console.tables import json_text
from pipeline.results.students import TrainedStudent, trained_students
from pipeline.views.choose import Chosen, choose
from pipeline.views.record import RecordView, check_layer, view_record
from stages.figures.attention_shares import (
    LayerChoice,
    StepShares,
    mean_of_layers,
    one_layer,
    record_layer_weights,
    record_shares,
    shares_by_step,
    step_numbers,
    teachers_mixture,
)
from stages.figures.statistics import Spread, spread_by_column
from stages.settings import ObjectiveSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from stages.figures.attention_shares import Floats

FORMATS = (".png", ".svg")
CHUNK = 1024
"""Records that are decoded at once."""
ALIGNED_BY = (
    "steps are counted from where the rationale begins: 1 is its first, -1 the question's last; each position is over "
    "the records that have such a step"
)


@dataclass(frozen=True, kw_only=True)
class PlotRequest:
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
        check_choice(self.layer, mixture=self.mixture, tau=self.tau)

    def open(self) -> Chosen:
        """The records to look at."""
        chosen = choose(self.what, store=self.store, runs=self.runs, overrides=self.overrides)
        check_layer(self.layer, chosen.attention)
        _say_notes(chosen)
        return chosen


def check_choice(layer: int | None, *, mixture: bool, tau: float | None) -> None:
    """Raise `ConfigError` for options about layers that contradict each other."""
    if layer is not None and mixture:
        raise ConfigError("--layer and --mixture: one or the other; without them it is the mean of all layers")
    if tau is not None and layer is not None:
        raise ConfigError("--tau: a temperature for mixing layers, and --layer names one")


def layer_choice(layer: int | None, *, mixture: bool, tau: float) -> LayerChoice:
    """How the layers of a record are put together: one, the teacher's mixture, or by default the mean of all."""
    if layer is not None:
        return one_layer(layer)
    return teachers_mixture(tau) if mixture else mean_of_layers()


def chosen_tau(tau: float | None, chosen: Chosen) -> float:
    """The temperature of Eq. 4: as asked for, else the configuration's, else the default."""
    if tau is not None:
        return tau
    return (ObjectiveSettings() if chosen.config is None else chosen.config.objective).tau_teacher


@dataclass(frozen=True, kw_only=True)
class SharesFigure:
    """Shares of attention by step (Fig. 1b): `records` are counted, `not_counted` are stored without what it needs."""

    space: str
    fingerprint: str
    layers: str
    records: int
    not_counted: int
    aligned_by: str
    band: str
    steps: tuple[StepShares, ...]


@dataclass(frozen=True, kw_only=True)
class StudentWeights:
    """Weights of one student's layers: once it was trained, over `records`, and their means while it was trained.

    `run` is its run, or point of a matrix; `steps` are the optimizer steps that were logged, `course` the weights (L,)
    at each.
    """

    run: str
    seed: int
    records: int
    layers: tuple[Spread, ...]
    steps: tuple[int, ...]
    course: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, student: TrainedStudent, run: str) -> "StudentWeights | None":
        """What training left; None of a student that was trained without attention."""
        if student.layer_weights is None:
            return None
        weights_NL = student.layer_weights["student"]
        return cls(
            run=run,
            seed=student.seed,
            records=len(weights_NL),
            layers=spread_by_column(weights_NL),
            steps=tuple(step for step, _ in student.course),
            course=tuple(weights for _, weights in student.course),
        )


@dataclass(frozen=True, kw_only=True)
class LayersFigure:
    """Weights of layers: the teacher's by Eq. 4 over `records`, and those that students have learned (Eq. 5)."""

    space: str
    fingerprint: str
    records: int
    tau: float
    band: str
    teacher: tuple[Spread, ...]
    students: tuple[StudentWeights, ...]


BAND = "over records: mean, and the middle half between the percentiles 25 and 75"


def plot_shares(request: PlotRequest) -> None:
    """Draw how much each step looks at critical words and at what else."""
    request.check()
    chosen = request.open()
    layers = layer_choice(request.layer, mixture=request.mixture, tau=chosen_tau(request.tau, chosen))
    figure = shares_figure(chosen, layers)
    if figure.not_counted:
        _say(f"{figure.not_counted:,} of {len(chosen.keys):,} records are stored without what this needs; {RECOMPUTE}")
    _say_missing(chosen)

    def draw() -> "Figure":
        from pipeline.views.draw import draw_shares

        return draw_shares(figure)

    _deliver(request, figure, draw)


def shares_figure(chosen: Chosen, layers: LayerChoice) -> SharesFigure:
    """Add up the shares of all records meant; raises `MissingRecordsError` where none can be counted."""
    store = chosen.attention
    found: list[tuple[NDArray[np.int64], Floats]] = []
    for keys in _in_chunks(store, chosen.keys):
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


def plot_record(request: PlotRequest, beginning: str) -> None:
    """Draw the matrix steps × words of one record (Fig. 1c, 2b)."""
    request.check()
    view = record_of(request.open(), beginning, request.layer, mixture=request.mixture, tau=request.tau)

    def draw() -> "Figure":
        from pipeline.views.draw import draw_record

        return draw_record(view)

    _deliver(request, view, draw)


def show_record(
    what: str, store: Path | None, beginning: str, *, layer: int | None, mixture: bool, as_json: bool
) -> None:
    """Print one record with its heat map, or its numbers."""
    check_choice(layer, mixture=mixture, tau=None)
    chosen = choose(what, store=store)
    check_layer(layer, chosen.attention)
    _say_notes(chosen)
    view = record_of(chosen, beginning, layer, mixture=mixture, tau=None)
    if as_json:
        click.echo(json_text(view))
        return
    from pipeline.views.record_table import print_record

    print_record(view)


def record_of(chosen: Chosen, beginning: str, layer: int | None, *, mixture: bool, tau: float | None) -> RecordView:
    """The record whose key begins so."""
    layers = layer_choice(layer, mixture=mixture, tau=chosen_tau(tau, chosen))
    return view_record(chosen.attention, chosen.key(beginning), layers)


def plot_layers(request: PlotRequest) -> None:
    """Draw how much the teacher's layers weigh, and of runs with students those of the students."""
    request.check()
    chosen = request.open()
    figure = layers_figure(chosen, chosen_tau(request.tau, chosen))
    _say_missing(chosen)

    def draw() -> "Figure":
        from pipeline.views.draw import draw_layers

        return draw_layers(figure)

    _deliver(request, figure, draw)


def layers_figure(chosen: Chosen, tau: float) -> LayersFigure:
    """The teacher's weights of all records meant, and the students' as they lie in the folders of runs."""
    store = chosen.attention
    chunks = _in_chunks(store, chosen.keys)
    weights_NL = [record_layer_weights(block, tau) for keys in chunks for block in store.read(keys)]
    students = [(student, run) for run, folder in chosen.runs.items() for student in trained_students(folder)]
    return LayersFigure(
        space=store.space.path.name,
        fingerprint=store.space.fingerprint,
        records=len(weights_NL),
        tau=tau,
        band=BAND,
        teacher=spread_by_column(weights_NL),
        students=tuple(
            weights for student, run in students if (weights := StudentWeights.of(student, run)) is not None
        ),
    )


def _in_chunks(store: AttentionStore, keys: Sequence[str]) -> Iterator[list[str]]:
    """Give keys in the order in which they are stored, so that no part is decoded again and again."""
    wanted = set(keys)
    ordered = [key for key in store if key in wanted]
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))


def _deliver(request: PlotRequest, figures: object, draw: "Callable[[], Figure]") -> None:
    """Write the drawing and the figures in it beside each other, or print the figures, or both."""
    text = json_text(figures)
    if request.out is not None:
        from pipeline.views.draw import encode

        beside = request.out.with_suffix(".json")
        request.out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(request.out, encode(draw, request.out.suffix))
        replace_file(beside, f"{text}\n".encode())
        _say(f"{request.out} written, and its figures to {beside}")
    if request.as_json:
        click.echo(text)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _say_notes(chosen: Chosen) -> None:
    for note in chosen.notes:
        _say(note)


def _say_missing(chosen: Chosen) -> None:
    if chosen.missing:
        total = len(chosen.keys) + chosen.missing
        _say(f"{chosen.missing:,} of the run's {total:,} records are not stored yet and not in the figure")
