"""Log-probabilities from files to scores: by hand, paired by text, and per byte where tokenizers differ."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from data.errors import DamagedCacheError
from data.records import Likelihood, Prediction
from pipeline.results.folder import EvaluationFolder
from pipeline.results.likelihoods import likelihood_score, likelihoods, read_likelihoods, write_likelihoods
from pipeline.results.predictions import stored_fingerprint, write_predictions
from pipeline.results.scores import Score, compare, likelihood_table, score_table, score_tables
from stages.figures.statistics import paired_bootstrap

Sums = Mapping[str, float | None]
"""By question, of one seed."""


def run(
    folder: Path,
    *seeds: Sums,
    tokens: int = 2,
    target: str = "gold",
    prompt: str = "predict",
    dataset: str = "svamp",
) -> EvaluationFolder:
    """The folder of a run whose students give these sums to texts of four bytes."""
    evaluation = EvaluationFolder(folder)
    for seed, sums in enumerate(seeds):
        asked = {"question_id": "", "dataset": dataset, "prompt": prompt}
        rows = [
            Likelihood(**{**asked, "question_id": question}, target=target, log_probability=value, tokens=tokens)
            for question, value in sums.items()
        ]
        write_likelihoods(evaluation.likelihood(seed), seed, rows, "f")
        answers = [
            Prediction(**{**asked, "question_id": question}, output="", parsed=None, gold="", correct=True)
            for question in sums
        ]
        write_predictions(evaluation.predictions(seed), seed, answers, "f")
    return evaluation


def both(base: EvaluationFolder, other: EvaluationFolder) -> list[Score]:
    return compare({"base": base, "other": other})


def test_what_is_written_is_read_again_with_its_fingerprint(tmp_path: Path) -> None:
    folder = run(tmp_path, {"a": -1.0, "b": None})
    table = read_likelihoods([folder.likelihood(0)])
    assert list(zip(*(values for name, values in table.items() if name != "log_probability"), strict=True)) == [
        (0, "svamp", "a", "predict", "gold", 2, 4),
        (0, "svamp", "b", "predict", "gold", 2, 4),
    ]
    assert table["log_probability"] == [-1.0, None]
    assert stored_fingerprint(folder.likelihood(0)) == "f"


def test_a_file_without_any_text_has_no_scores(tmp_path: Path) -> None:
    path = tmp_path / "seed-0.parquet"
    write_likelihoods(path, 0, [], "f")
    assert likelihoods({0: path}) == {} == likelihoods({})


def test_a_damaged_file_is_named_with_the_command_that_makes_it_again(tmp_path: Path) -> None:
    folder = run(tmp_path, {"a": -1.0})
    folder.likelihood(0).write_bytes(b"PAR1")
    with pytest.raises(DamagedCacheError, match=r"likelihood/seed-0\.parquet: .*molsaki evaluate CONFIG"):
        compare({"run": folder})


def test_a_file_with_other_columns_is_named_in_one_line(tmp_path: Path) -> None:
    folder = run(tmp_path, {"a": -1.0})
    folder.likelihood(0).write_bytes(folder.predictions(0).read_bytes())
    with pytest.raises(DamagedCacheError, match=r"\A[^\n]*seed-0\.parquet: [^\n]*molsaki evaluate CONFIG[^\n]*\Z"):
        compare({"run": folder})


def test_mean_and_deviation_by_hand(tmp_path: Path) -> None:
    """Per token -1 and -3 of seed 0, -2 and -6 of seed 1: means -2 and -4, their deviation the root of 2."""
    (texts,) = likelihoods(run(tmp_path, {"a": -2.0, "b": -6.0}, {"a": -4.0, "b": -12.0}).likelihoods()).values()
    score = likelihood_score(texts, None)
    assert (score.per_token.mean, score.per_token.seeds, score.per_token.questions) == (-3.0, 2, 2)
    assert score.per_token.deviation == pytest.approx(2**0.5)
    assert score.per_byte.mean == -1.5  # two tokens are four bytes
    assert (score.difference, score.left_out) == (None, 0)


def test_a_text_too_long_for_one_seed_s_student_counts_for_none_and_is_counted(tmp_path: Path) -> None:
    folder = run(tmp_path, {"a": -2.0, "b": None}, {"a": -4.0, "b": -12.0})
    (score,) = compare({"run": folder})
    assert score.likelihood is not None
    assert (score.likelihood.per_token.mean, score.likelihood.left_out) == (-1.5, 1)
    table = likelihood_table([score])
    assert table is not None and "up to 1 questions are left out, as too long for a student" in table.caption


def test_where_no_text_is_short_enough_there_is_no_score(tmp_path: Path) -> None:
    (score,) = compare({"run": run(tmp_path, {"a": None})})
    assert score.likelihood is None


def test_a_run_that_was_not_measured_has_accuracies_alone(tmp_path: Path) -> None:
    base, other = run(tmp_path / "base", {"a": -2.0}), run(tmp_path / "other", {"a": -2.0})
    base.likelihood(0).unlink()
    scores = both(base, other)
    assert [score.likelihood is None for score in scores] == [True, False]
    assert scores[1].likelihood is not None and scores[1].likelihood.difference is None
    assert [table.headings[-1] for table in score_tables(scores)] == ["95% interval", "questions"]
    other.likelihood(0).unlink()
    assert len(score_tables(both(base, other))) == 1


def test_the_difference_is_that_of_the_paired_bootstrap_over_seeds_and_questions_of_both(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    values = {name: random.normal(-3, 1, (4, 9)) for name in ("base", "other")}
    names = [f"q-{number}" for number in range(9)]
    base = run(tmp_path / "base", *(dict(zip(names, row, strict=True)) for row in 2 * values["base"]))
    rows = 2 * values["other"][:3, :7]  # a seed and two questions less, in another order
    other = run(tmp_path / "other", *(dict(zip(names[6::-1], row[::-1], strict=True)) for row in rows))
    likely = both(base, other)[1].likelihood
    assert likely is not None and likely.unit == "token"
    expected = paired_bootstrap(values["base"][:3, :7], values["other"][:3, :7])
    assert likely.difference is not None
    assert vars(likely.difference) == pytest.approx(vars(expected))


def test_students_with_other_tokenizers_are_compared_by_byte_and_that_is_said(tmp_path: Path) -> None:
    """The same sums over four bytes; per token the one of more tokens looks better."""
    base = run(tmp_path / "base", {"a": -4.0, "b": -8.0}, tokens=2)
    other = run(tmp_path / "other", {"a": -4.0, "b": -6.0}, tokens=4)
    scores = both(base, other)
    likely = scores[1].likelihood
    assert likely is not None and likely.unit == "byte" and likely.difference is not None
    assert (likely.per_token.mean, likely.difference.mean) == (-1.25, 0.25)
    table = likelihood_table(scores)
    assert table is not None and table.rows[1][3:] == ("+0.250 a byte", "+0.000 to +0.500")
    assert "differences between students whose tokenizers differ are per byte of the text" in table.caption


def test_other_reference_rationales_of_the_same_questions_are_not_compared(tmp_path: Path) -> None:
    base = run(tmp_path / "base", {"a": -4.0}, prompt="explain")
    other = run(tmp_path / "other", {"a": -4.0}, prompt="explain", target="else")
    scores = both(base, other)
    assert scores[1].difference is not None, "accuracies are"
    assert scores[1].likelihood is not None and scores[1].likelihood.difference is None
    table = likelihood_table(scores)
    assert table is not None and "difference" not in table.headings


def test_columns_of_accuracies_are_what_they_were(tmp_path: Path) -> None:
    scores = both(run(tmp_path / "base", {"a": -1.0}), run(tmp_path / "other", {"a": -2.0}))
    with_likelihood, without = score_table(scores), score_table([strip(score) for score in scores])
    assert with_likelihood == without
    assert with_likelihood.headings == ("run", "prompt", "accuracy", "difference", "95% interval")


def strip(score: Score) -> Score:
    return Score(**{**vars(score), "likelihood": None})
