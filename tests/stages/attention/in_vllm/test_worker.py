"""What workers are told of a text, and how what they have seen is put together; no engine."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cache.step_totals import RECEIVERS
from data.errors import EngineError
from stages.attention.in_vllm.engine import VllmAttention, together
from stages.attention.in_vllm.texts import ASKED, asked_of, located_of
from stages.attention.in_vllm.worker import UnknownLayerError, Watch, _grouped, _unknown
from stages.attention.tokens import Located


def located(length: int = 12, special: tuple[int, ...] = (0,)) -> Located:
    spans = np.stack([np.arange(length), np.arange(length) + 1], axis=1)
    spans[list(special)] = 0
    steps = np.full(length, -1)
    steps[6:9], steps[9:] = 0, 1
    words = (np.array([2, 3]), np.array([5]))
    return Located(ids=np.arange(length), step_of_token=steps, tokens_of_word=words, steps=2, text="", spans=spans)


def test_a_text_arrives_as_it_was_sent() -> None:
    sent = located()
    arrived = located_of(asked_of("a key", sent))
    assert np.array_equal(arrived.step_of_token, sent.step_of_token) and arrived.steps == 2
    assert [word.tolist() for word in arrived.tokens_of_word] == [[2, 3], [5]]
    assert np.array_equal(arrived.is_special(), sent.is_special())
    none = Located(
        ids=np.arange(3), step_of_token=np.full(3, -1), tokens_of_word=(), steps=0, text="", spans=np.ones((3, 2), int)
    )
    assert located_of(asked_of("none", none)).tokens_of_word == ()


def taken(layers: list[int], heads: int, value: float, keys: tuple[str, ...] = ("a",)) -> dict[str, Any]:
    words = np.full((len(layers), 2, 3), value, "<f4") + np.array(layers, "<f4")[:, None, None]
    others = np.full((len(layers), 2, len(RECEIVERS)), value, "<f4")
    texts = [
        {"key": key, "shape": list(words.shape), "words": words.tobytes(), "receivers": others.tobytes()}
        for key in keys
    ]
    return {"layers": layers, "heads": heads, "texts": texts}


def test_heads_are_averaged_over_workers_by_how_many_each_has() -> None:
    """Three heads that give 1 and one that gives 5 are 2 in the mean."""
    found = together([taken([0, 1], 3, 1.0), taken([0, 1], 1, 5.0)])["a"]
    assert found.words[:, 0, 0].tolist() == [2.0, 3.0] and found.receivers[0, 0].tolist() == [2.0] * len(RECEIVERS)


def test_layers_of_several_workers_come_in_their_order() -> None:
    found = together([taken([2, 3], 2, 0.0), taken([0, 1], 2, 0.0)])["a"]
    assert found.words[:, 0, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_text_that_one_worker_has_not_seen_is_not_there() -> None:
    assert set(together([taken([0], 1, 0.0, ("a", "b")), taken([0], 1, 0.0, ("a",))])) == {"a"}
    assert set(together([taken([0], 1, 0.0, ("a",)), taken([1], 1, 0.0, ("b",))])) == set()
    assert together([]) == {}


def test_texts_of_like_length_are_together() -> None:
    texts = [
        (start, asked_of(str(start), located(length))) for start, length in ((0, 40), (40, 12), (52, 38), (90, 13))
    ]
    groups = _grouped(texts, torch.device("cpu"))
    assert [[asked["key"] for asked in group.asked] for group in groups] == [["40", "90"], ["52", "0"]]
    assert groups[0].index_BT[0].tolist() == [*range(40, 52), 51]


def configured(graphs: str = "PIECEWISE", **parallel: Any) -> Any:
    """A configuration of vLLM, as far as it is looked at."""
    mode = SimpleNamespace(mixed_mode=lambda: SimpleNamespace(name=graphs))
    return SimpleNamespace(
        parallel_config=SimpleNamespace(**{"prefill_context_parallel_size": 1, "use_ubatching": False, **parallel}),
        compilation_config=SimpleNamespace(static_forward_context={}, cudagraph_mode=mode),
    )


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A worker with one layer of two heads, and requests as vLLM's runner has them."""
    layer = SimpleNamespace(
        num_heads=2, num_kv_heads=1, head_size=4, sliding_window=None,
        impl=SimpleNamespace(scale=0.5, sinks=None, logits_soft_cap=0, forward=lambda *_, **__: "as ever"),
    )  # fmt: skip
    monkeypatch.setattr("stages.attention.in_vllm.worker._layers", lambda _: [(0, layer)])
    runner = SimpleNamespace(input_batch=SimpleNamespace(req_ids=[]), requests={}, query_start_loc=SimpleNamespace())
    watch = Watch(runner, configured())
    watch.layer = layer  # type: ignore[attr-defined]
    return watch


def step(watch: Watch, *requests: tuple[str, dict[str, Any] | None, int, int]) -> None:
    """One step of the engine over requests: name, what is asked, tokens of the prompt, tokens that are computed."""
    runner = watch._runner
    runner.input_batch.req_ids = [name for name, _, _, _ in requests]
    for name, asked, prompt, _ in requests:
        extra = None if asked is None else {ASKED: asked}
        runner.requests[name] = SimpleNamespace(
            sampling_params=SimpleNamespace(extra_args=extra), prompt_token_ids=[0] * prompt, num_computed_tokens=0
        )
    starts = np.cumsum([0, *(tokens for _, _, _, tokens in requests)])
    tokens = int(starts[-1])
    query, key = torch.randn(tokens, 2, 4), torch.randn(tokens, 1, 4)
    layer = watch.layer  # type: ignore[attr-defined]
    runner.query_start_loc.np = np.concatenate([starts, np.full(3, tokens)])  # padded, as for CUDA graphs
    metadata = SimpleNamespace()  # FlashInfer's says of no text where it begins
    assert layer.impl.forward(layer, query, key, key, None, metadata) == "as ever"


def test_a_text_in_the_midst_of_others_is_seen_and_no_other(watch: Watch) -> None:
    step(watch, ("one", None, 5, 5), ("two", asked_of("b", located(), compare=True), 12, 12), ("three", None, 9, 1))
    found = watch.take()
    assert [text["key"] for text in found["texts"]] == ["b"] and not found["failed"]
    assert found["apart"]["b"] < 1e-6
    assert not watch.take()["texts"], "what was taken is gone"


def test_a_text_that_is_cut_is_told_and_what_comes_whole_later_counts(watch: Watch) -> None:
    step(watch, ("one", asked_of("a", located()), 12, 7))
    assert watch.take()["failed"] == {"a": "7 of its 12 tokens at once"}
    step(watch, ("one", asked_of("a", located()), 12, 7))
    step(watch, ("two", asked_of("a", located()), 12, 12))
    found = watch.take()
    assert [text["key"] for text in found["texts"]] == ["a"] and not found["failed"]


def test_a_runner_that_does_not_tell_whose_tokens_a_step_computes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's second runner hands them from function to function."""
    monkeypatch.setattr("stages.attention.in_vllm.worker._layers", lambda _: [])
    with pytest.raises(UnknownLayerError, match="second model runner"):
        Watch(SimpleNamespace(req_states={}, execute_model_state=None), configured())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"prefill_context_parallel_size": 2}, "token by token"),
        ({"use_ubatching": True}, "in parts"),
        ({"graphs": "FULL"}, "cudagraph_mode"),
    ],
)
def test_an_engine_whose_calls_have_parts_of_its_steps_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnknownLayerError, match=reason):
        Watch(SimpleNamespace(input_batch=None), configured(**settings))


def test_graphs_are_told_apart_as_vllm_does() -> None:
    compilation = pytest.importorskip("vllm.config.compilation", reason="vLLM is not installed")
    modes = compilation.CUDAGraphMode
    assert {mode.name for mode in modes if mode.mixed_mode().name == "FULL"} == {"FULL"}


def test_a_trial_run_of_the_engine_is_not_looked_at(watch: Watch) -> None:
    layer = watch.layer  # type: ignore[attr-defined]
    assert layer.impl.forward(layer, torch.zeros(3, 2, 4), torch.zeros(3, 1, 4), None, None, None) == "as ever"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attn_type": "encoder_only"}, "more than the tokens in front"),
        ({"impl": SimpleNamespace(alibi_slopes=torch.ones(2), scale=1.0)}, "ALiBi"),
        ({"kv_sharing_target_layer_name": "layers.0"}, "no keys of its own"),
        ({"kv_cache_update_bypass": True}, "stored past it"),
        ({"kv_cache_dtype": "fp8_e4m3"}, "keys in fp8_e4m3"),
        ({"use_mm_prefix": True}, "not causal"),
        ({"impl": SimpleNamespace(alibi_slopes=None)}, "does not tell its scale"),
        ({}, None),
    ],
)
def test_layers_whose_weights_depend_on_more_are_refused(changes: dict[str, Any], reason: str | None) -> None:
    plain = {
        "attn_type": "decoder", "impl": SimpleNamespace(alibi_slopes=None, scale=1.0), "use_mm_prefix": False,
        "kv_sharing_target_layer_name": None, "query_quant": None, "kv_cache_dtype": "auto", "use_alibi_sqrt": False,
    }  # fmt: skip
    found = _unknown(SimpleNamespace(**{**plain, **changes}))
    assert found is None if reason is None else found is not None and reason in found


def test_another_version_of_vllm_is_named_with_those_that_were_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm = pytest.importorskip("vllm", reason="vLLM is not installed")

    class Changed:
        def ask_workers(self, method: str) -> list[Any]:
            raise EngineError(f"vLLM's workers do not do {method}: no attribute 'impl'")

    with pytest.raises(EngineError, match=r"^vLLM's workers do not do"):
        VllmAttention(Changed())  # type: ignore[arg-type]
    monkeypatch.setattr(vllm, "__version__", "0.99.0")
    with pytest.raises(EngineError, match=r"vLLM 0\.99\.0: .* tested with 0\.32\.0 .* attention\.engine: transformers"):
        VllmAttention(Changed())  # type: ignore[arg-type]
