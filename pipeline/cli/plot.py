"""The group `molsaki plot`: figures of where teacher and students look."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import FILE, POSITIVE, Command, all_of, examples, runs_option, set_option, store_option

if TYPE_CHECKING:
    from pipeline.views.plot import PlotRequest


@click.group()
def plot() -> None:
    """Draw where the teacher looks, from the store alone; no model is loaded."""


def plot_options(*, layers: bool) -> Callable[[Command], Command]:
    """Add the options that figures share; they arrive as one `request`."""
    chosen = (
        click.option("--layer", type=POSITIVE, help="This layer, counted from 1.  [default: mean of all]"),
        click.option("--mixture", is_flag=True, help="The layers mixed as students learn them (Eq. 4)."),
    )
    options = all_of(
        click.argument("what", metavar="CONFIG|SPACE"),
        click.option("--out", type=FILE, help="File to write, .png or .svg; a .json with the figures lies beside it."),
        store_option,
        set_option,
        runs_option,
        *(chosen if layers else ()),
        click.option(
            "--tau",
            type=click.FloatRange(min=0, min_open=True),
            help="Temperature of Eq. 4.  [default: CONFIG's, or 0.1]",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON; --out may then be left out."),
    )

    def add(command: Command) -> Command:
        @functools.wraps(command)
        def with_request(**given: Any) -> Any:  # click's own types
            from pipeline.views.plot import PlotRequest

            names = PlotRequest.__annotations__.keys() & given.keys()
            return command(request=PlotRequest(**{name: given.pop(name) for name in names}), **given)

        return options(with_request)  # type: ignore[no-any-return]

    return add


@examples(
    "molsaki plot shares demo/molsaki.yaml --runs demo/runs --out shares.png",
    "molsaki plot shares attention/Qwen2.5-7B-Instruct --layer 12 --out layer-12.svg",
    "molsaki plot shares qwen.tar --mixture --json",
)
@plot.command("shares")
@plot_options(layers=True)
def plot_shares(request: "PlotRequest") -> None:
    """Share of each step's attention on critical words, other words and special tokens (Fig. 1b).

    CONFIG|SPACE is a configuration file or a run's folder (the records of that run), or a space (all its records): a
    folder, the beginning of a name in the store, a tar file, or an address such as s3://bucket/space. A matrix stands
    for all of its points that share one space of attention; where there are several, it is said which one is drawn, and
    the folder of a point names another.
    """
    from pipeline.views.plot import plot_shares as draw

    draw(request)


@examples(
    "molsaki plot record demo/molsaki.yaml --record 3fa9 --out record.svg",
    "molsaki plot record attention/Qwen2.5-7B-Instruct --record 3fa9 --mixture --out record.png",
)
@plot.command("record")
@plot_options(layers=True)
@click.option("--record", "key", metavar="KEY", required=True, help="Which record; the beginning of its key will do.")
def plot_record(request: "PlotRequest", key: str) -> None:
    """Heat map of one record, steps × critical words (Fig. 1c, 2b); CONFIG|SPACE as in `molsaki plot shares`."""
    from pipeline.views.plot import plot_record as draw

    draw(request, key)


@examples(
    "molsaki plot layers demo/molsaki.yaml --runs demo/runs --out layers.png",
    "molsaki plot layers runs/study --out study.png      a matrix: students of each point in a row",
    "molsaki plot layers attention/Qwen2.5-7B-Instruct --tau 0.5 --json",
)
@plot.command("layers")
@plot_options(layers=False)
def plot_layers(request: "PlotRequest") -> None:
    """Mean weights of the teacher's layers (Eq. 4), and of a run's students' (Eq. 5) after and during training.

    CONFIG|SPACE as in `molsaki plot shares`; only a configuration or a run's folder has students. Those of a matrix are
    drawn in a row for each point.
    """
    from pipeline.views.plot import plot_layers as draw

    draw(request)
