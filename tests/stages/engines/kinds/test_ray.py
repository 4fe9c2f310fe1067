"""What `engine: ray` does before Ray has anything to do; test_ray_cluster.py has the real one."""

import sys
from socket import socket

import pytest

from data.errors import EngineError
from stages.engines.contract import Cluster, Decoding, EngineSetup
from stages.engines.kinds.ray import (
    About,
    EngineEndedError,
    _Engines,
    _Placed,
    _reason,
    _require_listener,
    _TooOftenError,
)
from stages.engines.start import open_engine

GREEDY = Decoding(max_tokens=24)


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


def test_an_error_s_reason_is_the_innermost_one() -> None:
    outer = RuntimeError("ray::MapBatches() (pid=1)\nTraceback …")
    outer.__cause__ = ValueError("the model has no tokenizer\nsee …")
    assert _reason(outer) == "the model has no tokenizer"


class Failing:
    """Engines of which a call fails; what is done about it instead of being asked of Ray."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cause: Exception, *, restarts: int = 1) -> None:
        ray = pytest.importorskip("ray", reason="Ray is not installed")
        self.done: list[object] = []
        setup = EngineSetup(
            model="teacher", revision=None, decoding=GREEDY, restarts=restarts, note=lambda _: self.done.append("note")
        )
        self.engines = _Engines(setup)
        self.placed = _Placed(actor="the actor", options={"num_gpus": 1}, died=0)
        self.engines._up.append(self.placed)

        def get(_call: object) -> None:
            error = ray.exceptions.RayTaskError("start", "a traceback", type(cause)(*cause.args))
            raise error.as_instanceof_cause()  # as Ray does: an error of both kinds

        monkeypatch.setattr(ray, "get", get)
        monkeypatch.setattr(ray, "kill", self.done.append)
        monkeypatch.setattr(
            self.engines, "_place", lambda options, *, died: self.done.append((options["num_gpus"], died))
        )


REPLACED = ["the actor", "note", (1, 1)]


def test_an_engine_that_does_not_start_is_replaced_unless_it_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, EngineError("no memory"))
    with pytest.raises(EngineError, match=r"^no memory$"):
        failing.engines.result(failing.placed, "call", starting=True)
    assert failing.done == []
    failing.engines._known.append(About(window=9, at_once=9))
    assert failing.engines.result(failing.placed, "call", starting=True) is None
    assert failing.done == REPLACED and failing.engines._up == []


def test_an_engine_whose_process_ended_is_replaced_once_for_all_of_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, EngineEndedError("out of memory"))
    assert [failing.engines.result(failing.placed, call) for call in ("first", "second")] == [None, None]
    assert failing.done == REPLACED


def test_an_answer_that_failed_is_an_error_and_no_reason_to_replace_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    failing = Failing(monkeypatch, ValueError("max_tokens"))
    failing.engines._known.append(About(window=9, at_once=9))
    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        failing.engines.result(failing.placed, "call")
    assert _reason(caught.value) == "max_tokens" and failing.done == []


def test_an_engine_that_died_too_often_is_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, EngineEndedError("out of memory"), restarts=0)
    with pytest.raises(_TooOftenError) as caught:
        failing.engines.result(failing.placed, "call")
    assert _reason(caught.value) == "out of memory" and failing.done == ["the actor"]


def test_what_holds_on_every_node_is_the_least_of_what_the_engines_say() -> None:
    engines = _Engines(EngineSetup(model="teacher", revision=None, decoding=GREEDY))
    engines._known += [About(window=512, at_once=8), About(window=256, at_once=64)]
    assert engines.about == About(window=256, at_once=8)
