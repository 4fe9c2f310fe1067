"""What a generation engine is: prompt strings go in, one `Generation` each comes out.

Four engines keep this contract: `engines_vllm` (fast, GPU or CPU), `engines_ray` (the same on a cluster),
`engines_openai` (a server) and `engines_transformers` (runs wherever torch runs). One suite of tests holds all to it;
in float32 they give the same greedy text. The rules that make them equal stand here: how a prompt becomes tokens, when
it is too long, and what seed it is sampled with. Importing costs no torch.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, assert_never

from data.errors import ConfigError, ModelError
from stages.engines.openai_server import Server
from stages.models.tokenizer import encode_chats, encode_data, guarded
from stages.runtime.progress import StopSignal
from stages.settings import Device, Dtype

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FinishReason = Literal["stop", "length", "too_long"]
EngineArguments = Mapping[str, Any]
"""Whatever JSON can say; each engine checks its own."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What came out for one prompt, without prompt, special tokens and stop string.

    `finish_reason` is `stop` (end token or stop string), `length` (the limit was reached before) or `too_long` (the
    prompt leaves no room for a single token in the model's window: nothing was generated, `text` is empty).
    """

    text: str
    finish_reason: FinishReason


TOO_LONG = Generation(text="", finish_reason="too_long")
WATCH_SECONDS = 0.5
Answer: TypeAlias = tuple[int, Generation]
"""(place in the prompts, what came out)."""
Answers: TypeAlias = Generator[Answer, None, None]
"""Answers in any order; `close` gives up the rest."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How tokens are chosen and when to end: `temperature` 0 is greedy, otherwise nucleus sampling."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where `ray` runs (None is RAY_ADDRESS, else this machine), how many engines it starts, and prompts in a batch."""

    address: str | None = None
    replicas: int = 1
    batch: int = 32


@dataclass(frozen=True, kw_only=True)
class EngineSetup:
    """What an engine needs to start: a model and how to run it.

    `revision` is a hub commit, None for a folder. `adds_special_tokens` is False for prompts that a chat template has
    rendered, because those hold their special tokens already. `arguments` go to the engine as they are and win over its
    defaults. `server` is who is asked by `openai`. An engine that dies is started again `restarts` times, which `note`
    is told. `stop` ends the waiting for an answer that is slow to come. `cluster` is for `ray` alone.
    """

    model: str
    revision: str | None
    decoding: Decoding
    dtype: Dtype = "bfloat16"
    device: Device = "auto"
    adds_special_tokens: bool = True
    trust_remote_code: bool = False
    arguments: EngineArguments = field(default_factory=dict)
    server: Server | None = None
    restarts: int = 0
    note: Callable[[str], None] = field(default=lambda _line: None, compare=False)
    stop: StopSignal | None = field(default=None, compare=False)
    cluster: Cluster = field(default_factory=Cluster)


class Engine(ABC):
    """Generates text; a context manager that closes itself."""

    @abstractmethod
    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer every prompt; yields (place in `prompts`, generation) as each is finished, in any order.

        Every place comes exactly once. `decoding` stands in for that of the set-up in this call. A stream that is
        closed half way gives up what is not answered yet, and the engine can be asked again; only one runs at a
        time. Raises `EngineError` when the engine fails; then it is of no more use. Once `EngineSetup.stop` has
        received a signal, an engine that waits for an answer raises `Interrupted` within about a second. Whatever was
        yielded before an error stays good.
        """

    def generate(self, prompts: Sequence[str], decoding: Decoding | None = None) -> list[Generation]:
        """Answer every prompt, in order; as `stream` otherwise."""
        answers = dict(self.stream(prompts, decoding))
        return [answers[place] for place in range(len(prompts))]

    @abstractmethod
    def close(self) -> None:
        """Give memory and processes back; closing twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_engine(name: Literal["vllm", "transformers", "openai", "ray"], setup: EngineSetup) -> Engine:
    """Start an engine; `ConfigError` for a model or argument that it refuses, `EngineError` if it does not start."""
    if name == "vllm":
        from stages.engines.start import RestartingEngine
        from stages.engines.vllm import VllmEngine

        return RestartingEngine(lambda: VllmEngine(setup), setup) if setup.restarts else VllmEngine(setup)
    if name == "transformers":
        from stages.engines.transformers import TransformersEngine

        return TransformersEngine(setup)
    if name == "openai":
        try:
            from stages.engines.openai import OpenAiEngine
        except ImportError as error:
            if error.name != "openai":
                raise
            raise ConfigError("rationales.engine: `openai` needs a package: pip install 'molsaki[server]'") from error
        return OpenAiEngine(setup)
    if name == "ray":
        from stages.engines.ray import RayEngine

        return RayEngine(setup)
    assert_never(name)


def next_answer(
    answers: "SimpleQueue[Answer | BaseException]",
    stop: StopSignal | None,
    watch: Callable[[], None] = lambda: None,
) -> Answer:
    """Wait for the next answer of the thread that speaks to an engine; raises what that thread failed with.

    While there is none, a signal ends the waiting, and `watch` sees every half second whether it is worth it.
    """
    while True:
        try:
            answer = answers.get(timeout=WATCH_SECONDS)
        except Empty:
            if stop is not None:
                stop.check("what was answered before")
            watch()
            continue
        if isinstance(answer, BaseException):
            raise answer
        return answer


def positive_argument(arguments: EngineArguments, name: str) -> int | None:
    """An argument that counts something, None where it is not given; `ConfigError` unless it is a number from 1."""
    value = arguments.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ConfigError(f"engine_arguments.{name}: expected a whole number from 1, found {value!r}")


def load_tokenizer(model: str, revision: str | None, *, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """Load a model's tokenizer; code that comes with it runs only where it is trusted."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # tokenizers raises nothing more special than that for a broken file
        if needs_trust(error):
            raise ConfigError(untrusted(model)) from error
        raise ConfigError(f"model {model}: its tokenizer cannot be loaded ({first_line(error)})") from error


def needs_trust(error: BaseException) -> bool:
    """Whether a library refuses a model because it brings its own code."""
    return "trust_remote_code" in str(error)


def untrusted(model: str) -> str:
    """What a user is told then."""
    return (
        f"model {model}: it comes with code of its own, which is not run; read that code, and set "
        "teacher.trust_remote_code: true if you trust it (a student's is never run)"
    )


def render_chat(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Mapping[str, str]]) -> str:
    """Put messages through the model's chat template; their text is data to it and, for `encode`, to the tokenizer.

    Where the template refuses a system message or leaves it out, as some do, its text opens the first message of the
    user. `ModelError` for a model without template, and for one whose template fails or loses a message.
    """
    if not tokenizer.chat_template:
        raise ModelError(f"model {tokenizer.name_or_path}: `chat: true` needs a tokenizer with a chat template")
    data = [{"role": each["role"], "content": guarded(tokenizer, each["content"])} for each in messages]
    attempts = [data, _without_system(data)] if data[0]["role"] == "system" else [data]
    reason = ""
    for attempt in attempts:
        try:
            chat = str(tokenizer.apply_chat_template(attempt, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # whatever a template may call, its own raise_exception among it
            reason = first_line(error)
            continue
        if all(message["content"].strip() in chat for message in attempt):
            return chat
        reason = "it leaves out what messages say"
    raise ModelError(f"model {tokenizer.name_or_path}: its chat template takes no such conversation: {reason}")


def _without_system(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    system, first, *others = messages
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *map(dict, others)]


def encode(
    tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], *, adds_special_tokens: bool
) -> list[list[int]]:
    """Turn prompts into token ids, the same way for every engine; special tokens never come from a question's text.

    Without `adds_special_tokens` prompts are chats as `render_chat` makes them.
    """
    if not prompts:
        return []
    return encode_data(tokenizer, prompts) if adds_special_tokens else encode_chats(tokenizer, prompts)


def prompt_seed(seed: int, prompt: str) -> int:
    """Seed of one prompt's sampling: its text depends on no other prompt, so an interrupted run continues alike."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()[:4], "big")


def sample_seed(seed: int, sample: int) -> int:
    """Seed of one of several samples of every prompt: the first has the seed itself, more of them change no other."""
    return seed if sample == 0 else prompt_seed(seed, f"sample {sample}")


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, with its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
