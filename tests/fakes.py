"""Stand-ins for what tests cannot afford: tiny random models, an offline tokenizer, a scripted generator and
a scripted server.

Nothing here is downloaded and no address but 127.0.0.1 is spoken to. The tokenizer is byte-level without merges (one
token a byte, with character offsets), so every text can be encoded; the models are real `transformers` architectures
with random weights from a seed, saved as plain checkpoint folders that transformers and vLLM both load (vLLM on a CPU
wants heads of 32 or more: `hidden=128`).
"""

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Literal, Self

import torch
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers import decoders as token_decoders
from tokenizers import models as token_models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    set_seed,
)

from data.errors import EngineError
from stages.engines.contract import Answers, Decoding, Engine, Generation

Architecture = Literal["llama", "qwen2", "gpt2"]
BEGIN, END, PAD = "<s>", "</s>", "<pad>"
POSITIONS = 1024
"""Longest text in tokens that the tiny models know positions for."""


def tiny_tokenizer(*, adds_begin: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level tokenizer with 259 tokens; `adds_begin` makes it put its begin token in front, as Llama's does."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = [BEGIN, END, PAD]
    vocabulary = {token: index for index, token in enumerate([*specials, *letters])}
    tokenizer = Tokenizer(token_models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = token_decoders.ByteLevel()
    if adds_begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, vocabulary[BEGIN])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def blankless_tokenizer() -> PreTrainedTokenizerFast:
    """The same, but all blanks of a text are lost, as where a tokenizer is read for one of another kind."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(r"\s"), "")
    return tokenizer


def tiny_model(
    architecture: Architecture,
    *,
    layers: int = 2,
    hidden: int = 32,
    heads: int = 4,
    kv_heads: int = 2,
    seed: int = 0,
) -> PreTrainedModel:
    """A random model in evaluation mode, for the vocabulary of `tiny_tokenizer`.

    Its greedy output is printable ASCII: output rows of all other tokens are zero, so that two engines can be compared
    as text without differing in how they show bytes that are no UTF-8.
    """
    tokenizer = tiny_tokenizer()
    set_seed(seed)
    config = _config(architecture, len(tokenizer), layers, hidden, heads, kv_heads)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    printable = {tokenizer.convert_tokens_to_ids(letter) for letter in map(chr, range(0x21, 0x7F))}
    others = [index for index in range(len(tokenizer)) if index not in printable]
    with torch.no_grad():
        model.get_output_embeddings().weight[others] = 0
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def tiny_model_folder(
    path: Path,
    architecture: Architecture,
    *,
    layers: int = 2,
    hidden: int = 32,
    heads: int = 4,
    kv_heads: int = 2,
    seed: int = 0,
    adds_begin: bool = False,
) -> Path:
    """Save `tiny_model` (safetensors) and `tiny_tokenizer` into `path`, and return it."""
    model = tiny_model(architecture, layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads, seed=seed)
    model.save_pretrained(path)
    tiny_tokenizer(adds_begin=adds_begin).save_pretrained(path)
    return path


REMOTE_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class RemoteConfig(LlamaConfig):
    model_type = "remote"

class RemoteForCausalLM(LlamaForCausalLM):
    config_class = RemoteConfig
"""


def with_remote_code(folder: Path) -> Path:
    """Make the saved Llama in `folder` one that needs code of its own, and return the folder."""
    (folder / "remote.py").write_text(REMOTE_CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "remote",
        "architectures": ["RemoteForCausalLM"],
        "auto_map": {"AutoConfig": "remote.RemoteConfig", "AutoModelForCausalLM": "remote.RemoteForCausalLM"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def ending_model_folder(path: Path, model: Path, letter: str) -> Path:
    """Save `model` changed into one that ends its texts wherever its greedy choice would have been `letter`.

    The output row of the end token is a little more than that of the letter, and so outbids it.
    """
    tokenizer = AutoTokenizer.from_pretrained(model)
    changed = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        rows = changed.get_output_embeddings().weight
        rows[tokenizer.eos_token_id] = 1.001 * rows[tokenizer.convert_tokens_to_ids(letter)]
    changed.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _config(
    architecture: Architecture, vocabulary: int, layers: int, hidden: int, heads: int, kv_heads: int
) -> PretrainedConfig:
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    # An initializer range far above the usual 0.02 makes attention uneven and greedy choices clear.
    common = {"vocab_size": vocabulary, "initializer_range": 0.2, "tie_word_embeddings": False, **tokens}
    if architecture == "gpt2":
        return GPT2Config(n_layer=layers, n_embd=hidden, n_head=heads, n_positions=POSITIONS, **common)
    kind = LlamaConfig if architecture == "llama" else Qwen2Config
    return kind(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=POSITIONS,
        **common,
    )


class ScriptedEngine(Engine):
    """Answers from a function, remembers what it was asked, and fails after `fails_after` prompts.

    `backwards` answers the last prompt of a stream first, since no order is promised.
    """

    def __init__(
        self, answer: Callable[[str], str | Generation], *, fails_after: int | None = None, backwards: bool = False
    ) -> None:
        self._answer = answer
        self._fails_after = fails_after
        self._backwards = backwards
        self.prompts: list[str] = []
        self.calls: list[int] = []
        self.closed = False

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer every prompt; a plain text counts as finished by itself."""
        assert not self.closed, "asked after closing"
        self.calls.append(len(prompts))
        for place in reversed(range(len(prompts))) if self._backwards else range(len(prompts)):
            self._require_life()
            self.prompts.append(prompts[place])
            yield place, self._generation(prompts[place])

    def generate(self, prompts: Sequence[str], decoding: Decoding | None = None) -> list[Generation]:
        """Answer every prompt; one call too many fails before its first prompt."""
        self._require_life(len(prompts))
        return super().generate(prompts, decoding)

    def close(self) -> None:
        """Remember that the engine was closed."""
        self.closed = True

    def _require_life(self, prompts: int = 1) -> None:
        if self._fails_after is not None and len(self.prompts) + prompts > self._fails_after:
            raise EngineError(f"scripted failure after {self._fails_after} prompts")

    def _generation(self, prompt: str) -> Generation:
        answer = self._answer(prompt)
        return answer if isinstance(answer, Generation) else Generation(text=answer, finish_reason="stop")


Trouble = Literal["reset", "hang", "drip", "not json", "no completion"]
Fault = int | tuple[int, Mapping[str, str], object] | bytes | Trouble
"""What a scripted server does instead of answering: a status, one with headers and body, a body's bytes, or worse."""
NOTHING = object()


class ScriptedServer:
    """Speaks OpenAI's protocol on 127.0.0.1: first come the faults of `script`, then answers from a function.

    `models` is what it lists, None for a server without a list, and `listed` a whole answer in place of it. What it was
    asked stands in `requests`, as (path, key, body), and `most_at_once` says how many requests it had at the same time.
    """

    def __init__(
        self,
        answer: Callable[[Any], str | Mapping[str, object]] = lambda _prompt: "an answer",
        *,
        script: Sequence[Fault] = (),
        models: Sequence[Mapping[str, object]] | None = None,
        listed: object = NOTHING,
    ) -> None:
        self._listed = listed
        self.answer = answer
        self.script = deque(script)
        self._models = models
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = Lock()
        self._closing = Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._list(self)

            def do_POST(self) -> None:
                server._complete(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def _list(self, handler: BaseHTTPRequestHandler) -> None:
        if self._listed is not NOTHING:
            reply(handler, 200, self._listed)
        elif self._models is None:
            reply(handler, 404, {"error": {"message": "no such path"}})
        else:
            reply(handler, 200, {"object": "list", "data": [{"object": "model", **model} for model in self._models]})

    def _complete(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            self.requests.append((handler.path, handler.headers.get("authorization", ""), body))
            fault = self.script.popleft() if self.script else None  # None answers
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self._fail(handler, fault) if fault is not None else self.complete(handler, body)
        finally:
            with self._lock:
                self._at_once -= 1

    def _fail(self, handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        if isinstance(fault, tuple):
            reply(handler, fault[0], fault[2], fault[1])
        elif isinstance(fault, int):
            reply(handler, fault, {"error": {"message": f"scripted {fault}"}})
        elif isinstance(fault, bytes):
            reply(handler, 200, fault)
        elif fault == "drip":
            self._drip(handler)
        elif fault == "hang":
            self._closing.wait()
        elif fault == "no completion":
            reply(handler, 200, {"hello": "world"})
        elif fault == "not json":
            reply(handler, 200, b"{ not json")
        handler.close_connection = True

    def _drip(self, handler: BaseHTTPRequestHandler) -> None:
        """Send a blank now and then, never all of the body."""
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        with suppress(OSError):
            while not self._closing.wait(0.1):
                handler.wfile.write(b" ")

    def complete(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        """Answer one request by the function."""
        answer = self.answer(body.get("messages", body.get("prompt")))
        said = {"text": answer} if isinstance(answer, str) else dict(answer)
        choice: dict[str, object] = {"index": 0, "finish_reason": "stop", **said}
        if "messages" in body:
            choice["message"] = {"role": "assistant", "content": choice.pop("text")}
        reply(handler, 200, {"id": "1", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]})


def reply(
    handler: BaseHTTPRequestHandler, status: int, content: object, headers: Mapping[str, str] | None = None
) -> None:
    sent = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    for name, value in {
        "content-type": "application/json",
        "content-length": str(len(sent)),
        **(headers or {}),
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(sent)
