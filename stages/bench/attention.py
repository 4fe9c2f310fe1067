"""What stepwise attention costs, beside a bare forward pass and beside `output_attentions=True`.

In: a model (random and Llama-shaped, or one from a folder), the lengths of made-up texts, and which methods to compare.
Out: seconds of each method round by round, or the peak memory of one of them, and how far their results are apart. All
methods run the model's body without language-model head and key-value cache, over the same token ids, and end with one
matrix steps × words a layer and record on the host, but `forward`, which ends with nothing: it is what a pass costs
that records no attention at all.

Shapes: B batch, T tokens, L layers, H heads, S reasoning steps, K critical words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from transformers import PreTrainedModel

from data.errors import ConfigError, MismatchError
from stages.attention.batches import length_batches
from stages.attention.stepwise import recording_attention
from stages.attention.tokens import Located, padded_ids, pooling
from stages.bench.measure import (
    Memory,
    Rounds,
    Work,
    measure_memory,
    nothing,
    rounds_of,
    take_turns,
    warmed_up,
)
from stages.models.load import known_positions, load_causal_lm, whole_attention
from stages.runtime.device import unless_out_of_memory
from stages.settings import Dtype
from stages.toy.random_llama import SEED, Setting, Shape, random_llama, setting_of

Method: TypeAlias = Literal["forward", "molsaki", "words", "output_attentions", "one-by-one", "prefill", "vllm"]
"""The last two are those of `stages.bench.vllm_attention`."""
Blocks: TypeAlias = dict[int, np.ndarray]
"""Stepwise attention (L, S, K) of each record by its number; empty for a method that records none."""

VOCABULARY = 1000
"""Rows of the random model's embedding, which is not what is measured."""
MOST_ROUNDS: Mapping[Method, int] = {"output_attentions": 3, "one-by-one": 3}
"""Rounds that the slow methods, those with T × T matrices, take part in, at most."""
DIFFERENCE_A_TOKEN = 1e-3
"""Largest difference between two methods in float32, for each token of a step: its attention sums up to one."""
DIFFERENCE_SHARE: Mapping[Dtype, float] = {"float32": 1e-2, "bfloat16": 0.2, "float16": 0.2}
"""Largest difference as a share of a record's largest value. Over long texts attention to a word is a small number,
and a method that returned zeros would pass the bound above. With half precision the hidden states of two kernels drift
apart from layer to layer; the wide bound still tells a wrong number from a rounded one."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """How large one record is."""

    tokens: int
    steps: int
    words: int


# Question and PaLM rationale of the SVAMP training questions that have both and a number (670), marked by periods and
# numbers as `data.marking.mark` does by default and counted in tokens of Mistral 7B's tokenizer: the median of each
# tenth, sorted by tokens, and the mean of the last tenth, whose tail is long.
SVAMP = tuple(
    Text(tokens=tokens, steps=steps, words=words)
    for tokens, steps, words in (
        *((71, 7, 8), (78, 7, 8), (84, 7, 9), (89, 7, 9), (94, 7, 9)),
        *((99, 7, 10), (106, 8, 11), (114, 9, 13), (127, 9, 13), (150, 10, 15)),
    )
)


@dataclass(frozen=True, kw_only=True)
class MethodsJob:
    """What a process is told that measures methods on a random model of `shape`, in training too."""

    shape: Shape
    methods: tuple[str, ...]
    repeats: int
    device: Literal["cpu", "cuda"]
    dtype: Dtype
    threads: int | None


@dataclass(frozen=True, kw_only=True)
class AttentionJob(MethodsJob):
    """Everything that one measuring process needs to know."""

    model: str | None
    """Folder or hub id; None for a random model of `shape`."""
    texts: tuple[Text, ...]
    methods: tuple[Method, ...]
    batch_tokens: int
    tensor_parallel: int = 1
    """Workers that vLLM spreads the model over."""

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(text.tokens for text in self.texts)


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of each method that did not run out of memory, and its largest difference to the reference."""

    rounds: Mapping[Any, Rounds]
    differences: Mapping[Any, float]
    setting: Setting
    shares_of_peak: Mapping[Any, float] = field(default_factory=dict)
    """Floating-point operations of a method a second, in its fastest round, over those of a large matrix product."""


@dataclass(frozen=True, kw_only=True)
class Approach:
    """One way to run a batch: which attention kernel of transformers, and from records to (B, L, S, K) on the host."""

    kernel: Literal["sdpa", "eager"]
    run: Callable[[PreTrainedModel, Sequence[Located]], torch.Tensor | None]
    compared_with: Method | None
    alone: bool = False
    """Each record is a batch of its own."""


def check_text(text: Text) -> None:
    """Raise `ConfigError` for a text too short for its words, each two tokens at most, and for its steps."""
    if text.tokens < (needed := max(2 * text.words, text.steps)):
        raise ConfigError(
            f"a text of {text.tokens} tokens: {text.words} words of up to two tokens and {text.steps} steps need "
            f"{needed} tokens; take longer texts, or fewer --words or --steps"
        )


def measure_times(job: AttentionJob, *, after_each: Work = nothing) -> Times:
    """Seconds of the job's methods, in turns, after one run of each whose results are compared.

    Raises `MismatchError` where two methods disagree by more than rounding explains.
    """
    model, records = _prepare(job)
    works = {method: _work(method, model, records, job.batch_tokens) for method in job.methods}
    set_kernel = partial(_set_kernel, model)
    found = warmed_up(works, before_each=set_kernel, after_each=after_each)
    differences = compare(found, records, job.dtype)
    rounds = take_turns(
        {method: works[method] for method in found},
        rounds_of=rounds_of(found, job.repeats, MOST_ROUNDS),
        device=model.device,
        before_each=set_kernel,
        after_each=after_each,
    )
    return Times(rounds=rounds, differences=differences, setting=setting_of(model))


def measure_peak(job: AttentionJob) -> Memory | None:
    """Memory of the job's only method, in a process that has done nothing before; None where it does not suffice."""
    (method,) = job.methods

    def measured() -> Memory:
        model, records = _prepare(job)
        _set_kernel(model, method)
        return measure_memory(_work(method, model, records, job.batch_tokens), model.device)

    return unless_out_of_memory(measured)


def compare(found: Mapping[Method, Blocks], records: Sequence[Located], dtype: Dtype) -> dict[Method, float]:
    """Largest difference of each method's results to those of the eager kernel.

    Raises `MismatchError` where one is larger than `DIFFERENCE_A_TOKEN` (in float32) or `DIFFERENCE_SHARE` allow.
    """
    reference = next((method for method in found if METHODS[method].kernel == "eager"), None)
    if reference is None:
        return {}
    return {
        method: max(
            _difference(f"{method} against {reference}, record {i}", block, found[reference][i], records[i], dtype)
            for i, block in blocks.items()
        )
        for method, blocks in found.items()
        if method != reference and blocks
    }


def _difference(which: str, ours_LSK: np.ndarray, theirs_LSK: np.ndarray, record: Located, dtype: Dtype) -> float:
    if ours_LSK.shape != theirs_LSK.shape:
        raise MismatchError(f"{which}: {ours_LSK.shape} numbers against {theirs_LSK.shape}")
    difference_LSK = np.abs(ours_LSK - theirs_LSK)
    allowed_SK = np.full(difference_LSK.shape[1:], DIFFERENCE_SHARE[dtype] * theirs_LSK.max())
    if dtype == "float32":
        allowed_SK = np.minimum(allowed_SK, DIFFERENCE_A_TOKEN * record.step_tokens()[:, None])
    if not (difference_LSK <= allowed_SK).all():  # so that NaN fails too
        place = np.unravel_index(np.argmax(difference_LSK - allowed_SK), difference_LSK.shape)
        layer, step, word = place
        raise MismatchError(
            f"{which}: layer {layer}, step {step}, word {word}: {ours_LSK[place]:.5g} against {theirs_LSK[place]:.5g}, "
            f"at most {allowed_SK[step, word]:.2g} apart was expected; one of the two is wrong"
        )
    return float(difference_LSK.max())


def made_up_records(texts: Sequence[Text], vocabulary: int) -> list[Located]:
    """Random token ids cut into steps of like length, with words of one and of two tokens spread over the text."""
    source = np.random.default_rng(SEED)
    return [_made_up(text, source.integers(vocabulary, size=text.tokens)) for text in texts]


def _made_up(text: Text, ids: np.ndarray) -> Located:
    starts = [word * text.tokens // text.words for word in range(text.words)]
    places = np.arange(text.tokens)
    return Located(
        ids=ids,
        step_of_token=places * text.steps // text.tokens,
        tokens_of_word=tuple(np.arange(start, start + 1 + word % 2) for word, start in enumerate(starts)),
        steps=text.steps,
        text="",
        spans=np.stack((places, places + 1), axis=1),
    )


def _prepare(job: AttentionJob) -> tuple[PreTrainedModel, list[Located]]:
    if job.threads:
        torch.set_num_threads(job.threads)
    device, longest = torch.device(job.device), max(text.tokens for text in job.texts)
    if job.model is None:
        model = random_llama(job.shape, positions=longest, vocabulary=VOCABULARY, device=device, dtype=job.dtype)
    else:
        model = load_causal_lm(job.model, None, job.dtype).to(device)
    if longest > (positions := known_positions(model)):
        raise ConfigError(f"--lengths {longest}: model {job.model} knows positions for {positions} tokens")
    return model.eval(), made_up_records(job.texts, model.config.get_text_config().vocab_size)


def _work(
    method: Method, model: PreTrainedModel, records: Sequence[Located], batch_tokens: int
) -> Callable[[], Blocks]:
    """All records once by `method`, in batches of like length as the attention stage makes them."""
    approach = METHODS[method]
    lengths = [len(record.ids) for record in records]
    batches = length_batches(lengths, 1 if approach.alone else batch_tokens)

    @torch.inference_mode()
    def work() -> Blocks:
        blocks: Blocks = {}
        for batch in batches:
            attention_BLSK = approach.run(model, [records[i] for i in batch])
            if attention_BLSK is not None:
                for i, padded_LSK in zip(batch, attention_BLSK.numpy(), strict=True):
                    blocks[i] = padded_LSK[:, : records[i].steps, : len(records[i].tokens_of_word)]
        return blocks

    return work


def _set_kernel(model: PreTrainedModel, method: Method) -> None:
    kernel = whole_attention(model.base_model) if METHODS[method].kernel == "sdpa" else "eager"
    if model.base_model.config._attn_implementation != kernel:
        model.base_model.set_attn_implementation(kernel)


def _ids(model: PreTrainedModel, records: Sequence[Located]) -> torch.Tensor:
    return padded_ids(records, pad=0).to(model.device)


def _forward(model: PreTrainedModel, records: Sequence[Located]) -> None:
    """(a) The bare pass; right padding under causal attention needs no mask."""
    model.base_model(input_ids=_ids(model, records), use_cache=False)


def _molsaki(model: PreTrainedModel, records: Sequence[Located], *, receivers: bool = True) -> torch.Tensor:
    """(b) Ours, with what the steps look at beside single words, as the attention stage stores it."""
    ids_BT = _ids(model, records)
    pool = pooling(records, ids_BT.shape[1], receivers=receivers).to(model.device)
    with recording_attention(model.base_model, pool) as recording:
        model.base_model(input_ids=ids_BT, use_cache=False)
    return recording.stacked().float().cpu()


def _output_attentions(model: PreTrainedModel, records: Sequence[Located]) -> torch.Tensor:
    """(c) The usual way: every T × T matrix, mean over heads, sums over the tokens of steps and words (Eq. 2).

    The sums have indicator matrices of their own, so that the comparison does not rest on our pooling.
    """
    ids_BT = _ids(model, records)
    output = model.base_model(input_ids=ids_BT, use_cache=False, output_attentions=True)
    steps_BST, words_BTK = (indicator.to(model.device) for indicator in _indicators(records, ids_BT.shape[1]))
    pooled = [steps_BST @ layer_BHTT.mean(dim=1, dtype=torch.float32) @ words_BTK for layer_BHTT in output.attentions]
    return torch.stack(pooled, dim=1).cpu()


def _indicators(records: Sequence[Located], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """1 where a token belongs to the step (B, S, T) or word (B, T, K), else 0."""
    steps_BST = torch.zeros(len(records), max(record.steps for record in records), length)
    words_BTK = torch.zeros(len(records), length, max(len(record.tokens_of_word) for record in records))
    for row, record in enumerate(records):
        for step in range(record.steps):
            steps_BST[row, step, : len(record.ids)] = torch.from_numpy(record.step_of_token == step).float()
        for word, tokens in enumerate(record.tokens_of_word):
            words_BTK[row, torch.from_numpy(tokens), word] = 1.0
    return steps_BST, words_BTK


METHODS: Mapping[Method, Approach] = {
    "forward": Approach(kernel="sdpa", run=_forward, compared_with=None),
    "molsaki": Approach(kernel="sdpa", run=_molsaki, compared_with="forward"),
    "words": Approach(kernel="sdpa", run=partial(_molsaki, receivers=False), compared_with="molsaki"),
    "output_attentions": Approach(kernel="eager", run=_output_attentions, compared_with="molsaki"),
    "one-by-one": Approach(kernel="eager", run=_output_attentions, compared_with="molsaki", alone=True),
}
