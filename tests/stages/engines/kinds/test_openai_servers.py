"""What real servers send, in their own shapes: how texts end, what is left out of requests, what is paid for twice."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cache.rationales import RationaleStore
from cache.spaces import Space
from data.errors import ConfigError, EngineError
from data.sets.synthetic import synthetic_questions
from stages.engines import openai_server as servers
from stages.engines.contract import Generation, prompt_seed
from stages.engines.start import open_engine
from stages.models.identity import ModelIdentity
from stages.rationales.judge import CUT_OFF, EMPTY, judge, judge_keywords
from stages.rationales.spec import rationale_spec
from stages.rationales.write import RationaleSummary, engine_setup, write_rationales
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import RationaleSettings, TeacherSettings
from tests.fakes import Fault, ScriptedServer
from tests.stub_servers import LlamaCpp, Mistral, Ollama, ReasoningModel, StubServer, Together, Vllm

TEACHER = TeacherSettings(model="teacher")
IDENTITY = ModelIdentity(source="folder", path="teacher", revision="0" * 64, tokenizer="1" * 64)
QUESTIONS = synthetic_questions(3, seed=1, split="train")
NULL: Mapping[str, None] = {"temperature": None, "top_p": None, "seed": None}
WRITES, THOUGHTS = "one two three four five", "hm well so"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause of note, and no key."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(servers, "FIRST_PAUSE", 0.01)


class Notes(SilentProgress):
    """Keeps what a stage notes."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        """Keep a line."""
        self.said.append(message)


def author(server: ScriptedServer, **changes: Any) -> RationaleSettings:
    """Settings of an author behind `server`, asked by messages for up to 8 tokens, one at a time."""
    values = {"chat": True, "max_tokens": 8, "server_requests": 1, "second_phase": False, "shots": 0, **changes}
    return RationaleSettings(engine="openai", author="x", server=server.address, **values)


def ask(server: ScriptedServer, notes: list[str] | None = None, **changes: Any) -> Generation:
    """What an author says to one prompt."""
    settings = author(server, **changes)
    setup = engine_setup(TEACHER, settings, IDENTITY)
    object.__setattr__(setup, "note", (notes if notes is not None else []).append)
    prompt = json.dumps([{"role": "user", "content": "hi"}]) if settings.chat else "hi"
    with open_engine("openai", setup) as engine:
        return engine.generate([prompt])[0]


def written(
    server: ScriptedServer, folder: Path, notes: Notes, **changes: Any
) -> tuple[RationaleSummary, Counter[str]]:
    """What the stage says of three questions, and how many attempts have which outcome."""
    settings = author(server, **changes)
    store = RationaleStore(Space.open_or_create(folder, "rationales", "x", rationale_spec(IDENTITY, TEACHER, settings)))
    with StopSignal() as stop:
        summary = write_rationales(QUESTIONS, store, TEACHER, settings, identity=IDENTITY, progress=notes, stop=stop)
    return summary, Counter(attempt.outcome for attempt in store.attempts().values())


SERVERS = [Ollama, LlamaCpp, Together, Mistral, Vllm]
BY_SERVER: Mapping[type[StubServer], Mapping[str, Any]] = {
    Ollama: {"server_limit_field": "max_tokens"},
    LlamaCpp: {"server_limit_field": "max_tokens"},
    Together: {"server_limit_field": "max_tokens"},
    Mistral: {"server_limit_field": "max_tokens", "seed": None},
}
"""What has to be set for a server to be asked by messages."""


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("kind", SERVERS)
def test_a_chat_of_each_server_is_read_whole_and_cut_and_asked_for_once(
    kind: type[StubServer], temperature: float
) -> None:
    changes = {**BY_SERVER.get(kind, {}), "temperature": temperature}
    with kind(WRITES) as server:
        assert ask(server, max_tokens=5, **changes) == Generation(text=WRITES, finish_reason="stop")
        assert ask(server, max_tokens=4, **changes) == Generation(text="one two three four", finish_reason="length")
    assert len(server.requests) == 2


@pytest.mark.parametrize("kind", [Ollama, LlamaCpp, Together, Vllm])
def test_a_text_of_each_server_is_read_whole_and_cut_and_asked_for_once(kind: type[StubServer]) -> None:
    with kind(WRITES) as server:
        assert ask(server, chat=False, max_tokens=5) == Generation(text=WRITES, finish_reason="stop")
        assert ask(server, chat=False, max_tokens=2) == Generation(text="one two", finish_reason="length")
    assert [body["max_tokens"] for _, _, body in server.requests] == [5, 2]


@pytest.mark.parametrize("kind", [*SERVERS, ReasoningModel])
def test_thoughts_are_no_text_and_use_up_tokens(kind: type[StubServer]) -> None:
    changes = BY_SERVER.get(kind, NULL)
    with kind(WRITES, THOUGHTS) as server:
        assert ask(server, max_tokens=8, **changes) == Generation(text=WRITES, finish_reason="stop")
        assert ask(server, max_tokens=3, **changes) == Generation(text="", finish_reason="length")
    assert len(server.requests) == 2


@pytest.mark.parametrize("kind", [Ollama, LlamaCpp])
def test_a_limit_that_a_server_reads_over_is_noted_once(kind: type[StubServer]) -> None:
    notes: list[str] = []
    with kind(WRITES) as server:
        assert ask(server, notes, max_tokens=4) == Generation(text=WRITES, finish_reason="stop")
        (note,) = notes
        assert "wrote 5 tokens where max_completion_tokens was 4" in note
        assert "rationales.server_limit_field to max_tokens" in note
        ask(server, notes, max_tokens=4, server_limit_field="max_tokens")
    assert len(notes) == 1


def test_the_name_of_the_limit_is_the_one_that_is_set() -> None:
    with Vllm(WRITES) as server:
        ask(server)
        ask(server, server_limit_field="max_tokens")
        ask(server, chat=False, server_limit_field="max_completion_tokens")
    limits = [{name for name in body if name.startswith("max_")} for _, _, body in server.requests]
    assert limits == [{"max_completion_tokens"}, {"max_tokens"}, {"max_tokens"}]


@pytest.mark.parametrize("left_out", [(), ("temperature",), ("top_p", "seed"), ("temperature", "top_p", "seed")])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_what_is_null_is_left_out_of_the_request(left_out: tuple[str, ...], temperature: float) -> None:
    with Vllm(WRITES) as server:
        ask(server, **{"temperature": temperature, "top_p": 0.9, "seed": 3, **dict.fromkeys(left_out)})
    ((_, _, body),) = server.requests
    prompt = json.dumps(body["messages"])
    sampled = {"temperature": temperature, "top_p": 0.9, "seed": prompt_seed(3, prompt)}
    expected = sampled if temperature or "temperature" in left_out else {"temperature": 0.0}
    found = {name: body[name] for name in sampled if name in body}
    assert found == {name: value for name, value in expected.items() if name not in left_out}


def test_a_reasoning_model_is_asked_key_words_without_what_it_refuses_too(tmp_path: Path) -> None:
    reason = "The lent ones come back before anybody counts, so they stay in."
    with ReasoningModel(f"{reason} The answer is {QUESTIONS[0].answer}.") as server:
        summary, _ = written(server, tmp_path, Notes(), **NULL, keywords=True, max_tokens=40)
        assert summary.asked > len(QUESTIONS), "nobody was asked for key words"
    assert {name for _, _, body in server.requests for name in body} == {"model", "messages", "max_completion_tokens"}


REFUSALS = [
    (ReasoningModel, {}, "set rationales.temperature, rationales.top_p, rationales.seed to null, and they are"),
    (ReasoningModel, {"temperature": None, "top_p": None}, "set rationales.seed to null, and it is left out"),
    (ReasoningModel, {**NULL, "server_limit_field": "max_tokens"}, "set rationales.server_limit_field to max_compl"),
    (Mistral, {}, "set rationales.server_limit_field to max_tokens"),
    (Mistral, {"server_limit_field": "max_tokens", "temperature": 0.7}, "set rationales.seed to null, and it is"),
]


@pytest.mark.parametrize(("kind", "changes", "hint"), REFUSALS)
def test_a_refused_field_names_the_setting_that_helps(
    kind: type[StubServer], changes: dict[str, Any], hint: str
) -> None:
    with kind(WRITES) as server, pytest.raises(ConfigError, match=hint):
        ask(server, **changes)
    assert len(server.requests) == 1


def test_a_model_that_only_chats_names_the_setting_for_that() -> None:
    error = {"error": {"message": "This is a chat model and not supported in the v1/completions endpoint."}}
    with (
        ScriptedServer(script=[(404, {}, error)]) as server,
        pytest.raises(ConfigError, match=r"rationales\.chat to true"),
    ):
        ask(server, chat=False)


def test_a_limit_beyond_what_a_model_takes_is_no_question_of_its_name() -> None:
    error = {"error": {"message": "max_completion_tokens is too large: 9. This model supports at most 5 tokens"}}
    with ScriptedServer(script=[(400, {}, error)]) as server, pytest.raises(ConfigError) as caught:
        ask(server)
    assert "too large" in str(caught.value) and "server_limit_field" not in str(caught.value)


def choice(reason: object) -> Fault:
    return 200, {}, {"choices": [{"message": {"content": "a"}, "finish_reason": reason}]}


@pytest.mark.parametrize("reason", ["eos", "end", "end_turn", "EOS", "STOP", "repetition", "content_filter"])
def test_a_text_that_ended_by_itself_has_ended(reason: str) -> None:
    with ScriptedServer(script=[choice(reason)]) as server:
        assert ask(server) == Generation(text="a", finish_reason="stop")
    assert len(server.requests) == 1


@pytest.mark.parametrize("reason", ["max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens"])
def test_a_text_that_ended_for_its_length_is_cut(reason: str) -> None:
    with ScriptedServer(script=[choice(reason)]) as server:
        assert ask(server) == Generation(text="a", finish_reason="length")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reason", ["error", "abort", "server_error", "insufficient_system_resource", "timed_out", None]
)
def test_a_text_that_the_server_broke_off_is_asked_for_again(reason: object) -> None:
    with ScriptedServer(script=[choice(reason)]) as server:
        assert ask(server) == Generation(text="an answer", finish_reason="stop")
    assert len(server.requests) == 2


def test_an_end_that_no_table_knows_is_taken_and_noted_once() -> None:
    notes: list[str] = []
    with ScriptedServer(script=[choice("zzz")]) as server:
        assert ask(server, notes) == Generation(text="a", finish_reason="stop")
    assert len(server.requests) == 1 and len(notes) == 1 and "'zzz'" in notes[0]


def test_an_empty_text_is_cut_off_where_its_tokens_ran_out_and_empty_elsewhere() -> None:
    for generation, outcome in (
        (Generation(text=" ", finish_reason="length"), CUT_OFF),
        (Generation(text="", finish_reason="stop"), EMPTY),
    ):
        assert judge(QUESTIONS[0], generation, "plain") == (outcome, None)
        assert judge_keywords(QUESTIONS[0], "A rationale.", generation)[0] == outcome


def test_a_model_that_only_thought_is_counted_as_cut_off(tmp_path: Path) -> None:
    with Vllm(WRITES, THOUGHTS) as server:
        _, outcomes = written(server, tmp_path, Notes(), max_tokens=3)
    assert outcomes == {CUT_OFF: len(QUESTIONS)}


def test_what_was_asked_again_is_in_the_summary_and_in_one_note(tmp_path: Path) -> None:
    notes = Notes()
    script: list[Fault] = [503, 503, 429, choice("error"), "reset"]
    with Vllm(WRITES, script=script) as server:
        summary, _ = written(server, tmp_path, notes)
    again = Counter({"503": 2, "429": 1, "no answer in what came": 1, "nothing at all": 1})
    assert summary.asked == 3 and summary.asked_again == again
    assert len(server.requests) == 3 + again.total(), "somebody else tries again as well"
    (note,) = [note for note in notes.said if "again" in note]
    assert note.startswith("rationales: 5 requests were sent again after the server had said 503 2,")
    assert "rationales.patience_seconds (900)" in note


def test_one_patience_holds_for_a_request_whatever_it_fails_of(tmp_path: Path) -> None:
    """A client library that tried again by itself would send more requests than are counted."""
    notes = Notes()
    faults: list[Fault] = [(503, {"x-should-retry": "true"}, {}), (409, {"x-should-retry": "true"}, {}), "reset"]
    with Vllm(WRITES, script=faults * 100) as server:
        with pytest.raises(EngineError, match="was asked") as caught:
            written(server, tmp_path, notes, patience_seconds=0.3)
        assert f"was asked {len(server.requests)} times" in str(caught.value)
    assert [note for note in notes.said if f"{len(server.requests) - 1} requests were sent again" in note]


def test_null_has_a_store_of_its_own_and_the_name_of_the_limit_has_none() -> None:
    def spec(**changes: Any) -> object:
        values = {"engine": "openai", "author": "x", "temperature": 0.7, **changes}
        return rationale_spec(IDENTITY, TEACHER, RationaleSettings(**values))

    assert spec(server_limit_field="max_tokens") == spec()
    assert len({str(spec(**{name: None})) for name in NULL} | {str(spec())}) == 4
    greedy = {"temperature": 0.0}
    assert spec(**greedy, seed=None, top_p=None) == spec(**greedy), "neither is sent where the answer is greedy"
