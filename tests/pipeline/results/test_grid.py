"""Seeds × what they were asked, by hand, and as pandas makes it of the same rows."""

import numpy as np
import pandas as pd
import pytest

from pipeline.results.grid import grid

ROWS = [(1, "b", 4.0), (0, "b", 2.0), (0, "a", 1.0), (1, "a", 3.0), (0, "c", 5.0), (1, "c", None), (1, "d", 6.0)]


def test_rows_become_a_matrix_of_what_every_seed_has() -> None:
    found = grid(*zip(*ROWS, strict=True))
    assert (found.seeds, found.asked, found.left_out) == ((0, 1), ("a", "b"), 2)
    assert found.values.tolist() == [[1, 2], [3, 4]]


def test_it_is_what_pandas_makes_of_many_rows() -> None:
    random = np.random.default_rng(0)
    rows = [(seed, f"q{number}", bool(random.integers(2))) for number in range(200) for seed in (3, 1, 2)]
    kept = [rows[place] for place in random.permutation(len(rows))[:550]]
    frame = pd.DataFrame(kept, columns=["seed", "question", "right"])
    expected = frame.pivot(index="seed", columns="question", values="right").dropna(axis=1)
    found = grid(*zip(*kept, strict=True))
    assert (list(found.seeds), list(found.asked)) == (list(expected.index), list(expected.columns))
    assert np.array_equal(found.values, expected.to_numpy(dtype=float))


def test_two_grids_are_compared_in_what_both_have() -> None:
    one, other = (
        grid([0, 0, 1, 1], ["a", "b", "a", "b"], [1, 2, 3, 4]),
        grid([1, 1, 2, 2], ["b", "c"] * 2, [5, 6, 7, 8]),
    )
    assert one.common(other) == ([1], ["b"])
    assert one.at([1], ["b"]).tolist() == [[4]] and other.at([1], ["b"]).tolist() == [[5]]


def test_nothing_asked_is_a_grid_of_nothing() -> None:
    assert grid([], [], []).values.shape == (0, 0)


def test_two_answers_of_a_seed_to_one_question_are_refused() -> None:
    with pytest.raises(ValueError, match="two values"):
        grid([0, 0], ["a", "a"], [1, 2])
