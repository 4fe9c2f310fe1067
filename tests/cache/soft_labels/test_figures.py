"""What is said of stored soft labels: the mass that K tokens hold, and what a row costs."""

from dataclasses import replace

import numpy as np
import pytest

import cache.soft_labels.figures
from cache.soft_labels.figures import mass_held, soft_label_figures
from cache.soft_labels.reader import SoftLabelStore
from cache.soft_labels.writer import SoftLabelWriter
from data.errors import MissingRecordsError
from tests.cache.soft_labels.truth import K, full_logits, key, make_block, make_head, make_space


def test_the_mass_of_a_row_worked_out_by_hand(tmp_path):
    """p = (1/2, 1/4, 1/8, 1/8); the first two of four hold 3/4, and at temperature 2 (1 + √½) / (1 + √½ + 2 √¼)."""
    space = make_space(tmp_path, "top", k=2, vocabulary_size=4)
    norms = np.log([[2.0, 1 + np.sqrt(0.5) + 2 * np.sqrt(0.25)]])
    logits = np.log([[1, 0.5]])
    block = replace(make_block(0, rows=1, k=2), tokens=np.array([[0, 1]]), logits=logits, log_norms=norms)
    SoftLabelWriter(space).append([block])
    cold, warm = (mass_held(SoftLabelStore(space), temperature) for temperature in (1, 2))
    assert (cold.records, cold.rows, cold.temperature, warm.temperature) == (1, 1, 1, 2)
    assert cold.mean == cold.fifth_percentile == pytest.approx(0.75, abs=1e-4)
    assert warm.mean == pytest.approx((1 + 0.5**0.5) / (2 + 0.5**0.5), abs=1e-4)


@pytest.mark.parametrize("most", [256, 5])
def test_the_mass_is_that_of_the_teachers_softmax(tmp_path, monkeypatch, most):
    monkeypatch.setattr(cache.soft_labels.figures, "MOST_RECORDS", most)
    space = make_space(tmp_path)
    for start in (0, 10, 20):
        SoftLabelWriter(space).append([make_block(number) for number in range(start, start + 10)])
    numbers = range(30) if most > 30 else (0, 7, 14, 22, 29)
    exact = {}
    for temperature in (1, 2):
        rows = [full_logits(number, 1 + number % 5) / temperature for number in numbers]
        p = [np.exp(row) / np.exp(row).sum(axis=1, keepdims=True) for row in rows]
        exact[temperature] = np.concatenate([np.sort(one, axis=1)[:, -K:].sum(axis=1) for one in p])
    found = soft_label_figures(SoftLabelStore(space))
    for mass in found.mass:
        of = exact[mass.temperature]
        assert (mass.rows, mass.records) == (len(of), len(numbers))
        assert mass.mean == pytest.approx(of.mean(), rel=1e-3)
        assert mass.fifth_percentile == pytest.approx(np.percentile(of, 5), rel=1e-3)
    assert [mass.temperature for mass in found.mass] == [1, 2]
    assert (found.layout, found.rows, found.has_head) == ("top", 90, False)
    assert found.bytes_a_row == sum(commit.bytes for commit in space.commits()) / 90


def test_other_layouts_hold_no_share_of_the_mass(tmp_path):
    for layout in ("sampled", "hidden"):
        space = make_space(tmp_path, layout)
        with pytest.raises(MissingRecordsError, match="no soft labels yet"):
            soft_label_figures(SoftLabelStore(space))
        SoftLabelWriter(space).append([make_block(2, layout)])
        if layout == "hidden":
            SoftLabelWriter(space).append_head(make_head())
        found = soft_label_figures(SoftLabelStore(space))
        assert (found.rows, found.mass, found.has_head) == (3, (), layout == "hidden")
        with pytest.raises(ValueError, match=f"no mass at temperature 1 of {layout} rows"):
            mass_held(SoftLabelStore(space), 1)
    with pytest.raises(ValueError, match="no mass at temperature 3 of top rows"):
        mass_held(SoftLabelStore(make_space(tmp_path)), 3)
    assert key(2) in SoftLabelStore(space)
