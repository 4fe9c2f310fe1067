"""What `molsaki bench attention --engine vllm` measures: one model, in a process of its own, as the command does it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]
MEASURING = """
import json, sys
from stages.bench.attention import AttentionJob, Text
from stages.bench.vllm_attention import measure_times
from stages.toy.random_llama import Shape

told = Shape(layers=9, width=64, heads=2, kv_heads=1)
texts = (Text(tokens=48, steps=3, words=5), Text(tokens=31, steps=4, words=7))
job = AttentionJob(
    model=sys.argv[1], shape=told, texts=texts, methods=("prefill", "vllm"), repeats=3, batch_tokens=100, device="cpu",
    dtype="float32", threads=None,
)
times = measure_times(job)
rounds = {method: len(found) for method, found in times.rounds.items()}
print(json.dumps({"rounds": rounds, "apart": times.differences, "layers": times.setting.layers}))
"""


def test_the_engines_own_reading_and_its_attention_are_timed_and_the_model_is_told_as_it_is(tmp_path: Path) -> None:
    from tests.stages.attention.in_vllm.models import write_model

    folder, root = write_model("llama", tmp_path / "llama"), str(Path(__file__).parents[3])
    command, environment = [sys.executable, "-P", "-c", MEASURING, folder], {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rounds"] == {"prefill": 3, "vllm": 3} and found["layers"] == 3
    assert 0 < found["apart"]["vllm"] < 1e-5
