"""A run whose rationales come from a server: what it costs, what it repeats, and where the key does not go."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from stages.engines import openai_server as servers
from tests.fakes import ScriptedServer
from tests.pipeline.conftest import Experiment

KEY = "k3y-that-nobody-may-see"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(servers, "FIRST_PAUSE", 0.01)


def reason(messages: list[Mapping[str, str]]) -> str:
    """Add the last two numbers, as the questions want it."""
    first, second = re.findall(r"\d+", messages[-1]["content"])[-2:]
    return f"Ann has {first} and finds {second}. {first} + {second} = {int(first) + int(second)}. " + (
        f"The answer is {int(first) + int(second)}."
    )


def settings(server: ScriptedServer, **more: object) -> tuple[str, str]:
    values = {"engine": "openai", "server": server.address, "author": "gpt-x", "chat": "true", "shots": 0} | more
    return "--set", f"rationales={{{', '.join(f'{key}: {value}' for key, value in values.items())}}}"


def test_an_author_behind_a_server_teaches_and_its_key_is_nowhere(experiment: Experiment) -> None:
    with ScriptedServer(reason) as server:
        experiment.run(*settings(server))
        assert len(server.requests) == 10 and {key for _, key, _ in server.requests} == {f"Bearer {KEY}"}
        experiment.run(*settings(server))
        assert len(server.requests) == 10, "nothing is asked twice"
    assert len(experiment.scripted.attention) == 10
    (space,) = Path("store/rationales").iterdir()
    assert space.name.startswith("gpt-x-0-shot-")
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert len(files) > 10 and not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_server_that_fails_half_way_is_asked_for_the_rest_by_the_next_run(experiment: Experiment) -> None:
    with ScriptedServer(reason) as server:
        settings_of_run = settings(server, server_requests=1, patience_seconds=0.2)
        server.script.extend([None] * 4 + [503] * 1000)  # type: ignore[list-item]
        failed = experiment("run", "run.yaml", *settings_of_run)
        assert failed.exit_code == 1
        assert f"server {server.address} was asked" in failed.stderr and "503" in failed.stderr
        server.script.clear()
        asked = len(server.requests)
        experiment.run(*settings_of_run)
    assert len(server.requests) - asked == 6


def test_a_server_that_stumbles_is_told_of_at_the_end(experiment: Experiment) -> None:
    with ScriptedServer(reason, script=[503, "reset", 503]) as server:
        done = experiment.run(*settings(server))
        assert len(server.requests) == 10 + 3
    assert "3 requests were sent again after the server had said 503 2, nothing at all 1" in done.stderr


def test_what_is_null_is_not_sent_and_has_a_store_of_its_own(experiment: Experiment) -> None:
    left_out = {"temperature": "null", "top_p": "null", "seed": "null"}
    with ScriptedServer(reason) as server:
        experiment.run(*settings(server))
        experiment.run(*settings(server, **left_out, server_limit_field="max_tokens"))
        assert len(server.requests) == 20 and len(list(Path("store/rationales").iterdir())) == 2
    bodies = [set(body) for _, _, body in server.requests]
    assert bodies[10:] == [{"model", "messages", "max_tokens"}] * 10


def test_a_refused_key_ends_with_the_exit_code_of_configurations(experiment: Experiment) -> None:
    with ScriptedServer(reason, script=[(401, {}, {"error": {"message": f"not {KEY}"}})] * 99) as server:
        refused = experiment("rationales", "run.yaml", *settings(server))
    assert refused.exit_code == 2 and "OPENAI_API_KEY" in refused.stderr and KEY not in refused.output


def test_a_missing_address_is_found_before_anything_is_done(experiment: Experiment) -> None:
    missing = experiment("run", "run.yaml", "--dry-run", "--set", "rationales={engine: openai, author: gpt-x}")
    assert missing.exit_code == 2 and "rationales.server: missing" in missing.stderr
