"""Servers that answer in the shapes of real ones, on 127.0.0.1: what they take, what they refuse, how a text ends.

Each writes the same words, one a token, after thoughts if it has any, and stops where the limit that it knows of says
so. The docstrings name the version and the source that the shapes are those of.
"""

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

from tests.fakes import ScriptedServer, reply

ENDLESS = 1 << 20


class StubServer(ScriptedServer):
    """Writes `writes` after having thought `thinks`; subclasses say how they put it."""

    limits: ClassVar[tuple[str, ...]] = ("max_completion_tokens", "max_tokens")
    """Fields of a request by which the server takes a limit, the first that is there; it reads over all others."""
    ends: ClassVar[str] = "stop"
    cut: ClassVar[str] = "length"

    def __init__(self, writes: str, thinks: str = "", **scripted: Any) -> None:
        super().__init__(**scripted)
        self._writes, self._thinks = writes.split(" "), thinks.split()

    def complete(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        """Answer one request, or refuse it."""
        reply(handler, *(self.refused(body) or (200, self.answered(body))))

    def refused(self, body: Mapping[str, Any]) -> tuple[int, object] | None:
        """Status and body of an error where the server takes no such request."""
        return None

    def answered(self, body: Mapping[str, Any]) -> dict[str, object]:
        """The whole answer."""
        room = next((int(body[name]) for name in self.limits if name in body), ENDLESS)
        thought, left = self._thinks[:room], max(0, room - len(self._thinks))
        text = " ".join(self._writes[:left])
        whole = len(self._thinks) + len(self._writes)
        written = min(room, whole)
        ending = self.ends if room >= whole else self.cut
        choice = self.chat(text, " ".join(thought)) if "messages" in body else self.completion(text)
        return {
            "id": "cmpl-1",
            "object": "chat.completion" if "messages" in body else "text_completion",
            "created": 1_790_000_000,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": ending, **choice}],
            "usage": {"prompt_tokens": 7, "completion_tokens": written, "total_tokens": 7 + written},
        }

    def chat(self, text: str, thought: str) -> dict[str, object]:
        """What is its own in a choice of a chat."""
        return {"message": {"role": "assistant", "content": text}, "logprobs": None}

    def completion(self, text: str) -> dict[str, object]:
        """What is its own in a choice of a completion of text."""
        return {"text": text, "logprobs": None}


class Ollama(StubServer):
    """Ollama 0.33.0-rc2, openai/openai.go: `ChatCompletionRequest` has no max_completion_tokens, and Go's JSON reads
    over what it does not know; thoughts are in `reasoning`; `finish_reason` is what the runner says, stop or length.
    """

    limits = ("max_tokens",)

    def answered(self, body: Mapping[str, Any]) -> dict[str, object]:
        """With Ollama's fingerprint."""
        return {**super().answered(body), "system_fingerprint": "fp_ollama"}

    def chat(self, text: str, thought: str) -> dict[str, object]:
        """A message whose `reasoning` is left out where it is empty."""
        return {"message": {"role": "assistant", "content": text, **({"reasoning": thought} if thought else {})}}

    def completion(self, text: str) -> dict[str, object]:
        """Text and nothing else."""
        return {"text": text}


class LlamaCpp(StubServer):
    """llama.cpp's server, tools/server/server-task.cpp at 00efb3e (`to_json_oaicompat_chat`): thoughts in
    `reasoning_content`, `timings` beside the choices. It reads over max_completion_tokens up to pull request 19831.
    """

    limits = ("max_tokens",)

    def answered(self, body: Mapping[str, Any]) -> dict[str, object]:
        """With its build and its timings."""
        timings = {"cache_n": 0, "prompt_n": 7, "prompt_ms": 30.0, "predicted_n": 5, "predicted_ms": 90.0}
        return {**super().answered(body), "system_fingerprint": "b8000-00efb3e", "timings": timings}

    def chat(self, text: str, thought: str) -> dict[str, object]:
        """A message whose `reasoning_content` is left out where it is empty."""
        thoughts = {"reasoning_content": thought} if thought else {}
        return {"message": {"role": "assistant", "content": text, **thoughts}}


class Together(StubServer):
    """Together's openapi.yaml of 28 April 2026: max_tokens is the only limit in it; `finish_reason` is one of stop,
    eos, length, tool_calls and function_call; `content` may be null, and choices have a seed.
    """

    limits = ("max_tokens",)
    ends = "eos"

    def answered(self, body: Mapping[str, Any]) -> dict[str, object]:
        """With the prompt's own part, which is empty unless it is asked for."""
        return {**super().answered(body), "prompt": []}

    def chat(self, text: str, thought: str) -> dict[str, object]:
        """No content where there are thoughts only."""
        message = {"role": "assistant", "content": text or None, "tool_calls": [], "reasoning": thought or None}
        return {"seed": 7_654_321, "logprobs": None, "message": message}

    def completion(self, text: str) -> dict[str, object]:
        """Text with the seed it was drawn by."""
        return {"seed": 7_654_321, "logprobs": None, "text": text}


class Mistral(StubServer):
    """Mistral's interface as its Python client 2.5.1 has it: the fields of `ChatCompletionRequest` and no others, of
    which `random_seed` is one and `seed` is not; `model_length` and `error` among the reasons; content in chunks from
    models that think. Its 422 is that in issue 315 of editor-code-assistant/eca.
    """

    cut = "model_length"
    known: ClassVar[frozenset[str]] = frozenset(
        {
            *("model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "metadata"),
            *("response_format", "tools", "tool_choice", "presence_penalty", "frequency_penalty", "n", "prediction"),
            *("parallel_tool_calls", "prompt_mode", "reasoning_effort", "safe_prompt"),
        }
    )

    def refused(self, body: Mapping[str, Any]) -> tuple[int, object] | None:
        """Fields that it does not know are an error each."""
        extra = [
            {
                "type": "extra_forbidden",
                "loc": ["body", name],
                "msg": "Extra inputs are not permitted",
                "input": body[name],
            }
            for name in body
            if name not in self.known
        ]
        error = {"object": "error", "message": {"detail": extra}, "type": "invalid_request_error"}
        return (422, {**error, "param": None, "code": None}) if extra else None

    def chat(self, text: str, thought: str) -> dict[str, object]:
        """A text, or chunks where there are thoughts."""
        chunks = [
            {"type": "thinking", "thinking": [{"type": "text", "text": thought}], "closed": True},
            *([{"type": "text", "text": text}] if text else []),
        ]
        return {"message": {"role": "assistant", "tool_calls": None, "content": chunks if thought else text}}


class Vllm(StubServer):
    """vLLM 0.32.0, vllm/entrypoints/openai: null for all that it has nothing to say about; `repetition` is a reason."""

    def chat(self, text: str, thought: str) -> dict[str, object]:
        """A message with null for what it lacks, among that its content where it only thought."""
        nothing = dict.fromkeys(("refusal", "annotations", "audio", "function_call"))
        message = {"role": "assistant", "content": text or None, **nothing, "reasoning": thought or None}
        nothing = dict.fromkeys(("logprobs", "stop_reason", "token_ids", "routed_experts"))
        return {"message": message, **nothing}

    def completion(self, text: str) -> dict[str, object]:
        """Text with null for the rest."""
        names = ("logprobs", "stop_reason", "token_ids", "prompt_logprobs", "prompt_token_ids", "routed_experts")
        return {"text": text, **dict.fromkeys(names)}


class ReasoningModel(StubServer):
    """A reasoning model of OpenAI's: 400 for temperature, top_p and seed, as in issue 83 of appatalks/eva-agent, and
    for max_tokens; tokens of thoughts count, and a message without any other is empty.
    """

    def refused(self, body: Mapping[str, Any]) -> tuple[int, object] | None:
        """The first field that it does not take is an error."""
        for name in ("temperature", "top_p", "seed", "max_tokens"):
            if name in body:
                instead = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                message = f"Unsupported parameter: '{name}' is not supported with this model.{instead}"
                error = {"message": message, "type": "invalid_request_error", "param": name}
                return 400, {"error": {**error, "code": "unsupported_parameter"}}
        return None

    def chat(self, text: str, thought: str) -> dict[str, object]:
        """A message that keeps its thoughts to itself."""
        return {"message": {"role": "assistant", "content": text, "refusal": None, "annotations": []}}
