"""Few points for many, worked out by hand first."""

from hypothesis import given
from hypothesis import strategies as st

from stages.figures.statistics import curve


def test_few_enough_points_stay_as_they_were_logged():
    one = curve([[(10, 3.0), (20, 2.0), (30, 1.0)]], most_points=10)
    assert (one.steps, one.mean) == ((10, 20, 30), (3.0, 2.0, 1.0))
    assert one.low == one.high == one.mean
    assert one.students == 1


def test_students_are_averaged_and_keep_their_range():
    one = curve([[(10, 3.0), (20, 2.0)], [(10, 1.0), (20, 1.0)]], most_points=10)
    assert one.mean == (2.0, 1.5)
    assert one.low == (1.0, 1.0)
    assert one.high == (3.0, 2.0)
    assert one.students == 2


def test_more_points_than_wanted_become_means_of_stretches():
    log = [(step, float(step)) for step in range(10, 101, 10)]
    one = curve([log], most_points=2)
    assert one.steps == (30, 80)
    assert one.mean == (30, 80)


def test_a_student_that_ended_early_is_missing_from_later_stretches_only():
    one = curve([[(10, 4.0)], [(10, 2.0), (20, 1.0)]], most_points=2)
    assert one.steps == (10, 20)
    assert one.mean == (3.0, 1.0)


def test_what_is_not_finite_counts_as_not_logged():
    one = curve([[(10, float("nan")), (20, 1.0), (30, float("inf"))]], most_points=3)
    assert (one.steps, one.mean) == ((20,), (1.0,))


def test_nothing_logged_is_no_point():
    assert curve([], 5).steps == curve([[], []], 5).steps == ()
    assert curve([], 5).students == 0


@given(
    st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(1, 12),
)
def test_a_curve_is_as_short_as_asked_and_lies_within_its_range(logged: list[list[float]], most: int):
    one = curve([[(10 * n, value) for n, value in enumerate(log, start=1)] for log in logged], most)
    assert 1 <= len(one.steps) <= most
    assert list(one.steps) == sorted(one.steps)
    assert all(low - 1e-6 <= mean <= high + 1e-6 for low, mean, high in zip(one.low, one.mean, one.high, strict=True))
    assert min(map(min, logged)) - 1e-6 <= min(one.low)
    assert max(one.high) <= max(map(max, logged)) + 1e-6
