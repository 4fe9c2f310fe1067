"""What `engine: ray` makes of what Ray says, without Ray; test_engines_ray_cluster.py has the real one."""

import logging
import sys
from io import StringIO
from socket import socket

import pytest

from data.errors import EngineError
from stages.engines.contract import Cluster, Decoding, EngineSetup, Generation
from stages.engines.kinds.ray import _generation, _Model, _quieten, _reason, _require_listener, _sampling
from stages.engines.start import open_engine
from stages.models.tokenizer import end_tokens

GREEDY = Decoding(max_tokens=24)
MODEL = _Model(window=20, ends={1: "", 7: "<end>"}, on_cpu=True)
STOPPING = Decoding(max_tokens=8, stop=("\n\n", "Q:", "\nQ:"))


def answer(text: str, tokens: list[int], *, read: int = 5) -> dict[str, object]:
    """What Ray's processor says."""
    return {"place": 0, "generated_text": text, "generated_tokens": tokens, "num_input_tokens": read}


@pytest.mark.parametrize(
    ("said", "decoding", "expected"),
    [
        (answer("ab", [2, 3, 1]), GREEDY, Generation(text="ab", finish_reason="stop")),
        (answer("ab", [2, 3, 7]), GREEDY, Generation(text="ab", finish_reason="stop")),
        (answer("", [1]), GREEDY, Generation(text="", finish_reason="stop")),
        (answer("ab\n\n", [2, 3, 4]), STOPPING, Generation(text="ab", finish_reason="stop")),
        (answer("ab\nQ:", [2, 3, 4]), STOPPING, Generation(text="ab\n", finish_reason="stop")),
        (answer("ab<end>", [2, 3, 7]), STOPPING, Generation(text="ab", finish_reason="stop")),
        (answer("abc", [2] * 8), STOPPING, Generation(text="abc", finish_reason="length")),
        (answer("abc\n\n", [2] * 8), STOPPING, Generation(text="abc", finish_reason="stop")),
        (answer("abc", [2] * 7 + [1]), STOPPING, Generation(text="abc", finish_reason="stop")),
        (answer("abc", [2] * 3, read=17), STOPPING, Generation(text="abc", finish_reason="length")),
    ],
)
def test_why_a_text_ended_follows_from_its_tokens_and_its_stop_string(
    said: dict[str, object], decoding: Decoding, expected: Generation
) -> None:
    assert _generation(said, decoding, MODEL) == expected


def test_a_text_that_ended_for_no_reason_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="after 3 tokens"):
        _generation(answer("abc", [2] * 3), STOPPING, MODEL)


def test_what_collects_messages_in_memory_goes_on_collecting() -> None:
    pytest.importorskip("ray.data", reason="Ray is not installed")  # it sets its loggers up when it is imported
    collecting, showing = logging.StreamHandler(StringIO()), logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("ray.data")
    for handler in (collecting, showing):
        logger.addHandler(handler)
    try:
        _quieten()
    finally:
        for handler in (collecting, showing):
            logger.removeHandler(handler)
    assert (collecting.level, showing.level) == (logging.NOTSET, logging.ERROR)


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'molsaki\[ray\]'") as caught:
        open_engine("ray", EngineSetup(model="teacher", revision=None, decoding=GREEDY))
    assert "\n" not in str(caught.value)


def test_an_address_at_which_nobody_listens_is_named_at_once() -> None:
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pytest.importorskip("ray", reason="Ray is not installed")
    setup = EngineSetup(model="teacher", revision=None, decoding=GREEDY, cluster=Cluster(address=address))
    with pytest.raises(EngineError, match=f"no Ray cluster answers at {address}") as caught:
        open_engine("ray", setup)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "a..b:6379", "ray://\u2603..:10001"])
def test_an_address_that_can_be_none_is_named_at_once(address: str) -> None:
    with pytest.raises(EngineError, match=f"no Ray cluster answers at {address}"):
        _require_listener(address)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "auto", "local"])
def test_an_address_at_which_somebody_listens_is_left_to_ray(form: str) -> None:
    with socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        _require_listener(form.format(listening.getsockname()[1]))


def test_the_tokens_that_end_a_text_are_the_tokenizer_s_and_the_checkpoint_s() -> None:
    assert end_tokens([3, 4], 5) == {3, 4, 5}
    assert end_tokens(3, None) == {3}
    assert end_tokens(None, None) == set()


def test_a_sampled_prompt_has_its_own_seed_and_no_number_is_missing_anywhere() -> None:
    sampled = Decoding(max_tokens=8, temperature=1.0, top_p=0.9, seed=3)
    seeds = [_sampling(prompt, sampled)["seed"] for prompt in ("a", "b", "a")]
    assert seeds[0] == seeds[2] != seeds[1]
    greedy = _sampling("a", STOPPING)
    assert (greedy["seed"], greedy["temperature"], greedy["include_stop_str_in_output"]) == (0, 0.0, True)


def test_an_error_s_reason_is_the_innermost_one() -> None:
    outer = RuntimeError("ray::MapBatches() (pid=1)\nTraceback …")
    outer.__cause__ = ValueError("the model has no tokenizer\nsee …")
    assert _reason(outer) == "the model has no tokenizer"
