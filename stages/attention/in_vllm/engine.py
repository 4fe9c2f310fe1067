"""Asking a running vLLM where it looks: texts go in, stepwise attention of each comes out, whatever it was spread over.

Tensor-parallel workers have some of the heads each, pipeline-parallel ones some of the layers: the mean over heads is
that of the workers' means, each weighed by its heads.

Shapes: L layers, S reasoning steps, K critical words.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cache.step_totals import RECEIVERS
from data.errors import EngineError, ModelError, first_line
from stages.attention.in_vllm.texts import ASKED, asked_of
from stages.attention.in_vllm.worker import TESTED
from stages.attention.kernels import Way
from stages.attention.stepwise import StepwiseAttention
from stages.attention.tokens import Located
from stages.engines.kinds.vllm import VllmEngine


class VllmAttention:
    """Stepwise attention of texts, by an engine that was started with the extension of `worker`."""

    def __init__(self, engine: VllmEngine) -> None:
        """Raises `ModelError` for a model whose attention cannot be followed, `EngineError` where vLLM has changed."""
        self._engine = engine
        self._reasons: dict[str, str] = {}
        self.ways: dict[int, Way] = {}
        """How each layer was computed."""
        self.apart = 0.0
        """How far the texts that were compared are from the plain formula, the largest."""
        self.read_again = 0
        """Texts that the engine had cut, and that were read once more by themselves."""
        try:
            described = engine.ask_workers("molsaki_attention_begin")
        except EngineError as error:
            raise _of_version(error) from error
        for one in described:
            if "refused" in one:
                raise ModelError(f"attention.engine: vllm cannot follow {one['refused']}; use transformers")

    @property
    def longest(self) -> int:
        """Most tokens of a text: the engine wants room for one more, and to compute all of it in one step."""
        return min(self._engine.window - 1, self._engine.tokens_at_once)

    def of(self, keys: Sequence[str], located: Sequence[Located], *, compare: bool = False) -> list[StepwiseAttention]:
        """Stepwise attention of each text, none longer than `longest`; with `compare` `apart` is found as well.

        Raises `EngineError` where the engine fails, or does not compute a text as a whole.
        """
        found: dict[str, StepwiseAttention] = {}
        texts = dict(zip(keys, located, strict=True))
        self._read(texts, found, compare=compare)
        for key in texts.keys() - found.keys():
            self.read_again += 1
            self._read({key: texts[key]}, found, compare=compare)
        if missing := [key for key in keys if key not in found]:
            raise EngineError(f"vLLM does not compute record {missing[0]} in one go: {self._reasons.get(missing[0])}")
        return [found[key] for key in keys]

    def _read(self, texts: Mapping[str, Located], found: dict[str, StepwiseAttention], *, compare: bool) -> None:
        asked = [{ASKED: asked_of(key, one, compare=compare)} for key, one in texts.items()]
        for _ in self._engine.read([one.ids.tolist() for one in texts.values()], asked):
            pass
        taken = self._engine.ask_workers("molsaki_attention_take")
        found |= together(taken)
        self._reasons |= {key: reason for one in taken for key, reason in one["failed"].items()}
        self.apart = max(self.apart, *(apart for one in taken for apart in one["apart"].values()), 0.0)
        self.ways |= {int(number): way for one in taken for number, way in one["ways"].items()}


def together(taken: Sequence[Mapping[str, Any]]) -> dict[str, StepwiseAttention]:
    """What all workers have seen, by key: layers in order, each the mean over all heads."""
    by_layers: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    for one in taken:
        by_layers.setdefault(tuple(one["layers"]), []).append(one)
    order = np.argsort([layer for layers in by_layers for layer in layers])
    parts = [_mean_over_heads(workers) for workers in by_layers.values()]
    return {
        key: StepwiseAttention(
            words=np.concatenate([part[key][0] for part in parts])[order],
            receivers=np.concatenate([part[key][1] for part in parts])[order],
        )
        for key in (parts[0] if parts else ())
        if all(key in part for part in parts)
    }


def _mean_over_heads(workers: Sequence[Mapping[str, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Words (L, S, K) and receivers (L, S, 3) of the texts that every worker has seen."""
    heads = sum(one["heads"] for one in workers)
    sums: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    seen: dict[str, int] = {}
    for one in workers:
        for text in {text["key"]: text for text in one["texts"]}.values():
            layers, steps, words = text["shape"]
            shapes = (text["words"], (layers, steps, words)), (text["receivers"], (layers, steps, len(RECEIVERS)))
            mine = tuple(np.frombuffer(data, "<f4").reshape(shape) * (one["heads"] / heads) for data, shape in shapes)
            before = sums.get(text["key"])
            sums[text["key"]] = (mine[0], mine[1]) if before is None else (before[0] + mine[0], before[1] + mine[1])
            seen[text["key"]] = seen.get(text["key"], 0) + 1
    return {key: found for key, found in sums.items() if seen[key] == len(workers)}


def vllm_version() -> str:
    """The version of vLLM, whatever package brings it."""
    from vllm import __version__

    return str(__version__)


def _of_version(error: EngineError) -> EngineError:
    version = vllm_version()
    if version in TESTED:
        return error
    return EngineError(
        f"vLLM {version}: where it looks is found by what it does not promise to keep, which was tested with "
        f"{', '.join(TESTED)} ({first_line(error)}); install that one, or use attention.engine: transformers"
    )
