"""Attention out of vLLM against transformers' pass: the same numbers whatever the engine, or the reason why not."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from data.errors import EngineError
from stages.attention.in_vllm.engine import VllmAttention
from stages.attention.in_vllm.worker import EXTENSION
from stages.attention.stepwise import StepwiseAttention, distance
from stages.attention.tokens import Located, locate
from stages.engines.contract import Decoding, EngineSetup
from stages.engines.kinds.vllm import VllmEngine
from stages.models.tokenizer import begin_token, load_tokenizer
from tests.real.model import is_there, real_model
from tests.stages.attention.in_vllm.models import CONFIGURATIONS, quantise, write_model
from tests.stages.attention.in_vllm.texts import TEXTS

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]
ROOT = Path(__file__).parents[4]
FOLLOWED = sorted(CONFIGURATIONS.keys() - {"bloom"})
Families: TypeAlias = dict[tuple[str, str], dict[str, Any]]
SMALL_STEP = 400
"""Tokens of a step of the engine that tests share: a text or two of the longest."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in CONFIGURATIONS:
        write_model(name, folder / name)
    quantise(write_model("llama", folder / "int8"), "int")
    quantise(write_model("llama", folder / "fp8"), "float")
    return folder


@pytest.fixture(scope="module")
def families(models: Path) -> Families:
    """What families.py says of all models, in one process of its own, by name and number format."""
    asked: list[dict[str, object]] = [{"folder": name} for name in CONFIGURATIONS]
    asked += [{"folder": name, "dtype": "bfloat16"} for name in ("llama", "gemma3")]
    asked += [{"folder": "int8", "reference": "llama"}]
    asked += [{"folder": "fp8", "reference": "llama", "dtype": "bfloat16"}]  # vLLM takes no other with it
    asked += [{"folder": "llama", "dtype": "float32", "compiled": True}]
    asked += [{"folder": str(real_model())}] if is_there(real_model()) else []
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("families.py"))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=models,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {(one["folder"], "compiled" if "compiled" in one else one.get("dtype", "float32")): one for one in found}


@pytest.mark.parametrize("name", FOLLOWED)
def test_vllm_attention_is_that_of_transformers(families: Families, name: str) -> None:
    found = families[name, "float32"]
    assert found["longest"] > 32, "no text is longer than the windows"
    assert found["largest"] < 1e-5 and found["apart"] < 1e-4
    assert found["formula"] < 1e-5
    assert found["ways"] == (["block by block"] if name == "gemma2" else ["log-sum-exp"])


def test_vllm_attention_of_a_model_that_cannot_be_followed_is_refused(families: Families) -> None:
    said = families["bloom", "float32"]["refused"]
    assert "depend on distance (ALiBi)" in said and said.endswith("use transformers")


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_vllm_attention_in_bfloat16(families: Families, name: str) -> None:
    found = families[name, "bfloat16"]
    assert found["largest"] < 1e-2 and found["formula"] < 1e-3


def test_vllm_attention_of_a_compiled_model_is_seen_where_hooks_of_modules_are_not_called(families: Families) -> None:
    found = families["llama", "compiled"]
    assert found["largest"] < 1e-5 and found["formula"] < 1e-5
    assert found["hooked"] == 0 < families["llama", "float32"]["hooked"]


def test_vllm_attention_of_real_weights_is_that_of_transformers(families: Families) -> None:
    if not is_there(real_model()):
        pytest.skip(f"no real model in {real_model()}: make real-model writes it")
    found = families[str(real_model()), "float32"]
    assert found["largest"] < 1e-5 and found["apart"] < 1e-4 and found["formula"] < 1e-5


@pytest.mark.parametrize(("name", "dtype", "rounding"), [("int8", "float32", 1e-5), ("fp8", "bfloat16", 1e-3)])
def test_vllm_attention_of_a_quantised_checkpoint_is_that_of_its_own_weights(
    families: Families, name: str, dtype: str, rounding: float
) -> None:
    found = families[name, dtype]
    assert found["formula"] < rounding
    # Another random Llama is 1.6 apart. These are 0.6 on AVX2, where products of 8 bits saturate (docs/log.md), or are
    # made of floats of 8 bits.
    assert 1e-3 < found["apart"] < 1, "neither the unquantised model nor another one"


@pytest.fixture(scope="module")
def tokenizer(models: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(models / "qwen3"), None)


@pytest.fixture(scope="module")
def located(tokenizer: PreTrainedTokenizerBase) -> list[Located]:
    return [locate(tokenizer, text, begin=begin_token(tokenizer)) for text in TEXTS]


@pytest.fixture(scope="module")
def expected(models: Path, located: list[Located]) -> list[StepwiseAttention]:
    from stages.attention.batches import TokenBudget
    from stages.attention.stepwise import stepwise_of
    from stages.models.load import load_causal_lm

    return stepwise_of(load_causal_lm(str(models / "qwen3"), None, "float32").eval(), located, TokenBudget(4096))


def start(folder: Path, **arguments: object) -> VllmEngine:
    setup = EngineSetup(
        model=str(folder), revision=None, decoding=Decoding(max_tokens=8), dtype="float32", device="cpu",
        arguments={"max_model_len": 320, **arguments}, extension=EXTENSION,
    )  # fmt: skip
    return VllmEngine(setup)


@pytest.fixture(scope="module")
def engine(models: Path) -> Iterator[VllmEngine]:
    with start(models / "qwen3", max_num_batched_tokens=SMALL_STEP) as engine:
        yield engine


def names(texts: list[Located]) -> list[str]:
    return [f"record {number}" for number in range(len(texts))]


def assert_near(
    found: list[StepwiseAttention], expected: list[StepwiseAttention], located: list[Located], most: float = 1e-5
) -> None:
    for one, other, text in zip(found, expected, located, strict=True):
        assert one.words.shape == other.words.shape and one.receivers.shape == other.receivers.shape
        assert distance(one, other, text) < most


def test_vllm_attention_in_any_order_of_texts(
    engine: VllmEngine, located: list[Located], expected: list[StepwiseAttention]
) -> None:
    order = random.Random(0).sample(range(len(located)), len(located))
    keys = names(located)
    found = VllmAttention(engine).of([keys[i] for i in order], [located[i] for i in order])
    assert_near(found, [expected[i] for i in order], [located[i] for i in order])


def test_vllm_attention_of_texts_whose_beginning_is_in_the_prefix_cache(
    engine: VllmEngine, tokenizer: PreTrainedTokenizerBase, located: list[Located], expected: list[StepwiseAttention]
) -> None:
    engine.generate([text.text for text in TEXTS])
    attention = VllmAttention(engine)
    for _ in range(2):
        assert_near(attention.of(names(located), located), expected, located)
    assert not attention.read_again


def test_vllm_attention_without_the_switch_misses_what_the_prefix_cache_has(
    engine: VllmEngine, located: list[Located], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above is worth: with the cache, the second reading sees parts of texts only."""
    import vllm

    right = vllm.SamplingParams
    attention = VllmAttention(engine)
    attention.of(names(located), located)
    monkeypatch.setattr("vllm.SamplingParams", lambda **given: right(**{**given, "skip_reading_prefix_cache": False}))
    with pytest.raises(EngineError, match=r"in one go: .* of its .* tokens at once"):
        attention.of(names(located), located)


def test_vllm_attention_of_texts_that_the_scheduler_would_cut(
    engine: VllmEngine, located: list[Located], expected: list[StepwiseAttention], monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = VllmAttention(engine)
    assert sum(len(one.ids) for one in located) > 2 * SMALL_STEP
    assert_near(attention.of(names(located), located), expected, located)
    assert not attention.read_again, "as many texts are on the way as one step has room for"
    monkeypatch.setattr(VllmEngine, "tokens_at_once", property(lambda self: 10**9))
    assert_near(attention.of(names(located), located), expected, located)
    assert attention.read_again, "nothing was cut, so the limit is not what keeps texts whole"


def test_an_answer_comes_as_ever_from_an_engine_that_is_watched(engine: VllmEngine, located: list[Located]) -> None:
    prompts = [text.text[:60] for text in TEXTS[:6]]
    before = engine.generate(prompts)
    VllmAttention(engine).of(names(located), located)
    assert engine.generate(prompts) == before


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers want two cores")
def test_vllm_attention_of_two_tensor_parallel_workers_is_that_of_one(
    models: Path, located: list[Located], expected: list[StepwiseAttention], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = sorted(os.sched_getaffinity(0))
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", f"{first}|{second}")
    with start(models / "qwen3", tensor_parallel_size=2) as engine:
        attention = VllmAttention(engine)
        assert_near(attention.of(names(located), located), expected, located)
        taken = engine.ask_workers("molsaki_attention_take")
    assert [(one["heads"], one["layers"]) for one in taken] == [(2, [0, 1, 2])] * 2
    assert np.isfinite(attention.apart)
