"""`molsaki bench evaluate`: both ways take turns, answers are compared, and the table says what one engine saves."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from data.errors import MismatchError
from pipeline.bench import compare
from pipeline.cli.main import molsaki
from stages.bench.evaluate import EvaluateJob, EvaluateTimes, measure_times, require_equal, write_students
from stages.toy.random_llama import Setting, Shape

SETTING = Setting(device="cpu", threads=2, torch="2", transformers="5", layers=2, width=64, heads=2, kv_heads=2)


def times(seconds: float, *answers: str, notes: tuple[str, ...] = ()) -> EvaluateTimes:
    return EvaluateTimes(seconds=seconds, first_seconds=seconds / 4, notes=notes, answers=answers, setting=SETTING)


@pytest.mark.parametrize("tied", [False, True])
def test_students_of_one_configuration_answer_each_in_its_own_way(tmp_path: Path, tied: bool):
    shape = Shape(layers=1, width=16, heads=2, kv_heads=2)
    job = EvaluateJob(
        folder=tmp_path, shape=shape, students=2, questions=3, max_tokens=4, tied=tied, engine="transformers",
        device="cpu", dtype="float32",
    )  # fmt: skip
    write_students(job)
    done: list[int] = []
    each = measure_times(job, "each", after_each=lambda: done.append(1))
    one = measure_times(job, "one")
    require_equal(one, each)
    assert len(done) == 2 and len(each.answers) == 6 and each.answers[:3] != each.answers[3:]
    assert 0 < each.first_seconds < each.seconds
    config = json.loads((job.student(0) / "config.json").read_text())
    assert config["tie_word_embeddings"] is tied


def test_other_answers_end_the_benchmark():
    with pytest.raises(MismatchError, match="1 of 2 answers of one engine"):
        require_equal(times(1, "a", "b"), times(1, "a", "c"))


def test_the_ratio_is_the_median_of_those_of_the_rounds(monkeypatch: pytest.MonkeyPatch):
    """40 / 100, 30 / 120 and 60 / 100: the median is 0.4."""
    answers = {"each": [100.0, 120.0, 100.0], "one": [40.0, 30.0, 60.0]}
    asked: list[str] = []

    def answer(task: Callable[..., object], _job: EvaluateJob, *method: str, advance: Callable[[], object]) -> object:
        advance()
        if not method:
            return None
        asked.append(method[0])
        return times(answers[method[0]].pop(0), "same", notes=("an engine for each student: why",))

    monkeypatch.setattr(compare, "run_process", answer)
    result = CliRunner().invoke(molsaki, ["bench", "evaluate", "--repeats", "3", "--students", "4", "--json"])
    assert result.exit_code == 0, result.output
    each, one = json.loads(result.stdout)
    assert (each["seconds"], one["seconds"], one["time_ratio"], each["time_ratio"]) == (100.0, 40.0, 0.4, None)
    assert (one["students"], one["notes"], one["tied"]) == (4, ["an engine for each student: why"], False)
    assert asked == ["each", "one", "one", "each", "each", "one"]
    assert result.stderr.count("an engine for each student: why") == 1
