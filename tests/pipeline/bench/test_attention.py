"""`molsaki bench`: what its options mean, what it prints, and how the processes that measure are started and ended."""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import click
import pytest
import torch
from click.testing import CliRunner, Result
from transformers import PreTrainedModel

from pipeline.bench import compare
from pipeline.bench.attention import PRESETS
from pipeline.cli.bench import BENCH_METHODS
from pipeline.cli.main import molsaki
from pipeline.console.exits import StageProcessError
from stages.attention.tokens import Located
from stages.bench.attention import METHODS, SVAMP, AttentionJob, Method, Text, measure_peak, measure_times
from stages.bench.measure import Memory
from stages.toy.random_llama import Shape

SMALL = ("--layers", "2", "--width", "32", "--heads", "4", "--words", "5", "--repeats", "2", "--batch-tokens", "200")
Tasks: TypeAlias = list[tuple[str, AttentionJob]]
JOB = AttentionJob(
    model=None,
    shape=Shape(layers=2, width=32, heads=4, kv_heads=4),
    texts=(Text(tokens=24, steps=2, words=3),),
    methods=("molsaki",),
    repeats=1,
    batch_tokens=100,
    device="cpu",
    dtype="float32",
    threads=None,
)
FIELDS = {
    *(
        "case",
        "method",
        "status",
        "seconds",
        "peak_bytes",
        "baseline_bytes",
        "compared_with",
        "time_ratio",
        "fastest_ratio",
    ),
    *(
        "memory_ratio",
        "peak_bytes_by_process",
        "max_difference",
        "records_per_second",
        "tokens_per_second",
        "seconds_by_round",
        "records",
    ),
    *("tokens", "batch_tokens", "dtype", "model", "device", "threads", "torch", "transformers", "layers", "width"),
    *("heads", "kv_heads"),
}


def molsaki_bench(*arguments: str) -> Result:
    return CliRunner().invoke(molsaki, ["bench", "attention", *SMALL, *arguments])


def rows(result: Result) -> dict[tuple[str, str], dict[str, object]]:
    assert result.exit_code == 0, result.output
    return {(row["case"], row["method"]): row for row in json.loads(result.stdout)}


def replace_method(
    monkeypatch: pytest.MonkeyPatch, method: Method, run: Callable[[PreTrainedModel, Sequence[Located]], torch.Tensor]
) -> None:
    monkeypatch.setitem(METHODS, method, replace(METHODS[method], run=run))


def test_json_has_a_row_for_each_case_and_method_with_all_fields(tasks: Tasks) -> None:
    found = rows(molsaki_bench("--lengths", "48,svamp", "--json"))
    assert list(found) == [(case, method) for case in ("48", "svamp") for method in BENCH_METHODS]
    for row in found.values():
        assert row.keys() == FIELDS
        assert row["status"] == "ok"
        assert row["seconds"] > 0
        assert 0 < row["baseline_bytes"] <= row["peak_bytes"]
        assert row["device"] == "cpu"
        assert row["records_per_second"] == pytest.approx(row["records"] / row["seconds"])
        assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["seconds"])


def test_ratios_are_against_the_pass_and_against_ours(tasks: Tasks) -> None:
    found = rows(molsaki_bench("--lengths", "48", "--json", "--repeats", "1"))
    compared = {method: row["compared_with"] for (_, method), row in found.items()}
    assert compared == {
        "forward": None,
        "molsaki": "forward",
        "output_attentions": "molsaki",
        "one-by-one": "molsaki",
    }
    for (case, _), row in found.items():
        if row["compared_with"] is None:
            assert row["time_ratio"] is row["memory_ratio"] is None
            continue
        reference = found[case, row["compared_with"]]
        assert row["time_ratio"] == pytest.approx(row["seconds"] / reference["seconds"])
        assert row["fastest_ratio"] == pytest.approx(row["time_ratio"])  # there was one round
        assert row["memory_ratio"] == pytest.approx(row["peak_bytes"] / reference["peak_bytes"])
    assert found["48", "output_attentions"]["max_difference"] is None
    assert found["48", "molsaki"]["max_difference"] < 1e-5
    assert found["48", "one-by-one"]["max_difference"] < 1e-5


def test_the_table_says_ratios_and_what_was_measured_on(tasks: Tasks) -> None:
    result = molsaki_bench("--lengths", "48")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[2] for line in lines[2:6]] == list(BENCH_METHODS)
    assert lines[3].count("× forward") == 2
    assert lines[4].count("× molsaki") == lines[5].count("× molsaki") == 2
    assert "random model of 2 layers, width 32, 4 heads; float32, batches of 200 tokens; cpu" in lines[-1]


def test_memory_is_measured_in_tasks_of_each_method_and_times_in_one_for_all(
    tasks: Tasks,
) -> None:
    rows(molsaki_bench("--lengths", "48", "--json", "--methods", "output_attentions, molsaki"))
    assert [(task, job.methods) for task, job in tasks] == [
        *[("measure_peak", ("molsaki",))] * 3,
        ("measure_peak", ("output_attentions",)),
        ("measure_times", ("molsaki", "output_attentions")),
    ]


def test_peak_memory_is_the_median_of_its_processes(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    run_here, peaks = compare.run_process, {"forward": [90, 40, 50], "molsaki": [60, 10, 70]}

    def scripted(task: Callable[..., object], job: AttentionJob, advance: Callable[[], object]) -> object:
        if task is measure_times:
            return run_here(task, job, advance=advance)
        return Memory(baseline_bytes=5, peak_bytes=peaks[job.methods[0]].pop(0))

    monkeypatch.setattr(compare, "run_process", scripted)
    found = rows(molsaki_bench("--lengths", "48", "--json", "--methods", "forward,molsaki"))
    ours = found["48", "molsaki"]
    assert (ours["peak_bytes"], ours["peak_bytes_by_process"], ours["memory_ratio"]) == (60, [60, 10, 70], 60 / 50)


def test_options_reach_the_measurement(tasks: Tasks) -> None:
    said = ("--kv-heads", "2", "--steps", "3", "--records", "3", "--dtype", "bfloat16", "--threads", "1")
    rows(molsaki_bench("--lengths", "50", "--json", "--methods", "forward", *said))
    assert tasks[-1][1] == AttentionJob(
        model=None,
        shape=Shape(layers=2, width=32, heads=4, kv_heads=2),
        texts=(Text(tokens=50, steps=3, words=5),) * 3,
        methods=("forward",),
        repeats=2,
        batch_tokens=200,
        device="cpu",
        dtype="bfloat16",
        threads=1,
    )


def test_a_case_has_two_full_batches_and_two_records_at_least(tasks: Tasks) -> None:
    found = rows(molsaki_bench("--lengths", "50,300,svamp", "--json", "--methods", "forward"))
    assert {case: row["records"] for (case, _), row in found.items()} == {"50": 8, "300": 2, "svamp": 4}
    assert tasks[-1][1].texts == SVAMP[:4]


def test_a_preset_gives_a_shape_that_options_change() -> None:
    def shape(**said: object) -> Shape:
        nothing = dict.fromkeys(("preset", "layers", "width", "heads", "kv_heads", "dtype"))
        return compare.with_model(PRESETS, device="cpu", **{**nothing, **said})["shape"]

    assert shape(preset="7b", kv_heads=8) == Shape(layers=32, width=4096, heads=32, kv_heads=8)
    assert shape(preset="7b").kv_heads == 32
    assert shape() == Shape(layers=8, width=512, heads=8, kv_heads=8)
    assert shape(heads=4).kv_heads == 4


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_method_that_runs_out_of_memory_is_reported_and_the_others_are_measured(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def out_of_memory(model: PreTrainedModel, records: Sequence[Located]) -> torch.Tensor:
        if len(records) > 1:
            raise error
        return METHODS["one-by-one"].run(model, records)

    replace_method(monkeypatch, "output_attentions", out_of_memory)
    result = molsaki_bench("--lengths", "48", "--json")
    found = rows(result)
    assert "output_attentions runs out of memory" in result.stderr
    row = found["48", "output_attentions"]
    assert row["status"] == "out of memory"
    assert row["seconds"] is row["peak_bytes"] is row["time_ratio"] is row["compared_with"] is None
    assert {found["48", method]["status"] for method in BENCH_METHODS if method != "output_attentions"} == {"ok"}
    assert found["48", "molsaki"]["max_difference"] < 1e-5
    assert "out of memory" in molsaki_bench("--lengths", "48").stdout


def test_without_memory_for_any_method_there_are_no_times(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(model: PreTrainedModel, records: Sequence[Located]) -> torch.Tensor:
        raise MemoryError

    replace_method(monkeypatch, "molsaki", out_of_memory)
    found = rows(molsaki_bench("--lengths", "48", "--json", "--methods", "molsaki"))
    assert found["48", "molsaki"]["status"] == "out of memory"
    assert found["48", "molsaki"].keys() == FIELDS
    assert [task for task, _ in tasks] == ["measure_peak"]


def test_a_process_killed_for_want_of_memory_counts_as_out_of_memory(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here = compare.run_process

    def killed(task: Callable[..., object], job: AttentionJob, advance: Callable[[], object]) -> object:
        if job.methods == ("one-by-one",):
            raise StageProcessError(-signal.SIGKILL)
        return run_here(task, job, advance=advance)

    monkeypatch.setattr(compare, "run_process", killed)
    found = rows(molsaki_bench("--lengths", "48", "--json"))
    assert found["48", "one-by-one"]["status"] == "out of memory"
    assert found["48", "output_attentions"]["time_ratio"] > 0


def test_a_process_killed_while_it_takes_times_is_one_clear_error(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here = compare.run_process

    def killed(task: Callable[..., object], job: AttentionJob, advance: Callable[[], object]) -> object:
        if task is measure_times:
            raise StageProcessError(-signal.SIGKILL)
        return run_here(task, job, advance=advance)

    monkeypatch.setattr(compare, "run_process", killed)
    result = molsaki_bench("--lengths", "48", "--methods", "forward")
    assert result.exit_code == 1
    assert "was killed, most likely for want of memory; take a smaller --batch-tokens" in result.stderr


def test_a_method_that_computes_something_else_ends_the_command(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    right = METHODS["molsaki"].run
    replace_method(monkeypatch, "molsaki", lambda model, records: right(model, records).roll(1, dims=-1))
    result = molsaki_bench("--lengths", "48", "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "error: molsaki against output_attentions, record" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--lengths", "long"), "expected numbers above zero, svamp, separated by commas; found 'long'"),
        (("--lengths", "0"), "found '0'"),
        (("--lengths", ""), "found ''"),
        (("--lengths", "9"), "a text of 9 tokens: 5 words of up to two tokens and 8 steps need 10 tokens"),
        (("--lengths", "48", "--steps", "49"), "need 49 tokens"),
        (("--methods", "forward,eager"), "found 'eager'"),
        (("--repeats", "0"), "--repeats"),
        (("--heads", "3"), "--width 32: expected an even multiple of --heads 3"),
        (("--kv-heads", "3"), "--heads 4: expected a multiple of --kv-heads 3"),
        (("--preset", "8b"), "--preset"),
        (("--device", "tpu"), "--device"),
        (("--model", "./teacher"), "--model: it has a shape of its own"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_one_clear_line_before_anything_is_measured(
    tasks: Tasks, options: tuple[str, ...], said: str
) -> None:
    result = molsaki_bench(*options)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())
    assert tasks == []


def test_a_gpu_that_is_not_there_is_refused(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = molsaki_bench("--lengths", "48", "--device", "cuda")
    assert (result.exit_code, tasks) == (2, [])
    assert "cuda" in result.stderr


def test_a_model_that_is_not_there_is_refused(tasks: Tasks, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    result = CliRunner().invoke(molsaki, ["bench", "attention", "--lengths", "64", "--model", missing])
    assert result.exit_code == 2
    assert missing in result.stderr


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets `run_process` start a shell script instead of Python."""

    def install(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return install


def test_result_and_progress_come_over_the_process_s_output(stand_in: Callable[[str], None]) -> None:
    stand_in("echo '{}'; echo '{}'; echo '{\"result\": {\"baseline_bytes\": 1, \"peak_bytes\": 2}}'")
    advanced = []
    found = compare.run_process(measure_peak, JOB, advance=lambda: advanced.append(1))
    assert found == Memory(baseline_bytes=1, peak_bytes=2)
    assert len(advanced) == 2


def test_exit_code_of_the_process_is_passed_on(stand_in: Callable[[str], None]) -> None:
    for script, code in (("exit 2", 2), ("kill -KILL $$", -signal.SIGKILL)):
        stand_in(script)
        with pytest.raises(StageProcessError) as caught:
            compare.run_process(measure_peak, JOB)
        assert caught.value.code == code


def test_an_interruption_ends_the_process_at_once(stand_in: Callable[[str], None], tmp_path: Path) -> None:
    stand_in(f"echo $$ > {tmp_path}/pid; echo '{{}}'; exec sleep 600")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare.run_process(measure_times, JOB, advance=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.slow
def test_a_real_process_measures_and_says_what_is_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    advanced = []
    peak = compare.run_process(measure_peak, JOB, advance=lambda: advanced.append(1))
    assert peak is not None and 0 < peak.baseline_bytes <= peak.peak_bytes
    assert len(advanced) == 1
    with pytest.raises(StageProcessError) as caught:
        compare.run_process(measure_peak, replace(JOB, model=str(tmp_path / "missing")))
    assert caught.value.code == 2
    (line,) = (line for line in click.unstyle(capfd.readouterr().err).splitlines() if line.startswith("error:"))
    assert str(tmp_path / "missing") in line
