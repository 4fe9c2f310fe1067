"""The engine behind an address, against a scripted server: what is sent, what is tried again, and what is not."""

import json
import signal
import socket
import ssl
import time
import traceback
from asyncio import CancelledError
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Barrier, Timer
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from cache.rationales import RationaleStore
from cache.spaces import Space
from data.errors import ConfigError, EngineError, Interrupted, MolsakiError
from data.sets.synthetic import synthetic_questions
from stages.engines import openai_server as servers
from stages.engines.contract import Decoding, EngineSetup, Generation, prompt_seed
from stages.engines.kinds import openai as engines_openai
from stages.engines.openai_server import Server
from stages.engines.start import open_engine
from stages.models.identity import ModelIdentity
from stages.models.tokenizer import encode
from stages.rationales.spec import rationale_spec
from stages.rationales.write import write_rationales
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import RationaleSettings, TeacherSettings
from tests.fakes import Fault, ScriptedServer, tiny_tokenizer

KEY = "k3y-that-nobody-may-see"
PROMPTS = [f"prompt {number}" for number in range(20)]
TOKENIZER = tiny_tokenizer()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, no other address, and short pauses."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(servers, "FIRST_PAUSE", 0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "teacher"
    TOKENIZER.save_pretrained(path)
    return path


@pytest.fixture
def setup(folder: Path) -> EngineSetup:
    server = Server(address="", model=str(folder), patience_seconds=30)
    return EngineSetup(model=str(folder), revision=None, decoding=Decoding(max_tokens=9, stop=("\n\n",)), server=server)


def at(setup: EngineSetup, server: ScriptedServer, **changes: Any) -> EngineSetup:
    assert setup.server is not None
    return replace(setup, server=replace(setup.server, address=server.address, **changes))


def ask(setup: EngineSetup, prompts: list[str] = PROMPTS) -> list[Generation]:
    with open_engine("openai", setup) as engine:
        return engine.generate(prompts)


def text_of(tokens: list[int]) -> str:
    return str(TOKENIZER.decode(tokens)).upper()


def test_the_teacher_gets_tokens_and_greedy_decoding_without_preferences_of_the_checkpoint(setup: EngineSetup) -> None:
    with ScriptedServer(text_of) as server:
        answers = ask(at(setup, server))
    assert answers == [Generation(text=prompt.upper(), finish_reason="stop") for prompt in PROMPTS]
    path, key, body = server.requests[0]
    assert (path, key) == ("/v1/completions", f"Bearer {KEY}")
    assert body == {
        "model": setup.model,
        "prompt": encode(TOKENIZER, [TOKENIZER.decode(body["prompt"])], adds_special_tokens=True)[0],
        "max_tokens": 9,
        "temperature": 0.0,
        "stop": ["\n\n"],
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }


def test_a_sampled_request_has_a_seed_of_its_own(setup: EngineSetup) -> None:
    sampled = Decoding(max_tokens=9, temperature=0.7, top_p=0.9, seed=3)
    with ScriptedServer(text_of) as server:
        ask(at(replace(setup, decoding=sampled), server), PROMPTS[:3])
    found = {TOKENIZER.decode(body["prompt"]): (body["seed"], body["top_p"]) for _, _, body in server.requests}
    assert found == {prompt: (prompt_seed(3, prompt), 0.9) for prompt in PROMPTS[:3]}


def test_no_more_requests_are_under_way_than_configured(setup: EngineSetup) -> None:
    """Nobody is answered before four are there."""
    four = Barrier(4)
    with ScriptedServer(lambda _: str(four.wait(timeout=20))) as server:
        ask(at(setup, server, requests=4))
    assert server.most_at_once == 4 and len(server.requests) == len(PROMPTS)


def test_a_cut_text_and_an_unfit_one_say_so(setup: EngineSetup) -> None:
    said = iter([{"text": "a", "finish_reason": "length"}, {"text": "b", "finish_reason": "content_filter"}])
    with ScriptedServer(lambda _: next(said)) as server:
        answers = ask(at(setup, server, requests=1), PROMPTS[:2])
    assert answers == [Generation(text="a", finish_reason="length"), Generation(text="b", finish_reason="stop")]


@pytest.mark.parametrize("fault", [408, 429, 500, 502, 503, "reset", "not json"])
def test_what_may_pass_is_tried_again(setup: EngineSetup, fault: Fault) -> None:
    with ScriptedServer(text_of, script=[fault, fault, fault]) as server:
        answers = ask(at(setup, server, requests=3))
    assert [answer.text for answer in answers] == [prompt.upper() for prompt in PROMPTS]
    assert len(server.requests) == len(PROMPTS) + 3


def test_an_answer_that_does_not_come_in_time_is_asked_for_again(setup: EngineSetup) -> None:
    with ScriptedServer(text_of, script=["hang"]) as server:
        answers = ask(at(setup, server, request_seconds=0.3), PROMPTS[:1])
    assert [answer.text for answer in answers] == ["PROMPT 0"] and len(server.requests) == 2


@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_says_how_long_to_wait(setup: EngineSetup, as_date: bool) -> None:
    until = datetime.now(UTC) + timedelta(seconds=2)
    wait = format_datetime(until, usegmt=True) if as_date else "0.4"
    with ScriptedServer(script=[(429, {"retry-after": wait}, {})]) as server:
        begun = time.monotonic()
        ask(at(setup, server), PROMPTS[:1])
    assert time.monotonic() - begun >= 0.4


def test_patience_ends_with_the_address_the_answer_and_the_number_of_attempts(setup: EngineSetup) -> None:
    with ScriptedServer(text_of, script=[*[503] * 1000]) as server:
        with pytest.raises(EngineError) as caught:
            ask(at(setup, server, patience_seconds=0.5), PROMPTS[:1])
        said = str(caught.value)
        assert f"server {server.address} was asked {len(server.requests)} times" in said
        assert "it said 503 (scripted 503)" in said and len(server.requests) > 2


def test_what_was_answered_before_a_failure_is_there(setup: EngineSetup) -> None:
    answered = []
    with (
        ScriptedServer(text_of) as server,
        open_engine("openai", at(setup, server, requests=1, patience_seconds=0.2)) as engine,
    ):
        answers = engine.stream(PROMPTS)
        answered += [next(answers) for _ in range(3)]
        server.script.extend([500] * 1000)
        with pytest.raises(EngineError):
            answered.extend(answers)
    assert [(place, generation.text) for place, generation in answered] == [
        (place, prompt.upper()) for place, prompt in enumerate(PROMPTS[: len(answered)])
    ]


def test_nobody_at_the_address_is_an_engine_error_after_patience(setup: EngineSetup) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert setup.server is not None
    server = replace(setup.server, address=f"http://127.0.0.1:{port}/v1", patience_seconds=0.3)
    with pytest.raises(EngineError, match=rf"127.0.0.1:{port}/v1 was asked \d+ times .* nothing at all"):
        ask(replace(setup, server=server))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_a_configuration_error_at_once(setup: EngineSetup, status: int) -> None:
    body = {"error": {"message": f"the key {KEY} is not right for this"}}
    with ScriptedServer(script=[(status, {}, body)] * 50) as server, pytest.raises(ConfigError) as caught:
        ask(at(setup, server, requests=1))
    assert len(server.requests) == 1
    assert server.address in str(caught.value) and str(status) in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_refused_key_names_the_variable_that_holds_it(setup: EngineSetup) -> None:
    with ScriptedServer(script=[401] * 50) as server, pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        ask(at(setup, server))


def choice(**said: object) -> Fault:
    return 200, {}, {"choices": [{"finish_reason": "stop", "text": "a", "message": {"content": "a"}, **said}]}


NO_OBJECTS: list[object] = [None, [], 5, "text"]
NO_CHOICES: list[object] = [[], None, [None], [5], "text", [{}]]
NO_ANSWERS: list[Fault] = [
    "no completion",
    (200, {"content-type": "text/html"}, "<html>please log in</html>"),
    (200, {}, {"error": {"message": "slow down", "code": 429}}),
    *[(200, {}, said) for said in NO_OBJECTS],
    *[(200, {}, {"choices": choices}) for choices in NO_CHOICES],
    *[choice(text=text, message=message) for text, message in ((None, None), (5, "a"), (["a"], {"content": ["a"]}))],
    *[choice(finish_reason=reason) for reason in (None, "", "error", "abort", 5, ["stop"])],
]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("fault", NO_ANSWERS)
def test_an_answer_that_is_none_is_asked_for_again(setup: EngineSetup, fault: Fault, chat: bool) -> None:
    author, prompts = {"model": "gpt-x", "is_teacher": False, "chat": chat}, [json.dumps([{"content": "hi"}])]
    with ScriptedServer(script=[fault]) as server:
        assert ask(at(setup, server, **author), prompts) == [Generation(text="an answer", finish_reason="stop")]
        server.script.extend([fault] * 1000)
        with pytest.raises(EngineError, match=f"server {server.address} was asked .* the last time it said"):
            ask(at(setup, server, **author, patience_seconds=0.05), prompts)


def test_an_answer_that_is_no_unicode_is_asked_for_again(setup: EngineSetup) -> None:
    with ScriptedServer(text_of, script=[b'{"choices": [{"finish_reason": "stop", "text": "\xe9"}]}']) as server:
        assert [answer.text for answer in ask(at(setup, server), PROMPTS[:1])] == ["PROMPT 0"]


def test_what_says_an_error_in_an_answer_is_quoted(setup: EngineSetup) -> None:
    fault: Fault = (200, {}, {"error": {"message": f"not {KEY}", "code": 429}})
    with ScriptedServer(script=[fault] * 1000) as server, pytest.raises(EngineError, match=r"\(429 not \(key\)\)"):
        ask(at(setup, server, patience_seconds=0.05), PROMPTS[:1])


@pytest.mark.parametrize("reason", ["tool_calls", "content_filter", "eos_token"])
def test_a_text_that_ended_in_another_way_is_taken_as_it_is(setup: EngineSetup, reason: str) -> None:
    with ScriptedServer(script=[choice(finish_reason=reason)]) as server:
        assert ask(at(setup, server), PROMPTS[:1]) == [Generation(text="a", finish_reason="stop")]


def test_a_model_that_only_thought_has_written_nothing(setup: EngineSetup) -> None:
    thought = choice(message={"content": None, "reasoning_content": "hm"}, finish_reason="length")
    with ScriptedServer(script=[thought]) as server:
        answers = ask(at(setup, server, is_teacher=False, chat=True), [json.dumps([{"content": "hi"}])])
    assert answers == [Generation(text="", finish_reason="length")]


def test_half_of_a_pair_of_surrogates_becomes_the_character_for_it(setup: EngineSetup) -> None:
    with ScriptedServer(script=[choice(text="a\ud83d b \ud83d\ude00")]) as server:
        assert [answer.text for answer in ask(at(setup, server), PROMPTS[:1])] == ["a\ufffd b \U0001f600"]


def test_an_answer_that_drips_ends_in_time(setup: EngineSetup) -> None:
    with ScriptedServer(text_of, script=["drip"]) as server:
        begun = time.monotonic()
        answers = ask(at(setup, server, request_seconds=0.5), PROMPTS[:1])
    assert [answer.text for answer in answers] == ["PROMPT 0"] and time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": f"wrong {KEY}"}, "400 (wrong (key))"),
        ({"detail": "Not Found"}, "400 (Not Found)"),
        ([{"error": {"message": "in a list"}}], "in a list"),
        ("<html>nginx</html>", "<html>nginx</html>"),
    ],
)
def test_a_refusal_says_what_the_server_said_whatever_its_form(setup: EngineSetup, body: object, said: str) -> None:
    with ScriptedServer(script=[(400, {}, body)]) as server, pytest.raises(ConfigError) as caught:
        ask(at(setup, server), PROMPTS[:1])
    assert said in str(caught.value) and KEY not in str(caught.value)


def test_a_path_that_is_not_there_points_at_the_end_of_the_address(setup: EngineSetup) -> None:
    with ScriptedServer(script=[404]) as server, pytest.raises(ConfigError, match=r"404 .*mostly in /v1"):
        ask(at(setup, server), PROMPTS[:1])


def test_a_wait_beyond_patience_is_told(setup: EngineSetup) -> None:
    with (
        ScriptedServer(script=[(429, {"retry-after": "3600"}, {})]) as server,
        pytest.raises(EngineError, match=r"come back in 3,600 s, and rationales.patience_seconds is 30"),
    ):
        ask(at(setup, server), PROMPTS[:1])


def test_a_prompt_that_the_server_filters_has_no_answer_and_the_others_have(setup: EngineSetup) -> None:
    error = {"error": {"code": "content_filter", "message": "The response was filtered"}}
    with ScriptedServer(text_of, script=[(400, {}, error)]) as server:
        answers = ask(at(setup, server, requests=1), PROMPTS[:2])
    assert answers == [Generation(text="", finish_reason="stop"), Generation(text="PROMPT 1", finish_reason="stop")]


@pytest.mark.parametrize("models", ["<html>", None, [1]])
def test_a_list_of_models_that_is_none_asks_for_nothing(setup: EngineSetup, models: object) -> None:
    with ScriptedServer(text_of, models=[{"id": setup.model}], listed=models) as server:
        assert ask(at(setup, server), PROMPTS[:1])[0].text == "PROMPT 0"


@pytest.mark.parametrize("window", ["4096", 0, -1, None, [1]])
def test_a_window_that_is_no_number_is_not_taken_for_one(setup: EngineSetup, window: object) -> None:
    models: list[dict[str, object]] = [{"id": 5}, {}, {"id": setup.model, "max_model_len": window}]
    with ScriptedServer(text_of, models=models) as server:
        assert ask(at(setup, server), PROMPTS[:1])[0].text == "PROMPT 0"


@pytest.mark.parametrize("window", ["4k", -1, 0, True, [1], 4.5])
def test_a_configured_window_that_is_no_number_is_refused(setup: EngineSetup, window: object) -> None:
    with (
        ScriptedServer() as server,
        pytest.raises(ConfigError, match=r"engine_arguments.max_model_len: expected a whole"),
    ):
        ask(at(replace(setup, arguments={"max_model_len": window}), server))
    assert server.requests == []


def test_a_key_from_a_file_ends_before_its_line_break(setup: EngineSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    with ScriptedServer(text_of) as server:
        ask(at(setup, server), PROMPTS[:1])
    assert server.requests[0][1] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "variables",
    [
        {"HTTP_PROXY": "gopher://user:hunter2@127.0.0.1:9"},
        {"HTTP_PROXY": "http://user:hunter2@127.0.0.1:port"},
        {"SSL_CERT_FILE": "/no/such/file"},
    ],
)
def test_an_environment_that_speaks_to_nobody_is_a_configuration_error_without_secrets(
    setup: EngineSetup, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with ScriptedServer() as server, pytest.raises(ConfigError, match="HTTP_PROXY") as caught:
        ask(at(setup, server), PROMPTS[:1])
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_certificate_that_is_not_trusted_is_refused_at_once() -> None:
    inner = ssl.SSLCertVerificationError("certificate verify failed: self-signed certificate")
    error = openai.APIConnectionError(request=None)  # type: ignore[arg-type]
    error.__cause__ = OSError("no connection")
    error.__cause__.__context__ = inner
    refusal = engines_openai._refusal(error, "https://host/v1")
    assert isinstance(refusal, ConfigError) and "self-signed" in str(refusal) and "SSL_CERT_FILE" in str(refusal)


def test_a_conversation_that_cannot_begin_fails_instead_of_waiting(
    setup: EngineSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_loop(main: Coroutine[Any, Any, None]) -> None:
        main.close()
        raise OSError("too many open files")

    with ScriptedServer() as server:
        monkeypatch.setattr(engines_openai, "asyncio", SimpleNamespace(run=no_loop, CancelledError=CancelledError))
        with pytest.raises(OSError, match="too many open files"):
            ask(at(setup, server), PROMPTS[:1])


@pytest.mark.parametrize(
    "error",
    [
        {"message": "This model's maximum context length is 96 tokens.", "code": 400},
        {"message": "too much", "code": "context_length_exceeded"},
        {"message": "The decoder prompt (length 123) is longer than the maximum model length of 96."},
        {"message": "the request exceeds the available context size, try increasing it"},
        {"message": "prompt is too long: 205000 tokens > 200000 maximum"},
        {"message": "The input token count (1200) exceeds the maximum number of tokens allowed (1024)."},
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 5000",
    ],
)
def test_a_prompt_that_the_server_finds_too_long_is_reported_and_the_others_are_answered(
    setup: EngineSetup, error: object
) -> None:
    with ScriptedServer(text_of, script=[(400, {}, {"error": error})]) as server:
        answers = ask(at(setup, server, requests=1), PROMPTS[:2])
    assert [answer.finish_reason for answer in answers] == ["too_long", "stop"]


def test_the_window_that_a_server_states_is_kept(setup: EngineSetup) -> None:
    models = [{"id": "other", "max_model_len": 5}, {"id": setup.model, "max_model_len": 12}]
    with ScriptedServer(text_of, models=models) as server:
        answers = ask(at(setup, server), ["12345678901234", "123456789012", "12345678901", "1234567"])
    assert [answer.finish_reason for answer in answers] == ["too_long", "too_long", "stop", "stop"]
    assert sorted(body["max_tokens"] for _, _, body in server.requests) == [1, 5]


def test_a_configured_window_that_the_server_does_not_reach_is_refused(setup: EngineSetup) -> None:
    models = [{"id": setup.model, "max_model_len": 12}]
    with ScriptedServer(models=models) as server, pytest.raises(ConfigError, match="takes 12 tokens"):
        ask(at(replace(setup, arguments={"max_model_len": 13}), server))
    with ScriptedServer(models=models) as server:
        answers = ask(at(replace(setup, arguments={"max_model_len": 8}), server), ["12345678", "1234567"])
    assert [answer.finish_reason for answer in answers] == ["too_long", "stop"]


def test_a_server_of_another_model_is_refused_with_the_keys_that_help(setup: EngineSetup) -> None:
    with ScriptedServer(models=[{"id": "gpt-x"}]) as server:
        with pytest.raises(ConfigError, match=r"serves gpt-x, .*rationales.served_model .*rationales.author"):
            ask(at(setup, server))
        assert ask(at(setup, server, model="gpt-x", renamed=True), PROMPTS[:1])[0].text == "an answer"
    assert server.requests[-1][2]["model"] == "gpt-x"


def test_a_teacher_served_by_another_path_to_its_folder_is_found(
    setup: EngineSetup, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    with ScriptedServer(models=[{"id": "teacher"}]) as server:
        ask(at(setup, server), PROMPTS[:1])
    assert server.requests[0][2]["model"] == "teacher"


def test_an_author_gets_text_and_its_own_arguments(setup: EngineSetup) -> None:
    arguments = {"reasoning_effort": "low", "gpu_memory_utilization": 0.5, "max_model_len": 4}
    with ScriptedServer(str.upper) as server:
        answers = ask(at(replace(setup, arguments=arguments), server, model="gpt-x", is_teacher=False), PROMPTS[:1])
    assert answers == [Generation(text="PROMPT 0", finish_reason="stop")]
    assert server.requests[0][2] == {
        "model": "gpt-x",
        "prompt": "prompt 0",
        "max_tokens": 9,
        "temperature": 0.0,
        "stop": ["\n\n"],
        "reasoning_effort": "low",
    }


def test_an_author_gets_messages_of_a_chat(setup: EngineSetup) -> None:
    messages = [{"role": "user", "content": "What is 1 + 1?"}]
    greedy = replace(setup, decoding=Decoding(max_tokens=9))
    with ScriptedServer(lambda said: said[0]["content"].upper()) as server:
        answers = ask(at(greedy, server, model="gpt-x", is_teacher=False, chat=True), [json.dumps(messages)])
    assert answers == [Generation(text="WHAT IS 1 + 1?", finish_reason="stop")]
    path, _, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert body == {"model": "gpt-x", "messages": messages, "max_completion_tokens": 9, "temperature": 0.0}


@pytest.mark.parametrize("script", [["hang"] * 100, [(503, {"retry-after": "20"}, {})] * 100])
def test_a_signal_ends_the_waiting_for_a_slow_server(setup: EngineSetup, script: list[Fault]) -> None:
    with ScriptedServer(text_of, script=script) as server, StopSignal() as stop:
        begun = time.monotonic()
        timer = Timer(0.2, signal.raise_signal, (signal.SIGTERM,))
        timer.start()
        with (
            pytest.raises(Interrupted, match="SIGTERM"),
            open_engine("openai", replace(at(setup, server), stop=stop)) as e,
        ):
            e.generate(PROMPTS)
        assert time.monotonic() - begun < 3
        timer.join()


def test_the_stage_keeps_what_a_slow_server_answered_before_a_signal(setup: EngineSetup, tmp_path: Path) -> None:
    questions = synthetic_questions(9, seed=1, split="train")
    identity = ModelIdentity(source="folder", path=setup.model, revision="0" * 64, tokenizer="1" * 64)
    teacher = TeacherSettings(model=setup.model)
    with ScriptedServer() as server, StopSignal() as stop:
        settings = RationaleSettings(engine="openai", server=server.address, server_requests=1, second_phase=False)
        spec = rationale_spec(identity, teacher, settings)
        store = RationaleStore(Space.open_or_create(tmp_path, "rationales", "teacher", spec))

        def third_hangs(prompt: list[int]) -> str:
            if len(server.requests) == 3:
                server.script.append("hang")
                Timer(0.1, signal.raise_signal, (signal.SIGTERM,)).start()
            return text_of(prompt)

        server.answer = third_hangs
        with pytest.raises(Interrupted, match="SIGTERM"):
            write_rationales(
                questions, store, teacher, settings, identity=identity, progress=SilentProgress(), stop=stop
            )
    assert len(store.attempts()) == 3 and len(server.requests) == 4


def test_an_engine_may_be_closed_with_a_stream_still_open(setup: EngineSetup) -> None:
    with ScriptedServer(text_of, script=["hang"] * 3) as server, open_engine("openai", at(setup, server)) as engine:
        answers = engine.stream(PROMPTS)
        next(answers)
        engine.close()
        engine.close()


def test_every_error_of_a_server_is_one_line(setup: EngineSetup) -> None:
    body = {"error": {"message": "first\nsecond\n" + 1000 * "x"}}
    with ScriptedServer(script=[(400, {}, body)]) as server, pytest.raises(MolsakiError) as caught:
        ask(at(setup, server), PROMPTS[:1])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
