"""`molsaki bench rationales`: what its options mean and what it prints; the measuring itself is in tests/stages."""

import json
from collections.abc import Callable
from typing import TypeAlias

import pytest
from click.testing import CliRunner

from pipeline.bench import compare
from pipeline.cli.main import molsaki
from stages.bench.measure import Memory
from stages.bench.rationales import RationalesJob, RationaleTimes
from stages.toy.random_llama import Setting

SETTING = Setting(device="cpu", threads=2, torch="2", transformers="5", layers=2, width=64, heads=2, kv_heads=2)
Tasks: TypeAlias = list[tuple[object, ...]]
TIMES = RationaleTimes(
    rounds={"generate": (4.0, 1.0, 2.0), "stage": (5.0, 1.0, 4.0)},
    prompt_tokens=3000,
    new_tokens=1000,
    uncommitted=7,
    vllm="1",
    setting=SETTING,
)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    """Nothing is measured; which tasks there were is remembered."""
    done: Tasks = []
    answers = {"measure_times": TIMES, "measure_peak": Memory(baseline_bytes=1 << 20, peak_bytes=3 << 20)}

    def answer(task: Callable[..., object], *arguments: object, advance: Callable[[], object]) -> object:
        done.append((task.__name__, *arguments))
        advance()
        return answers.get(task.__name__)

    monkeypatch.setattr(compare, "run_process", answer)
    return done


def bench(*options: str) -> str:
    result = CliRunner().invoke(molsaki, ["bench", "rationales", "--quiet", *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_both_methods_have_their_line_and_the_stage_its_share_of_the_throughput(
    tasks: list[tuple[object, ...]],
) -> None:
    """Ratios by rounds 0.8, 1 and 0.5: the median is 0.8."""
    generate, stage = json.loads(bench("--json", "--questions", "50"))
    assert (generate["method"], generate["seconds"], generate["compared_with"]) == ("generate", 2.0, None)
    assert (stage["method"], stage["seconds"], stage["compared_with"]) == ("stage", 4.0, "generate")
    assert (stage["throughput_ratio"], stage["fastest_ratio"]) == (0.8, 1.0)
    assert (stage["tokens_per_second"], stage["new_tokens_per_second"]) == (1000.0, 250.0)
    assert (stage["uncommitted"], generate["uncommitted"], stage["peak_bytes"]) == (7, None, 3 << 20)
    assert [(task, *methods) for task, _, *methods in tasks] == [
        ("write_teacher",),
        ("measure_peak", "generate"),
        ("measure_peak", "stage"),
        ("measure_times",),
    ]


def test_the_table_says_what_was_measured(tasks: Tasks) -> None:
    shown = bench()
    assert "0.800 × generate" in shown and "3.15 MB" in shown
    assert "random teacher of 2 layers, width 64, 2 heads; 3,000 prompt tokens and 1,000 new ones" in shown


def test_options_reach_the_job_and_the_folder_is_gone(tasks: Tasks) -> None:
    bench("--layers", "3", "--width", "96", "--heads", "3", "--piece", "5", "--shots", "0", "--dtype", "float16")
    job = tasks[-1][1]
    assert isinstance(job, RationalesJob)
    assert (job.shape.layers, job.shape.width, job.shape.heads, job.shape.kv_heads) == (3, 96, 3, 3)
    assert (job.piece, job.shots, job.dtype, job.repeats) == (5, 0, "float16", 5)
    assert not job.folder.exists()


def test_a_shape_that_cannot_be_is_refused(tasks: Tasks) -> None:
    result = CliRunner().invoke(molsaki, ["bench", "rationales", "--width", "100", "--heads", "3"])
    assert result.exit_code == 2 and "--width" in result.output and not tasks
