"""The engine behind an address: a server that speaks OpenAI's protocol, vLLM's own or somebody else's.

Prompts go out over HTTP, as many at a time as the settings allow, and generations come back. The teacher gets the same
tokens and the same sampling as in the other engines, by `/v1/completions`, so that its greedy text is the same; a chat
template is applied here, not there. A model that is not the teacher gets text, or messages by `/v1/chat/completions`.

A server that is busy, out of order or gone is asked again (`stages.servers.Attempts`) until patience ends; one that
refuses is not. An event loop in a thread of its own speaks to it, so that a signal ends the waiting at any time.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, TypeAlias, TypeVar

import openai

from data.errors import ConfigError, EngineError
from stages.engines import (
    TOO_LONG,
    Answer,
    Answers,
    Decoding,
    Engine,
    EngineSetup,
    FinishReason,
    Generation,
    encode,
    first_line,
    load_tokenizer,
    next_answer,
    prompt_seed,
)
from stages.servers import KEY, Attempts, server_address, without_secrets
from stages.specs import NEUTRAL_ARGUMENTS

T = TypeVar("T")
Queue: TypeAlias = "SimpleQueue[Answer | BaseException]"
NO_KEY = "none"
"""What is sent where no key is set: servers that want none do not look."""
BUSY = frozenset({408, 409, 425, 429})
"""Answers below 500 after which it is worth asking again."""
NO_LIST = frozenset({404, 405, 501})
"""Answers of a server that does not say what it serves."""
CONNECT_SECONDS = 10.0
FINISHED: Mapping[str | None, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "stop"}
WINDOW_EXCEEDED = ("context_length_exceeded", "context length", "context window", "context size")
"""How servers say that a prompt is too long."""
AS_ELSEWHERE = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""What a server would otherwise take from the preferences of the checkpoint, which the other engines leave aside."""
NOT_SENT = NEUTRAL_ARGUMENTS | {"max_model_len"}
LONGEST_QUOTE = 300


class _PromptTooLong(Exception):  # noqa: N818  (no error: the prompt is dropped and counted)
    """The server takes no prompt of this length."""


class OpenAiEngine(Engine):
    """A server's completions; nothing is started here and nothing is ended."""

    def __init__(self, setup: EngineSetup) -> None:
        """Take note of whom to ask; the server itself is spoken to with the first prompts."""
        assert setup.server is not None
        self._setup = setup
        self._server = setup.server
        self._address = server_address(setup.server.address)
        self._model = setup.server.model
        self._configured_window = setup.arguments.get("max_model_len")
        self._window: int = self._configured_window or sys.maxsize
        self._looked_up = False
        self._tokenizer = (
            load_tokenizer(setup.model, setup.revision, trust_remote_code=setup.trust_remote_code)
            if setup.server.is_teacher
            else None
        )
        self._conversation: _Conversation | None = None

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer every prompt when the server does."""
        if not prompts:
            return
        asked = decoding or self._setup.decoding
        conversation = self._conversation = _Conversation(lambda answers: self._converse(prompts, asked, answers))
        try:
            for _ in prompts:
                yield next_answer(conversation.answers, self._setup.stop)
        finally:
            conversation.end()

    def close(self) -> None:
        """Break off what is still going on."""
        if self._conversation is not None:
            self._conversation.end()

    async def _converse(self, prompts: Sequence[str], decoding: Decoding, answers: Queue) -> None:
        """Ask for all prompts, `Server.requests` of them at a time."""
        waiting = iter(enumerate(prompts))

        async def work() -> None:
            for place, prompt in waiting:
                answers.put((place, await self._answer(client, prompt, decoding)))

        async with openai.AsyncOpenAI(
            base_url=self._address, api_key=os.environ.get(KEY) or NO_KEY, max_retries=0
        ) as client:
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
        common = {"model": self._model, **_sampling(decoding, prompt), **self._beside()}
        try:
            if self._server.chat:
                return _generation(
                    await self._patiently(
                        lambda timeout: client.chat.completions.create(
                            messages=sent, max_completion_tokens=room, timeout=timeout, **common
                        )
                    ),
                    self._address,
                )
            return _generation(
                await self._patiently(
                    lambda timeout: client.completions.create(prompt=sent, max_tokens=room, timeout=timeout, **common)
                ),
                self._address,
            )
        except _PromptTooLong:
            return TOO_LONG

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
        """See that the server serves the teacher, and how long its prompts may be."""
        if self._server.is_teacher:
            served = await self._patiently(lambda timeout: _served(client, timeout))
            if served is not None:
                self._take_window(self._entry(served))
        self._looked_up = True

    def _entry(self, served: Sequence[Any]) -> Any:
        """What the server says of the teacher; `ConfigError` where it serves another model."""
        for model in served:
            if model.id == self._model or (not self._server.renamed and self._is_teacher(model.id)):
                self._model = model.id
                return model
        names = ", ".join(model.id for model in served[:5]) or "nothing"
        raise ConfigError(
            f"server {self._address} serves {names}, not {self._model}; name it in rationales.served_model if it is "
            "teacher.model under another name, or in rationales.author if it is another model"
        )

    def _is_teacher(self, name: str) -> bool:
        """Whether a served name means the folder of the teacher."""
        return name == self._setup.model or str(Path(name).expanduser().absolute()) == self._setup.model

    def _take_window(self, model: Any) -> None:
        window, configured = getattr(model, "max_model_len", None), self._configured_window
        if window is None:
            return
        if configured is not None and configured > window:
            raise ConfigError(
                f"server {self._address} takes {window:,} tokens, but engine_arguments.max_model_len is "
                f"{configured:,}; they have to be equal for the rationales to be those of the configuration"
            )
        self._window = min(self._window, window)

    async def _patiently(self, call: Callable[[openai.Timeout], Awaitable[T]]) -> T:
        """Ask until there is an answer.

        Raises `ConfigError` where asking again would not help, and `EngineError` when patience ends.
        """
        attempts = Attempts(patience=self._server.patience_seconds)
        while True:
            # An attempt that is begun gets the time to succeed, even if patience ends meanwhile.
            seconds = min(self._server.request_seconds, max(attempts.left, CONNECT_SECONDS))
            try:
                return await call(openai.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)))
            except (openai.APIError, json.JSONDecodeError) as error:
                pause = attempts.pause(_retry_after(error))
                problem = _refusal(error, self._address) or (None if pause is not None else self._gone(error, attempts))
            if problem is not None:
                raise problem  # without its cause: a log shows causes, and servers repeat keys
            assert pause is not None
            await asyncio.sleep(pause)

    def _gone(self, error: Exception, attempts: Attempts) -> EngineError:
        return EngineError(
            f"server {self._address} was asked {attempts.count} times in {attempts.seconds:.0f} s and gave no answer; "
            f"the last time it said {_said(error)}; what was committed before is kept, run the same command to go on"
        )


class _Conversation:
    """An event loop in a thread of its own, and what comes out of it."""

    def __init__(self, converse: Callable[[Queue], Coroutine[Any, Any, None]]) -> None:
        self.answers: Queue = SimpleQueue()
        self._begun = Event()
        self._thread = Thread(target=self._run, args=(converse,), name="server-requests", daemon=True)
        self._thread.start()
        self._begun.wait()

    def end(self) -> None:
        """Break off; what was not answered is given up."""
        with suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self, converse: Callable[[Queue], Coroutine[Any, Any, None]]) -> None:
        try:
            asyncio.run(self._main(converse))
        except asyncio.CancelledError:
            pass
        except BaseExceptionGroup as group:
            self.answers.put(group.exceptions[0])
        except BaseException as error:  # it is raised again by whoever waits for an answer
            self.answers.put(error)

    async def _main(self, converse: Callable[[Queue], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._loop, self._task = asyncio.get_running_loop(), task
        self._begun.set()
        await converse(self.answers)


async def _served(client: openai.AsyncOpenAI, timeout: openai.Timeout) -> Sequence[Any] | None:
    """The models that a server lists; None where it does not."""
    try:
        page = await client.models.list(timeout=timeout)
    except openai.APIStatusError as error:
        if error.status_code in NO_LIST:
            return None
        raise
    return page.data


def _sampling(decoding: Decoding, prompt: str) -> dict[str, Any]:
    """What OpenAI calls these settings; a greedy request takes neither seed nor nucleus."""
    arguments: dict[str, Any] = {"temperature": decoding.temperature}
    if decoding.stop:
        arguments["stop"] = list(decoding.stop)
    if decoding.temperature > 0:
        arguments |= {"top_p": decoding.top_p, "seed": prompt_seed(decoding.seed, prompt)}
    return arguments


def _generation(completion: Any, address: str) -> Generation:
    """What a completion, of text or of a chat, says."""
    choices = getattr(completion, "choices", None)
    if not choices:
        raise EngineError(f"server {address} answered with something that is no completion")
    (choice,) = choices
    if choice.finish_reason not in FINISHED:
        raise EngineError(
            f"server {address} ended a text for the reason {choice.finish_reason!r}, expected one of "
            f"{', '.join(map(str, FINISHED))}"
        )
    text = choice.message.content if hasattr(choice, "message") else choice.text
    return Generation(text=text or "", finish_reason=FINISHED[choice.finish_reason])


def _refusal(error: Exception, address: str) -> Exception | None:
    """What becomes of an error after which asking again does not help; None where it may."""
    if not isinstance(error, openai.APIStatusError) or error.status_code >= 500 or error.status_code in BUSY:
        return None
    said = _said(error)
    if any(sign in said.lower() for sign in WINDOW_EXCEEDED):
        return _PromptTooLong()
    if error.status_code in {401, 403}:
        return ConfigError(f"server {address} refuses access ({error.status_code}); set {KEY} in the environment")
    return ConfigError(f"server {address} refuses the request; it said {said}")


def _said(error: Exception) -> str:
    """What a server answered, in one line without secrets."""
    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, Mapping) else {}
        words = " ".join(f"{body.get('code') or ''} {body.get('message') or first_line(error)}".split())
        return f"{error.status_code} ({without_secrets(words)[:LONGEST_QUOTE]})"
    if isinstance(error, openai.APITimeoutError):
        return "nothing in time"
    if isinstance(error, openai.APIConnectionError):
        return f"nothing at all ({first_line(error.__cause__ or error)})"
    return f"something that cannot be read ({type(error).__name__})"


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
