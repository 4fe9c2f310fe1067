"""Stepwise attention (Eq. 2 after arXiv 2604.15701) inside vLLM's workers, from the queries and keys of its own pass.

In: requests that say in `extra_args` which of their tokens form steps and words. Out: for each of them S × K numbers a
layer, made by `stages.attention.kernels` when the layer computes its attention; nothing larger leaves it, and queries
are kept no longer than that.

This is the one module that relies on what vLLM does not promise: the attention layers in `static_forward_context`, the
arguments of an attention implementation's `forward`, and the runner's order of requests. It was tested with the
versions in `TESTED`; tests/stages/attention/in_vllm holds it against the real thing. Layers are met at their
implementation, which runs outside of compiled code and of piecewise CUDA graphs, not by hooks of modules, which both
leave out.

Shapes: B texts of a group, T tokens, H heads, G key-value heads, D head size, L layers, S reasoning steps, K critical
words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from cache.step_totals import RECEIVERS
from stages.attention.in_vllm.texts import ASKED, located_of
from stages.attention.kernels import AttentionCall, Way, attend
from stages.attention.tokens import Located, Pooling, pooling

TESTED = ("0.32.0",)
"""Versions of vLLM that the tests ran with."""
EXTENSION = f"{__name__}.AttentionExtension"
PADDING = 1.25
"""Most that a group of texts may be padded to, as a multiple of its tokens."""


class AttentionExtension:
    """Methods that vLLM adds to each of its workers."""

    def molsaki_attention_begin(self) -> dict[str, Any]:
        """Begin to watch the layers, once; says which there are, or why they cannot be watched."""
        if not hasattr(self, "_molsaki_watch"):
            try:
                self._molsaki_watch = Watch(self.model_runner, self.vllm_config)  # type: ignore[attr-defined]
            except UnknownLayerError as error:
                return {"refused": str(error)}
        return self._molsaki_watch.described()

    def molsaki_attention_take(self) -> dict[str, Any]:
        """What was seen since it was last asked for."""
        return self._molsaki_watch.take()


class UnknownLayerError(Exception):
    """A layer whose attention depends on something that is not known here, or a runner that does not tell enough."""


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Texts of like length that are computed together, padded to the longest."""

    asked: Sequence[Mapping[str, Any]]
    located: Sequence[Located]
    index_BT: torch.Tensor
    """The place of each of their tokens in the step of the engine."""
    pool: Pooling


class Watch:
    """Sees what the attention layers of one worker compute, and keeps what texts ask for."""

    def __init__(self, runner: Any, config: Any) -> None:
        """Raises `UnknownLayerError` for a layer, or a runner, that cannot be followed exactly."""
        if not hasattr(runner, "input_batch"):
            raise UnknownLayerError("its second model runner; leave VLLM_USE_V2_MODEL_RUNNER unset")
        if reason := _parted(config):
            raise UnknownLayerError(reason)
        self._runner = runner
        self._layers = _layers(config.compilation_config.static_forward_context)
        self._groups: list[_Group] = []
        self._seen: list[list[torch.Tensor]] = []
        self._found: list[dict[str, Any]] = []
        self._failed: dict[str, str] = {}
        self._apart: dict[str, float] = {}
        self._ways: dict[int, Way] = {}
        self._masks: dict[tuple[int, int], torch.Tensor] = {}
        for place, (_, layer) in enumerate(self._layers):
            layer.impl.forward = partial(self._forward, place, layer.impl.forward)

    def described(self) -> dict[str, Any]:
        """The layers by number, and how many heads of them this worker has."""
        return {"layers": [number for number, _ in self._layers], "heads": self._layers[0][1].num_heads}

    def take(self) -> dict[str, Any]:
        """The texts that were seen whole, those that were not, and how each layer was computed."""
        taken = {
            **self.described(),
            "texts": self._found,
            "failed": self._failed,
            "apart": self._apart,
            "ways": {str(number): way for number, way in self._ways.items()},
        }
        self._found, self._failed, self._apart = [], {}, {}
        return taken

    def _forward(
        self,
        place: int,
        forward: Callable[..., Any],
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: Any,
        *arguments: Any,
        **named: Any,
    ) -> Any:
        if attn_metadata is not None:  # none in a trial run that measures memory
            if place == 0:
                self._groups, self._seen = self._asked(query.device), []
            if self._groups:
                self._see(place, layer, query, key)
        return forward(layer, query, key, value, kv_cache, attn_metadata, *arguments, **named)

    def _asked(self, device: torch.device) -> list[_Group]:
        """The texts of this step of the engine that are to be seen, of like lengths together.

        Where each begins is what the runner has counted on the CPU: not all back-ends have it in their metadata.
        """
        names = self._runner.input_batch.req_ids
        states = [self._runner.requests[name] for name in names]
        wanted = [(number, state, _asked_by(state)) for number, state in enumerate(states)]
        if not any(asked for _, _, asked in wanted):
            return []
        starts = self._runner.query_start_loc.np[: len(names) + 1].tolist()
        whole: list[tuple[int, Mapping[str, Any]]] = []
        for number, state, asked in wanted:
            if asked is None:
                continue
            tokens, length = starts[number + 1] - starts[number], len(state.prompt_token_ids)
            if tokens == length and state.num_computed_tokens == 0:
                whole.append((starts[number], asked))
            elif state.num_computed_tokens < length:
                self._failed[asked["key"]] = f"{tokens} of its {length} tokens at once"
        return _grouped(whole, device)

    def _see(self, place: int, layer: Any, query: torch.Tensor, key: torch.Tensor) -> None:
        number = self._layers[place][0]
        found = []
        for group in self._groups:
            call = self._call(layer, query, key, group.index_BT)
            _, pooled_BSK, self._ways[number] = attend(call, group.pool)
            found.append(pooled_BSK)
            for row, asked in enumerate(group.asked):
                if asked["compare"]:
                    apart = from_formula(call, group.pool, row, pooled_BSK)
                    self._apart[asked["key"]] = max(apart, self._apart.get(asked["key"], 0.0))
        self._seen.append(found)
        if place == len(self._layers) - 1:
            self._keep()

    def _call(self, layer: Any, query: torch.Tensor, key: torch.Tensor, index_BT: torch.Tensor) -> AttentionCall:
        query_BHTD = query.view(-1, layer.num_heads, layer.head_size)[index_BT].transpose(1, 2)
        key_BGTD = key.view(-1, layer.num_kv_heads, layer.head_size)[index_BT].transpose(1, 2)
        window = layer.sliding_window
        mask = None
        if window is not None and 0 < window < index_BT.shape[1]:
            mask = self._window(index_BT.shape[1], window, query.device)
        sinks = getattr(layer.impl, "sinks", None)
        return AttentionCall(
            query_BHTD=query_BHTD,
            key_BGTD=key_BGTD,
            value_BGTD=key_BGTD,
            mask=mask,
            is_causal=mask is None,
            scale=float(layer.impl.scale),
            softcap=getattr(layer.impl, "logits_soft_cap", None) or None,
            sinks_H=sinks,
        )

    def _window(self, length: int, window: int, device: torch.device) -> torch.Tensor:
        """Which tokens a token may look at (T, T), where it looks back at the last `window`, itself among them."""
        if (length, window) not in self._masks:
            i_T = torch.arange(length, device=device)
            back_TT = i_T[:, None] - i_T
            self._masks = {(length, window): (back_TT >= 0) & (back_TT < window)}  # one at a time: it is T × T
        return self._masks[length, window]

    def _keep(self) -> None:
        """Take what all layers have seen to the CPU, text by text."""
        for number, group in enumerate(self._groups):
            stacked_BLSK = torch.stack([layer[number] for layer in self._seen], dim=1).float().cpu().numpy()
            words_BLSK, others_BLSK = np.split(stacked_BLSK, [stacked_BLSK.shape[-1] - len(RECEIVERS)], axis=-1)
            for row, (asked, located) in enumerate(zip(group.asked, group.located, strict=True)):
                words = words_BLSK[row, :, : located.steps, : len(located.tokens_of_word)]
                others = others_BLSK[row, :, : located.steps]
                self._failed.pop(asked["key"], None)
                self._found.append(
                    {
                        "key": asked["key"],
                        "shape": list(words.shape),
                        "words": words.astype("<f4").tobytes(),
                        "receivers": others.astype("<f4").tobytes(),
                    }
                )
        self._groups, self._seen = [], []


def from_formula(call: AttentionCall, pool: Pooling, row: int, pooled_BSK: torch.Tensor) -> float:
    """How far the words' part of `pooled_BSK` is from the plain formula for one text, ‖·‖ / ‖·‖; T × T numbers."""
    query_HTD, key_GTD = call.query_BHTD[row].double(), call.key_BGTD[row].double()
    heads, length, _ = query_HTD.shape
    key_HTD = key_GTD.repeat_interleave(heads // key_GTD.shape[0], dim=0)
    scores_HTT = query_HTD @ key_HTD.transpose(1, 2) * call.scale
    if call.softcap is not None:
        scores_HTT = torch.tanh(scores_HTT / call.softcap) * call.softcap
    if call.mask is None:
        may_TT = torch.ones(length, length, dtype=torch.bool, device=scores_HTT.device).tril()
    else:
        may_TT = call.mask
    scores_HTT = scores_HTT.masked_fill(~may_TT, -torch.inf)
    if call.sinks_H is not None:
        sinks_HT1 = call.sinks_H.double()[:, None, None].expand(heads, length, 1)
        scores_HTT = torch.cat((scores_HTT, sinks_HT1), dim=-1)
    mean_TT = scores_HTT.softmax(dim=-1)[..., :length].mean(dim=0)
    words = pool.words_BTK.shape[2] - 2
    expected_SK = pool.steps_BST[row].double() @ mean_TT @ pool.words_BTK[row, :, :words].double()
    found_SK = pooled_BSK[row, :, :words].double()
    return float(torch.linalg.norm(found_SK - expected_SK) / torch.linalg.norm(expected_SK).clamp(min=1e-12))


def _asked_by(state: Any) -> Mapping[str, Any] | None:
    """What a request asks for, if it asks at all."""
    extra = getattr(state.sampling_params, "extra_args", None) or {}
    asked: Mapping[str, Any] | None = extra.get(ASKED)
    return asked


def _grouped(whole: Sequence[tuple[int, Mapping[str, Any]]], device: torch.device) -> list[_Group]:
    """Texts of like length together, so that little of a group is padding."""
    texts = sorted(((start, asked, located_of(asked)) for start, asked in whole), key=lambda text: len(text[2].ids))
    groups: list[list[tuple[int, Mapping[str, Any], Located]]] = []
    tokens = 0
    for text in texts:
        length = len(text[2].ids)
        if groups and (len(groups[-1]) + 1) * length <= PADDING * (tokens + length):
            groups[-1].append(text)
            tokens += length
        else:
            groups.append([text])
            tokens = length
    return [_group(texts, device) for texts in groups]


def _group(texts: Sequence[tuple[int, Mapping[str, Any], Located]], device: torch.device) -> _Group:
    located = [one for _, _, one in texts]
    longest = max(len(one.ids) for one in located)
    index_BT = np.stack([start + np.minimum(np.arange(longest), len(one.ids) - 1) for start, _, one in texts])
    return _Group(
        asked=[asked for _, asked, _ in texts],
        located=located,
        index_BT=torch.from_numpy(index_BT).to(device),
        pool=pooling(located, longest, receivers=True).to(device),
    )


def _parted(config: Any) -> str | None:
    """Why a call of a layer has not all texts of a step of the engine, each whole; None where it has."""
    parallel, graphs = config.parallel_config, config.compilation_config.cudagraph_mode
    if parallel.prefill_context_parallel_size > 1:
        return "texts that are spread over GPUs token by token (prefill_context_parallel_size)"
    if parallel.use_ubatching:
        return "steps that are computed in parts (enable_dbo, ubatch_size)"
    if graphs is not None and graphs.mixed_mode().name == "FULL":
        return "CUDA graphs of whole steps; give engine_arguments.compilation_config another cudagraph_mode than FULL"
    return None


def _layers(context: Mapping[str, Any]) -> list[tuple[int, Any]]:
    """The attention layers of this worker by number; raises `UnknownLayerError` for one that cannot be followed."""
    from vllm.model_executor.layers.attention.attention import Attention
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.model_executor.layers.mamba.abstract import MambaBase
    from vllm.model_executor.models.utils import extract_layer_index

    found = []
    for name, layer in context.items():
        if not isinstance(layer, AttentionLayerBase) or isinstance(layer, MambaBase):
            continue  # experts, and layers of hybrid models that give no attention weights
        reason = _unknown(layer) if type(layer) is Attention else f"{type(layer).__name__} is not followed"
        if reason:
            raise UnknownLayerError(f"layer {name}: {reason}")
        found.append((int(extract_layer_index(name)), layer))
    numbers = [number for number, _ in found]
    if not found or len(set(numbers)) != len(numbers):
        raise UnknownLayerError(f"{len(found)} attention layers with the numbers {sorted(numbers)} are none to follow")
    return sorted(found, key=lambda one: one[0])


def _unknown(layer: Any) -> str | None:
    """Why the weights of a layer are not those that queries, keys, scale, window, soft cap and sinks say; or None."""
    if layer.attn_type != "decoder":
        return f"it looks at more than the tokens in front ({layer.attn_type})"
    if getattr(layer.impl, "alibi_slopes", None) is not None:
        return "its scores depend on distance (ALiBi), which is not followed"
    if layer.kv_sharing_target_layer_name is not None:
        return "it has no keys of its own"
    if getattr(layer, "kv_cache_update_bypass", False):  # since 0.33
        return "its keys are stored past it"
    if layer.query_quant is not None or str(layer.kv_cache_dtype).startswith(("fp8", "int8", "nvfp4")):
        return f"it computes with keys in {layer.kv_cache_dtype}, and what comes by is not rounded so"
    if layer.use_mm_prefix or getattr(layer, "use_alibi_sqrt", False):
        return "its mask is not causal"
    if not hasattr(layer.impl, "scale"):
        return f"{type(layer.impl).__name__} does not tell its scale"
    return None
