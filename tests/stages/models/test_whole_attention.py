"""Models whose attention torch's fused function does not compute as a whole are loaded, compared and asked eagerly.

transformers 5.19 takes that function for Gemma 2, without its soft cap; 5.24 refuses. What is expected is the same.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from stages.attention.stepwise import IMPLEMENTATION
from stages.bench.attention import _set_kernel
from stages.models.load import load_causal_lm, whole_attention
from stages.settings import TrainingSettings
from stages.student.adapters import _logits
from stages.student.dev import _answering

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    "gemma2": {"attn_logit_softcapping": 0.1},
    "vaultgemma": {"attn_logit_softcapping": 0.1},
    "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "llama": {},
}
IDS = torch.arange(3, 23)[None]


def random_model(family: str, implementation: str = "eager") -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SMALL, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.set_attn_implementation(implementation)
    return model


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_computes_what_it_does_eagerly(family: str, tmp_path: Path) -> None:
    model = random_model(family)
    model.save_pretrained(tmp_path)
    loaded = load_causal_lm(str(tmp_path), None, "float32").eval()
    assert loaded.config._attn_implementation == ("sdpa" if family == "llama" else "eager")
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-4, atol=1e-4)


def test_the_soft_cap_makes_another_model() -> None:
    model = random_model("gemma2")
    capped = logits(model)
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert (logits(model) - capped).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_in_training_is_asked_and_compared_as_it_is_trained(family: str) -> None:
    student = random_model(family, IMPLEMENTATION)
    expected = logits(student)
    torch.testing.assert_close(expected, logits(random_model(family)), rtol=1e-4, atol=1e-4)
    with _answering(student, TrainingSettings(dtype="float32")):
        torch.testing.assert_close(logits(student), expected, rtol=1e-4, atol=1e-4)
    (compared,) = _logits(student, [IDS[0].numpy().astype(np.int64)])
    torch.testing.assert_close(compared, expected[0], rtol=1e-4, atol=1e-4)
    assert student.config._attn_implementation == IMPLEMENTATION


@pytest.mark.parametrize("family", FAMILIES)
def test_benchmarks_compare_with_the_whole_attention(family: str) -> None:
    model = random_model(family)
    expected = logits(model)
    _set_kernel(model, "forward")
    assert model.config._attn_implementation == whole_attention(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
