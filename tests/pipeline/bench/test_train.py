"""`molsaki bench train`: what its options mean and what it prints."""

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from pipeline.bench import compare
from pipeline.bench import train as bench_train
from pipeline.cli.bench import MORE_TRAIN_METHODS, TRAIN_METHODS
from pipeline.cli.main import molsaki
from pipeline.console.exits import StageProcessError
from stages.bench.train import METHODS, TrainJob
from stages.toy.random_llama import Shape

SMALL = (
    *("--layers", "2", "--width", "32", "--heads", "4", "--length", "30", "--words", "5", "--vocabulary", "50"),
    *("--records", "2", "--repeats", "2"),
)


def bench(*options: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(molsaki, ["bench", "train", *SMALL, "--json", "--quiet", *options])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_method_has_its_line_with_ratios_to_dss(tasks: list[tuple[str, TrainJob]]):
    dss, molsaki_line, eager = bench()
    assert [line["method"] for line in (dss, molsaki_line, eager)] == list(TRAIN_METHODS)
    assert set(METHODS) == {*TRAIN_METHODS, *MORE_TRAIN_METHODS}
    assert dss["compared_with"] is None
    for line in (molsaki_line, eager):
        assert line["compared_with"] == "dss"
        assert line["time_ratio"] > 0 and line["memory_ratio"] > 0
    assert molsaki_line["difference"] < 1e-4
    assert len(molsaki_line["seconds_by_round"]) == 2
    assert (dss["layers"], dss["width"], dss["vocabulary"], dss["records"]) == (2, 32, 50, 2)
    assert [task for task, _ in tasks] == ["measure_peak"] * 9 + ["measure_times"]
    assert all(len(job.methods) == 1 for task, job in tasks if task == "measure_peak")


def test_a_method_whose_process_was_killed_is_reported_and_left_out(
    tasks: list[tuple[str, TrainJob]], monkeypatch: pytest.MonkeyPatch
):
    here = compare.run_process

    def killed(task: Callable[..., object], job: TrainJob, advance: Callable[[], object]) -> object:
        if job.methods == ("output_attentions",):
            raise StageProcessError(-9)
        return here(task, job, advance=advance)

    monkeypatch.setattr(compare, "run_process", killed)
    *_, eager = bench()
    assert (eager["status"], eager["seconds"], eager["peak_bytes"]) == ("out of memory", None, None)


def test_the_table_says_what_was_measured(tasks: list[tuple[str, TrainJob]]):
    result = CliRunner().invoke(molsaki, ["bench", "train", *SMALL, "--methods", "dss,molsaki", "--quiet"])
    assert result.exit_code == 0, result.output
    assert "random student of 2 layers, width 32" in result.stdout
    assert "× dss" in result.stdout


def test_a_preset_is_a_shape_that_options_change():
    job = bench_train.train_job(
        **{"length": 256, "words": 24, "steps": 8, "records": 8, "methods": METHODS, "repeats": 1, "preset": "1b"},
        **dict.fromkeys(("layers", "width", "heads", "kv_heads", "dtype", "threads")),
        **{"vocabulary": 100, "gradient_checkpointing": False, "device": "cpu"},
    )
    assert job.shape == Shape(layers=22, width=2048, heads=32, kv_heads=4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--heads", "3"), "--width 32: expected an even multiple of --heads 3"),
        (("--words", "40"), "40 words of up to two tokens"),
        (("--methods", "dss,eager"), "expected dss, molsaki, output_attentions"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(
    options: tuple[str, ...], said: str, tasks: list[tuple[str, TrainJob]]
):
    result = CliRunner().invoke(molsaki, ["bench", "train", *SMALL, *options])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not tasks
