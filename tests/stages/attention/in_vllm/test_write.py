"""What vLLM's attention is compared with before it is stored, how it is started, and its fingerprint; no vLLM."""

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from stages.attention.in_vllm import write
from stages.attention.in_vllm.write import attention_setup, longest_of, why_not_eager
from stages.attention.spec import attention_spec
from stages.models.identity import ModelIdentity, identify_model
from stages.settings import AttentionSettings, TeacherSettings
from tests.fakes import POSITIONS, tiny_model_folder

BY_VLLM = AttentionSettings(engine="vllm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("teacher"), "llama")


@pytest.fixture
def identity(folder: Path) -> ModelIdentity:
    return identify_model(str(folder), None)


def teacher(folder: Path) -> TeacherSettings:
    return TeacherSettings(model=str(folder), dtype="float32", device="cpu")


def test_a_teacher_that_fits_beside_the_engine_is_compared_with_eager_attention(
    folder: Path, identity: ModelIdentity
) -> None:
    assert why_not_eager(identity, teacher(folder), BY_VLLM) is None
    faster = AttentionSettings(engine="vllm", engine_arguments={"tensor_parallel_size": 2, "max_model_len": 99})
    assert why_not_eager(identity, teacher(folder), faster) is None


def test_arguments_that_make_another_model_are_named(folder: Path, identity: ModelIdentity) -> None:
    other = AttentionSettings(engine="vllm", engine_arguments={"quantization": "fp8", "gpu_memory_utilization": 0.5})
    reason = why_not_eager(identity, teacher(folder), other)
    assert reason is not None and reason.endswith("(quantization)")


def test_a_quantised_checkpoint_and_one_without_room_are_not_loaded(
    folder: Path, identity: ModelIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantised = tiny_model_folder(tmp_path / "quantised", "llama")
    config = json.loads((quantised / "config.json").read_text())
    (quantised / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "awq"}}))
    reason = why_not_eager(identify_model(str(quantised), None), teacher(quantised), BY_VLLM)
    assert reason is not None and "quantised" in reason
    memory: Any = type("Memory", (), {"available": 1000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    reason = why_not_eager(identity, teacher(folder), BY_VLLM)
    assert reason is not None and "GB beside the engine" in reason


def test_a_text_leaves_room_for_the_token_that_vllm_adds(folder: Path, identity: ModelIdentity) -> None:
    assert longest_of(identity, teacher(folder), 100) == 100
    assert longest_of(identity, teacher(folder), 10**6) == POSITIONS - 1
    setup = attention_setup(teacher(folder), BY_VLLM, identity, longest=100)
    assert (setup.arguments["max_model_len"], setup.extension) == (101, write.EXTENSION)


def test_the_engine_and_what_its_arguments_change_are_part_of_the_fingerprint(
    folder: Path, identity: ModelIdentity
) -> None:
    def engine(**arguments: Any) -> object:
        settings = AttentionSettings(engine="vllm", engine_arguments=arguments)
        return attention_spec(identity, teacher(folder), settings)["engine"]

    assert "engine" not in attention_spec(identity, teacher(folder), AttentionSettings())
    assert engine(tensor_parallel_size=2, max_model_len=512) == engine() == {"vllm": {}}
    assert engine(quantization="fp8", max_num_seqs=3) == {"vllm": {"quantization": "fp8"}}
