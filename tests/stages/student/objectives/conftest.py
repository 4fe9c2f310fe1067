"""A tiny student and a padded batch of two records, for the tests of each objective."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.fakes import tiny_model_folder


@pytest.fixture
def student(tmp_path: Path) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path, "llama"))
