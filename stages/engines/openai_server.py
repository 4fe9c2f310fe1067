"""A server that speaks OpenAI's protocol: where it is, what it is asked for, and how long it is asked again.

In: settings and two environment variables. Out: a `Server`, an address that holds no secret, and the pauses between
attempts. Addresses stand in saved configurations, keys only in the environment. Nothing here speaks to a server.
"""

import os
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import get_args
from urllib.parse import urlsplit

from data.errors import ConfigError
from stages.settings import LimitField

KEY, ADDRESS = "OPENAI_API_KEY", "OPENAI_BASE_URL"
"""Environment variables, the same that OpenAI's own client reads."""
NO_KEY = "none"
"""What is sent where no key is set: servers that want none do not look."""
LIMIT_FIELDS: tuple[LimitField, ...] = get_args(LimitField)
OPENAIS_LIMIT = LIMIT_FIELDS[0]
"""The name that newer models of OpenAI insist on; servers that do not know it write without a limit, or refuse it."""
MAY_BE_LEFT_OUT = ("temperature", "top_p", "seed")
"""Settings of rationales that are null where an author's server is to decide."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
NO_ADDRESS = "expected an address such as http://127.0.0.1:8000/v1, found something that is none"
_CREDENTIAL_IN_PATH = re.compile(r"\b(?:sk|hf|key|token)[-_=][A-Za-z0-9_-]{16,}", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server and how it is spoken to; `address` None means the environment's.

    `model` is what the server calls the model, `renamed` where it was configured as such. With `is_teacher` that is the
    teacher, which gets the tokens that every other engine would give it; otherwise it is another model, which gets
    text, or with `chat` messages. One attempt may take `request_seconds`, and attempts end `patience_seconds` after the
    first that failed. An author is not told the settings of `left_out`, and of a chat the longest text by the name
    `limit_field`.
    """

    address: str | None
    model: str
    is_teacher: bool = True
    renamed: bool = False
    chat: bool = False
    requests: int = 64
    request_seconds: float = 300.0
    patience_seconds: float = 900.0
    left_out: frozenset[str] = frozenset()
    limit_field: LimitField = "max_completion_tokens"


def server_address(configured: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The address to ask; `ConfigError` where there is none or where it holds a secret."""
    address = configured or environment.get(ADDRESS)
    if not address:
        raise ConfigError(
            f"rationales.server: missing, and {ADDRESS} is not set either; `engine: openai` needs an address such as "
            "http://127.0.0.1:8000/v1"
        )
    if problem := address_problem(address):
        raise ConfigError(f"{'rationales.server' if configured else ADDRESS}: {problem}")
    return address


def server_key(environment: Mapping[str, str] = os.environ) -> str:
    """The key to send, without the line break that files end with; `ConfigError` where no header can hold it."""
    key = environment.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{KEY} in the environment: holds characters that no key has; set it anew")
    return key or NO_KEY


def address_problem(address: str) -> str | None:
    """What is wrong with an address; it never repeats what may be a secret."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return NO_ADDRESS
    if parts.username is not None or parts.password is not None:
        return f"holds a user or a password, and addresses are saved with the run; set {KEY} in the environment"
    if parts.query or parts.fragment or _CREDENTIAL_IN_PATH.search(parts.path):
        return (
            "expected an address without anything after a ? or #, and without a key, since addresses are saved with "
            f"the run; set {KEY} in the environment"
        )
    if parts.scheme not in {"http", "https"} or not host or not address.isprintable() or " " in address:
        return NO_ADDRESS
    return None


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """What a server said, with the key that it was asked with blotted out."""
    key = environment.get(KEY, "").strip()
    return text.replace(key, "(key)") if key else text


@dataclass(kw_only=True)
class Attempts:
    """How often one thing was tried, and how long to wait before the next time: twice as long each time, with jitter.

    `patience` seconds after the first failure it is over. `jitter` draws from 0 to 1.
    """

    patience: float
    clock: Callable[[], float] = monotonic
    jitter: Callable[[], float] = random.random
    count: int = 0
    _first_failure: float | None = field(default=None, init=False)

    @property
    def seconds(self) -> float:
        """Time since the first failure."""
        return 0.0 if self._first_failure is None else self.clock() - self._first_failure

    @property
    def left(self) -> float:
        """Seconds of patience that are left."""
        return self.patience - self.seconds

    def pause(self, retry_after: float | None = None) -> float | None:
        """Count a failure; seconds to wait before the next attempt, None where patience does not last until then.

        `retry_after` is how long the server itself asks to wait at least.
        """
        if self._first_failure is None:
            self._first_failure = self.clock()
        self.count += 1
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (self.count - 1))
        pause = max(longest * (0.5 + self.jitter() / 2), retry_after or 0.0)
        return None if pause >= self.left else pause
