"""Names of points in a table show what varies and nothing else, and never leave two of them alike."""

import pytest

from pipeline.accuracies import short_names


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (["small"], ["small"]),
        (["dss", "molsaki"], ["dss", "molsaki"]),
        (["study/objective=dss", "study/objective=mmi"], ["dss", "mmi"]),
        (
            [
                "objective=dss",
                "objective=molsaki,beta=10,alignment=last",
                "objective=molsaki,beta=10,alignment=single-2-1",
            ],
            ["dss", "molsaki, last", "molsaki, single-2-1"],
        ),
        (["beta=1,epochs=5", "beta=3,epochs=5"], ["beta=1", "beta=3"]),
        (["beta=3", "epochs=5"], ["beta=3", "epochs=5"]),
        (["objective=dss"], ["dss"]),
        (["a/objective=dss", "b/objective=dss"], ["a: dss", "b: dss"]),
        (["a/beta=1", "b/beta=3"], ["a: beta=1", "b: beta=3"]),
        (["study/objective=dss", "plain"], ["dss", "plain"]),
        (["study/objective=dss", "dss"], ["study/objective=dss", "dss"]),
    ],
)
def test_short_names_say_what_varies(runs: list[str], expected: list[str]) -> None:
    assert list(short_names(runs).values()) == expected
