"""How much each layer weighs: the teacher's by Eq. 4, those of a run's students by Eq. 5 after arXiv 2604.15701.

In: stored attention, and what training has left in the folders of runs. Out: the spread of the weights over records,
and for students their course while training. Shape letter: L layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from pipeline.console.tables import one_line
from pipeline.views.plot import BAND, COLOURS, Plot, PlotOptions, in_chunks, say_missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.results.students import TrainedStudent
    from pipeline.views.choose import Chosen
    from stages.figures.statistics import Spread

LONGEST_RUN = 48
MOST_ROWS = 20
"""Points of a matrix whose students are drawn."""


@dataclass(frozen=True, kw_only=True)
class StudentWeights:
    """Weights of one student's layers: once it was trained, over `records`, and their means while it was trained.

    `run` is its run, or point of a matrix; `steps` are the optimizer steps that were logged, `course` the weights (L,)
    at each.
    """

    run: str
    seed: int
    records: int
    layers: "tuple[Spread, ...]"
    steps: tuple[int, ...]
    course: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class LayersFigure:
    """Weights of layers: the teacher's by Eq. 4 over `records`, and those that students have learned (Eq. 5)."""

    space: str
    fingerprint: str
    records: int
    tau: float
    band: str
    teacher: "tuple[Spread, ...]"
    students: tuple[StudentWeights, ...]


def build(request: PlotOptions, chosen: "Chosen") -> LayersFigure:
    """The teacher's weights of all records meant, and the students' as they lie in the folders of runs."""
    from pipeline.results.students import trained_students
    from stages.figures.attention_shares import record_layer_weights
    from stages.figures.statistics import spread_by_column

    store, tau = chosen.attention, request.temperature(chosen)
    chunks = in_chunks(store, chosen.keys)
    weights_NL = [record_layer_weights(block, tau) for keys in chunks for block in store.read(keys)]
    students = [(student, run) for run, folder in chosen.runs.items() for student in trained_students(folder)]
    figure = LayersFigure(
        space=store.space.path.name,
        fingerprint=store.space.fingerprint,
        records=len(weights_NL),
        tau=tau,
        band=BAND,
        teacher=spread_by_column(weights_NL),
        students=tuple(_weights(*each) for each in students if each[0].layer_weights is not None),
    )
    say_missing(chosen)
    return figure


def _weights(student: "TrainedStudent", run: str) -> StudentWeights:
    """What training left of a student that learned from attention."""
    from stages.figures.statistics import spread_by_column

    assert student.layer_weights is not None, student.folder
    weights_NL = student.layer_weights["student"]
    return StudentWeights(
        run=run,
        seed=student.seed,
        records=len(weights_NL),
        layers=spread_by_column(weights_NL),
        steps=tuple(step for step, _ in student.course),
        course=tuple(weights for _, weights in student.course),
    )


def draw(figure: LayersFigure) -> "Figure":
    """The teacher's layers; beside them those of the students, after training and while it went on, a row a run."""
    from matplotlib.figure import Figure

    runs = {run: list(students) for run, students in groupby(figure.students, lambda student: student.run)}
    shown = list(runs.items())[:MOST_ROWS]
    count = len(figure.teacher)
    size = (max(5.5, 2 + 0.22 * count) + (9.0 if runs else 0), 4.2 * max(1, len(shown)))
    drawing = Figure(figsize=size, layout="constrained")
    left_out = f"\nthe first {len(shown)} of {len(runs)} points; the figures beside it have all"
    drawing.suptitle(one_line(figure.space, 60) + (left_out if len(shown) < len(runs) else ""), fontsize=10)
    rows = drawing.subplots(max(1, len(shown)), 3 if runs else 1, squeeze=False)
    teacher = rows[0][0]
    _draw_layers(teacher, [figure.teacher], "other", 1.0)
    _finish_layers(teacher, count, f"teacher, Eq. 4 with tau {figure.tau:g}\n{figure.records:,} records")
    for (run, students), (below, *others) in zip(shown, rows, strict=False):
        if below is not teacher:
            below.set_axis_off()
        _draw_students(others[0], students, one_line(run, LONGEST_RUN))
        _draw_course(others[1], drawing, students, one_line(run, LONGEST_RUN))
    return drawing


def _draw_layers(axes: "Axes", models: "Sequence[Sequence[Spread]]", colour: str, filled: float) -> None:
    """Bars of the mean weights with the middle halves, of each model beside the others at every layer."""
    import numpy as np

    width = 0.7 / len(models)
    for place, layers in enumerate(models):
        numbers = np.arange(1, len(layers) + 1) + (place - (len(models) - 1) / 2) * width
        axes.bar(numbers, [one.mean for one in layers], color=COLOURS[colour], width=filled * width)
        axes.vlines(numbers, [one.p25 for one in layers], [one.p75 for one in layers], color="black")


def _finish_layers(axes: "Axes", count: int, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.axhline(1 / count, color="0.5", linestyle=":", linewidth=1)
    axes.set(xlabel="layer (dotted: all alike)", ylabel="weight (mean and middle half)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axes.set_title(title, fontsize=10)


def _draw_students(axes: "Axes", students: Sequence[StudentWeights], run: str) -> None:
    """Each student of a run beside the others at every layer."""
    _draw_layers(axes, [student.layers for student in students], "critical", 0.9)
    seeds = ", ".join(str(student.seed) for student in students)
    title = f"{run}\nstudents after training, Eq. 5; {one_line(f'seeds {seeds}', 30)}"
    _finish_layers(axes, max(len(student.layers) for student in students), title)


def _draw_course(axes: "Axes", drawing: "Figure", students: Sequence[StudentWeights], run: str) -> None:
    """A line for each layer of each student, coloured by the layer."""
    import matplotlib as mpl
    import numpy as np
    from matplotlib.ticker import MaxNLocator

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


PLOT = Plot(
    help="""Mean weights of the teacher's layers (Eq. 4), and of a run's students' (Eq. 5) after and during training.

    CONFIG|SPACE as in `molsaki plot shares`; only a configuration or a run's folder has students. Those of a matrix are
    drawn in a row for each point.
    """,
    examples=(
        "molsaki plot layers demo/demo.yaml --runs demo/runs --out layers.png",
        "molsaki plot layers runs/study --out study.png      a matrix: students of each point in a row",
        "molsaki plot layers attention/Qwen2.5-7B-Instruct --tau 0.5 --json",
    ),
    build=build,
    draw=draw,
    layers=False,
)
