"""Which device a process computes on, with CUDA made up so that any machine shows it; which attention is taken."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM, GptOssConfig, set_seed

from data.errors import ConfigError
from stages.attention.stepwise import attention_implementation
from stages.models.load import load_causal_lm, whole_attention
from stages.runtime.device import torch_device
from stages.settings import Device
from tests.fakes import tiny_model_folder


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two GPUs; the list collects which one was made the current one."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return current


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_without_local_rank_it_is_the_gpu(gpus: list[int], device: Device) -> None:
    assert torch_device(device) == torch.device("cuda")
    assert gpus == []


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_local_rank_picks_the_gpu_and_makes_it_the_current_one(
    gpus: list[int], monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert torch_device(device) == torch.device("cuda:1")
    assert gpus == [1]


def test_local_rank_beyond_the_gpus_is_refused(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"LOCAL_RANK=2 .* torch sees 2"):
        torch_device("auto")
    assert gpus == []


def test_a_local_rank_that_is_no_number_is_refused(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(ConfigError, match="LOCAL_RANK='first'"):
        torch_device("cuda")


def test_the_cpu_stays_the_cpu_whatever_local_rank_says(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert torch_device("cpu") == torch.device("cpu")
    assert gpus == []


def test_without_a_gpu_auto_is_the_cpu_for_every_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert torch_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="no CUDA device"):
        torch_device("cuda")


def test_capped_scores_are_computed_capped(tmp_path: Path) -> None:
    """transformers' fused attention leaves the cap out; vLLM and newer versions of transformers do not."""
    set_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8, "vocab_size": 40}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "query_pre_attn_scalar": 1, "initializer_range": 0.5}
    Gemma2ForCausalLM(Gemma2Config(**sizes, **heads, attn_logit_softcapping=2.0)).save_pretrained(tmp_path)
    ids_BT = torch.arange(3, 30)[None]
    model = load_causal_lm(str(tmp_path), None, "float32").eval()
    eager = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    uncapped = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    for layer in uncapped.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    with torch.no_grad():
        found, wanted, other = (one(input_ids=ids_BT).logits for one in (model, eager, uncapped))
    torch.testing.assert_close(found, wanted)
    assert float((wanted - other).abs().max()) > 0.1
    assert whole_attention(model) == "eager"


def test_other_models_compute_attention_fused(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path, "llama")
    model = load_causal_lm(str(folder), None, "float32")
    assert model.config._attn_implementation == whole_attention(model) == "sdpa"


def test_attention_with_sinks_is_computed_eagerly() -> None:
    """transformers' fused attention refuses it."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8, "vocab_size": 40}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
    model = AutoModelForCausalLM.from_config(GptOssConfig(**sizes, **heads, rope_parameters={"rope_theta": 1e4}))
    with attention_implementation(model, whole_attention(model)):
        assert model.config._attn_implementation == "eager"
