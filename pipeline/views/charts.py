"""Charts as inline SVG: numbers enter, drawings leave that take their colours from the page and their text from us.

A drawing has no colour and no font of its own: classes of report.css give them (`s1` to `s6` for series, `d1` to `d3`
for dashes), so that dark mode, print and a reader's own font work, and text can be selected and found. All text is
escaped. Every drawing has a title for those who cannot see it (a label, which unlike a `<title>` does not pop up under
the mouse), and the page has its numbers in a table as well.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup, escape

from stages.figures.statistics import Spread

COLOURS, DASHES = 6, 3
WIDTH, HEIGHT = 300, 190
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 10, 36
LOG_RATIO = 50
"""A curve that falls by more than this is drawn on a logarithmic scale."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve, `label` at its end; `low` and `high` are the edges of a band around it, of the same length, or empty."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    style: str = "s1"
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Whisker:
    """A mean on a bar from `low` to `high`, with single values around it."""

    mean: float
    low: float
    high: float
    points: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high, at = (math.log10(one) if self.logarithmic else one for one in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def series_style(number: int) -> str:
    """Classes of the series `number`, counted from 0: six colours, then the same with other dashes."""
    return f"s{number % COLOURS + 1} d{number // COLOURS % DASHES + 1}"


def line_chart(title: str, lines: Sequence[Line], *, x_label: str, floor: float | None = None) -> Markup:
    """Curves over a common axis that begins at 0; `floor` is a value that the vertical axis has to reach down to."""
    values = [value for line in lines for value in (*line.y, *line.low, *line.high)]
    y = _vertical(values, floor)
    right = WIDTH - (48 if any(line.label for line in lines) else RIGHT)
    last = max((line.x[-1] for line in lines if line.x), default=1.0)
    x = Scale(low=0.0, high=last, start=LEFT, end=right)
    parts = [*_y_axis(y, right), *_x_axis(x, x_label, _ticks(0.0, last, 4))]
    parts += [_band(line, x, y) for line in lines if len(line.low)]
    parts += [_curve(line, x, y) for line in lines]
    parts += _end_labels([line for line in lines if line.label and line.x], y, right)
    return _drawing(title, parts, WIDTH, HEIGHT)


def box_chart(title: str, boxes: Mapping[str, Spread], *, x_label: str, reference: float, style: str) -> Markup:
    """A box (quarters; whiskers 5 to 95%) for each name, over an axis from 0, with a dashed line at `reference`."""
    highest = max([reference, *(box.p95 for box in boxes.values())])
    y = Scale(low=0.0, high=highest * 1.05, start=HEIGHT - BOTTOM, end=TOP)
    right = WIDTH - RIGHT
    slot = (right - LEFT) / len(boxes)
    parts = [*_y_axis(y, right), _line(LEFT, y(reference), right, y(reference), "reference")]
    every = math.ceil(len(boxes) / 10)
    for number, (name, box) in enumerate(boxes.items()):
        middle = LEFT + (number + 0.5) * slot
        parts.append(_box(name, box, middle, min(slot * 0.6, 28), y, style))
        if number % every == 0:
            parts.append(_text(middle, HEIGHT - BOTTOM + 16, name, "tick centre"))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 2, x_label, "label centre"))
    return _drawing(title, parts, WIDTH, HEIGHT)


def strip(title: str, scale: Scale, whisker: Whisker | None, *, style: str, zero: bool = False) -> Markup:
    """One row of a table as a drawing: the mean on its bar, single values as rings; with `zero` a line there.

    Without a whisker the row is empty, and its lines join those above and below.
    """
    height = 26
    middle = height / 2
    parts = [_line(scale(at), 0, scale(at), height, "grid") for at in _ticks(scale.low, scale.high, 5)]
    if zero:
        parts.append(_line(scale(0), 0, scale(0), height, "zero"))
    if whisker is None:
        return _drawing(title, parts, int(scale.end + scale.start), height)
    rings = [_tag("circle", "one", cx=scale(one), cy=middle, r=3.2) for one in whisker.points]
    bar_drawn = _line(scale(whisker.low), middle, scale(whisker.high), middle, "whisker")
    mean = _tag("circle", "mean", cx=scale(whisker.mean), cy=middle, r=4)
    parts.append(_tag("g", style, *rings, bar_drawn, mean))
    return _drawing(title, parts, int(scale.end + scale.start), height)


def strip_axis(title: str, scale: Scale, show: Callable[[float], str]) -> Markup:
    """The axis below a column of strips."""
    ticks = _ticks(scale.low, scale.high, 5)
    parts = [_line(scale(at), 0, scale(at), 4, "grid") for at in ticks]
    parts += [_text(scale(at), 15, show(at), "tick centre") for at in ticks]
    return _drawing(title, parts, int(scale.end + scale.start), 18)


def bar(title: str, share: float, style: str) -> Markup:
    """A bar of `share` of its cell."""
    width, height = 160, 12
    full = _tag("rect", "whole", x=0, y=1, width=width, height=height - 2)
    part = _tag("rect", "part", x=0, y=1, width=share * width, height=height - 2)
    return _drawing(title, [full, _tag("g", style, part)], width, height)


def swatch(style: str) -> Markup:
    """What a series looks like, for a legend."""
    line = _tag("g", style, _tag("path", "curve", d="M1 5H25"))
    return _tag("svg", "chart swatch", line, viewBox="0 0 26 10", width=26, height=10, **{"aria-hidden": "true"})


def spread_scale(values: Sequence[float], *, start: float, end: float, least: float = 0.0) -> Scale:
    """A linear scale around all of `values` that begins and ends on round numbers and is at least `least` wide."""
    low, high = min(values), max(values)
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    for _ in range(2):  # ends on round numbers may lie so far out that the axis takes longer steps
        step = _step(high - low, 5)
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return Scale(low=low, high=high, start=start, end=end)


def _vertical(values: Sequence[float], floor: float | None) -> Scale:
    """Linear from `floor` or below the smallest value; logarithmic where the values differ by much."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    scale = partial(Scale, start=HEIGHT - BOTTOM, end=TOP)
    if floor is None and low > 0 and high / low > LOG_RATIO:
        return scale(low=low * 0.9, high=high * 1.1, logarithmic=True)
    floor = 0.0 if floor is None and 0 <= low < high / 4 else floor  # a curve that nearly reaches 0 shows how near
    low = low if floor is None else min(floor, low)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    margin = 0.05 * (high - low)
    return scale(low=low if low == floor else low - margin, high=high + margin)


def _step(width: float, count: int) -> float:
    """A round distance (1, 2 or 5 times a power of ten) of which about `count` fit `width`."""
    if width <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(width / count))
    return next(power * times for times in (1, 2, 5, 10) if power * times * count >= width * 0.999)


def _ticks(low: float, high: float, count: int) -> list[float]:
    step = _step(high - low, count)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and where they are few their doubles and fives as well."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    times = (1,) if math.log10(high / low) > 3 else (1, 3) if math.log10(high / low) > 2 else (1, 2, 5)
    return [t * 10.0**power for power in powers for t in times if low <= t * 10.0**power <= high]


def _y_axis(y: Scale, right: float) -> Iterator[Markup]:
    ticks = _log_ticks(y.low, y.high) if y.logarithmic else _ticks(y.low, y.high, 5)
    for at in ticks:
        yield _line(LEFT, y(at), right, y(at), "grid")
        yield _text(LEFT - 6, y(at) + 4, _short(at), "tick end")


def _x_axis(x: Scale, label: str, ticks: Sequence[float]) -> Iterator[Markup]:
    yield _line(x.start, HEIGHT - BOTTOM, x.end, HEIGHT - BOTTOM, "axis")
    for at in ticks:
        yield _line(x(at), HEIGHT - BOTTOM, x(at), HEIGHT - BOTTOM + 4, "axis")
        yield _text(x(at), HEIGHT - BOTTOM + 16, _short(at), "tick centre")
    yield _text((x.start + x.end) / 2, HEIGHT - 2, label, "label centre")


def _curve(line: Line, x: Scale, y: Scale) -> Markup:
    points = " ".join(f"{_n(x(at))},{_n(y(value))}" for at, value in zip(line.x, line.y, strict=True))
    name = _tag("title", "", line.name)
    drawn = _tag("polyline", "curve", name, points=points)
    if len(line.x) == 1:
        drawn = _tag("circle", "mean", name, cx=x(line.x[0]), cy=y(line.y[0]), r=3)
    return _tag("g", f"series {line.style}", drawn)


def _band(line: Line, x: Scale, y: Scale) -> Markup:
    there = [f"{_n(x(at))},{_n(y(value))}" for at, value in zip(line.x, line.high, strict=True)]
    back = [f"{_n(x(at))},{_n(y(value))}" for at, value in zip(line.x, line.low, strict=True)][::-1]
    return _tag("g", f"series {line.style}", _tag("polygon", "band", points=" ".join(there + back)))


def _end_labels(lines: Sequence[Line], y: Scale, right: float) -> Iterator[Markup]:
    """Labels at the ends of curves, from top to bottom, moved apart where they would overlap."""
    above = -math.inf
    for line in sorted(lines, key=lambda one: y(one.y[-1])):
        above = max(y(line.y[-1]) + 4, above + 13)
        yield _tag("g", f"series {line.style}", _text(right + 6, above, line.label, "tick named"))


def _box(name: str, box: Spread, middle: float, width: float, y: Scale, style: str) -> Markup:
    left = middle - width / 2
    return _tag(
        "g",
        style,
        _line(middle, y(box.p5), middle, y(box.p95), "whisker"),
        _tag("rect", "box", x=left, y=y(box.p75), width=width, height=max(y(box.p25) - y(box.p75), 0.5)),
        _line(left, y(box.median), left + width, y(box.median), "middle"),
        _tag("title", "", f"{name}: median {box.median:.3f}, half of the records {box.p25:.3f} to {box.p75:.3f}"),
    )


def _drawing(title: str, parts: Sequence[Markup], width: int, height: int) -> Markup:
    place: dict[str, str | float] = {"viewBox": f"0 0 {width} {height}", "width": width, "height": height}
    return _tag("svg", "chart", *parts, **place, role="img", **{"aria-label": title})


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return _tag("line", kind, x1=x1, y1=y1, x2=x2, y2=y2)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return _tag("text", kind, text, x=x, y=y)


def _tag(name: str, kind: str, *children: str, **attributes: str | float) -> Markup:
    """An element of a class; attributes and children are escaped unless they are markup already."""
    named = {"class": kind, **attributes} if kind else attributes
    texts = {key: value if isinstance(value, str) else _n(value) for key, value in named.items()}
    written = "".join(f' {key}="{escape(value)}"' for key, value in texts.items())
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>")  # noqa: S704  escaped just above


def _n(value: float) -> str:
    """A coordinate to a tenth of a pixel, in as few characters as it takes."""
    return f"{value:.1f}".removesuffix(".0") if abs(value) >= 0.05 else "0"


def _short(value: float) -> str:
    """A tick's number: `0.05`, `12`, `1,500`, `25k`."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
