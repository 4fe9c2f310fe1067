"""`molsaki cache show --record`: the numbers of the store in a terminal of any width, with colour and without."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cache import open_attention
from pipeline.cli.main import molsaki
from pipeline.views.figures.record import RecordView, StepView, WordView
from pipeline.views.record_table import LATER, LEAST, grids
from tests.pipeline.views.test_plot import hostile_space, space, teacher  # noqa: F401  (fixtures)

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def show(*arguments: object, colour: bool = False) -> Result:
    return CliRunner().invoke(molsaki, ["cache", "show", *map(str, arguments)], color=colour)


def numbers_in(output: str) -> list[list[str]]:
    """Rows of the heat map in plain output: a label, then a number or a dot for each word."""
    lines = output[: output.index("share of each step")].splitlines() if "share of" in output else output.splitlines()
    cells = [line.split() for line in lines]
    return [row for row in cells if len(row) > 1 and all(re.fullmatch(rf"\d+\.\d+|{LATER}", cell) for cell in row[1:])]


@pytest.fixture
def key(space: Path) -> str:  # noqa: F811
    return next(iter(open_attention(space)))


def test_the_heat_map_has_the_stores_numbers(space: Path, key: str) -> None:  # noqa: F811
    store = open_attention(space)
    marked = store.marked(key)
    for choice, expected in (((), store[key].mean(axis=0, dtype=np.float64)), (("--layer", 2), store[key][1])):
        result = show(space, "--record", key[:14], *choice)
        assert result.exit_code == 0, result.output
        rows = numbers_in(result.stdout)
        assert [len(row) - 1 for row in rows] == [len(marked.critical_spans)] * len(marked.step_spans)
        for row, values, (_, end) in zip(rows, expected, marked.step_spans, strict=True):
            for cell, value, (start, _) in zip(row[1:], values, marked.critical_spans, strict=True):
                assert cell == (LATER if start >= end else f"{value:.2f}")


def test_the_text_has_numbered_steps_and_marked_words(space: Path, key: str) -> None:  # noqa: F811
    marked = open_attention(space).marked(key)
    lines = show(space, "--record", key).stdout.splitlines()
    for start, end in marked.step_spans:
        words = [span for span in marked.critical_spans if start <= span[0] < end]
        text = marked.text[start:end]
        for first, last in reversed(words):
            text = f"{text[: first - start]}[{text[first - start : last - start]}]{text[last - start :]}"
        assert any(line.endswith(f"  {' '.join(text.split())}") for line in lines), text
    assert any(line.startswith("  1  ") for line in lines)
    assert any(line.startswith(" −1  ") for line in lines)


def test_json_has_the_numbers(space: Path, key: str) -> None:  # noqa: F811
    found = json.loads(show(space, "--record", key, "--json").stdout)
    np.testing.assert_allclose(found["attention"], open_attention(space)[key].mean(axis=0, dtype=np.float64))
    assert found["key"] == key


def test_colour_adds_and_takes_nothing(space: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    plain = show(space, "--record", key)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    coloured = show(space, "--record", key, colour=True)
    assert "\x1b[" in coloured.stdout and "\x1b[" not in plain.stdout
    assert numbers_in(ANSI.sub("", coloured.stdout)) == numbers_in(plain.stdout)
    assert re.search(r"\x1b\[[0-9;]*48;[25];", coloured.stdout)  # a background
    monkeypatch.setenv("NO_COLOR", "1")
    without = show(space, "--record", key, colour=True)
    assert not re.search(r"\x1b\[[0-9;]*48;", without.stdout)
    assert numbers_in(ANSI.sub("", without.stdout)) == numbers_in(plain.stdout)
    assert ANSI.sub("", without.stdout).split() == plain.stdout.split()


def view_of(steps: int, words: int) -> RecordView:
    return RecordView(
        space="space", key="0" * 64, layers="mean of all layers", text="x" * 100, rationale_start=0,
        steps=tuple(StepView(step=n + 1, span=(n, 100), text="x", tokens=1, shares=None) for n in range(steps)),
        words=tuple(WordView(span=(n, n + 1), text=f"w{n}") for n in range(words)),
        attention=tuple(tuple(float(100 * s + k) for k in range(words)) for s in range(steps)),
    )  # fmt: skip


@pytest.mark.parametrize(("steps", "words"), [(3, 4), (3, 30), (30, 3), (30, 40)])
@pytest.mark.parametrize("width", [LEAST, 80, 160])
def test_every_number_is_shown_once_whatever_the_width(steps: int, words: int, width: int) -> None:
    view = view_of(steps, words)
    pieces = grids(view, width)
    shown = sorted(value for grid in pieces for row in grid.cells for value in row if value is not None)
    assert shown == sorted(
        value
        for step, row in enumerate(view.attention)
        for word, value in enumerate(row)
        if not view.is_later(step, word)
    )
    for grid in pieces:
        assert all(len(row) == len(grid.columns) for row in grid.cells)
        assert len(grid.rows) == len(grid.cells)


def test_a_narrow_terminal_has_words_as_rows_or_pieces_below_each_other() -> None:
    assert [grid.corner for grid in grids(view_of(3, 4), 80)] == ["step"]
    assert [grid.corner for grid in grids(view_of(3, 30), 80)] == ["word, step"]
    assert [grid.corner for grid in grids(view_of(30, 40), 80)] == ["step"] * 4


@pytest.mark.parametrize("width", [20, 60, 100])
def test_no_number_is_cut_off(space: Path, key: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    output = ANSI.sub("", show(space, "--record", key, colour=True).stdout)
    assert not re.search(r"\d…", output[output.index("attention of") :])
    shares = [row.split() for row in output[output.index("share of each") :].splitlines()[4:]]
    steps = len(open_attention(space).marked(key).step_spans)
    assert [len(row) for row in shares] == [6] * steps


def test_text_of_data_sets_is_never_markup_or_a_control_sequence(tmp_path: Path) -> None:
    path, key = hostile_space(tmp_path)
    result = show(path, "--record", key)
    assert result.exit_code == 0, result.output
    assert "[red]now[/red]" in result.stdout
    assert "\x1b" not in result.stdout and "\x00" not in result.stdout
    assert "share of each step" not in result.stdout  # nobody knows


def test_what_is_not_there_is_refused(space: Path) -> None:  # noqa: F811
    for arguments, code, line in (
        (("--record", "xyz"), 2, "record xyz: none of 12 keys begins so"),
        (("--record", "", "--layer", 1), 2, "12 keys begin so"),
        (("--layer", 1), 2, "--layer and --mixture go with --record"),
        (("--record", "a", "--layer", 9), 2, "--layer 9: expected 1 to 3"),
    ):
        result = show(space, *arguments)
        assert result.exit_code == code
        assert line in result.stderr
