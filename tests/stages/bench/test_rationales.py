"""The measuring of `molsaki bench rationales`, with a real vLLM."""

from pathlib import Path

import pytest

from stages.bench.rationales import RationalesJob, measure_times, write_teacher
from stages.models.tokenizer import load_tokenizer
from stages.toy.random_llama import Shape

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture
def job(tmp_path: Path) -> RationalesJob:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    job = RationalesJob(
        folder=tmp_path,
        shape=Shape(layers=1, width=64, heads=2, kv_heads=2),
        questions=40,
        shots=1,
        max_tokens=12,
        piece=8,
        repeats=2,
        device="cpu",
        dtype="float32",
    )
    write_teacher(job)
    return job


def test_stage_and_vllm_alone_write_the_same_texts_of_the_same_length(job: RationalesJob) -> None:
    done: list[None] = []
    times = measure_times(job, after_each=lambda: done.append(None))
    assert {method: len(rounds) for method, rounds in times.rounds.items()} == {"generate": 2, "stage": 2}
    assert all(seconds and seconds > 0 for rounds in times.rounds.values() for seconds in rounds)
    assert times.new_tokens == 40 * 12
    assert times.prompt_tokens > 40 * len(load_tokenizer(str(job.teacher), None)("Q: A: ")["input_ids"])
    assert 0 < times.uncommitted <= 2 * job.piece
    assert len(done) == 2 + 2 * 2
