"""All stages on a device beside the CPU, with the CPU's results: `tests/second_device.py` stands in for a GPU."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.utils import backend_registration

from cache import open_attention, open_soft_labels
from tests.pipeline.conftest import Tiny

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "objective": {"name": "molsaki", "terms": {"soft_labels": {"weight": 0.5}}},
    "soft_labels": {"layout": "top", "k": 8},
    "training.gradient_accumulation": 2,
    "training.gradient_checkpointing": True,
    "evaluation.prompts": ["predict", "explain"],
}
LAYOUTS: tuple[dict[str, object], ...] = ({"layout": "sampled", "k": 8}, {"layout": "hidden"})


def commands(device: str) -> list[list[str]]:
    """All stages, and then the teacher's and the student's with other soft labels; the run has the device's name."""
    keys = {**SETTINGS, "teacher.device": device, "training.device": device, "store": f"store-{device}"}
    found = []
    for labels in (SETTINGS["soft_labels"], *LAYOUTS):
        options = {**keys, "soft_labels": labels, "name": f"{device}-{labels['layout']}"}  # type: ignore[index]
        first = ("rationales", "attention") if labels == SETTINGS["soft_labels"] else ()
        last = ("evaluate",) if first else ()
        for stage in (*first, "soft-labels", "train", *last):
            asked = [part for key, value in options.items() for part in ("--set", f"{key}={json.dumps(value)}")]
            found.append([stage, "tiny.yaml", "--quiet", *asked])
    return found


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch takes no device that is written in Python",
)
def test_every_stage_gives_on_a_second_device_what_it_gives_on_the_cpu(tiny: Tiny) -> None:
    for stage, _, *options in commands("cpu"):
        ran = tiny(stage, *options, name="cpu")
        assert ran.exit_code == 0, ran.output
    command = [sys.executable, "-m", "tests.second_device", json.dumps(commands("cuda"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    given = re.findall(r"(\S+): (\d+) tensors of the second device", done.stderr)
    assert len(given) == len(commands("cuda"))
    assert all((int(number) > 100) == (stage != "rationales") for stage, number in given), given

    ours, theirs = (open_attention(*Path(store, "attention").iterdir()) for store in ("store-cpu", "store-cuda"))
    assert set(ours) == set(theirs) and len(ours) == 8
    for key in ours:
        np.testing.assert_allclose(ours[key].astype(np.float32), theirs[key].astype(np.float32), atol=1e-3)
    labels = [
        {store.layout: store for store in map(open_soft_labels, Path(folder, "soft-labels").iterdir())}
        for folder in ("store-cpu", "store-cuda")
    ]
    for layout in ("top", "sampled", "hidden"):
        here, there = (each[layout] for each in labels)
        assert set(here) == set(there) == set(ours)
        for key in here:
            for (name, own), (_, other) in zip(here[key].arrays(), there[key].arrays(), strict=True):
                np.testing.assert_allclose(own, other, atol=1e-3, err_msg=name)
        trained, other = (
            load_file(f"runs/{device}-{layout}/student/seed-0/model.safetensors") for device in ("cpu", "cuda")
        )
        assert trained.keys() == other.keys()
        for name, weights in trained.items():
            torch.testing.assert_close(other[name], weights, atol=1e-5, rtol=1e-4)
    evaluated = [Path("runs", f"{device}-top", "evaluation") for device in ("cpu", "cuda")]
    for answers in ("seed-0.parquet", "likelihood/seed-0.parquet"):
        one, other = (pd.read_parquet(folder / answers) for folder in evaluated)
        pd.testing.assert_frame_equal(one, other, rtol=1e-4)
        assert len(one)
