"""TRL beside ours: installed once into a folder of its own, and its loss is that of the same texts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data.errors import MolsakiError
from pipeline.bench.peers import installed
from pipeline.bench.train import TRL
from stages.bench.peers import SftModel
from stages.head import IGNORED
from stages.runtime.progress import SilentProgress
from stages.student.texts import TrainingText
from stages.toy.random_llama import Shape, random_llama


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_loss_of_trl_is_the_mean_over_all_completions(cache: Path):
    try:
        folder = installed(TRL, SilentProgress())
    except MolsakiError as error:
        pytest.skip(str(error))
    assert folder.is_relative_to(cache) and installed(TRL, SilentProgress()) == folder
    shape = Shape(layers=1, width=16, heads=2, kv_heads=2)
    student = random_llama(shape, positions=16, vocabulary=50, device=torch.device("cpu"), dtype="float32")
    rows = [text([5, 6, 7, 8, 9], 3), text([10, 11, 12], 1)]
    total = torch.zeros(())
    for row in rows:
        logits = student(input_ids=torch.from_numpy(row.ids)[None]).logits[0, :-1]
        total += nn.functional.cross_entropy(logits, torch.from_numpy(row.labels[1:]), reduction="sum")
    model = SftModel(student, rows, str(folder), "float32")
    torch.testing.assert_close(model()["loss"], total / 4, rtol=1e-5, atol=1e-6)


def text(ids: list[int], question: int) -> TrainingText:
    return TrainingText(ids=np.array(ids), labels=np.array([IGNORED] * question + ids[question:]))


def test_what_pip_cannot_install_is_said_in_a_line(cache: Path):
    with pytest.raises(MolsakiError, match=r"pip cannot install no-such-peer==0\.0\.1: .+"):
        installed("no-such-peer==0.0.1", SilentProgress())
    assert not list(cache.rglob("no-such-peer*"))
