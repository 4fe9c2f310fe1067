"""What a server that speaks OpenAI's protocol has answered: decoded JSON goes in, a `Generation` comes out.

Servers differ in why a text ended, in what they call that, and in where they put what a model thought to itself. What
is no answer raises `UnreadableError`, after which it is worth asking again: nothing here tells a text that was paid for
from one that was not, so that everything that may be an answer is taken for one. Nothing here speaks to a server.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from stages.engines.contract import FinishReason, Generation
from stages.engines.openai_server import without_secrets

CUT_OFF = frozenset(
    {"length", "max_tokens", "max_length", "max_output_tokens", "model_length", "model_context_window_exceeded"}
)
"""How servers say that a text ended because of its length: OpenAI's own, Anthropic's, TGI's and Mistral's, in any
case."""
ENDED = frozenset(
    {
        *("stop", "eos", "eos_token", "end", "end_turn", "endoftext", "complete", "stop_sequence", "stop_token"),
        *("tool_calls", "function_call", "tool_use", "content_filter", "safety", "refusal", "repetition"),
    }
)
"""How they say that it ended by itself, or was ended for what it says: such a text is judged as it is."""
BROKEN_OFF = re.compile(
    r"error|abort|cancel|fail|interrupt|time_?d?_?out|insufficient|overload|unavailable|disconnect|preempt",
    re.IGNORECASE,
)
"""How they say that they, and not the model, have ended it: the text is no answer."""
LONGEST_QUOTE = 300


class UnreadableError(Exception):
    """An answer that is none; what it was instead."""


def text_generation(said: Any, note: Callable[[str], None]) -> Generation:
    """What a completion of text says; `note` is told of an end that no table knows."""
    choice = _choice(said)
    return _ended(choice.get("text"), choice, note)


def chat_generation(said: Any, note: Callable[[str], None]) -> Generation:
    """What a completion of a chat says; a model that only thought, or called a tool, has no content."""
    choice = _choice(said)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise UnreadableError("something that is no completion")
    return _ended(_content(message.get("content")), choice, note)


def written_tokens(said: Any) -> int:
    """How many tokens the server says that it wrote, thoughts included; 0 where it says nothing."""
    usage = said.get("usage") if isinstance(said, Mapping) else None
    count = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return count if isinstance(count, int) else 0


def words_of(said: object) -> str:
    """Code and message of what servers call an error; each has its own form, and some put lists into it."""
    if isinstance(said, str):
        return said
    if not isinstance(said, Mapping):
        return json.dumps(said, ensure_ascii=False) if isinstance(said, list) and said else ""
    words = (said.get(name) for name in ("code", "message", "error", "detail"))
    return " ".join(str(each) if isinstance(each, int) else words_of(each) for each in words if each not in (None, ""))


def quoted(words: str) -> str:
    """What a server said, in one line of bounded length without the key."""
    return without_secrets(" ".join(words.split()))[:LONGEST_QUOTE]


def _content(content: object) -> object:
    """The text of a message, which may come in chunks, of which thoughts are left out."""
    if content is None:
        return ""
    if not isinstance(content, list) or not all(isinstance(chunk, Mapping) for chunk in content):
        return content
    texts = [chunk.get("text") for chunk in content if chunk.get("type") in {"text", "output_text"}]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else None


def _choice(said: Any) -> Mapping[str, Any]:
    choices = said.get("choices") if isinstance(said, Mapping) else None
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    words = words_of(said.get("error")) if isinstance(said, Mapping) else ""
    raise UnreadableError(f"something that is no completion{f' ({quoted(words)})' if words else ''}")


def _ended(text: object, choice: Mapping[str, Any], note: Callable[[str], None]) -> Generation:
    if not isinstance(text, str):
        raise UnreadableError("a completion without a text")
    # JSON may hold half of a pair of surrogates, which is no Unicode.
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Generation(text=whole, finish_reason=_finish_reason(choice.get("finish_reason"), note))


def _finish_reason(reason: object, note: Callable[[str], None]) -> FinishReason:
    known = reason.casefold() if isinstance(reason, str) else ""
    if known in CUT_OFF:
        return "length"
    if known in ENDED:
        return "stop"
    if not known or BROKEN_OFF.search(known):
        raise UnreadableError(f"a text that ended for the reason {quoted(str(reason))}")
    note(f"texts end for a reason that is not known, {quoted(str(reason))!r}: they are taken as finished")
    return "stop"
