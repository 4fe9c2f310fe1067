"""What `engine: ray` does before Ray has anything to do; test_ray_cluster.py has the real one."""

import sys
from socket import socket

import pytest

from data.errors import EngineError
from stages.engines.contract import Cluster, Decoding, EngineSetup
from stages.engines.kinds.ray import _reason, _require_listener
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
