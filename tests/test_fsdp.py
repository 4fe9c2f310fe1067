"""Two processes hold a half of the student each (FSDP2, gloo): the training and the student are those of one."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cache.student_attention import STUDENT_ATTENTION
from tests.test_ddp import MOLSAKI, start, student, succeed
from tests.test_ddp import folder as folder  # a fixture

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
FSDP = {  # what `accelerate launch` makes of the file in docs/training.md
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def launch(folder: Path, name: str, *overrides: str):
    own = [part for value in (f"name={name}", *overrides) for part in ("--set", value)]
    command = (*TORCHRUN, str(ROOT / "tests" / "fsdp_on_cpu.py"), "train", "run.yaml", *own)
    # Without the safe path the folder of the script, tests, would stand in front of the rooms.
    return start(folder, *command, PYTHONPATH=str(ROOT), PYTHONSAFEPATH="1", **FSDP)


def test_a_student_in_two_halves_is_trained_and_saved_as_a_whole_one(folder: Path) -> None:
    said = succeed(launch(folder, "halves", "training.checkpoint_steps=7"))
    assert "sharded: (130, 16) of (259, 16)" in said and "sharded: (129, 16) of (259, 16)" in said
    ours, theirs = (load_file(student(folder, run) / "model.safetensors") for run in ("halves", "alone"))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-5)
    assert AutoModelForCausalLM.from_pretrained(student(folder, "halves")).config.model_type == "llama"
    assert not (student(folder, "halves") / "checkpoints").exists()
    assert "where the student looks is not kept: under FSDP" in said
    assert not (student(folder, "halves") / STUDENT_ATTENTION).exists()
    succeed(start(folder, *MOLSAKI, "train", "run.yaml", "--set", "name=halves"))  # finished: the same fingerprint


def test_what_needs_the_whole_student_is_refused(folder: Path) -> None:
    process = launch(folder, "adapter", "student.peft={peft_type: LORA, target_modules: all-linear}")
    _, error = process.communicate(timeout=240)
    assert process.returncode == 1, "torchrun's own code, whatever its processes end with"
    assert "error: student.peft: not together with FSDP" in error
