"""`molsaki cache` on a space of soft labels: listed, shown, checked, handed on."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cache.soft_labels.figures import soft_label_figures
from cache.soft_labels.layout import SoftLabelLayout
from cache.soft_labels.reader import SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from cache.spaces import Space
from pipeline.cli.main import molsaki
from tests.cache.soft_labels.truth import make_block, make_head, make_space


def cache(store: Path, *words: str) -> Result:
    return CliRunner().invoke(molsaki, ["cache", *words, "--store", str(store)])


def write(store: Path, layout: SoftLabelLayout = "top") -> Space:
    space = make_space(store, layout)
    SoftLabelWriter(space).append([make_block(number, layout) for number in range(9)], {"f" * 64: "too long"})
    return space


def test_the_list_has_a_line_for_it(tmp_path: Path) -> None:
    space = write(tmp_path)
    listed = cache(tmp_path, "ls")
    assert f"soft-labels/{space.path.name}" in listed.stdout.replace("\n", "")
    (found,) = json.loads(cache(tmp_path, "ls", "--json").stdout)
    assert (found["kind"], found["records"], found["dropped"]) == ("soft-labels", 9, 1)


def test_show_says_what_a_token_costs_and_how_much_of_the_mass_is_held(tmp_path: Path) -> None:
    figures = soft_label_figures(SoftLabelStore(write(tmp_path)))
    shown = " ".join(cache(tmp_path, "show", "soft-labels/teacher").stdout.split())
    assert f"target tokens 25, {figures.bytes_a_row:,.0f} bytes each" in shown
    for mass in figures.mass:
        assert f"mass held, temperature {mass.temperature:g} {mass.mean:.2%} in the mean" in shown
        assert f"{mass.fifth_percentile:.2%} at the 5th percentile of 25 target tokens of 9 records" in shown
    assert "made with layout top" in shown and "stored against float32" not in shown
    found = json.loads(cache(tmp_path, "show", "soft-labels/teacher", "--json").stdout)
    assert found["targets"] is None
    labels = found["soft_labels"]
    assert (labels["layout"], labels["rows"], labels["bytes_a_row"]) == ("top", 25, figures.bytes_a_row)
    assert [(mass["temperature"], mass["mean"]) for mass in labels["mass"]] == [
        (mass.temperature, mass.mean) for mass in figures.mass
    ]


@pytest.mark.parametrize("head", [False, True])
def test_show_says_whether_there_is_a_head(tmp_path: Path, head: bool) -> None:
    space = write(tmp_path, "hidden")
    if head:
        SoftLabelWriter(space).append_head(make_head())
    shown = " ".join(cache(tmp_path, "show", "soft-labels/teacher").stdout.split())
    assert ("head stored " if head else "head not stored yet") in shown
    assert "mass held" not in shown


def test_show_of_a_space_without_rows_says_what_it_was_made_with(tmp_path: Path) -> None:
    make_space(tmp_path)
    shown = cache(tmp_path, "show", "soft-labels/teacher")
    assert shown.exit_code == 0 and "target tokens" not in shown.stdout
    assert json.loads(cache(tmp_path, "show", "soft-labels/teacher", "--json").stdout)["soft_labels"] is None


def test_damage_is_65_and_repair_mends_it(tmp_path: Path) -> None:
    space = write(tmp_path)
    (space.part_path(space.commits()[0]) / "token" / "zarr.json").unlink()
    assert "damaged" not in cache(tmp_path, "ls").stdout
    assert "warning: targets" in cache(tmp_path, "show", "soft-labels/teacher").stderr
    found = cache(tmp_path, "verify", "soft-labels/teacher")
    assert found.exit_code == 65 and "token/zarr.json" in found.stdout
    mended = cache(tmp_path, "verify", "soft-labels/teacher", "--repair")
    assert mended.exit_code == 0 and "9 records kept, 0 will be computed" in mended.stdout
    assert cache(tmp_path, "verify", "soft-labels/teacher", "--deep").exit_code == 0


def test_it_is_exported_and_imported(tmp_path: Path) -> None:
    write(tmp_path / "ours", "sampled")
    assert cache(tmp_path / "ours", "export", "soft-labels/teacher", str(tmp_path / "out.tar")).exit_code == 0
    imported = cache(tmp_path / "theirs", "import", str(tmp_path / "out.tar"))
    assert imported.exit_code == 0 and "9 in 1 parts" in imported.stdout
    assert len(SoftLabelStore.open(next((tmp_path / "theirs" / "soft-labels").iterdir()))) == 9
