"""The look of all figures: a drawing enters, PNG or SVG leaves. Colours and style are the same for all of them.

Figures are drawn with matplotlib, without pyplot: no display, no window, no state. Text comes from data sets, so
nothing in it is ever read as mathematics. The same numbers give the same SVG, byte by byte: no date, no random names.

Colours are told apart by the colour-blind: those of Okabe and Ito for kinds, `cividis` and `viridis` for amounts.
"""

import io
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

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


def encode(draw: Callable[[], Figure], suffix: str) -> bytes:
    """Draw, and return the file; `suffix` is .png or .svg."""
    written = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A glyph that the font lacks is drawn as a box, and in an SVG it is the viewer's: neither is an error.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        metadata = {"Date": None} if suffix == ".svg" else {}
        draw().savefig(written, format=suffix.removeprefix("."), metadata=metadata)
    return written.getvalue()
