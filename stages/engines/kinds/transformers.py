"""The engine that runs wherever torch runs: prompts go in, generations come out, by batches of similar length.

Batches are padded on the left. Sampling adds seeded Gumbel noise to the logits and takes the maximum, which draws from
the same distribution as sampling does, but each row from its own generator: a row's text does not depend on its batch.
"""

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from data.errors import EngineError
from stages.engines.contract import (
    TOO_LONG,
    Answers,
    Decoding,
    Engine,
    EngineSetup,
    Generation,
    positive_argument,
    prompt_seed,
)
from stages.models.load import known_positions, load_causal_lm
from stages.models.tokenizer import encode, end_tokens, load_tokenizer
from stages.runtime.device import torch_device

BATCH_SIZE = 32
TINY = 1e-30
CONTEXT = 4
"""Prompt tokens decoded together with the output, since some tokenizers drop the blank in front of a first token."""


def _loaded(setup: EngineSetup, arguments: Mapping[str, object]) -> tuple[Any, Any]:
    """Model and tokenizer; a signal that arrives meanwhile ends it at once."""
    trusted = setup.trust_remote_code
    with nullcontext() if setup.stop is None else setup.stop.at_once("what was answered before"):
        model = load_causal_lm(setup.model, setup.revision, setup.dtype, arguments, trust_remote_code=trusted)
        tokenizer = load_tokenizer(setup.model, setup.revision, trust_remote_code=trusted)
        return model.to(torch_device(setup.device)).eval(), tokenizer


class TransformersEngine(Engine):
    """`transformers`' own generation; `batch_size` and `max_model_len` are its arguments, others go to the model."""

    def __init__(self, setup: EngineSetup, loaded: tuple[Any, Any] | None = None) -> None:
        """Load what `setup` names; `loaded` are model and tokenizer where they are in memory already."""
        arguments = dict(setup.arguments)
        self._batch_size = positive_argument(arguments, "batch_size") or BATCH_SIZE
        window = positive_argument(arguments, "max_model_len") or sys.maxsize
        for own in ("batch_size", "max_model_len"):
            arguments.pop(own, None)
        self._setup = setup
        self._model, self._tokenizer = loaded or _loaded(setup, arguments)
        self._window = min(window, known_positions(self._model))
        self._ends = end_tokens(self._model.generation_config.eos_token_id, self._tokenizer.eos_token_id)
        pad, known = self._tokenizer.pad_token_id, self._model.get_input_embeddings().weight.shape[0]
        # transformers numbers a pad token that tokenizer.json lacks, and the model may have no embedding of it
        self._pad = pad if pad is not None and pad < known else min(self._ends or {0})
        # The checkpoint's own preferences (sampling, repetition penalty) would otherwise fill what we leave open.
        self._model.generation_config = GenerationConfig(
            eos_token_id=sorted(self._ends) or None, pad_token_id=self._pad
        )

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer every prompt, batch by batch; those that are too long come first."""
        decoding = decoding or self._setup.decoding
        encoded = encode(self._tokenizer, prompts, adds_special_tokens=self._setup.adds_special_tokens)
        yield from ((row, TOO_LONG) for row, ids in enumerate(encoded) if len(ids) >= self._window)
        for room, rows in self._batches(encoded, decoding.max_tokens):
            seeds = [prompt_seed(decoding.seed, prompts[row]) for row in rows]
            samplers = [_SeededSampling(decoding, seeds, self._model.device)] if decoding.temperature > 0 else []
            batch = self._generate_batch([encoded[row] for row in rows], samplers, room, decoding.stop)
            yield from zip(rows, batch, strict=True)

    def close(self) -> None:
        """Free the model's memory."""
        self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _batches(self, encoded: Sequence[Sequence[int]], limit: int) -> Iterator[tuple[int, list[int]]]:
        """Yield (tokens to generate, rows): similar lengths together, and the same room in the window."""
        rooms = {row: min(limit, self._window - len(ids)) for row, ids in enumerate(encoded)}
        for room in sorted({room for room in rooms.values() if room > 0}, reverse=True):
            rows = sorted((row for row in rooms if rooms[row] == room), key=lambda row: len(encoded[row]))
            for start in range(0, len(rows), self._batch_size):
                yield room, rows[start : start + self._batch_size]

    def _generate_batch(
        self, prompts: Sequence[list[int]], samplers: Sequence["_SeededSampling"], room: int, stop: Sequence[str]
    ) -> list[Generation]:
        """Generate up to `room` tokens for each of the prompts together."""
        ids_BT, mask_BT = _pad_left(prompts, self._pad, self._model.device)
        start = ids_BT.shape[1]

        def stopped(all_BT: Tensor, _scores: object, **_: object) -> Tensor:
            if self._setup.stop is not None:
                self._setup.stop.check("what was answered before")
            return self._stopped(prompts, all_BT[:, start:], stop)

        try:
            with torch.inference_mode():
                all_BT = self._model.generate(
                    input_ids=ids_BT,
                    attention_mask=mask_BT,
                    do_sample=False,
                    max_new_tokens=room,
                    logits_processor=LogitsProcessorList(samplers),
                    stopping_criteria=StoppingCriteriaList([stopped]),
                )
        except torch.OutOfMemoryError as error:
            size = len(prompts)
            raise EngineError(f"out of memory with {size} prompts; lower engine_arguments.batch_size") from error
        rows = zip(prompts, all_BT[:, start:].tolist(), strict=True)
        return [self._finish(prompt, new, stop) for prompt, new in rows]

    def _stopped(self, prompts: Sequence[list[int]], new_BT: Tensor, stop: Sequence[str]) -> Tensor:
        """Which rows hold a stop string after their prompt."""
        if not stop:
            return torch.zeros(len(new_BT), dtype=torch.bool, device=new_BT.device)
        rows = zip(prompts, new_BT.tolist(), strict=True)
        found = [_cut(self._decode(prompt, new), stop) is not None for prompt, new in rows]
        return torch.tensor(found, device=new_BT.device)

    def _finish(self, prompt: list[int], new: list[int], stop: Sequence[str]) -> Generation:
        """Cut a row at its end token or stop string, whichever comes first; what follows is padding."""
        end = next((place for place, token in enumerate(new) if token in self._ends), None)
        text = self._decode(prompt, new[:end])
        cut = _cut(text, stop)
        ended = end is not None or cut is not None
        return Generation(text=text if cut is None else cut, finish_reason="stop" if ended else "length")

    def _decode(self, prompt: list[int], new: list[int]) -> str:
        context = prompt[-CONTEXT:]
        before: str = self._tokenizer.decode(context, skip_special_tokens=True)
        both: str = self._tokenizer.decode(context + new, skip_special_tokens=True)
        return both[len(before) :]


class _SeededSampling:
    """Logits processor after which the maximum is a sample from the nucleus, drawn by each row's own generator."""

    def __init__(self, decoding: Decoding, seeds: Sequence[int], device: torch.device) -> None:
        self._decoding = decoding
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Temperature, nucleus, then Gumbel noise (−log of an exponential): argmax(x + Gumbel) ~ softmax(x)."""
        scores_BV = _keep_nucleus(scores.float() / self._decoding.temperature, self._decoding.top_p)
        noise_BV = torch.empty_like(scores_BV)
        for row_V, generator in zip(noise_BV, self._generators, strict=True):
            row_V.exponential_(generator=generator)
        return scores_BV - noise_BV.clamp_min(TINY).log()


def _cut(text: str, stop: Sequence[str]) -> str | None:
    """The text before the first stop string; None where there is none."""
    places = [place for each in stop if (place := text.find(each)) >= 0]
    return text[: min(places)] if places else None


def _keep_nucleus(scores_BV: Tensor, top_p: float) -> Tensor:
    """Give −∞ to all but the smallest set of likeliest tokens whose probabilities reach `top_p`."""
    if top_p >= 1:
        return scores_BV
    sorted_BV, order_BV = scores_BV.sort(descending=True)
    probability_BV = sorted_BV.softmax(-1)
    outside_BV = probability_BV.cumsum(-1) - probability_BV >= top_p
    return scores_BV.masked_fill(outside_BV.scatter(1, order_BV, outside_BV), -torch.inf)


def _pad_left(prompts: Sequence[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = [[pad] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


ENGINE = TransformersEngine
