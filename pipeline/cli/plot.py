"""The group `molsaki plot`: a command for each figure in `pipeline/views/figures`, found when it is asked for."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

import click

from pipeline.cli.options import FILE, examples, runs_option, set_option, store_option
from pipeline.views import figures
from pipeline.views.plot import Plot, PlotOptions

SHARED = (
    click.argument("what", metavar="CONFIG|SPACE"),
    click.option("--out", type=FILE, help="File to write, .png or .svg; a .json with the figures lies beside it."),
    store_option,
    set_option,
    runs_option,
)
LAYERS = (
    click.option("--mixture", is_flag=True, help="The layers mixed as students learn them (Eq. 4)."),
    click.option("--layer", type=click.IntRange(min=1), help="This layer, counted from 1.  [default: mean of all]"),
)
LAST = (
    click.option(
        "--tau", type=click.FloatRange(min=0, min_open=True), help="Temperature of Eq. 4.  [default: CONFIG's, or 0.1]"
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON; --out may then be left out."),
)


class Figures(Mapping[str, click.Command]):
    """The files of the folder as commands; only those that are looked at are imported."""

    def __iter__(self) -> Iterator[str]:
        return (module.name for module in pkgutil.iter_modules(figures.__path__))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> click.Command:
        if name not in tuple(self):
            raise KeyError(name)
        return _command(name, importlib.import_module(f"{figures.__name__}.{name}").PLOT)


def _command(name: str, plot: Plot[Any]) -> click.Command:
    """A figure's command; the options that figures share arrive as one request."""

    def make(**options: Any) -> None:  # click's own types
        shared = {option: options.pop(option) for option in PlotOptions.__annotations__.keys() & options.keys()}
        plot.make(PlotOptions(**shared), **options)

    for option in reversed((*SHARED, *(LAYERS if plot.layers else ()), *LAST, *plot.options)):
        make = option(make)
    return examples(*plot.examples)(click.command(name, help=inspect.cleandoc(plot.help))(make))


plot = click.Group(
    "plot",
    commands=Figures(),  # type: ignore[arg-type]  # a mapping to read will do
    help="Draw where the teacher looks, from the store alone; no model is loaded.",
)
