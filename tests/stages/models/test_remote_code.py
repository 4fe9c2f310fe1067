"""Code that comes with a model runs only where the configuration trusts it, and then everywhere alike."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.errors import ConfigError
from data.marking import mark
from stages.attention.stepwise import stepwise_attention
from stages.engines.contract import Decoding, EngineSetup
from stages.engines.start import open_engine
from stages.models.load import load_causal_lm, load_teacher
from stages.models.tokenizer import load_tokenizer
from stages.settings import TeacherSettings
from tests.fakes import tiny_model_folder, with_remote_code

MARKED = mark("Ann has 3 figs and 8 pens. How many things?", "She has 3 + 8 = 11 things.")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "plain", "llama")


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_remote_code(tiny_model_folder(tmp_path_factory.mktemp("models") / "remote", "llama"))


@pytest.fixture
def setup(remote: Path) -> EngineSetup:
    return EngineSetup(model=str(remote), revision=None, decoding=Decoding(max_tokens=8), dtype="float32", device="cpu")


@pytest.mark.parametrize("name", ["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_a_model_that_needs_its_code_is_refused_with_the_key_that_would_run_it(name: str, setup: EngineSetup) -> None:
    if name == "vllm":
        pytest.importorskip("vllm", reason="vLLM is not installed")
    with pytest.raises(ConfigError, match=r"set teacher\.trust_remote_code: true") as caught:
        open_engine(name, setup)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and setup.model in str(caught.value)


def test_a_student_that_needs_its_code_is_refused(remote: Path) -> None:
    with pytest.raises(ConfigError, match="a student's is never run"):
        load_causal_lm(str(remote), None, "float32")


def test_a_trusted_model_writes_what_it_would_without_code(setup: EngineSetup, plain: Path) -> None:
    with (
        open_engine("transformers", replace(setup, trust_remote_code=True)) as ours,
        open_engine("transformers", replace(setup, model=str(plain))) as theirs,
    ):
        assert ours.generate(["one", "two"]) == theirs.generate(["one", "two"])


def test_a_trusted_model_gives_its_attention(remote: Path, plain: Path) -> None:
    settings = TeacherSettings(model=str(remote), dtype="float32", device="cpu", trust_remote_code=True)
    tokenizer = load_tokenizer(str(remote), None, trust_remote_code=True)
    (ours,) = stepwise_attention(load_teacher(str(remote), None, settings), tokenizer, [MARKED])
    without = replace(settings, trust_remote_code=False)
    with pytest.raises(ConfigError, match="trust_remote_code"):
        load_teacher(str(remote), None, without)
    (theirs,) = stepwise_attention(load_teacher(str(plain), None, without), tokenizer, [MARKED])
    np.testing.assert_array_equal(ours, theirs)
