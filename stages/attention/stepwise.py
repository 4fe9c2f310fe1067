"""Stepwise attention (Eq. 2 after arXiv 2604.15701): how much each reasoning step looks at each critical word.

In: a causal language model of transformers, token ids, and which tokens form steps and words. Out: for every layer one
matrix steps × words, from an ordinary forward pass with fused attention kernels. Why: `output_attentions=True` builds
H × T × T numbers a layer; here nothing larger than T × C a head exists, C the tokens that words consist of.

How: models call attention through transformers' `AttentionInterface`; ours runs the call that theirs would have made
and has `stages.attention.kernels` keep what the steps looked at. Nothing hooks into layers, so rotary positions,
grouped heads, windows and normalised queries stay the model's own affair. A model that calls
`scaled_dot_product_attention` itself, past the interface, is met there. One that does neither is refused.

Shapes: B batch, T tokens, L layers with attention, H heads, D head size, S reasoning steps, K critical words.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from cache.step_totals import RECEIVERS
from data.errors import ModelError
from data.records import Marked
from stages.attention.batches import TokenBudget, compute_in_batches
from stages.attention.kernels import AttentionCall, Way, attend, plain_attention
from stages.attention.packing import Packing, packed_attention, text_mask
from stages.attention.packing import active as active_packing
from stages.attention.tokens import Located, Pooling, locate, padded_ids, pooling
from stages.models.tokenizer import begin_token

IMPLEMENTATION = "molsaki_pooled"
KNOWN_ARGUMENTS = frozenset(
    {
        "cache_position", "cu_seq_lens_k", "cu_seq_lens_q", "deterministic", "dropout", "is_causal", "max_length_k",
        "max_length_q", "num_items_in_batch", "output_attentions", "output_hidden_states", "output_router_logits",
        "position_bias", "position_embeddings", "position_ids", "return_dict", "s_aux", "scaling", "sliding_window",
        "softcap", "use_cache",
    }
)  # fmt: skip
"""What models hand to their attention function and is honoured here, or says nothing about the weights (a sliding
window stands in the mask as well). Anything else is refused: it might change the weights without our knowing."""

COMPUTED_HERE = frozenset({"softcap", "s_aux"})
"""Those of them that fused attention knows nothing of: transformers' own function leaves them out without a word (5.19)
or raises (5.24, of a soft cap)."""

WITHOUT_ATTENTION = frozenset({"linear_attention", "mamba", "conv", "moe", "mlp", "recurrent"})
"""Kinds of layers of hybrid models that give no attention weights."""


@dataclass
class Recording:
    """What one forward pass leaves behind, a tensor per layer index."""

    pooling: Pooling
    keep_values: bool = False
    attention_BSK: dict[int, torch.Tensor] = field(default_factory=dict)
    """K as in the pooling; its column of sinks stands behind."""
    values_BTC: dict[int, torch.Tensor] = field(default_factory=dict)
    """Value states with the key-value heads side by side, C = key-value heads × head size."""
    ways: dict[int, Way] = field(default_factory=dict)
    """How each layer's attention was found."""
    hidden_BTC: torch.Tensor | None = None
    """The body's last hidden states of the pass that `forward` has made."""
    _pooling_on: dict[torch.device, Pooling] = field(default_factory=dict)

    def stacked(self) -> torch.Tensor:
        """Stepwise attention of all layers, (B, L, S, K), on the device of the first."""
        return _stacked(self.attention_BSK)

    def values(self) -> torch.Tensor:
        """Value states of all layers, (B, L, T, C)."""
        return _stacked(self.values_BTC)

    def pooling_on(self, device: torch.device) -> Pooling:
        """The pooling on `device`; layers of one model may lie on several."""
        if device not in self._pooling_on:
            self._pooling_on[device] = self.pooling.to(device)
        return self._pooling_on[device]

    def blank(self) -> "Recording":
        """The same before anything was recorded."""
        return Recording(pooling=self.pooling, keep_values=self.keep_values, _pooling_on=self._pooling_on)

    def keep(self, layer: int, value_BGTD: torch.Tensor) -> None:
        """Remember a layer's value states, if anyone wants them."""
        if self.keep_values:
            self.values_BTC[layer] = value_BGTD.transpose(1, 2).flatten(2)

    def attend(self, layer: int, call: AttentionCall) -> torch.Tensor:
        """Output (B, H, T, D) of a layer's attention; its stepwise attention is kept."""
        if call.key_BGTD.shape[2] != call.query_BHTD.shape[2]:
            raise ModelError(f"layer {layer} looks at {call.key_BGTD.shape[2]} keys that are not the text's tokens")
        if call.mask is None and not call.is_causal and call.query_BHTD.shape[2] > 1:
            raise ModelError(f"layer {layer} looks at later tokens; a causal language model is needed")
        if layer in self.attention_BSK:
            raise ModelError(f"layer {layer} computes attention more than once; which of them counts is not known")
        output_BHTD, self.attention_BSK[layer], self.ways[layer] = attend(call, self.pooling_on(call.query_BHTD.device))
        return output_BHTD


def _stacked(of_layer: dict[int, torch.Tensor]) -> torch.Tensor:
    first = of_layer[min(of_layer)].device
    return torch.stack([of_layer[layer].to(first) for layer in sorted(of_layer)], dim=1)


_active: ContextVar[Recording | None] = ContextVar("molsaki_recording", default=None)


@contextmanager
def recording_attention(model: PreTrainedModel, pool: Pooling, *, keep_values: bool = False) -> Iterator[Recording]:
    """Record stepwise attention during the one forward pass made inside this context.

    Raises `ModelError` where a layer's attention cannot be seen, or where it depends on something that is not known
    here: a wrong number is never returned.
    """
    recording = Recording(pooling=pool, keep_values=keep_values)
    with _seen(model, recording), _recorded_by(recording):
        yield recording
    _require_all_layers(model, recording)


@contextmanager
def _recorded_by(recording: Recording | None) -> Iterator[None]:
    token = _active.set(recording)
    try:
        yield
    finally:
        _active.reset(token)


class _Repeating:
    """Inside, layers make the calls of a recording again, on texts packed as they were, and nothing of it is kept."""

    def __init__(self, recording: Recording | None, packing: Packing | None) -> None:
        self._recording, self._packing = recording, packing
        self._entered: list[ExitStack] = []

    def __enter__(self) -> None:
        again = None if self._recording is None else self._recording.blank()
        entered = ExitStack()
        entered.enter_context(packed_attention(self._packing))
        entered.enter_context(_recorded_by(again))
        self._entered.append(entered)

    def __exit__(self, *_: object) -> None:
        self._entered.pop().close()


def checkpointing_contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """`context_fn` for torch's non-reentrant gradient checkpointing of a student's layers.

    A layer is computed again in the backward pass, when `recording_attention` has long ended. What it recorded the
    first time keeps its gradient; the second time it has to make the same calls, for what they save, and no more.
    """
    return nullcontext(), _Repeating(_active.get(), active_packing.get())


@contextmanager
def attention_implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Let the model compute attention by `name`, and by what it had before afterwards."""
    before = model.config._attn_implementation
    if before == name or not model._can_set_attn_implementation():
        yield
        return
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _seen(model: PreTrainedModel, recording: Recording) -> Iterator[None]:
    """Make the model's attention calls come to the recording, through the interface or at the function itself."""
    if model._can_set_attn_implementation():
        with attention_implementation(model, IMPLEMENTATION):
            yield
    elif model._supports_sdpa and model.config._attn_implementation == "sdpa":
        if getattr(model, "is_gradient_checkpointing", False) and torch.is_grad_enabled():
            raise ModelError(
                f"model type {model.config.model_type}: its attention is recorded past transformers' attention "
                "interface, which gradient checkpointing cannot repeat; switch training.gradient_checkpointing off"
            )

        def attend_next(call: AttentionCall) -> torch.Tensor:
            layer = len(recording.attention_BSK)  # layers come in order, and all of them: see _require_all_layers
            recording.keep(layer, call.value_BGTD)
            return recording.attend(layer, call)

        with _FusedCalls(attend_next):
            yield
    else:
        raise ModelError(
            f"model type {model.config.model_type}: it computes attention on its own, neither through transformers' "
            "attention interface nor by scaled_dot_product_attention, so where it looks cannot be recorded"
        )


def _require_all_layers(model: PreTrainedModel, recording: Recording) -> None:
    expected = attention_layers(model)
    if expected == 0:
        raise ModelError(f"model type {model.config.model_type}: it has no layer with attention")
    if len(recording.attention_BSK) != expected:
        raise ModelError(
            f"model type {model.config.model_type}: attention of {len(recording.attention_BSK)} of {expected} layers "
            "was seen; this architecture computes some of it on its own and cannot be used"
        )


def attention_layers(model: PreTrainedModel) -> int:
    """Number of layers with softmax attention; hybrid models name the kind of each layer in their configuration."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    if kinds is None:
        return int(config.num_hidden_layers)
    return sum(kind not in WITHOUT_ATTENTION for kind in kinds)


class _FusedCalls(TorchFunctionMode):
    """Hands every call of `scaled_dot_product_attention` made inside to `attend`; all else runs as it is."""

    def __init__(self, attend: Callable[[AttentionCall], torch.Tensor]) -> None:
        super().__init__()
        self._attend = attend

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # torch's own types
        if func is scaled_dot_product_attention:
            return self._attend(_call(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _call(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: ARG001  (told by the number of key heads)
) -> AttentionCall:
    return AttentionCall(
        query_BHTD=query,
        key_BGTD=key,
        value_BGTD=value,
        mask=attn_mask,
        is_causal=is_causal,
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        dropout=dropout_p,
    )


def _pooled_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **arguments: Any,  # whatever the model hands to its attention function
) -> tuple[torch.Tensor, None]:
    """Fused attention as usual; inside `recording_attention` also the attention that each word gets from each step.

    Inside `packed_attention` query, key and value are one row of texts, and each text sees itself alone.
    """
    _refuse_unknown(module, arguments)
    recording, packing = _active.get(), active_packing.get()
    if packing is None:
        return _attention(module, (query, key, value), attention_mask, recording, arguments), None
    outputs: list[torch.Tensor] = []
    for number, (group, states) in enumerate(packing.split(query, key, value)):
        length = group.shape[1]
        mask = None if attention_mask is None else attention_mask[..., :length, :length]
        of_group = recording if number == packing.recorded else None
        outputs.append(group.packed(_attention(module, states, mask, of_group, arguments)))
    return torch.cat(outputs)[None], None


def _attention(
    module: torch.nn.Module,
    states: Sequence[torch.Tensor],
    mask: torch.Tensor | None,
    recording: Recording | None,
    arguments: dict[str, Any],
) -> torch.Tensor:
    """Output (B, T, H, D) for query, key and value states, each (B, heads, T, D)."""
    query, key, value = states
    layer = _layer_of(module)
    if recording is not None:
        recording.keep(layer, value)

    def attend_here(call: AttentionCall) -> torch.Tensor:
        call = replace(call, softcap=arguments.get("softcap"), sinks_H=arguments.get("s_aux"))
        return plain_attention(call) if recording is None else recording.attend(layer, call)

    others = {name: given for name, given in arguments.items() if name not in COMPUTED_HERE}
    with _FusedCalls(attend_here):
        output_BTHD: torch.Tensor = sdpa_attention_forward(module, query, key, value, mask, **others)[0]
    return output_BTHD


def _layer_of(module: torch.nn.Module) -> int:
    layer = getattr(module, "layer_idx", None)
    if not isinstance(layer, int) or layer < 0:
        raise ModelError(f"{type(module).__name__}: it does not tell which layer it is and cannot be used")
    return layer


def _refuse_unknown(module: torch.nn.Module, arguments: dict[str, Any]) -> None:
    for name, given in arguments.items():
        if given is not None and name not in KNOWN_ARGUMENTS:
            raise ModelError(
                f"{type(module).__name__}: it calls attention with `{name}`, which is not known here and might change "
                "where the model looks; this architecture cannot be used"
            )


AttentionInterface.register(IMPLEMENTATION, _pooled_attention)
AttentionMaskInterface.register(IMPLEMENTATION, text_mask)


def stepwise_attention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Marked],
    *,
    batch_tokens: int = 16384,
    begins: bool = True,
) -> list[np.ndarray]:
    """Stepwise attention of each record (Eq. 2): one (L, S, K) float32 array a record, in the order of `records`.

    The model reads plain question + rationale with the special tokens that its tokenizer adds by itself, and where it
    puts none in front, with its begin token there (`begin_token`), unless `begins` is false. Batches hold records of
    like length, `batch_tokens` tokens with padding, right-padded; fewer where memory runs out.
    """
    begin = begin_token(tokenizer) if begins else None
    located = [locate(tokenizer, marked, begin=begin) for marked in records]
    return attention_of(model, located, TokenBudget(batch_tokens))


def attention_of(model: PreTrainedModel, located: Sequence[Located], budget: TokenBudget) -> list[np.ndarray]:
    """Stepwise attention (L, S, K), float32, of each located text, in batches under `budget`."""
    return [one.words for one in stepwise_of(model, located, budget, receivers=False)]


@dataclass(frozen=True, kw_only=True, eq=False)
class StepwiseAttention:
    """Where the steps of one text look in every layer, both float32, summed over the tokens of a step.

    `words` (L, S, K) is Eq. 2: what each critical word receives. `receivers` (L, S, 3) is what of it was counted for
    more than one of them; and what special tokens and learned sinks receive (see `cache.step_totals`), or (L, S, 0).
    """

    words: np.ndarray
    receivers: np.ndarray


@torch.inference_mode()
def stepwise_of(
    model: PreTrainedModel,
    located: Sequence[Located],
    budget: TokenBudget,
    *,
    receivers: bool = True,
    also: Callable[[Sequence[int], torch.Tensor], object] | None = None,
) -> list[StepwiseAttention]:
    """Stepwise attention of each located text, in batches under `budget`, and what else the steps look at.

    `also` gets the numbers of a batch's texts and the body's last hidden states of them (B, T, C), and may be given a
    text twice: a batch that does not fit into memory is taken apart.
    """

    def compute(batch: list[int]) -> list[StepwiseAttention]:
        some = [located[i] for i in batch]
        recording = forward(model, some, receivers=receivers)
        if also is not None and recording.hidden_BTC is not None:
            also(batch, recording.hidden_BTC)
        return _found(recording, some, receivers=receivers)

    with attention_implementation(model.base_model, IMPLEMENTATION):
        return compute_in_batches([len(one.ids) for one in located], budget, compute)


def _found(recording: Recording, texts: Sequence[Located], *, receivers: bool) -> list[StepwiseAttention]:
    """What a pass has seen of each of its texts."""
    both_BLSK = recording.stacked().float().cpu().numpy()
    of_words_BLSK, others_BLSK = np.split(both_BLSK, [both_BLSK.shape[-1] - len(RECEIVERS) * receivers], axis=-1)
    return [
        StepwiseAttention(
            words=of_words_BLSK[row, :, : one.steps, : len(one.tokens_of_word)],
            receivers=others_BLSK[row, :, : one.steps],
        )
        for row, one in enumerate(texts)
    ]


def forward(model: PreTrainedModel, located: Sequence[Located], *, receivers: bool = False) -> Recording:
    """One pass over a batch through the model's body, without language-model head and key-value cache."""
    body = model.base_model
    ids_BT = padded_ids(located, pad=0)
    with recording_attention(body, pooling(located, ids_BT.shape[1], receivers=receivers)) as recording:
        recording.hidden_BTC = body(input_ids=ids_BT.to(_input_device(body), non_blocking=True), use_cache=False)[0]
    return recording


def _input_device(model: PreTrainedModel) -> torch.device:
    """Where the first weights are, the embeddings; those that wait on a disk are brought where needed by accelerate."""
    device: torch.device = model.device
    return torch.device("cpu") if device.type == "meta" else device


@torch.inference_mode()
def difference_to_eager(model: PreTrainedModel, located: Located) -> tuple[float | None, dict[int, Way]]:
    """How far stepwise attention is from that of `output_attentions=True`, and the way that each layer took.

    The difference is ‖ours − eager‖ / ‖eager‖ of the layer where it is largest, of the words or of the receivers. It is
    None for a model whose attention implementation transformers cannot switch: there is no second opinion on it.
    """
    recording = forward(model, [located], receivers=True)
    (ours,) = _found(recording, [located], receivers=True)
    eager = eager_attention(model, located)
    return None if eager is None else distance(ours, eager, located), recording.ways


@torch.inference_mode()
def eager_attention(model: PreTrainedModel, located: Located) -> StepwiseAttention | None:
    """The same by `output_attentions=True`, T × T numbers a head; None where transformers cannot switch to that."""
    body = model.base_model
    if not body._can_set_attn_implementation():
        return None
    ids_BT = padded_ids([located], pad=0).to(_input_device(body))
    with attention_implementation(body, "eager"):
        matrices = body(input_ids=ids_BT, use_cache=False, output_attentions=True).attentions
    length = len(located.ids)
    seen = [matrix for matrix in matrices if matrix is not None and matrix.shape[-2:] == (length, length)]
    pool = pooling([located], length, receivers=True)
    words, receivers = [], []
    for matrix_BHTT in seen:
        mean_BTT = matrix_BHTT.float().mean(dim=1).cpu()
        pooled_SK = (pool.steps_BST @ mean_BTT @ pool.words_BTK)[0]
        to_sinks_S1 = (pool.steps_BST @ (1 - mean_BTT.sum(dim=2, keepdim=True)))[0]
        words.append(pooled_SK[:, : len(located.tokens_of_word)].numpy())
        receivers.append(torch.cat((pooled_SK[:, len(located.tokens_of_word) :], to_sinks_S1), dim=1).numpy())
    return StepwiseAttention(words=np.stack(words), receivers=np.stack(receivers))


def distance(ours: StepwiseAttention, eager: StepwiseAttention, located: Located) -> float:
    """‖ours − eager‖ / ‖eager‖ of the layer where it is largest, of the words or of the receivers.

    Apart, for special tokens may receive far more than words; they and sinks are measured by all that steps give,
    because rounding is: eager attention leaves to sinks what it has taken from the others.
    """
    if ours.words.shape != eager.words.shape:
        return float("inf")
    tokens_S = located.step_tokens()
    everything = float(np.linalg.norm(tokens_S))
    worst = 0.0
    for found, expected in zip(
        zip(ours.words, ours.receivers, strict=True), zip(eager.words, eager.receivers, strict=True), strict=True
    ):
        of_words, to_words = found[0] - expected[0], float(np.linalg.norm(expected[0]))
        others, sinks = (found[1] - expected[1])[:, :-1], (found[1] - expected[1])[:, -1:]
        for difference, size in ((of_words, to_words), (others, everything), (sinks, everything)):
            worst = max(worst, float(np.linalg.norm(difference)) / size if size else float(np.abs(difference).max()))
    return worst
