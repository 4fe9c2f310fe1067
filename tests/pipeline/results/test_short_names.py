"""Names of points in a table show what varies and nothing else, and never leave two of them alike."""

import pytest

from pipeline.results.scores import Score, print_scores, short_names
from stages.figures.statistics import Accuracy, PairedDifference


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


def test_a_table_of_ten_points_is_readable_at_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    points = ["dss", "answer-only", "fine-tune-cot", "mmi"]
    points += [f"molsaki,beta=10,alignment={one}" for one in ("mixture", "uniform", "one-to-one", "last")]
    points += [f"molsaki,beta=10,alignment=single-{one}" for one in ("2-1", "4-1")]
    difference = PairedDifference(mean=-0.105, low=-0.125, high=0.101, level=0.95, seeds=10, questions=500)
    print_scores(
        [
            Score(
                run=f"study/objective={point}",
                dataset="synthetic",
                prompt=prompt,
                accuracy=Accuracy(mean=0.55, deviation=0.1, seeds=10 if point != "mmi" else 9, questions=500),
                difference=None if point == "dss" else difference,
                base=None if point == "dss" else "study/objective=dss",
            )
            for prompt in ("predict", "explain")
            for point in points
        ],
        as_json=False,
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 20 + 1 and max(map(len, lines)) <= 100
    assert " molsaki, one-to-one   predict   55.0 ± 10.0   10      -10.5        -12.5 to +10.1" in lines
