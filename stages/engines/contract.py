"""What a generation engine is: prompt strings go in, one `Generation` each comes out.

Four engines keep this contract: `vllm` (fast, GPU or CPU), `ray` (the same on a cluster), `openai` (a server) and
`transformers` (runs wherever torch runs). One suite of tests holds all to it; in float32 they give the same greedy
text. The rules that make them equal stand here and in `models.tokenizer`: how a prompt becomes tokens, when it is too
long, and what seed it is sampled with. Importing costs no torch.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Literal, Self, TypeAlias

from data.errors import ConfigError, EngineError, MolsakiError, first_line
from stages.engines.openai_server import Server
from stages.runtime.progress import StopSignal
from stages.settings import Device, Dtype

FinishReason = Literal["stop", "length", "too_long"]
EngineArguments = Mapping[str, Any]
"""Whatever JSON can say; each engine checks its own."""
NEUTRAL_ARGUMENTS = frozenset(
    {
        "batch_size",
        "block_size",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "load_format",
        "max_num_batched_tokens",
        "max_num_seqs",
        "pipeline_parallel_size",
        "swap_space",
        "tensor_parallel_size",
        "use_tqdm_on_load",
    }
)
"""Engine arguments that say how fast, not what: experiments that differ in them share a store."""
NEUTRAL_IF_GREEDY = frozenset({"speculative_config"})
"""Those that say so at temperature 0; with sampling, tokens that were guessed ahead are drawn by other numbers."""


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
    is told. `stop` ends the waiting for an answer that is slow to come. `cluster` is for `ray` alone. `extension` names
    a class whose methods vLLM's workers get, for `VllmEngine.ask_workers`.
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
    extension: str | None = None


class Engine(ABC):
    """Generates text; a context manager that closes itself."""

    reloads: ClassVar[bool] = False
    """Whether `reload` and `log_probabilities` are there."""

    @property
    def asked_again(self) -> Counter[str]:
        """Requests that were sent once more, by what came instead of an answer; nothing but a server needs them."""
        return Counter()

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

    def reload(self, model: str) -> None:
        """Take the weights of another model that differs in nothing else; whether they are right is for others to say.

        No stream may run.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no other weights")

    def log_probabilities(self, ids: Sequence[int]) -> list[float]:
        """The log-probability, in nats, of each token of a text but the first; no stream may run."""
        raise NotImplementedError(f"{type(self).__name__} tells no log-probabilities")

    @abstractmethod
    def close(self) -> None:
        """Give memory and processes back; closing twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


def answered(
    who: str, count: int, answer: Callable[[], Answer], reason: Callable[[BaseException], str] = first_line
) -> Answers:
    """Yield what `answer` gives so many times; whatever a library raises meanwhile becomes an `EngineError`."""
    unanswered = count
    try:
        while unanswered:
            found = answer()
            unanswered -= 1
            yield found
    except MolsakiError:
        raise
    except Exception as error:  # that a process is dead, or whatever a library or a node has against a request
        raise EngineError(
            f"{who} failed with {unanswered:,} prompts unanswered ({reason(error)}); what was committed before is "
            "kept, run the same command to go on"
        ) from error


def positive_argument(arguments: EngineArguments, name: str) -> int | None:
    """An argument that counts something, None where it is not given; `ConfigError` unless it is a number from 1."""
    value = arguments.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ConfigError(f"engine_arguments.{name}: expected a whole number from 1, found {value!r}")


def prompt_seed(seed: int, prompt: str) -> int:
    """Seed of one prompt's sampling: its text depends on no other prompt, so an interrupted run continues alike."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()[:4], "big")


def sample_seed(seed: int, sample: int) -> int:
    """Seed of one of several samples of every prompt: the first has the seed itself, more of them change no other."""
    return seed if sample == 0 else prompt_seed(seed, f"sample {sample}")
