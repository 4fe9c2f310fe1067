"""The engine behind an address: a server that speaks OpenAI's protocol, vLLM's own or somebody else's.

Prompts go out over HTTP, as many at a time as the settings allow, and generations come back. The teacher gets the same
tokens and the same sampling as in the other engines, by `/v1/completions`, so that its greedy text is the same; a chat
template is applied here, not there. A model that is not the teacher gets text, or messages by `/v1/chat/completions`.

A server that is busy, out of order or gone, or whose answer is none, is asked again
(`stages.engines.openai_server.Attempts`) until patience ends; one that refuses is not. OpenAI's client itself tries
nothing again, so that patience is all that one request can take. `stages.engines.openai_answer` reads answers, for the
client takes whatever comes for what was asked for. An event loop in a thread of its own speaks to the server, so that a
signal ends the waiting at any time.
"""

import asyncio
import json
import re
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, TypeAlias, TypeVar

import openai

from data.errors import ConfigError, EngineError, first_line
from stages.engines.contract import (
    NEUTRAL_ARGUMENTS,
    TOO_LONG,
    Answer,
    Answers,
    Decoding,
    Engine,
    EngineSetup,
    Generation,
    next_answer,
    positive_argument,
    prompt_seed,
)
from stages.engines.openai_answer import (
    UnreadableError,
    chat_generation,
    quoted,
    text_generation,
    words_of,
    written_tokens,
)
from stages.engines.openai_server import (
    KEY,
    LIMIT_FIELDS,
    MAY_BE_LEFT_OUT,
    OPENAIS_LIMIT,
    Attempts,
    Server,
    server_address,
    server_key,
)
from stages.models.tokenizer import encode, load_tokenizer

T = TypeVar("T")
Queue: TypeAlias = "SimpleQueue[Answer | BaseException]"
BUSY = frozenset({408, 409, 425, 429})
"""Answers below 500 after which it is worth asking again."""
NO_LIST = frozenset({404, 405, 501})
"""Answers of a server that does not say what it serves."""
CONNECT_SECONDS = 10.0
END_SECONDS = 2.0
"""How long a conversation may take to break off: names that are being looked up can last longer, and are left to it."""
WINDOW_EXCEEDED = re.compile(
    r"context[_ -](length|window|size)|maximum (model length|number of tokens)|(prompt|input) is too long"
    r"|too many tokens|`inputs` (tokens \+ `max_new_tokens` )?must",
    re.IGNORECASE,
)
"""How servers say that a prompt is too long: OpenAI, vLLM, SGLang, llama.cpp, Gemini, Anthropic, Cohere, TGI."""
FILTERED = re.compile(r"content[_ ](filter|policy_violation)", re.IGNORECASE)
"""How servers say that they do not answer this one prompt."""
NOT_KNOWN = re.compile(
    r"unsupported|not support|extra|unknown|unrecogni[sz]ed|unexpected|not (permitted|allowed)", re.IGNORECASE
)
"""How servers say that they take no such field as one of the request's: OpenAI, Mistral and others."""
NOT_SAID = Generation(text="", finish_reason="stop")
AS_ELSEWHERE = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""What a server would otherwise take from the preferences of the checkpoint, which the other engines leave aside."""
NOT_SENT = NEUTRAL_ARGUMENTS | {"max_model_len"}


class _Refused(Exception):  # noqa: N818  (no error: the prompt is dropped and counted)
    """The server refuses this one prompt; with what counts as its generation."""


class _NoList(Exception):  # noqa: N818  (nor is this one: many servers list nothing)
    """The server does not say what it serves."""


class OpenAiEngine(Engine):
    """A server's completions; nothing is started here and nothing is ended."""

    def __init__(self, setup: EngineSetup) -> None:
        """Take note of whom to ask; the server itself is spoken to with the first prompts."""
        assert setup.server is not None
        self._setup = setup
        self._server = setup.server
        self._address = server_address(setup.server.address)
        self._model = setup.server.model
        self._configured_window = positive_argument(setup.arguments, "max_model_len")
        self._window: int = self._configured_window or sys.maxsize
        self._looked_up = False
        self._tokenizer = (
            load_tokenizer(setup.model, setup.revision, trust_remote_code=setup.trust_remote_code)
            if setup.server.is_teacher
            else None
        )
        self._conversation: _Conversation | None = None
        self._asked_again: Counter[str] = Counter()
        self._noted: set[str] = set()

    @property
    def asked_again(self) -> Counter[str]:
        """Requests beyond the first for one prompt, by what the server said to the one before."""
        return Counter(self._asked_again)

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer every prompt when the server does."""
        if not prompts:
            return
        asked = decoding or self._setup.decoding
        client = self._client()
        conversation = self._conversation = _Conversation(
            lambda answers: self._converse(client, prompts, asked, answers)
        )
        try:
            for _ in prompts:
                yield next_answer(conversation.answers, self._setup.stop)
        finally:
            conversation.end()

    def close(self) -> None:
        """Break off what is still going on."""
        if self._conversation is not None:
            self._conversation.end()

    def _client(self) -> openai.AsyncOpenAI:
        """What speaks to the server; raises `ConfigError` where the environment does not allow for it."""
        key = server_key()
        try:
            return openai.AsyncOpenAI(base_url=self._address, api_key=key, max_retries=0)
        except Exception as error:  # proxies, certificates and names: its HTTP library has many for these
            missing = f"; {first_line(error)}" if isinstance(error, ImportError) else ""
            raise ConfigError(
                f"server {self._address} cannot be spoken to ({type(error).__name__}{missing}); look at the address, "
                "and at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE in the environment"
            ) from None  # an address of a proxy may hold a password

    async def _converse(
        self, client: openai.AsyncOpenAI, prompts: Sequence[str], decoding: Decoding, answers: Queue
    ) -> None:
        """Ask for all prompts, `Server.requests` of them at a time."""
        waiting = iter(enumerate(prompts))

        async def work() -> None:
            for place, prompt in waiting:
                answers.put((place, await self._answer(client, prompt, decoding)))

        async with client:
            if not self._looked_up:
                await self._look_up(client)
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._server.requests, len(prompts))):
                    group.create_task(work())

    async def _answer(self, client: openai.AsyncOpenAI, prompt: str, decoding: Decoding) -> Generation:
        sent = self._sent(prompt)
        room = decoding.max_tokens if self._tokenizer is None else min(decoding.max_tokens, self._window - len(sent))
        if room <= 0:
            return TOO_LONG
        sampling = _sampling(decoding, prompt)
        asked = {"model": self._model, **self._beside()}
        asked |= {name: value for name, value in sampling.items() if name not in self._server.left_out}
        create: Any = client.completions.with_raw_response.create
        limit, generation = "max_tokens", text_generation
        if self._server.chat:
            create, generation = client.chat.completions.with_raw_response.create, chat_generation
            limit = self._server.limit_field
        asked |= {"messages" if self._server.chat else "prompt": sent, limit: room}

        def read(said: Any) -> Generation:
            if limit == OPENAIS_LIMIT and (written := written_tokens(said)) > room:
                self._note(
                    f"server {self._address} wrote {written:,} tokens where {limit} was {room:,}; if that is a name "
                    f"that it does not know, set rationales.server_limit_field to max_tokens",
                    about=limit,
                )
            return generation(said, self._note)

        try:
            return await self._patiently(lambda timeout: create(timeout=timeout, **asked), read)
        except _Refused as refused:
            counted: Generation = refused.args[0]
            return counted

    def _sent(self, prompt: str) -> Any:
        """Tokens for the teacher; for another model text, or the messages that the text is the JSON of."""
        if self._tokenizer is not None:
            return encode(self._tokenizer, [prompt], adds_special_tokens=self._setup.adds_special_tokens)[0]
        return json.loads(prompt) if self._server.chat else prompt

    def _beside(self) -> dict[str, Any]:
        """What goes along with every request beside OpenAI's own fields."""
        if self._server.is_teacher:
            return {"extra_body": AS_ELSEWHERE}
        return {"extra_body": {name: value for name, value in self._setup.arguments.items() if name not in NOT_SENT}}

    async def _look_up(self, client: openai.AsyncOpenAI) -> None:
        """See that the server serves the teacher, and how long its prompts may be, where it lists its models."""
        if self._server.is_teacher:
            served = None
            with suppress(_NoList):
                served = await self._patiently(
                    lambda timeout: client.models.with_raw_response.list(timeout=timeout), _models, unless=NO_LIST
                )
            if served is not None:
                self._take_window(self._entry(served))
        self._looked_up = True

    def _entry(self, served: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """What the server says of the teacher; `ConfigError` where it serves another model."""
        for model in served:
            name = model["id"]
            if name == self._model or (not self._server.renamed and self._is_teacher(name)):
                self._model = name
                return model
        names = ", ".join(model["id"] for model in served[:5]) or "nothing"
        raise ConfigError(
            f"server {self._address} serves {names}, not {self._model}; name it in rationales.served_model if it is "
            "teacher.model under another name, or in rationales.author if it is another model"
        )

    def _is_teacher(self, name: str) -> bool:
        """Whether a served name means the folder of the teacher."""
        return name == self._setup.model or str(Path(name).expanduser().absolute()) == self._setup.model

    def _take_window(self, model: Mapping[str, Any]) -> None:
        window, configured = model.get("max_model_len"), self._configured_window
        if not isinstance(window, int) or window < 1:
            return
        if configured is not None and configured > window:
            raise ConfigError(
                f"server {self._address} takes {window:,} tokens, but engine_arguments.max_model_len is "
                f"{configured:,}; they have to be equal for the rationales to be those of the configuration"
            )
        self._window = min(self._window, window)

    async def _patiently(
        self,
        call: Callable[[openai.Timeout], Awaitable[Any]],
        read: Callable[[Any], T],
        *,
        unless: Collection[int] = (),
    ) -> T:
        """Ask until there is an answer that can be read.

        Raises `ConfigError` where asking again would not help, `EngineError` when patience ends, and `_NoList` for one
        of the answers in `unless`.
        """
        attempts = Attempts(patience=self._server.patience_seconds)
        while True:
            # An attempt that is begun gets the time to succeed, even if patience ends meanwhile.
            seconds = min(self._server.request_seconds, max(attempts.left, CONNECT_SECONDS))
            try:
                async with asyncio.timeout(seconds):  # the client's own begins anew with every byte
                    answer = await call(openai.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)))
                return read(_json(answer.http_response.content))
            except (openai.APIError, TimeoutError, UnreadableError) as error:
                if isinstance(error, openai.APIStatusError) and error.status_code in unless:
                    raise _NoList from None
                pause = attempts.pause(_retry_after(error))
                problem = self._refusal(error) or (None if pause is not None else self._gone(error, attempts))
                instead = _kind(error)
            if problem is not None:
                raise problem  # without its cause: a log shows causes, and servers repeat keys
            assert pause is not None
            self._asked_again[instead] += 1
            await asyncio.sleep(pause)

    def _refusal(self, error: Exception) -> Exception | None:
        """What becomes of an error after which asking again does not help, with the setting that may."""
        found = _refusal(error, self._address)
        if (
            self._server.is_teacher
            or not isinstance(found, ConfigError)
            or not isinstance(error, openai.APIStatusError)
        ):
            return found
        return ConfigError(f"{found}{_setting_that_helps(_status_words(error), self._server)}")

    def _note(self, line: str, about: str = "") -> None:
        """Say one line, and nothing more about the same."""
        if (about or line) not in self._noted:
            self._noted.add(about or line)
            self._setup.note(line)

    def _gone(self, error: Exception, attempts: Attempts) -> EngineError:
        wait = _retry_after(error) or 0.0
        asks = f" and to come back in {wait:,.0f} s" if wait >= attempts.left > 0 else ""
        return EngineError(
            f"server {self._address} was asked {attempts.count} times in {attempts.seconds:.0f} s and gave no answer; "
            f"the last time it said {_said(error)}{asks}, and rationales.patience_seconds is "
            f"{self._server.patience_seconds:g}; what was committed before is kept, run the same command to go on"
        )


class _Conversation:
    """An event loop in a thread of its own, and what comes out of it."""

    def __init__(self, converse: Callable[[Queue], Coroutine[Any, Any, None]]) -> None:
        self.answers: Queue = SimpleQueue()
        self._begun = Event()
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._thread = Thread(target=self._run, args=(converse,), name="server-requests", daemon=True)
        self._thread.start()
        self._begun.wait()

    def end(self) -> None:
        """Break off; what was not answered is given up."""
        if self._running is not None:
            loop, task = self._running
            with suppress(RuntimeError):  # the loop is closed already
                loop.call_soon_threadsafe(task.cancel)
        self._thread.join(END_SECONDS)

    def _run(self, converse: Callable[[Queue], Coroutine[Any, Any, None]]) -> None:
        try:
            asyncio.run(self._main(converse))
        except asyncio.CancelledError:
            pass
        except BaseExceptionGroup as group:
            self.answers.put(group.exceptions[0])
        except BaseException as error:  # it is raised again by whoever waits for an answer
            self.answers.put(error)
        finally:
            self._begun.set()  # also where no loop could be made

    async def _main(self, converse: Callable[[Queue], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running = asyncio.get_running_loop(), task
        self._begun.set()
        await converse(self.answers)


def _sampling(decoding: Decoding, prompt: str) -> dict[str, Any]:
    """What OpenAI calls these settings; a greedy request takes neither seed nor nucleus."""
    arguments: dict[str, Any] = {"temperature": decoding.temperature}
    if decoding.stop:
        arguments["stop"] = list(decoding.stop)
    if decoding.temperature > 0:
        arguments |= {"top_p": decoding.top_p, "seed": prompt_seed(decoding.seed, prompt)}
    return arguments


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:  # no JSON, or no Unicode
        raise UnreadableError("something that is no JSON") from None


def _models(said: Any) -> Sequence[Mapping[str, Any]] | None:
    """The entries of a list of models that have a name; None where it is no such list."""
    listed = said.get("data") if isinstance(said, Mapping) else None
    if not isinstance(listed, list):
        return None
    return [model for model in listed if isinstance(model, Mapping) and isinstance(model.get("id"), str)]


def _refusal(error: Exception, address: str) -> Exception | None:
    """What becomes of an error after which asking again does not help; None where it may."""
    if (untrusted := _untrusted_certificate(error)) is not None:
        return ConfigError(
            f"server {address} shows a certificate that is not trusted ({first_line(untrusted)}); name a file with "
            "that of its authority in SSL_CERT_FILE in the environment"
        )
    if not isinstance(error, openai.APIStatusError) or error.status_code >= 500 or error.status_code in BUSY:
        return None
    words = _status_words(error)
    if WINDOW_EXCEEDED.search(words):
        return _Refused(TOO_LONG)
    if FILTERED.search(words):
        return _Refused(NOT_SAID)
    if error.status_code in {401, 403}:
        return ConfigError(f"server {address} refuses access ({error.status_code}); set {KEY} in the environment")
    hint = "; does rationales.server end as it has to, mostly in /v1?" if error.status_code in NO_LIST else ""
    return ConfigError(f"server {address} refuses the request; it said {_said(error)}{hint}")


def _setting_that_helps(words: str, server: Server) -> str:
    """Which setting leaves out, or calls by another name, what an author's server refuses; empty for anything else."""
    if not server.chat and re.search(r"chat[ _]?(model|completions)|v1/chat", words, re.IGNORECASE):
        return "; set rationales.chat to true for a model that only chats"
    if not NOT_KNOWN.search(words):
        return ""
    if server.chat and server.limit_field in words:
        other = next(name for name in LIMIT_FIELDS if name != server.limit_field)
        return f"; set rationales.server_limit_field to {other}"
    sent = [name for name in MAY_BE_LEFT_OUT if name not in server.left_out]
    refused = [name for name in sent if re.search(rf"\b{name}\b", words)]
    if "temperature" in refused:
        refused = sent  # what a reasoning model refuses next
    named = ", ".join(f"rationales.{name}" for name in refused)
    return f"; set {named} to null, and {'they are' if refused[1:] else 'it is'} left out" if refused else ""


def _untrusted_certificate(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def _said(error: Exception) -> str:
    """What a server answered, in one line without secrets."""
    if isinstance(error, openai.APIStatusError):
        return f"{error.status_code} ({quoted(_status_words(error))})"
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return "nothing in time"
    if isinstance(error, openai.APIConnectionError):
        return f"nothing at all ({quoted(first_line(error.__cause__ or error))})"
    return str(error)


def _kind(error: Exception) -> str:
    """What came instead of an answer, in a word or two that count alike for all servers."""
    if isinstance(error, openai.APIStatusError):
        return str(error.status_code)
    return "no answer in what came" if isinstance(error, UnreadableError) else _said(error).partition(" (")[0]


def _status_words(error: openai.APIStatusError) -> str:
    """The message in the answer, or all of it where it has no such thing, and where a redirect led to."""
    led = f"redirected to {error.response.url.host}: " if error.response.history else ""
    return led + (words_of(error.body) or error.response.text.strip() or first_line(error))


def _retry_after(error: Exception) -> float | None:
    """Seconds that a server asks to wait, said as such or as a date."""
    if not isinstance(error, openai.APIStatusError):
        return None
    value = error.response.headers.get("retry-after", "")
    with suppress(ValueError):
        return float(value)
    with suppress(ValueError, TypeError):
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    return None


ENGINE = OpenAiEngine
