"""Drawings: places worked out by hand, text escaped, no colours of their own."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.views.charts import (
    Line,
    Scale,
    Whisker,
    bar,
    box_chart,
    line_chart,
    series_style,
    spread_scale,
    strip,
    strip_axis,
)
from stages.figures.statistics import Spread

HOSTILE = '</title><script>alert(1)</script>" onload="alert(2)'


def parse(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)


def texts(drawing: str) -> list[str]:
    return [text.text or "" for text in parse(drawing).iter("text")]


def test_a_scale_maps_its_ends_to_its_ends():
    scale = Scale(low=10, high=20, start=100, end=0)
    assert (scale(10), scale(15), scale(20)) == (100, 50, 0)
    decades = Scale(low=0.01, high=100, start=0, end=400, logarithmic=True)
    assert decades(1) == pytest.approx(200)


def test_a_curve_goes_through_its_points():
    drawing = line_chart("loss", [Line(name="run", x=[0, 50, 100], y=[4, 2, 0])], x_label="step", floor=0.0)
    (points,) = re.findall('points="([^"]*)"', drawing)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points.split())
    assert (x0, x1, x2) == (40, 165, 290)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert y2 == 154  # the lower end of the drawing's area, where 0 is


def test_values_over_many_decades_get_a_logarithmic_axis():
    linear = line_chart("a", [Line(name="run", x=[1, 2], y=[10, 1])], x_label="step")
    decades = line_chart("a", [Line(name="run", x=[1, 2], y=[10, 0.001])], x_label="step")
    assert {"0.001", "0.1", "10"} <= set(texts(decades))
    assert "0.1" not in texts(linear)


def test_labels_at_the_ends_of_curves_do_not_overlap():
    lines = [Line(name=str(n), x=[0, 1], y=[0, 0.5 + n / 1000], label=f"layer {n}") for n in range(4)]
    drawing = parse(line_chart("a", lines, x_label="step", floor=0.0))
    heights = sorted(float(text.get("y", "")) for text in drawing.iter("text") if "named" in text.get("class", ""))
    assert len(heights) == 4
    assert all(after - before >= 12.9 for before, after in pairwise(heights))


def test_text_stays_text_wherever_it_stands():
    box = Spread(mean=0.2, p5=0, p25=0.1, median=0.2, p75=0.3, p95=0.4)
    line = Line(name=HOSTILE, x=[0, 1], y=[0, 1], label=HOSTILE)
    for drawing in (
        line_chart(HOSTILE, [line], x_label=HOSTILE),
        box_chart(HOSTILE, {HOSTILE: box}, x_label=HOSTILE, reference=0.5, style="s1"),
        bar(HOSTILE, 0.5, "s1"),
    ):
        found = parse(drawing)
        assert found.get("aria-label") == HOSTILE
        assert "<script" not in drawing
        assert not any(name.startswith("on") for element in found.iter() for name in element.attrib)


def test_drawings_have_no_colours_and_no_styles_of_their_own():
    drawing = line_chart("a", [Line(name="run", x=[0, 1], y=[0, 1], low=[0, 0], high=[1, 2])], x_label="step")
    assert not re.search(r"#[0-9a-f]{3}|style=|fill=|stroke=|font", drawing)


def test_series_beyond_the_colours_have_other_dashes():
    assert series_style(0) == "s1 d1"
    assert series_style(7) == "s2 d2"
    assert len({series_style(number) for number in range(18)}) == 18


def test_a_strip_without_values_has_the_lines_of_its_neighbours():
    scale = spread_scale([0.1, 0.3], start=0, end=100)
    empty = parse(strip("none", scale, None, style="s1"))
    full = parse(strip("one", scale, Whisker(mean=0.2, low=0.1, high=0.3, points=(0.1, 0.3)), style="s1"))
    grid = [line.attrib for line in empty.iter("line")]
    assert grid
    assert [line.attrib for line in full.iter("line") if line.get("class") == "grid"] == grid
    assert len(list(full.iter("circle"))) == 3


def test_the_axis_below_strips_says_what_it_is_asked_to():
    scale = spread_scale([0.08, 0.31], start=0, end=100)
    shown = texts(strip_axis("percent", scale, lambda value: f"{100 * value:.0f}%"))
    assert shown == ["0%", "10%", "20%", "30%", "40%"]


@given(st.lists(st.decimals(-999, 999, places=4).map(float), min_size=1, max_size=6), st.sampled_from([0.0, 0.1, 10.0]))
def test_a_scale_holds_all_its_values(values: list[float], least: float):
    scale = spread_scale(values, start=0, end=100, least=least)
    assert scale.low <= min(values) + 1e-9
    assert scale.high >= max(values) - 1e-9
    assert scale.high - scale.low >= least - 1e-9
    assert all(-1e-6 <= scale(value) <= 100 + 1e-6 for value in values)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=20))
def test_whatever_the_values_a_curve_is_drawn_inside_its_drawing(values: list[float]):
    drawing = line_chart("a", [Line(name="run", x=range(1, len(values) + 1), y=values)], x_label="step")
    places = [float(number) for pair in re.findall('points="([^"]*)"', drawing) for number in re.split("[ ,]", pair)]
    assert all(-1 <= place <= 301 for place in places)
    assert len(texts(drawing)) > 2
